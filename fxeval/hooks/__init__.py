"""Access to networks and user code: lend modules, find layers, record passes, check returns."""
