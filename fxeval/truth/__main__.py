"""``python -m fxeval.truth``: a table of all shipped explainers and of the controls."""

import sys

from fxeval.truth.table import as_markdown, planted_table

if __name__ == "__main__":
    sys.stdout.write(as_markdown(planted_table()))
