"""How much longer a whole transfer matrix takes than the forward passes it is made of.

    python -m pytest fxeval/tests/benchmarks/test_transfer.py -m slow --benchmark-enable \\
        --benchmark-json=FILE

Work: every cell of the matrix of three bundled networks on 64 mated pairs of rendered faces, with
random, blob and mean-map controls, from admission to verdict. The maps are made of the images
alone, so what is timed is the measuring. Each round follows a bare run: every network alone, at the
batch size that was fastest for it at the start, on as many images as it embedded. The figure to
read is ``processor_to_bare`` in ``extra_info`` of FILE, the median over the rounds, of processor
time: a busy machine does not change it much. Nothing is asserted about time but that it is no
disaster.
"""

import statistics
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from fxeval.metrics import CATALOGUE
from fxeval.models.from_card import load_card
from fxeval.run.evaluation import shipped
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Use
from fxeval.suite.preflight import shipped_card
from fxeval.tests.toy_world import cell_of

KIND = "transfer.cross_model"
NAMES = ("mini_resnet", "mini_mobile", "mini_inception")
CONTROLS = ("random_pixels", "random_blobs", "mean_map", "unoccluded")
N_PAIRS, ROUNDS, BATCH_SIZES = 64, 3, (8, 16, 32)
DISASTER = 3.0  # processor time / bare that nothing excuses


class Luma:
    """A map of the image and of the network's digest, without a forward pass."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        return probes.mean(1) + int(model.digest[:2], 16) / 256 * probes[:, 0]


@dataclass
class Work:
    """The networks, and what they took in each round."""

    images: Counter = field(default_factory=Counter)  # that each network embedded in one run
    seconds: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models = {name: load_card(shipped_card(name)) for name in NAMES}
        self.pairs = shipped("pairs", "rendered")
        self.best = {
            name: min(BATCH_SIZES, key=lambda size: min(self.alone(name, 128, size)
                                                         for _ in range(3)))
            for name in NAMES
        }  # fmt: skip

    def alone(self, name: str, images: int, batch_size: int) -> float:
        """Run a network alone; its images lie ready."""
        model = self.models[name]
        batch = torch.rand(batch_size, 3, *model.crop.size)
        start = time.process_time()
        with torch.inference_mode():
            for done in range(0, images, batch_size):
                model.module(batch[: images - done])
        return time.process_time() - start

    def before(self) -> None:
        self.bare.append(
            sum(self.alone(name, self.images[name], self.best[name]) for name in NAMES)
        )

    def matrix(self) -> None:
        """Measure every cell."""
        parameters = CATALOGUE[KIND].Parameters(controls=CONTROLS)
        workshop = Workshop(batch_size=16, emit=lambda _: None, progress=lambda *_: None)
        start = time.process_time()
        for generator in NAMES:
            others = [name for name in NAMES if name != generator]
            cell = replace(
                cell_of(KIND, parameters), model=Use(generator), pairs=Use("rendered"), n=N_PAIRS,
                further={"evaluators": tuple(map(Use, others))},
            )  # fmt: skip
            evaluators = {"evaluators": {name: self.models[name] for name in others}}
            own = self.models[generator]
            result = measure_cell(cell, Subjects(own, Luma(), self.pairs, evaluators), workshop)
            assert result.n_pairs == N_PAIRS
        self.seconds.append(time.process_time() - start)

    def warm_up(self) -> None:
        """Run the matrix once and count the images that pass each network."""

        def counting(name: str):
            def count(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
                self.images[name] += len(inputs[0])

            return count

        handles = [
            self.models[name].module.register_forward_pre_hook(counting(name)) for name in NAMES
        ]
        self.matrix()
        for handle in handles:
            handle.remove()
        self.seconds.clear()


@pytest.mark.slow
def test_a_matrix_of_three_networks(benchmark):
    work = Work()
    work.warm_up()
    benchmark.pedantic(work.matrix, setup=work.before, rounds=ROUNDS)
    ratios = [one / bare for one, bare in zip(work.seconds, work.bare, strict=True)]
    benchmark.extra_info.update(
        processor_to_bare=round(statistics.median(ratios), 3),
        images=dict(work.images),
        batch_sizes=work.best,
        torch_threads=torch.get_num_threads(),
    )
    assert statistics.median(ratios) < DISASTER
