"""Records with very many conditions, transfer matrices, a choice among configurations, slices."""

import copy
import itertools
import random

from fxeval.tests.scorecard.told import EXAMPLE

CONTROLS = (
    "random_pixels", "random_blobs", "centre", "edge", "mean_map", "shuffled_identity",
    "unoccluded",
)  # fmt: skip
MODELS = ("mini_resnet", "mini_vit", "mini_mobile", "mini_inception")

TMR = {
    "name": "occlusion_tmr", "title": "Mated pairs still accepted after occlusion",
    "unit": "share of pairs", "better": "lower", "range": [0.0, 1.0], "statistic": "mean",
    "source": "", "meaning": "Share of mated pairs that the model still accepts.",
    "is_decision": True, "kind": "rate",
}  # fmt: skip


def figures(value, key="", n=40):
    """Return an estimate whose interval is 0.04 wide, with as many digits as a run gives."""
    rest = random.Random(f"{value} {key}")
    value, low, high = (value + end + 1e-4 * rest.random() for end in (0.0, -0.02, 0.02))
    return {
        "value": value, "low": low, "high": high, "confidence": 0.95, "n_pairs": 3 * n,
        "n_identities": n, "method": "skewness-corrected t over identities, 95 %",
        "effective_identities": n - rest.random(), "largest_share": 0.05,
    }  # fmt: skip


def estimates_of(under, own=0.6, controls=CONTROLS, n=40, metric="occlusion_tmr"):
    """Return the estimates under one condition, and the improvements of the explainer.

    The lower the better: the first control is at 0.9, and each next one is 0.1 below.
    """
    values = {"explainer": own} | {f"control.{c}": 0.9 - 0.1 * i for i, c in enumerate(controls)}
    common = {"metric": metric, "under": under, "seed_sd": None}
    estimates = [
        {**figures(value, f"{name} {under}", n), **common, "map": name, "states": {"ok": 3 * n}}
        for name, value in values.items()
    ]
    differences = [
        {
            **figures(values[f"control.{control}"] - own, f"{control} {under}", n),
            **common,
            "control": control,
        }
        for control in controls
    ]
    return estimates, differences


def cell_with(conditions, **changes):
    """Return a cell with estimates under these conditions, each with its explainer's value."""
    found = [estimates_of(under, **more) for under, more in conditions]
    return {
        **copy.deepcopy(EXAMPLE["cells"][0]), "metrics": [dict(TMR, denominator="",
        least_denominator=0.0)], "asked": [], "limits": [], "curves": [], "check": "occlusion",
        "kind": "generalisability.occlusion",
        "estimates": [row for estimates, _ in found for row in estimates],
        "differences": [row for _, differences in found for row in differences],
        **changes,
    }  # fmt: skip


def many_conditions(n_evaluators=12):
    """Return conditions of a transfer cell: 25 for each evaluator."""
    fills, fractions = ("black", "white", "random", "mean", "blur"), (0.005, 0.01, 0.02, 0.05, 0.1)
    axes = itertools.product(range(n_evaluators), fills, fractions)
    return [
        (
            {"evaluator": f"network_{e:02d}", "fill": fill, "fraction": fraction},
            {"own": 0.35 + 0.05 * (e % 5) + 0.01 * fills.index(fill) - fraction},
        )
        for e, fill, fraction in axes
    ]


def limit_under(under, own, bound=0.55):
    """Return a critical limit of at most ``bound``, as judged under one condition."""
    outcome = "pass" if own + 0.03 < bound else "fail"
    return {
        **copy.deepcopy(EXAMPLE["cells"][2]["limits"][0]), "metric": "occlusion_tmr",
        "under": under, "at_most": bound, "severity": "critical", "where": "suites/wide.yaml:9:5",
        "text": f"occlusion_tmr at most {bound}", "line": bound, "estimate": figures(own),
        "verdict": {"outcome": outcome, "reason": f"occlusion_tmr ({under}): {own:.3f}, must be "
                    f"at most {bound}"},
    }  # fmt: skip


def wide_cell(**changes):
    """Return a cell of 300 conditions by 8 maps, with a limit that is judged under each."""
    conditions = many_conditions()
    limits = [limit_under(under, more["own"]) for under, more in conditions]
    missed = [one["verdict"]["reason"] for one in limits if one["verdict"]["outcome"] == "fail"]
    verdict = {"outcome": "fail", "reason": "; ".join(missed)}
    return cell_with(conditions, limits=limits, verdict=verdict, **changes)


def record_of(*cells, **changes):
    """Return the example record with other cells, whose metrics were not checked."""
    record = copy.deepcopy(EXAMPLE)
    found = [{**cell, "id": f"{cell['check']}-{i}[m-e-p]"} for i, cell in enumerate(cells)]
    return {**record, "cells": found, "self_checks": [], **changes}


def transfer_table(metric, values, width=0.03):
    """Return a table of a transfer matrix with its means."""
    n = len(values)
    columns = list(zip(*values, strict=True))

    def mean(of):
        return sum(of) / len(of)

    def others(line, at):
        return [value for i, value in enumerate(line) if i != at]

    return {
        "metric": metric, "values": values,
        "low": [[v - width for v in line] for line in values],
        "high": [[v + width for v in line] for line in values],
        "row_means": [mean(line) for line in values],
        "row_means_without_self": [mean(others(line, i)) for i, line in enumerate(values)],
        "column_means": [mean(line) for line in columns],
        "column_means_without_self": [mean(others(line, i)) for i, line in enumerate(columns)],
        "mean": mean([v for line in values for v in line]),
        "mean_with_self": mean([values[i][i] for i in range(n)]),
        "mean_without_self": mean([v for i in range(n) for v in others(values[i], i)]),
        "agreement": [[1.0 if i == j else 0.8 - 0.1 * abs(i - j) for j in range(n)]
                      for i in range(n)],
    }  # fmt: skip


