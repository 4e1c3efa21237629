"""People, models with two crops and explainers, small enough for whole cells in a moment."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fxeval.contracts import Crop, ExplainerTraits, LabelMaps, PairListing
from fxeval.models.loading import TorchFaceModel
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Cell, Use
from fxeval.tests.subjects import ConvNet

SMALL = Crop("small16", (16, 16), ((5.0, 6.0), (10.0, 6.0), (8.0, 9.0), (6.0, 12.0), (10.0, 12.0)))
LARGE = Crop(
    "large24", (24, 24), tuple((x * 1.5 + 0.25, y * 1.5 + 0.25) for x, y in SMALL.template)
)
PARTS = ("brow", "nose", "mouth")


@dataclass(frozen=True)
class People:
    """``n`` people of four images each; pairs 0-1 and 2-3 mated, a nonmate for each."""

    n: int = 10
    name: str = "people"
    banner: str | None = None

    def listing(self) -> PairListing:
        rows = [(who, a, b) for who in range(self.n) for a, b in ((0, 1), (2, 3))]
        other = [f"{(who + 1) % self.n}-0" for who, _, _ in rows]
        names = tuple(str(who) for who, _, _ in rows)
        return PairListing(
            probe=tuple(f"{who}-{a}" for who, a, _ in rows),
            reference=tuple(f"{who}-{b}" for who, _, b in rows),
            is_mated=(True,) * len(rows),
            probe_identity=names,
            reference_identity=names,
            contrast=tuple(other),
            contrast_identity=tuple(image.split("-")[0] for image in other),
        )

    def images(self, image_ids, crop) -> Tensor:
        found = []
        for image_id in image_ids:
            who, number = map(int, image_id.split("-"))
            base = np.random.default_rng(who).random((3, 4, 4))
            noise = np.random.default_rng([who, number]).normal(0, 0.08, (3, 4, 4))
            coarse = torch.from_numpy(base + noise).clamp(0, 1)
            found.append(interpolate(coarse[None], crop.size, mode="bilinear")[0])
        return (torch.stack(found) * 255).to(torch.uint8)

    def labels(self, image_ids, crop) -> LabelMaps:
        rows = torch.arange(crop.size[0]) * len(PARTS) // crop.size[0]
        return LabelMaps(PARTS, rows[:, None].expand(len(image_ids), *crop.size).clone())


@dataclass(frozen=True)
class Twinned:
    """The pairs of people, and as the nonmate a twin of the mate: a corner is another person's."""

    people: People = field(default_factory=People)
    name: str = "twinned"
    banner: str | None = None

    def listing(self) -> PairListing:
        listing = self.people.listing()
        return replace(
            listing,
            contrast=tuple(f"{image}+" for image in listing.reference),
            contrast_identity=tuple(f"{who}+" for who in listing.reference_identity),
            attributes={"part": tuple("ab"[int(one[-1]) // 2] for one in listing.probe)},
        )

    def twins_of(self, probes, nonmates) -> list[str]:
        return [f"{probe}+" for probe in probes]

    def images(self, image_ids, crop) -> Tensor:
        found = self.people.images([one.rstrip("+") for one in image_ids], crop)
        for row, image_id in enumerate(image_ids):
            if image_id.endswith("+"):
                who, number = map(int, image_id[:-1].split("-"))
                other = self.people.images([f"{who + 500}-0"], crop)[0]
                half = slice(0, crop.size[0] // 2) if number < 2 else slice(crop.size[0] // 2, None)
                found[row][:, half, half] = other[:, half, half]
        return found


@dataclass(frozen=True)
class Occlusion:
    """Grey out one cell after another: a pooled black box, the same for each row alone."""

    traits = ExplainerTraits(takes_contrast=True)
    side: int = 4

    def explain(self, model, probes, references, *, contrast=None, generator):
        target, maps = model.embed(references), torch.zeros_like(probes[:, 0])
        whole = torch.cosine_similarity(model.embed(probes), target)
        if contrast is not None:
            return self._of_margin(model, probes, target, model.embed(contrast))
        for y in range(0, probes.shape[-2], self.side):
            for x in range(0, probes.shape[-1], self.side):
                hidden = probes.clone()
                hidden[:, :, y : y + self.side, x : x + self.side] = 0.5
                drop = whole - torch.cosine_similarity(model.embed(hidden), target)
                maps[:, y : y + self.side, x : x + self.side] = drop[:, None, None]
        return maps

    def _of_margin(self, model, probes, mate, nonmate):
        maps = torch.zeros_like(probes[:, 0])

        def margin(images):
            found = model.embed(images)
            return torch.cosine_similarity(found, mate) - torch.cosine_similarity(found, nonmate)

        for y in range(0, probes.shape[-2], self.side):
            for x in range(0, probes.shape[-1], self.side):
                hidden = probes.clone()
                hidden[:, :, y : y + self.side, x : x + self.side] = 0.5
                drop = margin(probes) - margin(hidden)
                maps[:, y : y + self.side, x : x + self.side] = drop[:, None, None]
        return maps


@dataclass(frozen=True)
class Ramp:
    """Knows nothing: brighter from left to right, by a step that depends on the image."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        ramp = torch.arange(probes.shape[-1], dtype=torch.float32)
        return probes.mean((1, 2, 3))[:, None, None] + ramp.expand(len(probes), *probes.shape[-2:])


def model(name: str = "a", *, large: bool = False, seed: int = 0) -> TorchFaceModel:
    crop = LARGE if large else SMALL
    net = ConvNet(seed, side=crop.size[0]).eval()
    return TorchFaceModel(name, crop, net, "cosine", 0.9, f"{seed}{name}".ljust(64, "0"))


def cell_of(kind: str, parameters: object, limits=()) -> Cell:
    return Cell(
        f"check[a-occlusion-people]{kind}", "toy", "check", kind, "", Use("a"), Use("occlusion"),
        Use("people"), None, parameters, tuple(limits), 5, 0.95, "fail", "fail", "cpu", "t:1:1",
    )  # fmt: skip


def measured(
    kind, parameters, *, explainer=None, source=None, others=None, limits=(), batch=16, seeds=1,
    compared=None, workshop=None, network=None, slices=(), looks=None,
):  # fmt: skip
    """Measure one cell; return its result and its rows as they were written."""
    rows, compared = [], compared or {}
    workshop = workshop or Workshop(batch_size=batch, emit=rows.extend, progress=lambda *_: None)
    workshop.emit = rows.extend
    cell = replace(
        cell_of(kind, parameters, limits),
        seeds=seeds,
        others=tuple(Use(name) for name in compared),
        slices=tuple(slices),
        looks=looks,
    )
    subjects = Subjects(
        network or model(), explainer or Occlusion(), source or People(), others or {}, compared
    )
    return measure_cell(cell, subjects, workshop), rows
