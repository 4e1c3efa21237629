"""How much longer a whole transfer matrix takes than the passes it is made of.

    OMP_NUM_THREADS=1 python -m pytest fxeval/tests/benchmarks/test_transfer.py -m slow \\
        --benchmark-enable --benchmark-json=FILE

The bundled and the free networks are small: an image takes them 2 to 25 ms of a core. What a run
adds takes as long for a large one. So a third work is ``papers/transfer`` on fewer pairs with four
networks of the size that papers use: each is one of the free networks and an IResNet-50 beside it,
whose output counts for nothing, so that maps and verdicts stay those of the small one. Sixteen
pairs fill the batches, as the lists of papers do but for their last batch.

Work: every cell of a shipped suite on its first list, with its explainer, fractions, fills, draws
and controls, as a run measures them: images are read, maps made and a few made again, carried,
ranked, occluded, embedded, rows judged. Left out is what a run does once for every network whatever
it measures: admission, and verification on the list.

Each round is compared with what it is made of: every network alone, at the batch size that was
fastest for it at the start, on as many images as the pool embedded (without those that fill up a
batch), and the explainer alone, on the very inputs that it got, with the same networks. The figure
to read is ``overhead`` in ``extra_info`` of FILE: processor time over that, median of the rounds.
``parts`` says where it is: the images that were embedded for occlusion over the networks alone, the
explainer at work over the explainer alone, and what is left as a share of both alone.
Nothing is asserted about time but that it is no disaster.
"""

import hashlib
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fxeval import datasets, explainers
from fxeval.engine.forward_pool import ForwardPool, fastest_batch_size
from fxeval.models.networks.iresnet import iresnet50
from fxeval.run.evaluation import shipped
from fxeval.run.measure import measure_cell
from fxeval.run.readying import Readying
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite import preflight
from fxeval.suite.load import KnownIds, load
from fxeval.suite.plan import cells
from fxeval.suite.recognition import shipped_suites

pytestmark = pytest.mark.slow
KNOWN = KnownIds(
    models=frozenset(preflight.SHIPPED_CARDS),
    explainers=frozenset(explainers.SHIPPED),
    pairs=frozenset(datasets.SHIPPED),
)
ROUNDS, BATCH_SIZES = 3, (8, 16, 32)
DISASTER = 3.0


@dataclass
class Recorded:
    """An explainer that remembers what it was asked."""

    of: Any
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    is_busy: bool = False
    seconds: float = 0.0

    def __getattr__(self, name: str):
        return getattr(self.of, name)

    def explain(self, model, probes, references, *, contrast=None, generator):
        self.calls.append((model.model, probes, references, contrast, generator))
        start, self.is_busy = time.process_time(), True
        try:
            return self._explained(model, *self.calls[-1][1:])
        finally:
            self.is_busy = False
            self.seconds += time.process_time() - start

    def _explained(self, model, probes, references, contrast, generator):
        return self.of.explain(model, probes, references, contrast=contrast, generator=generator)

    def again(self) -> None:
        """Answer once more, with plain networks."""
        for call in self.calls:
            with torch.inference_mode(False), torch.enable_grad():
                self._explained(*call)


