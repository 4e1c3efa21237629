"""Cross-model transfer against a plain loop, and what each model of a matrix has to embed."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from fxeval.contracts import Crop, ExplainerTraits, RowState
from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.crops import move_maps
from fxeval.engine.selection import digests_of
from fxeval.errors import ModelContractError, UnsupportedError
from fxeval.metrics import CATALOGUE
from fxeval.models.loading import TorchFaceModel
from fxeval.results import Outcome
from fxeval.run.measure import measure_cell
from fxeval.run.workshop import Subjects, Workshop
from fxeval.statistics.limits import AtLeast, AtMost
from fxeval.suite.cells import Use
from fxeval.tests.rounding import assert_rounded, terms_of
from fxeval.tests.subjects import ConvNet
from fxeval.tests.toy_world import LARGE, SMALL, People, cell_of
from fxeval.verification.demands import Verification

KIND = "transfer.cross_model"
OTHER = Crop("other96", (96, 96), tuple((x * 6 / 7, y * 6 / 7) for x, y in ARCFACE_112.template))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Maps without ties that depend on the model, the image and its references, and embed nothing.

    Attributes:
        same: The same map for every model.
        cannot: Names of models that it cannot explain.
    """

    same: bool = False
    cannot: tuple[str, ...] = ()

    def unsupported(self, model):
        return "it has no layers" if model.name in self.cannot else None

    def explain(self, model, probes, references, *, contrast=None, generator):
        return torch.stack(
            [self.map(model, one, other) for one, other in zip(probes, references, strict=True)]
        )

    def map(self, model, probe, reference):
        size = tuple(probe.shape[1:])
        parts = [int((one * 255).round().sum()) for one in (probe, reference)]
        who = 0 if self.same else int(model.digest[:2], 16)
        if self.same:  # whatever the crop
            line = torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1])
            return (
                -(line[0][:, None] ** 2)
                - 0.9 * line[1] ** 2
                + 1e-3 * line[1]
                + 1e-4 * line[0][:, None]
            )
        return torch.from_numpy(np.random.default_rng([who, *parts]).random(size)).float()


def network(name: str, seed: int, crop: Crop = SMALL, threshold: float | None = 0.9):
    net = ConvNet(seed, side=crop.size[0]).eval()
    return TorchFaceModel(name, crop, net, "cosine", threshold, f"{seed:02x}".ljust(64, "0"))


def parameters(**given):
    return CATALOGUE[KIND].Parameters(**{"controls": (), "fractions": (0.2,), **given})


class Matrix:
    """Measures every cell of a matrix in one workshop."""

    def __init__(self, models, explainer=None, *, given=None, people=None, limits=()):
        self.models, self.explainer = models, explainer or Drawn()
        self.given, self.people, self.limits = given or parameters(), people or People(), limits
        self.written = []
        self.workshop = Workshop(batch_size=16, emit=self.written.extend, progress=lambda *_: None)

    def cell(self, generator: str, evaluators=None, demands=None, seeds=1):
        evaluators = [*self.models] if evaluators is None else evaluators
        others = [name for name in evaluators if name != generator]
        cell = replace(
            cell_of(KIND, self.given, self.limits),
            id=f"check[{generator}-drawn-people]", model=Use(generator),
            further={"evaluators": tuple(map(Use, others))}, demands=demands or {}, seeds=seeds,
        )  # fmt: skip
        subjects = Subjects(
            self.models[generator], self.explainer, self.people,
            {"evaluators": {name: self.models[name] for name in others}},
        )  # fmt: skip
        self.written.clear()
        return measure_cell(cell, subjects, self.workshop), [*self.written]


def by_condition(rows, metric, map_="explainer", **under):
    """Values of all rows by name, under one condition."""
    found = {}
    for row in rows:
        for one in row.measured:
            if one.map == map_ and one.under.items() >= under.items() and metric in one.values:
                assert row.row not in found
                found[row.row] = one.values[metric]
    return found


@cache
def three():
    return {
        "a": network("a", 1, ARCFACE_112, 0.97),
        "b": network("b", 2, ARCFACE_112, 0.99),
        "c": network("c", 3, OTHER, 0.985),
    }


def person_map(explainer, model, images, sources):
    """The mean over the sources, each explained against the others and scaled to 0..1."""
    maps = []
    for one in sources:
        (other,) = (image for image in sources if image != one)
        map_ = explainer.map(model, images[one], images[other]).double()
        maps.append((map_ - map_.min()) / (map_.max() - map_.min()))
    return torch.stack(maps).mean(0).float()


def occluded(image, map_, k):
    """The image without its k most salient pixels."""
    gone = map_.flatten().sort(descending=True).indices[:k]
    flat = image.clone().flatten(1)
    flat[:, gone] = 0
    return flat.view_as(image)