def transfer_matrix(fraction=0.01, warning=""):
    """Return a matrix of four networks: own maps do more than those of others."""
    n = len(MODELS)
    clean = [0.98, 0.95, 0.92, 0.9]
    tmr = [[clean[j] - (0.5 if i == j else 0.12 + 0.07 * j) for j in range(n)] for i in range(n)]
    drop = [[0.6 * (clean[j] - tmr[i][j]) for j in range(n)] for i in range(n)]
    index = [[(clean[j] - tmr[i][j]) / 0.5 for j in range(n)] for i in range(n)]
    index_table = transfer_table("transfer_index", index, 0.06)
    index_table["low"][0][3] = index_table["high"][0][3] = None
    return {
        "check": "transfer", "explainer": "gradcam", "pairs": "rendered", "fill": "black",
        "fraction": fraction, "generators": list(MODELS), "evaluators": list(MODELS),
        "clean": clean,
        "tables": [
            transfer_table("occlusion_tmr", tmr), index_table,
            transfer_table("occlusion_cosine_drop", drop),
            transfer_table("transfer_index_cosine", index, 0.06),
            transfer_table("occlusion_area", [[0.01] * n for _ in range(n)], 0.0),
        ],
        "controls": [{"map": "control.random_pixels", "tmr": [0.97, 0.94, 0.91, 0.89],
                      "cosine_drop": [0.01, 0.02, 0.01, 0.02]}],
        "mixture": {"untouched": [0.2, 0.3, 0.4, 0.5], "remaining": [0.0, 0.0, 0.01, 0.0],
                    "rmse": 0.031, "largest_error": 0.09, "explained": 0.4, "n_values": 16},
        "mixture_text": "A mixture of untouched and rejected pairs does not fit: RMSE 0.031.",
        "warning": warning, "remarks": ["2 pairs were left out: mini_vit has no crop of them."],
    }  # fmt: skip


def choosing_cell():
    """Return a cell that chose one of six configurations; two are the same, one was refused."""
    layers, objectives = ("layer3", "layer4"), ("cosine", "arcface 0.2", "triplet")
    made = [
        {"layer": layer, "objective": objective} for layer in layers for objective in objectives
    ]
    values = (0.61, 0.63, 0.72, 0.52, 0.55)
    candidates = [
        {"under": under, "same": [], "selection": figures(value), "report": figures(value + 0.04),
         "unfit": ""}
        for under, value in zip(made, values, strict=False)
    ]  # fmt: skip
    candidates[3]["same"] = [candidates.pop(4)["under"]]
    candidates.sort(key=lambda one: one["selection"]["value"])
    selection = {
        "metric": "occlusion_tmr", "ties": [], "n_tried": 6, "n_distinct": 4,
        "n_rows": {"selection": 60, "report": 60}, "n_identities": {"selection": 20, "report": 20},
        "selected": made[3],
        "reason": "layer layer4, objective cosine: best of 4 with maps of their own, of 6 tried, "
                  "by occlusion_tmr on the selection half (20 people)",
        "selection": candidates[0]["selection"], "report": candidates[0]["report"],
        "optimism": 0.04, "shared_gap": 0.038, "report_rank": 1,
        "as_given_selection": figures(0.7), "as_given_report": figures(0.71),
        "candidates": candidates,
        "refused": [{"under": made[5], "same_as": None, "refused": "no triplet of this person"}],
    }  # fmt: skip
    conditions = [
        ({**under, "half": half, "fill": "black", "fraction": 0.01}, {"own": 0.6})
        for under in made[:5]
        for half in ("selection", "report")
    ]
    selected = {"configuration": "selected", "fill": "black", "fraction": 0.01}
    conditions += [({**selected, "half": half}, {"own": 0.5}) for half in ("selection", "report")]
    return cell_with(
        conditions, selection=selection, kind="search.layer_objective", check="search",
        selects={"axes": ["layer", "objective"], "by": ["occlusion_tmr"]},
        configurations=[{"under": under, "same_as": None, "refused": ""} for under in made],
    )  # fmt: skip


def sliced_cell():
    """Return a cell with slices by look and by yaw; one look has few identities, one too few."""
    conditions = [
        ({"fill": "black"}, {"own": 0.4}),
        ({"fill": "black", "look": "smiling"}, {"own": 0.38, "n": 40}),
        ({"fill": "black", "look": "with <b>glasses</b>"}, {"own": 0.72, "n": 12}),
        ({"fill": "black", "look": "hat"}, {"own": 0.5, "n": 6}),
        ({"fill": "black", "yaw": "below -15"}, {"own": 0.5}),
        ({"fill": "black", "yaw": "-15 to 15"}, {"own": 0.3}),
    ]
    slices = [{"column": "look", "edges": []}, {"column": "yaw", "edges": [-15.0, 15.0]}]
    return cell_with(conditions, slices=slices)
