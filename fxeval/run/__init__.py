"""From a cell to its rows and its part of the record."""