def embed(model, image):
    with torch.no_grad():
        return model.module(image[None])[0].double()


def cosine(a, b):
    return float(torch.dot(a, b) / a.norm() / b.norm())


def test_a_matrix_of_two_crops_agrees_with_a_plain_loop():
    models, explainer, people, fraction = three(), Drawn(), People(n=4), 0.2
    matrix = Matrix(models, people=people)
    ids = [f"{who}-{number}" for who in range(people.n) for number in range(4)]
    images = {
        name: dict(zip(ids, people.images(ids, model.crop).float() / 255, strict=True))
        for name, model in models.items()
    }
    common = digests_of(people.images(ids, ARCFACE_112))
    names = {image: digest[:12] for image, digest in zip(ids, common, strict=True)}
    seen = set()
    for g, generator in models.items():
        _, rows = matrix.cell(g)
        for e, evaluator in models.items():
            there = images[e]
            k = max(1, int(np.floor(fraction * evaluator.crop.size[0] ** 2 + 0.5)))
            whole, exact = [], {}
            for who, (one, two) in ((w, p) for w in range(people.n) for p in ((0, 1), (2, 3))):
                probe, reference = f"{who}-{one}", f"{who}-{two}"
                sources = [f"{who}-{n}" for n in range(4) if n not in (one, two)]
                carried = move_maps(
                    person_map(explainer, generator, images[g], sources)[None],
                    generator.crop, evaluator.crop,
                ).maps[0]  # fmt: skip
                own = person_map(explainer, evaluator, there, sources)
                stays = embed(evaluator, there[probe])
                clean, left, left_own = (
                    cosine(embed(evaluator, image), stays)
                    for image in (
                        there[reference],
                        occluded(there[reference], carried, k),
                        occluded(there[reference], own, k),
                    )
                )
                level = evaluator.operating_threshold
                accepted, still, still_own = (c >= level for c in (clean, left, left_own))
                row = names[reference] + "-" + names[probe]
                exact[row] = {
                    "occlusion_tmr": still, "transfer_index": accepted - still,
                    "own_effect": accepted - still_own,
                    "occlusion_area": k / evaluator.crop.size[0] ** 2,
                }  # fmt: skip
                # Similarities of about 1, as a small difference of them has few digits.
                drops = ("occlusion_cosine_drop", "transfer_index_cosine", "own_cosine_drop")
                for metric, cos in zip(drops, (left, left, left_own), strict=True):
                    value = by_condition(rows, metric, evaluator=e)[row]
                    whole.append((clean - value, cos))
                seen.add((accepted, still, still_own))
            for metric in exact[row]:
                expected = {name: float(of[metric]) for name, of in exact.items()}
                assert by_condition(rows, metric, evaluator=e) == expected
            found, true = zip(*whole, strict=True)
            assert_rounded(found, true, terms=terms_of(evaluator.module), condition=2)
    assert len(seen) >= 3  # some are rejected by the carried map, some by the own one, some by none


def test_the_own_map_of_a_generator_is_its_map_and_its_index_is_one():
    result, rows = Matrix(three(), people=People(n=4)).cell("a")
    for metric in ("occlusion_tmr", "occlusion_cosine_drop", "transfer_index_cosine"):
        assert by_condition(rows, metric, evaluator="a") == by_condition(
            rows, metric, "control.own_map", evaluator="a"
        )
    (index,) = (
        one.value for one in result.estimates
        if (one.metric, one.map, one.under["evaluator"])
        == ("transfer_index_cosine", "explainer", "a")
    )  # fmt: skip
    assert index == 1.0


def test_every_image_is_embedded_once_and_every_model_explained_once():
    draws, fractions, fills = 3, (0.1, 0.3), ("black", "mean")
    given = parameters(
        fractions=fractions, fills=fills, repeats=draws,
        controls=("random_pixels", "random_blobs", "mean_map", "unoccluded"),
    )  # fmt: skip
    people = People(n=4)
    models = {"a": network("a", 1), "b": network("b", 2, LARGE), "c": network("c", 3)}
    matrix = Matrix(models, given=given, people=people)
    cells = [matrix.cell(name)[0] for name in models]
    n_rows, n_images, g = 8, 16, len(models)
    of_an_evaluator = (
        g * n_rows  # the map of every generator, its own among them
        + g * n_rows  # the mean map, which is made of the generator's
        + 2 * draws * n_rows  # both random controls, once for all generators
    )
    expected = g * (n_images + len(fractions) * len(fills) * of_an_evaluator)
    assert sum(cell.forwards for cell in cells) == expected
    made = [
        one for cell in cells for one in cell.explaining
        if not one.was_shared and not one.side.endswith("again")
    ]  # fmt: skip
    assert len(made) == g
    assert {one.n_maps for one in made} == {n_images}  # each image against the other of its pair


