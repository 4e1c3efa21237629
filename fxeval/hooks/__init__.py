"""Ways into user code and networks: borrow them, find layers, record a pass, check returns."""
