"""Unit behaviours: the oracle is right everywhere, maps that know nothing are wrong everywhere."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from fxeval.contracts import ExplainerTraits, RowState, SaliencyMaps
from fxeval.errors import ExplainerContractError
from fxeval.explainers import shipped
from fxeval.truth.behaviour_table import FEWER, as_markdown, behaviour_table
from fxeval.truth.behaviours import (
    BEHAVIOURS,
    KnownPairs,
    effects,
    evidence_share,
    oracle_maps,
)
from fxeval.truth.gates import gated_pair
from fxeval.truth.planted import SIDE
from fxeval.truth.table import shipped_explainers

FEW = 16  # pairs of a behaviour
IGNORANT = [
    "control.random_pixels", "control.random_blobs", "control.random_rectangle", "control.centre",
    "control.edge", "a constant",
]  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """All behaviours without explainers."""
    return {(one.maps, one.behaviour): one for one in behaviour_table(FEW, explainers={})}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_oracle_is_right_and_maps_that_know_nothing_are_wrong(table, behaviour):
    oracle = table["oracle", behaviour]
    assert (oracle.word, oracle.broken) == ("right", 0)
    assert oracle.share.value == pytest.approx(1.0)
    assert oracle.share.n_pairs == FEW
    words = {name: table[name, behaviour].word for name in IGNORANT}
    if behaviour == "trigger":  # the trigger is all edges: an edge detector sees something of it
        assert words.pop("control.edge") != "right"
    assert set(words.values()) == {"wrong"}
    assert len(table) == len(BEHAVIOURS) * (1 + len(IGNORANT))


def test_a_map_without_order_has_the_share_of_the_image_that_the_evidence_covers(table):
    chance = {name: table["a constant", name].share.value for name in BEHAVIOURS}
    for name in ("brightness", "contrast", "texture", "absence", "shattered"):
        assert chance[name] == pytest.approx(1 / 16)
    assert chance["both"] == chance["either"] == pytest.approx(1 / 8)
    assert chance["conflict"] == pytest.approx(0)
    assert 0.05 < chance["trigger"] < 32**2 / SIDE**2
    for name in BEHAVIOURS:
        assert table["control.random_pixels", name].share.value == pytest.approx(
            chance[name], abs=0.02
        )


def pairs_of(places, against=None, pixels=2) -> KnownPairs:
    """A pair of 4 x 4 pixels; the places are lists of pixels."""
    where = torch.zeros((1, len(places), 16), dtype=torch.bool)
    for row, place in enumerate(places):
        where[0, row, place] = True
    speaks_against = torch.zeros((1, 16), dtype=torch.bool)
    speaks_against[0, against or []] = True
    image = torch.zeros((1, 3, 4, 4))
    return KnownPairs(
        image, image, image, image, where.view(1, -1, 4, 4), speaks_against.view(1, 4, 4), pixels,
        None,
    )  # fmt: skip


def map_of(**values) -> torch.Tensor:
    found = torch.zeros(16)
    for pixel, value in values.items():
        found[int(pixel[1:])] = value
    return found.view(1, 4, 4)


@pytest.mark.parametrize(
    ("places", "against", "map_", "share"),
    [
        ([[0, 1]], None, map_of(p0=2, p1=1), 1.0),
        ([[0, 1]], None, map_of(p0=2, p5=3, p1=1), 0.5),  # 5, then 0
        ([[0, 1]], None, map_of(p0=2), 0.5 + 1 / 15 / 2),  # one of 15 tied pixels is next
        ([[0, 1]], None, map_of(p5=2, p6=1), 0.0),
        ([[0, 1]], None, -map_of(p0=2, p1=1), 0.0),
        ([[0, 1], [2, 3]], None, map_of(p0=4, p1=3, p2=2, p3=1), 1.0),
        ([[0, 1], [2, 3]], None, map_of(p0=4, p1=3, p2=2, p9=1), 0.5),  # the worse place counts
        ([[0, 1], [2, 3]], None, map_of(p0=4, p1=3, p8=2, p9=1), 0.0),
        ([[0, 1]], [4, 5], map_of(p0=2, p1=1, p4=-1), 1.0),
        ([[0, 1]], [4, 5], map_of(p0=2, p4=1), 0.0),
        ([[0, 1]], [4, 5], map_of(p4=2, p5=1), -1.0),
        ([[0, 1, 2, 4, 5, 6]], None, map_of(p6=2, p5=1), 1.0),  # a margin around 2 pixels
        ([[0, 1, 2, 4, 5, 6]], None, map_of(p6=2, p9=1), 0.5),
        ([[0, 1]], None, torch.full((1, 4, 4), 3.0), 1 / 8),
        ([[0, 1]], None, torch.full((1, 4, 4), float("nan")), 1 / 8),
    ],
)
def test_shares_are_those_counted_by_hand(places, against, map_, share):
    assert evidence_share(map_, pairs_of(places, against)) == pytest.approx([share])


def test_ties_count_by_the_mean_of_all_orders():
    generator = np.random.default_rng(0)
    values = generator.integers(0, 3, 16)
    pairs = pairs_of([[0, 1, 5]], [7, 8, 9], pixels=3)
    found = []
    for _ in range(20000):
        top = np.lexsort((generator.random(16), -values))[:3]
        inside, against = ([pixel in place for pixel in top] for place in ((0, 1, 5), (7, 8, 9)))
        found.append((sum(inside) - sum(against)) / 3)
    share = evidence_share(torch.from_numpy(values).float().view(1, 4, 4), pairs)
    assert share[0] == pytest.approx(np.mean(found), abs=0.01)


def test_signed_maps_are_put_together_and_broken_ones_count_as_without_order():
    pairs = pairs_of([[0, 1]])
    signed = SaliencyMaps(map_of(p0=2, p1=1, p5=4), map_of(p5=9))
    assert evidence_share(signed, pairs).tolist() == [1.0]
    broken = SaliencyMaps(map_of(p0=2, p1=1), None, (RowState.NO_GRADIENT,))
    assert evidence_share(broken, pairs) == pytest.approx([1 / 8])


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_pair_does_not_depend_on_how_many_there_are(behaviour):
    few, many = (list(BEHAVIOURS[behaviour].situations(n, 0)) for n in (2, 3))

    def images(situations) -> list[torch.Tensor]:
        names = ("probes", "references", "without")
        return [
            torch.cat([getattr(pairs, name) for _, pairs in situations])[:2] for name in names
        ]  # fmt: skip

    for one, other in zip(images(few)[::2], images(many)[::2], strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(images(few)[0], images(list(BEHAVIOURS[behaviour].situations(2, 1)))[0])


def test_oracle_maps_show_what_each_place_does():
    model, pairs = gated_pair("conflict", 3)
    ((good, bad),) = effects(model, pairs).tolist()
    (map_,) = oracle_maps(model, pairs)
    assert good > 0 > bad
    assert map_.unique().tolist() == pytest.approx([bad, 0.0, good])
    assert map_[pairs.places[0, 0]].tolist() == pytest.approx([good] * 784)
    assert map_[pairs.against[0]].tolist() == pytest.approx([bad] * 784)


@cache
def conflicting() -> dict[bytes, KnownPairs]:
    """The pairs of the behaviour by their probes."""
    situations = BEHAVIOURS["conflict"].situations(FEW, 0)
    return {pairs.probes.numpy().tobytes(): pairs for _, pairs in situations}


@dataclass(frozen=True)
class Knowing:
    """The exact effects, or another answer."""

    answer: str = "oracle"

    @property
    def traits(self):
        return ExplainerTraits({"contrast"} if self.answer == "contrast" else ())

    def explain(self, model, probes, references, *, contrast=None, generator):
        pairs = conflicting()[probes.numpy().tobytes()]
        assert (contrast is None) == (self.answer != "contrast")
        if contrast is not None:
            assert torch.equal(contrast, pairs.nonmates)
        if self.answer == "refused":
            raise ExplainerContractError("no such layer")
        maps = oracle_maps(model, pairs)
        if self.answer == "magnitude":
            maps = maps.abs()
        states = (RowState.NO_GRADIENT,) if self.answer == "silent" else ()
        return SaliencyMaps(maps, None, states, ("nothing to see",) if states else ())


def test_a_map_of_magnitudes_is_wrong_where_evidence_speaks_against():
    answers = ("oracle", "contrast", "magnitude", "refused", "silent")
    found = behaviour_table(
        FEW, explainers={one: Knowing(one) for one in answers}, behaviours=["conflict"]
    )
    words = {one.maps: one.word for one in found}
    assert words["oracle"] == words["contrast"] == "right"
    assert words["magnitude"] == "wrong"
    assert words["refused"] == words["silent"] == "no map"
    by_name = {one.maps: one for one in found}
    assert (by_name["silent"].broken, by_name["silent"].note) == (FEW, "nothing to see")
    assert (by_name["refused"].share, by_name["refused"].note) == (None, "no such layer")
    text = as_markdown(found)
    assert "| oracle | right 1.00 [" in text
    assert "| refused | no map |" in text
    assert "* silent, conflict: nothing to see" in text
    assert len(text.split("\n\n")[0].splitlines()) == 2 + len(answers) + len(IGNORANT)


def test_unknown_behaviours_and_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match=r"expected some of brightness, .* got brightnes\."):
        behaviour_table(4, behaviours=["brightnes"])
    with pytest.raises(ValueError, match="at least 2 pairs, got 1"):
        behaviour_table(1, behaviours=["brightness"])


def test_shorter_settings_name_what_is_shipped():
    ids = {name.split(" ")[0] for name in shipped_explainers()}
    for id, params in FEWER.items():
        assert id in ids
        shipped(id)(**params)
