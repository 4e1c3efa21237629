"""Work that all cells share: forward passes, maps, the rows of a pair list, costs."""
