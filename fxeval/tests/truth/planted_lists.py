"""Pair lists of made-up images whose true maps are known, and explainers that know them."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fxeval.contracts import PairListing, SaliencyMaps
from fxeval.seeding import seed_of
from fxeval.truth.evidence_regions import KnownPairs
from fxeval.truth.planted import CELL, contributions, textures


@dataclass(frozen=True)
class Textures:
    """``n`` identities of the additive model, each with two mated and two nonmated pairs.

    Attributes:
        n: Number of identities.
    """

    n: int = 32
    name: str = "planted_textures"
    banner: str | None = None

    def listing(self) -> PairListing:
        pairs = [(who, image, who, image + 1) for image in (0, 2) for who in range(self.n)]
        pairs += [
            (who, image, (who + 1 + image) % self.n, image + 1)
            for image in (0, 2)
            for who in range(self.n)
        ]
        return PairListing(
            tuple(f"{who}-{image}" for who, image, _, _ in pairs),
            tuple(f"{who}-{image}" for _, _, who, image in pairs),
            tuple(who == other for who, _, other, _ in pairs),
            tuple(str(who) for who, *_ in pairs),
            tuple(str(who) for _, _, who, _ in pairs),
        )

    def images(self, image_ids, crop) -> Tensor:
        found = []
        for image_id in image_ids:
            who, image = map(int, image_id.split("-"))
            found.append(textures(4, "list", who)[image])
        return (torch.stack(found) * 255).round().to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Known:
    """Mated pairs of which the evidence is known, and as many nonmated ones that show none."""

    pairs: KnownPairs = field(repr=False)
    name: str = "known_pairs"
    banner: str | None = None

    def listing(self) -> PairListing:
        rows = range(len(self.pairs.probes))
        people, others = ([f"{kind}{row}" for row in rows] for kind in ("own", "other"))
        probes, references, nonmates = ([f"{side}-{row}" for row in rows] for side in "prn")
        return PairListing(
            (*probes, *probes), (*references, *nonmates),
            (True,) * len(rows) + (False,) * len(rows),
            (*people, *people), (*people, *others),
        )  # fmt: skip

    def images(self, image_ids, crop) -> Tensor:
        sides = {"p": self.pairs.probes, "r": self.pairs.references, "n": self.pairs.nonmates}
        found = [sides[one[0]][int(one[2:])] for one in image_ids]
        return (torch.stack(found) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Additive:
    """What each cell adds to the inner product, exactly; or maps that know less.

    Attributes:
        answer: ``truth``; ``inverse``; ``random``, drawn from the image's content, one value a
            pixel.
        signed: Evidence for and evidence against are two maps.
    """

    answer: str = "truth"
    signed: bool = False

    def explain(self, model, probes, references, *, contrast=None, generator):
        if self.answer == "random":
            maps = drawn(probes)
            return SaliencyMaps(maps, 1 - maps) if self.signed else maps
        parts = contributions(model.module, probes, references).float()
        maps = parts.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
        maps = maps if self.answer == "truth" else -maps
        return SaliencyMaps(maps.clamp_min(0), (-maps).clamp_min(0)) if self.signed else maps


@dataclass(frozen=True)
class Painted:
    """One map for all pairs, such as the place of the evidence; ties are ordered by the image."""

    map: Tensor
    answer: str = "truth"

    def explain(self, model, probes, references, *, contrast=None, generator):
        noise = drawn(probes)
        if self.answer == "random":
            return noise
        maps = self.map + 1e-3 * noise
        return maps if self.answer == "truth" else -maps


def drawn(probes: Tensor) -> Tensor:
    """Return uniform maps, seeded by the content of each image."""
    found = []
    for probe in probes:
        seed = seed_of("planted_random", (probe * 255).round().to(torch.uint8).sum().item(),
                       int((probe * 255).round().double().pow(2).sum()))  # fmt: skip
        found.append(torch.rand(probe.shape[1:], generator=torch.Generator().manual_seed(seed)))
    return torch.stack(found)
