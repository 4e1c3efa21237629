"""On the bundled faces and network, explainers that say nothing must not pass."""

import json

import pytest
import torch

from fxeval.models.networks.mini_resnet import MiniResNet
from fxeval.tests.rounding import assert_rounded, terms_of

CONFTEST = """
import pytest
import torch


class Explain:
    def __init__(self, function):
        self.function = function

    def explain(self, model, probes, references, *, contrast=None, generator):
        return self.function(probes, generator)


@pytest.fixture
def explainer_constant():
    return Explain(lambda probes, generator: torch.full(probes[:, 0].shape, 0.5))


@pytest.fixture
def explainer_noise():
    return Explain(lambda probes, generator: torch.from_numpy(generator.random(probes[:, 0].shape)))


@pytest.fixture
def explainer_centre():
    def centre(probes, generator):
        line = torch.exp(-((torch.arange(112) - 55.5) ** 2) / (2 * 28**2))
        return torch.outer(line, line).expand(len(probes), -1, -1)

    return Explain(centre)
"""

SUITE = """\
fxeval: 1
suite: nothing-to-say
models: [mini_resnet]
explainers: [constant, noise, centre]
pairs: [{use: rendered, n: 40}]
checks:
  - id: sanity
    kind: sanity.two_sided
    redraws: 1
    limits:
      - {metric: repeat, at_least: 0.5}
      - {metric: change, at_least: 0.3}
      - {metric: compare, at_least: 0.1}
      - {metric: input, at_least: 0.05}
      - {metric: nudge, at_least: 0.5}
  - id: deletion-insertion
    kind: faithfulness.deletion_insertion
    steps: 12
    controls: [random_blobs]
    limits:
      - {metric: deletion_auc, better_than: control.random_blobs}
      - {metric: insertion_auc, better_than: control.random_blobs}
"""


@pytest.fixture
def run(pytester):
    pytester.makeconftest(CONFTEST)
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "nothing.yaml").write_text(SUITE)
    return pytester


def test_constant_noise_and_centre_maps_fail_and_the_scorecard_says_why(run):
    result = run.runpytest_subprocess("suites/")
    assert result.ret == 1
    (path,) = run.path.glob("reports/*/nothing-to-say.json")
    verdicts = {cell["id"]: cell["verdict"] for cell in json.loads(path.read_text())["cells"]}
    (page,) = run.path.glob("reports/*/nothing-to-say.html")
    text = page.read_text()
    constant = "40 of 40 saliency maps are degenerate"
    for cell, words in {
        "deletion-insertion[mini_resnet-constant-rendered]": constant,
        "sanity[mini_resnet-constant-rendered]": "repeat (part positive)",
        "deletion-insertion[mini_resnet-noise-rendered]": "deletion_auc",
        "sanity[mini_resnet-noise-rendered]": "repeat (part positive)",
        "sanity[mini_resnet-centre-rendered]": "repeat (part positive)",
    }.items():
        assert verdicts[cell]["outcome"] == "fail", cell
        assert words in verdicts[cell]["reason"]
        assert verdicts[cell]["reason"].split(";")[0][:60] in text
    # The centre of an aligned face is a strong map; that everybody has the same is what fails.
    assert verdicts["deletion-insertion[mini_resnet-centre-rendered]"]["outcome"] == "pass"


@pytest.mark.slow
def test_batch_size_and_workers_change_no_row_beyond_rounding(run):
    """Up to the rounding of the network for other batch sizes, bitwise for other workers."""
    found = {}
    for name, args in {
        "one": ("--fx-batch-size=1",), "many": ("--fx-batch-size=64",),
        "again": ("--fx-batch-size=64",), "workers": ("--fx-batch-size=64", "-n", "2"),
    }.items():  # fmt: skip
        run.runpytest_subprocess("suites/", "--fx-threads=1", f"--fx-reports={name}", *args)
        lines = [json.loads(line) for path in run.path.glob(f"{name}/*/rows*.jsonl")
                 for line in path.read_text().splitlines()]  # fmt: skip
        (record,) = run.path.glob(f"{name}/*/nothing-to-say.json")
        found[name] = (
            {(line["cell"], line["row"]): line["measured"] for line in lines},
            [cell["verdict"]["outcome"] for cell in json.loads(record.read_text())["cells"]],
        )
    assert found["many"] == found["again"] == found["workers"]
    one, many = found["one"], found["many"]
    assert one[1] == many[1]
    assert one[0].keys() == many[0].keys()
    compared = [], []
    for key, maps in one[0].items():
        for pair in zip(maps, many[0][key], strict=True):
            for values, map_ in zip(compared, pair, strict=True):
                for curve in ("deletion", "insertion"):
                    values += map_["curves"].get(curve) or []
                values += [v for name, v in map_["values"].items() if "auc" in name]
    with torch.device("meta"):
        terms = 2 * terms_of(MiniResNet())  # both are rounded
    # Cosines are sums of products that may be as large together as 1.
    assert_rounded(*compared, terms=terms, scale=1)
