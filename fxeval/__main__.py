"""``python -m fxeval`` is the command ``fxeval``."""

from fxeval.cli import main

if __name__ == "__main__":
    main(prog_name="fxeval")
