"""Writes the tables of the simulations.

    python -m fxeval.tests.simulations [WORD]

WORD: only tables whose title holds it, such as ``ratios``; default: all.
"""

import sys

from fxeval.tests.simulations.table import all_tables

if __name__ == "__main__":
    for table in all_tables(" ".join(sys.argv[1:])):
        sys.stdout.write(table)
        sys.stdout.flush()
