"""What every cell shares: forward passes, maps, the rows of a pair list, costs."""
