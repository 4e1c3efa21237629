"""The views of a record: an HTML page, a short table for the terminal, a summary in Markdown.

All are pure functions of the record. They show the verdicts that the record holds and make none.
"""

from fxeval.scorecard.page import render
from fxeval.scorecard.summary import markdown_summary, summary_of_all
from fxeval.scorecard.terminal import first, terminal_summary
from fxeval.scorecard.worst_first import SHOWN

__all__ = ["SHOWN", "first", "markdown_summary", "render", "summary_of_all", "terminal_summary"]
