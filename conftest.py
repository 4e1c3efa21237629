"""What every test of this checkout may use, wherever pytest is started."""

pytest_plugins = ["pytester"]
