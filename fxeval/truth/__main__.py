"""``python -m fxeval.truth [planted|behaviours]``: what shipped explainers and controls know.

``planted`` (the default) compares their maps with the truth of an additive model; ``behaviours``
says what they make of single behaviours, all of them or those that follow by name.
"""

import sys
from collections.abc import Sequence

from fxeval.truth import behaviour_table, table
from fxeval.truth.behaviours import BEHAVIOURS


def main(arguments: Sequence[str]) -> int:
    """Print a table in Markdown, or what there is; returns the exit code, 64 for wrong usage."""
    which, *names = arguments or ["planted"]
    if which in ("-h", "--help") and not names:
        sys.stdout.write(f"{__doc__}\nBehaviours: {', '.join(BEHAVIOURS)}.\n")
        return 0
    if which == "planted" and not names:
        sys.stdout.write(table.as_markdown(table.planted_table()))
        return 0
    if which == "behaviours" and {*names} <= BEHAVIOURS.keys():
        found = behaviour_table.behaviour_table(behaviours=names or BEHAVIOURS)
        sys.stdout.write(behaviour_table.as_markdown(found))
        return 0
    sys.stderr.write(
        "python -m fxeval.truth: expected nothing, planted, or behaviours and some of "
        f"{', '.join(BEHAVIOURS)}, got {' '.join(arguments)}.\n"
    )
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
