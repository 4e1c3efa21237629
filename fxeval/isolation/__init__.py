"""User code in a process of its own, with bounds: it may hang or crash, and the run goes on."""