def test_rows_do_not_depend_on_the_order_of_the_evaluators_or_the_cells():
    models = {"a": network("a", 1), "b": network("b", 2, LARGE), "c": network("c", 3)}
    given = parameters(controls=("random_blobs", "shuffled_identity"), repeats=2)
    one, two = (Matrix(models, given=given, people=People(n=4)) for _ in range(2))
    first = {name: one.cell(name)[1] for name in "abc"}
    second = {name: two.cell(name, ["c", "b", "a"])[1] for name in "cba"}

    def values(rows):
        return {
            (row.row, found.map, *sorted(map(str, found.under.items()))): found.values
            for row in rows for found in row.measured
        }  # fmt: skip

    for name in "abc":
        assert values(first[name]) == values(second[name])


def test_one_model_under_two_names_is_as_good_as_itself_and_costs_nothing_more():
    again = {"a": network("a", 1), "b": network("b", 2, LARGE), "twin": network("b", 2, LARGE)}
    matrix = Matrix(again)
    _, rows = matrix.cell("a")
    for metric in ("occlusion_tmr", "occlusion_cosine_drop", "own_cosine_drop"):
        for map_ in ("explainer", "control.own_map"):
            assert by_condition(rows, metric, map_, evaluator="b") == by_condition(
                rows, metric, map_, evaluator="twin"
            ), map_


def test_a_map_that_is_the_same_for_every_model_transfers_wholly_and_beats_nothing():
    models = {"a": network("a", 1), "b": network("b", 2)}
    given = parameters(controls=("centre", "mean_map"))
    result, rows = Matrix(models, Drawn(same=True), given=given).cell("a")
    drop = by_condition(rows, "transfer_index_cosine", evaluator="b")
    assert drop == by_condition(rows, "own_cosine_drop", evaluator="b")
    better = [one for one in result.differences if one.control == "mean_map"]
    assert better
    assert not any(one.low is not None and one.low > 0 for one in better)


def test_what_cannot_be_explained_can_still_be_asked():
    models = {"a": network("a", 1), "b": network("b", 2)}
    limits = [
        AtLeast("transfer_index_cosine", at_least=0.1, under={"evaluator": "b"}),
        AtMost("occlusion_cosine_drop", at_most=1.9, under={"evaluator": "b"}),
    ]
    matrix = Matrix(models, Drawn(cannot=("b",)), limits=limits, people=People(n=31))
    result, rows = matrix.cell("a")
    index, drop = result.limits
    assert index.verdict.outcome is Outcome.INVALID
    assert index.verdict.reason == (
        "transfer_index_cosine: evaluator b: no values of transfer_index, transfer_index_cosine, "
        "own_effect, own_cosine_drop: no map of its own: occlusion cannot explain b: it has no "
        "layers"
    )
    assert drop.verdict.outcome is Outcome.PASS
    assert result.states == {RowState.OK: 62}  # the explainer is not to blame
    assert not by_condition(rows, "occlusion_cosine_drop", "control.own_map", evaluator="b")
    assert None not in by_condition(rows, "occlusion_cosine_drop", evaluator="b").values()


def test_an_explainer_is_asked_once_whether_it_can_explain_a_model():
    asked = []

    class Asking(Drawn):
        def unsupported(self, model):
            asked.append(model.name)
            return super().unsupported(model)

    models = {"a": network("a", 1), "b": network("b", 2), "c": network("c", 3)}
    matrix = Matrix(models, Asking(cannot=("c",)), people=People(n=4))
    for name in "ab":
        _, rows = matrix.cell(name)
        assert None not in by_condition(rows, "own_cosine_drop", evaluator="a").values()
        assert {*by_condition(rows, "own_cosine_drop", evaluator="c").values()} == {None}
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="occlusion cannot explain c: it has no layers"):
            matrix.cell("c")
    assert sorted(asked) == ["a", "b", "c"]


def test_given_maps_are_no_maps_of_another_network():
    @dataclass(frozen=True, eq=False)
    class Given(Drawn):
        traits = ExplainerTraits(maps_are_given=True)

    result, rows = Matrix({"a": network("a", 1), "b": network("b", 2)}, Given()).cell("a")
    assert any(
        "no map of its own: the maps of occlusion are given: they were made with one network and "
        "say nothing of b." in note for note in result.notes
    )  # fmt: skip
    assert None not in by_condition(rows, "occlusion_tmr", evaluator="b").values()


