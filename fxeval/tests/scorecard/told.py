"""The example record with everything filled in that a judged limit can say."""

import copy
import json
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "records"
EXAMPLE = json.loads((RECORDS / "example_v2.json").read_text("utf-8"))


def figures(limit, **changes):
    """Say more of what a limit's estimate rests on."""
    limit["estimate"] |= {
        "effective_identities": 38.4,
        "largest_share": 0.05,
        "method": "skewness-corrected t over identities, 95 %",
    } | changes


def told_record():
    """Return a record whose first three cells say what their verdicts rest on.

    The first is stochastic and has a limit with two lines; in the second one identity has a large
    share, and an interval has no lower end; the third is undecided, and says what would settle it.
    """
    record = copy.deepcopy(EXAMPLE)
    first, second, third, _ = record["cells"]
    first["seeds"] = 3
    first["repeatability"] = {
        "n_rows": 4, "repeats": True, "depends_on_seed": True, "change": 0.0, "reason": "",
    }  # fmt: skip
    for limit in first["limits"]:
        figures(limit)
        value = limit["estimate"]["value"]
        limit |= {
            "detectable": 0.0213,
            "hangs_on_one": False,
            "seeds": {"values": [value + 0.003, value, value + 0.001], "sd": 0.0015, "worst": 1},
        }
    first["limits"][0] |= {"line": None, "region": [-0.02, 0.2], "judge": "worst"}
    first["estimates"][0]["seed_sd"] = 0.0015
    for limit in second["limits"]:
        figures(limit, largest_share=0.234, effective_identities=9.1)
        limit |= {"detectable": 0.04, "hangs_on_one": True, "over": "list", "judge": "mean"}
    missed = next(one for one in second["limits"] if one["verdict"]["outcome"] == "fail")
    missed["estimate"]["low"] = None
    second["repeatability"] = {
        "n_rows": 4, "repeats": False, "depends_on_seed": False, "change": 0.25, "reason": "",
    }  # fmt: skip
    figures(third["limits"][0])
    third["limits"][0] |= {"settles": "about 340 more identities", "detectable": 0.08}
    return record


def grid(n_fail=40, n_invalid=700, n_inconclusive=60, n=1800):
    """Return a record of very many cells; every kind lies among the others."""
    record = copy.deepcopy(EXAMPLE)
    passed, failed, undecided, refused = record["cells"]
    of = [failed] * n_fail + [refused] * n_invalid + [undecided] * n_inconclusive
    of += [passed] * (n - len(of))
    mixed = [of[(7 * i) % n] for i in range(n)]  # 7 and n have no common divisor
    record["cells"] = [
        {
            **cell, "explainer": f"ex{i % 60}", "model": f"net{i // 60 % 5}",
            "check": f"del{i // 300}",
            "id": f"del{i // 300}[net{i // 60 % 5}-ex{i % 60}-rendered]",
            "curves": [], "mean_map": None, "estimates": [], "differences": [], "explaining": [],
            "diagnostics": [], "networks": [], "problems": [],
        }
        for i, cell in enumerate(mixed)
    ]  # fmt: skip
    record["verdict"] = {"outcome": "invalid", "reason": f"of {n} cells many were not passed"}
    return record