class Matrix:
    """The cells of a suite on its first list, and the processor time of each round."""

    def __init__(self, path: Path, n: int | None = None, *, is_large: bool = False) -> None:
        first, *others = cells(load(path, KNOWN))
        self.cells = [first, *(cell for cell in others if cell.pairs == first.pairs)]
        assert all(cell.explainer == first.explainer for cell in self.cells)
        self.cells = [replace(cell, n=n or cell.n) for cell in self.cells]
        self.pairs = shipped("pairs", first.pairs.id)
        self.explainer = Recorded(shipped("explainer", first.explainer.id))
        self.models = {cell.model.name: _model(cell.model.id) for cell in self.cells}
        if is_large:
            self.models = {name: _enlarged(model) for name, model in self.models.items()}
        self.images: Counter[str] = Counter()  # that each network embedded in one round
        self.seconds, self.bare, self.left_out = list[float](), list[float](), 0.0
        self.embedding, self.parts = 0.0, list[tuple[float, float, float]]()
        tried = (32, 1) if is_large else (64, 3)  # images, times
        self.best = {name: self._fastest(name, *tried) for name in self.models}

    def _fastest(self, name: str, images: int, times: int) -> int:
        """Return the batch size at which a network alone is fastest."""

        def seconds(size: int) -> float:
            return min(self.alone(name, images, size) for _ in range(times))

        return min(BATCH_SIZES, key=seconds)

    def alone(self, name: str, images: int, batch_size: int) -> float:
        """Run a network alone; its images lie ready."""
        model = self.models[name]
        batch = torch.rand(batch_size, 3, *model.crop.size)
        start = time.process_time()
        with torch.inference_mode():
            for done in range(0, images, batch_size):
                model.module(batch[: images - done])
        return time.process_time() - start

    def measure(self) -> None:
        """Measure every cell, as a new run does, then do again what it is made of."""
        self.images.clear()
        self.explainer.calls.clear()
        self.left_out = self.embedding = self.explainer.seconds = 0.0
        workshop = Workshop(
            batch_size=fastest_batch_size(), emit=lambda _: None, progress=lambda *_: None
        )
        start = time.process_time()
        for cell in self.cells:
            evaluators = {
                parameter: {use.name: self.models[use.name] for use in named}
                for parameter, named in cell.further.items()
            }
            own = self.models[cell.model.name]
            result = measure_cell(
                cell, Subjects(own, self.explainer, self.pairs, evaluators), workshop
            )
            assert result.n_pairs == cell.n
        self.seconds.append(time.process_time() - start - self.left_out)
        start = time.process_time()
        self.explainer.again()
        explaining = time.process_time() - start
        alone = sum(self.alone(name, self.images[name], self.best[name]) for name in self.models)
        self.bare.append(alone + explaining)
        beside = self.seconds[-1] - self.embedding - self.explainer.seconds
        self.parts.append(
            (
                self.embedding / alone,
                self.explainer.seconds / explaining,
                beside / self.bare[-1],
            )
        )

    def count(self, patch: pytest.MonkeyPatch) -> None:
        """Count images, without those of admission, of verification and of the explainer."""
        is_left_out, batches = [False], ForwardPool._batches

        def counting(pool, model, count, make):
            if is_left_out[0] or self.explainer.is_busy:
                return batches(pool, model, count, make)
            self.images[model.name] += count
            start = time.process_time()
            try:
                return batches(pool, model, count, make)
            finally:
                self.embedding += time.process_time() - start

        def leaving_out(do):
            def done(*given, **named):
                start, is_left_out[0], LARGE_RUNS[0] = time.process_time(), True, False
                try:
                    return do(*given, **named)
                finally:
                    is_left_out[0], LARGE_RUNS[0] = False, True
                    self.left_out += time.process_time() - start

            return done

        patch.setattr(ForwardPool, "_batches", counting)
        for name in ("admit", "verified"):
            patch.setattr(Readying, name, leaving_out(getattr(Readying, name)))


def _model(name: str):
    found = shipped("model", name)
    return found.load() if hasattr(found, "load") else found


LARGE_RUNS = [True]
"""Whether enlarged networks take the time of large ones: not in what is left out."""


class Enlarged(nn.Module):
    """A network as slow as an IResNet-50, with the embeddings of a small one."""

    def __init__(self, small: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.large, self.small = iresnet50().eval(), small
        self.fit = nn.Upsample((112, 112)) if size != (112, 112) else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Embed images; NaN in the large network would show."""
        if not LARGE_RUNS[0]:
            return self.small(images)  # type: ignore[no-any-return]
        beside: Tensor = self.large(self.fit(images)).sum(dim=1, keepdim=True)
        found: Tensor = self.small(images) + 0.0 * beside
        return found


def _enlarged(carded):
    model = carded.model  # the network without its card, whose claims are of the small one
    return replace(
        model,
        module=Enlarged(model.module, model.crop.size),
        digest=hashlib.sha256(f"{model.digest} enlarged".encode()).hexdigest(),
    )


@pytest.mark.parametrize(
    ("suite", "n", "is_large"),
    [("transfer", None, False), ("papers/transfer", None, False), ("papers/transfer", 16, True)],
    ids=["transfer", "papers/transfer", "papers/transfer-large"],
)
def test_a_matrix(benchmark, suite, n, is_large, monkeypatch, request):
    if suite.startswith("papers"):
        monkeypatch.setenv("FXEVAL_DATA", str(request.getfixturevalue("data_root")))
    path = shipped_suites()["transfer"].parent / f"{suite}.yaml"
    matrix = Matrix(path, n, is_large=is_large)
    matrix.count(monkeypatch)
    benchmark.pedantic(matrix.measure, rounds=1 if is_large else ROUNDS)
    assert all(matrix.images.values())
    ratios = [one / bare for one, bare in zip(matrix.seconds, matrix.bare, strict=True)]
    benchmark.extra_info.update(
        overhead=round(statistics.median(ratios), 3),
        rounds=[round(one, 3) for one in ratios],
        parts=[
            dict(
                zip(
                    ("embedding", "explaining", "beside"),
                    (round(one, 3) for one in of_a_round),
                    strict=True,
                )
            )
            for of_a_round in matrix.parts
        ],
        images=dict(matrix.images),
        batch_sizes=matrix.best,
        torch_threads=torch.get_num_threads(),
    )
    assert statistics.median(ratios) < DISASTER