def test_an_evaluator_without_a_threshold_has_similarities_and_no_decisions():
    models = {"a": network("a", 1), "b": network("b", 2, threshold=None)}
    result, rows = Matrix(models).cell("a")
    assert {*by_condition(rows, "occlusion_tmr", evaluator="b").values()} == {None}
    assert {*by_condition(rows, "transfer_index", evaluator="b").values()} == {None}
    assert None not in by_condition(rows, "occlusion_tmr", evaluator="a").values()
    assert None not in by_condition(rows, "transfer_index_cosine", evaluator="b").values()
    assert any(note.startswith("b: The model declares no operating") for note in result.notes)


@pytest.mark.parametrize("fault", ["nan", "absent"])
def test_an_evaluator_that_cannot_be_judged_takes_its_own_values_alone(fault):
    models = {"a": network("a", 1), "b": network("b", 2)}
    if fault == "nan":
        with torch.no_grad():
            models["b"].module.fc.weight.fill_(torch.nan)
    else:
        models["b"] = ModelContractError("s.yaml:7:5: model 'b': b.pth: the weights cannot be read")
    limits = [
        AtMost("occlusion_cosine_drop", at_most=1.9, under={"evaluator": name}) for name in "ab"
    ]
    limits.append(AtMost("occlusion_cosine_drop", at_most=1.9))
    result, rows = Matrix(models, limits=limits, people=People(n=31)).cell("a")
    of_a, of_b, *everywhere = result.limits
    assert of_a.verdict.outcome is Outcome.PASS
    assert of_b.verdict.outcome is Outcome.INVALID
    assert of_b.verdict.reason.startswith("occlusion_cosine_drop: evaluator b: no values: ")
    assert {one.verdict.outcome for one in everywhere} == {Outcome.PASS, Outcome.INVALID}
    assert result.verdict.outcome is Outcome.INVALID
    assert result.states == {RowState.OK: 62}
    assert {*by_condition(rows, "occlusion_tmr", evaluator="b").values()} == {None}


def test_an_evaluator_that_the_suite_refuses_is_not_asked_and_the_others_are():
    models = {name: network(name, seed) for seed, name in enumerate("abc", 1)}
    limits = [AtMost("occlusion_cosine_drop", at_most=1.9, under={"evaluator": one})
              for one in "bc"]  # fmt: skip
    demand = Verification(limits=(AtMost("verification_eer", at_most=-0.1),))
    matrix = Matrix(models, limits=limits, people=People(n=31))
    result, rows = matrix.cell("a", demands={"b": demand})
    of_b, of_c = result.limits
    assert of_b.verdict.outcome is Outcome.INVALID
    assert "evaluator b: no values: " in of_b.verdict.reason
    assert "equal error rate" in of_b.verdict.reason
    assert of_c.verdict.outcome is Outcome.PASS
    assert {*by_condition(rows, "occlusion_cosine_drop", evaluator="b").values()} == {None}
    assert result.states == {RowState.OK: 62}


def test_an_evaluator_is_judged_at_the_threshold_that_the_suite_asks_of_it():
    """More pairs reach the vendor's threshold than the one of the list, which is higher."""
    models = {"a": network("a", 1), "b": network("b", 2, threshold=0.992)}
    given = parameters(controls=("unoccluded",))
    accepted = []
    for threshold in ("vendor", "tau_eer"):
        demand = Verification(operating_threshold=threshold, floor="none")
        matrix = Matrix(models, given=given, people=People(n=31))
        _, rows = matrix.cell("a", demands={"b": demand})
        clean = by_condition(rows, "occlusion_tmr", "control.unoccluded", evaluator="b")
        accepted.append(np.mean([*clean.values()]))
    assert 0.2 < accepted[1] < accepted[0]


@dataclass(frozen=True, eq=False)
class Seeded(Drawn):
    """Its maps depend on its seed, too."""

    def explain(self, model, probes, references, *, contrast=None, generator):
        maps = super().explain(model, probes, references, generator=generator)
        return maps + torch.from_numpy(generator.random(tuple(maps.shape[1:]))).float()


def test_own_maps_are_those_of_the_same_seed():
    models = {"a": network("a", 1), "b": network("b", 2)}
    matrix = Matrix(models, Seeded())
    by_generator = {}
    for name in "ab":
        _, cell = matrix.cell(name, seeds=2)
        by_generator[name] = {
            (row.row, one.map, one.seed): one.values["occlusion_cosine_drop"]
            for row in cell for one in row.measured if one.under["evaluator"] == "b"
        }  # fmt: skip
    own = {key: value for key, value in by_generator["a"].items() if key[1] == "control.own_map"}
    assert {seed for _, _, seed in own} == {0, 1}
    for (row, _, seed), value in own.items():
        assert value == by_generator["b"][row, "explainer", seed]
    assert len({value for (_, _, seed), value in own.items() if seed == 1}
               - {value for (_, _, seed), value in own.items() if seed == 0}) > 5  # fmt: skip
