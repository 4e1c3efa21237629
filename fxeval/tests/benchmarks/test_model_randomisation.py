"""How much faster model randomisation is than the same with Quantus.

    python -m pytest fxeval/tests/benchmarks/test_model_randomisation.py -m slow --benchmark-enable

Work: cascading re-drawing from the output to the input, 13 layers, a gradient explainer, 32 mated
pairs of 112 x 112 images, Spearman's correlation with the map of the trained network. Both
make as many maps, 14 or 15 for each probe, with gradients of the same batches. Quantus
(``.ci/oracles``) explains the similarity with the references' embeddings by the trained network,
which it is given; fxeval embeds the references with every copy, estimates statistics, checks the
spread and the chance of every copy, watches over the explainer, and writes rows. Each round runs
both, one after the other. The figures to read are in ``extra_info`` of FILE (``--benchmark-json``):
the ratio of the processor times, and that of the times outside of the network, which is what each
adds. Run it with OMP_NUM_THREADS=1. Of a busy machine believe ratios, not seconds.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from fxeval.contracts import Crop
from fxeval.metrics import model_randomisation
from fxeval.models.loading import TorchFaceModel
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Use
from fxeval.tests.toy_world import SMALL, People, cell_of

N, LAYERS, SIDE, ROUNDS = 32, 13, 112, 3
INSIDE = [0.0]
"""Processor seconds spent inside of networks, forwards and backwards."""

KIND = "sanity.model_randomisation"
CROP = Crop(
    "large112", (SIDE, SIDE), tuple((x * SIDE / 16, y * SIDE / 16) for x, y in SMALL.template)
)


class Plain(nn.Module):
    """Twelve convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        widths = [3, *(8,) * 3, *(16,) * 3, *(24,) * 3, *(32,) * 3]
        layers: list[nn.Module] = []
        for place, (one, other) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(one, other, 3, stride=1 + (place % 3 == 0), padding=1), nn.ReLU()]
        self.features, self.fc = nn.Sequential(*layers), nn.Linear(32, 64)
        with torch.no_grad():
            for parameter in self.parameters():
                scale = 1.4 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.01
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

    def forward(self, images: Tensor) -> Tensor:
        start = time.process_time()
        found = self.fc(self.features(images).mean((2, 3)))
        INSIDE[0] += time.process_time() - start
        return found


PEOPLE = People(n=N // 2)
"""Of each person two pairs."""


@dataclass
class Gradient:
    """The gradient of the similarity; counts the maps it makes."""

    n_maps: list[int] = field(default_factory=lambda: [0])

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.n_maps[0] += len(probes)
        return gradients(model.module, probes, model.embed(references))


def gradients(network: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    with torch.enable_grad():
        probes = images.detach().clone().requires_grad_()
        similarity = cosine_similarity(network(probes), references)
        start = time.process_time()
        (found,) = torch.autograd.grad(similarity.sum(), probes)
        INSIDE[0] += time.process_time() - start
        return found.abs().mean(1)


def by_fxeval() -> tuple[int, Tensor]:
    """Measure a whole cell in a new workshop; return the number of maps and the values."""
    explainer, rows = Gradient(), []
    workshop = Workshop(batch_size=N, emit=rows.extend, progress=lambda *_: None)
    parameters = model_randomisation.Parameters(
        modes=("cascading_top_down",), steps=LAYERS, similarities=("rank_correlation",)
    )
    network = TorchFaceModel("plain", CROP, Plain().eval(), "cosine", 0.5, "0" * 64)
    cell = replace(cell_of(KIND, parameters), explainer=Use("gradient"))
    result = measure_cell(cell, Subjects(network, explainer, PEOPLE), workshop)
    assert result.states == {"ok": N}, result.verdict.reason
    values = [
        [one.values["rank_correlation_partly_randomised"] for one in row.measured if one.under]
        for row in rows
    ]
    return explainer.n_maps[0], torch.tensor(values)


def by_quantus() -> tuple[int, Tensor]:
    """Run Quantus' MPRT; return the number of maps and the values."""
    import quantus

    network, n_maps = Plain().eval(), [0]
    listing = PEOPLE.listing()
    sides = listing.probe, listing.reference
    probes, mates = (PEOPLE.images(side, CROP).float() / 255 for side in sides)
    with torch.no_grad():
        references = normalize(network(mates))

    def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: object):
        n_maps[0] += len(inputs)
        own = references[torch.as_tensor(targets).long()]
        return gradients(model, torch.as_tensor(np.asarray(inputs)), own)[:, None].numpy()

    found = quantus.MPRT(
        layer_order="top_down", seed=0, normalise=False, abs=False, disable_warnings=True
    )(
        network, probes.numpy(), np.arange(N), None,
        explain_func=explain, device="cpu", batch_size=N,
    )  # fmt: skip
    values = [scores for name, scores in found.items() if name != "original"]
    return n_maps[0], torch.tensor(np.array(values)).T


@dataclass
class Contestant:
    """A way to do the work, and what it took in each round, in seconds of the processor."""

    run: Callable[[], tuple[int, Tensor]]
    n_maps: int = 0
    spent: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)  # of networks
    values: Tensor = field(default_factory=lambda: torch.empty(0))

    def timed(self) -> None:
        start, INSIDE[0] = time.process_time(), 0.0
        self.n_maps, self.values = self.run()
        self.spent.append(time.process_time() - start)
        self.inside.append(INSIDE[0])


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_model_randomisation_against_quantus(benchmark):
    if importlib.util.find_spec("quantus") is None:
        pytest.skip("quantus is absent: run .ci/oracles")
    import quantus  # noqa: F401  its import is not timed

    peer, ours = Contestant(by_quantus), Contestant(by_fxeval)

    def rounds() -> None:
        for _ in range(ROUNDS):
            peer.timed()
            ours.timed()

    benchmark.pedantic(rounds, rounds=1)
    for one in (peer, ours):
        assert one.values.shape == (N, LAYERS)
        assert one.values[:, -1].abs().median() < 0.5
    whole = [a / b for a, b in zip(peer.spent, ours.spent, strict=True)]
    outside = [
        (a - b) / (c - d)
        for a, b, c, d in zip(peer.spent, peer.inside, ours.spent, ours.inside, strict=True)
    ]
    benchmark.extra_info.update(
        seconds={"quantus": peer.spent, "fxeval": ours.spent},
        inside={"quantus": peer.inside, "fxeval": ours.inside},
        n_maps={"quantus": peer.n_maps, "fxeval": ours.n_maps},
        ratio=statistics.median(whole),
        ratio_outside=statistics.median(outside),
    )
    # Quantus explains the trained network twice; fxeval makes a few of its maps again.
    assert peer.n_maps == N * (LAYERS + 2)
    assert N * (LAYERS + 1) < ours.n_maps <= peer.n_maps
