"""Writes the tables of all simulations: ``python -m fxeval.tests.simulations``."""

import sys

from fxeval.tests.simulations.table import all_tables

if __name__ == "__main__":
    for table in all_tables():
        sys.stdout.write(table)
        sys.stdout.flush()
