"""A plugin of pytest that writes down which file each loaded module came from.

It is copied to a folder of its own for the run of a side (``fxeval.versions.sides``), since that
side may bring an fxeval that lacks it; so it imports nothing but the standard library.
"""

import json
import os
import sys
from pathlib import Path

FOLDER = "FXEVAL_AB_MODULES"
"""Environment variable that names the folder to write to; each process writes a file of its own."""


def pytest_unconfigure() -> None:
    """Write the files of all modules that are loaded when pytest ends."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    files = {}
    for name, module in sys.modules.copy().items():
        # Not getattr: a lazy module would load what it stands for.
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str):
            files[name] = str(Path(file).absolute())
    Path(folder, f"{os.getpid()}.json").write_text(json.dumps(files), encoding="utf-8")
