"""Suites that search: what is refused while the file is read, and where."""

import pytest

from fxeval.errors import SuiteError
from fxeval.suite.load import KnownIds, load

SUITE = """\
fxeval: 1
suite: search
models: [net]
explainers: [gradcam]
pairs: [list]
checks:
  - id: search
    kind: search.layer_objective
    layers: ["conv[-1]", "stage[-2]"]
    objectives: [cos, "arc_softmax(s=64, m=0.3)"]
    fractions: [0.01, 0.05]
    limits:
      - {metric: occlusion_cosine_drop, better_than: control.as_given}
"""
KNOWN = KnownIds(frozenset({"net"}), frozenset({"gradcam"}), frozenset({"list"}))


def loaded(tmp_path, old="", new=""):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace(old, new) if old else SUITE, encoding="utf-8")
    return load(path, KNOWN)


def test_a_search_is_read(tmp_path):
    (check,) = loaded(tmp_path).checks
    assert check.parameters.layers == ("conv[-1]", "stage[-2]")
    assert check.parameters.select_by == "occlusion_tmr"


@pytest.mark.parametrize(
    "under",
    [
        "configuration: selected",
        "configuration: selected, half: report, fraction: 0.05",
        'layer: "stage[-2]", objective: cos',
        'layer: "stage[-2]", objective: cos, half: selection',
        "fraction: 0.05",
    ],
)
def test_a_limit_may_be_about_the_chosen_one_or_about_one_that_it_names(tmp_path, under):
    new = f"control.as_given, under: {{{under}}}}}"
    (check,) = loaded(tmp_path, "control.as_given}", new).checks
    assert check.limits[0].under


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        ("[cos,", "[cosine,", "10:18", "objective must be one of native, cos"),
        ("m=0.3", "m=9", "10:23", "needs 0 <= m < pi"),
        ('"conv[-1]"', '"conv[last]"', "9:14", "layer must be a name such as"),
        ('"conv[-1]"', '"stage[-2]"', "9:13", "expected every entry at most once"),
        ("as_given}", "as_given, under: {half: selection}}", "13:86", "looks too good on the half"),
        ("as_given}", "as_given, under: {half: selection, layer: 'conv[-1]'}}", "13:86",
         "names layer and objective itself"),
        ("as_given}", "as_given, under: {configuration: best}}", "13:95", "'best'"),
        ("as_given}", "as_given, under: {layer: conv1}}", "13:87", "'conv1'"),
        ("as_given}", "as_give}", "13:54", "'as_give'"),
    ],
)  # fmt: skip
def test_what_is_no_search_is_refused_with_its_place(tmp_path, old, new, where, said):
    with pytest.raises(SuiteError) as error:
        loaded(tmp_path, old, new)
    assert said in str(error.value)
    assert f"suite.yaml:{where}: " in str(error.value)
