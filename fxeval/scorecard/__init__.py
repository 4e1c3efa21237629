"""The two views of a record: an HTML page and a short table for the terminal.

Both are pure functions of the record. They show the verdicts that the record holds and make none.
"""

from fxeval.scorecard.page import render
from fxeval.scorecard.terminal import terminal_summary

__all__ = ["render", "terminal_summary"]
