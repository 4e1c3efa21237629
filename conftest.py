"""What pytest should know of this checkout, wherever it is started."""

collect_ignore = ["reports"]  # output only
