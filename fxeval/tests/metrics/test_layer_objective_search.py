"""The search for a layer and an objective, in a toy world and on a bundled network."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fxeval.contracts import traits_of
from fxeval.datasets.lists.face_pack import FacePack
from fxeval.errors import ExplainerContractError, UnsupportedError
from fxeval.explainers.grad_cam import GradCAM, GradCAMpp, LayerCAM
from fxeval.functional.map_similarity import same_maps
from fxeval.isolation.explainer import IsolatedExplainer
from fxeval.metrics import layer_objective_search as search
from fxeval.metrics.layer_objective_search import Parameters, halves
from fxeval.metrics.protocol import OtherExplainer
from fxeval.models.from_card import load_card
from fxeval.models.loading import TorchFaceModel
from fxeval.records.schema import CellFacts, CellPlan, CellResult, Row
from fxeval.results import Outcome, RowState
from fxeval.run.map_maker import _Same
from fxeval.run.variants import Variants, variant_of
from fxeval.seeding import seed_of
from fxeval.statistics.limits import BetterThan
from fxeval.statistics.results import results_of
from fxeval.suite.preflight import shipped_card
from fxeval.tests.toy_world import SMALL, Occlusion, People, Ramp, measured

KIND = "search.layer_objective"
FEW = {"repeats": 1, "controls": ("random_pixels", "random_blobs", "as_given")}


def patch() -> torch.Tensor:
    shown = torch.zeros(16, 16)
    shown[2:6, 2:6] = 1.0
    return shown


class Corner(torch.nn.Module):
    """Sees a patch of 16 of the 256 pixels, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(48, 16)
        rng = np.random.default_rng(0)
        with torch.no_grad():
            self.fc.weight.copy_(torch.from_numpy(rng.normal(0, 1, (16, 48))))
            self.fc.bias.copy_(torch.from_numpy(rng.normal(0, 1, 16)))

    def forward(self, images):
        return self.fc(images[:, :, 2:6, 2:6].flatten(1) - 0.5)


@dataclass(frozen=True)
class Planted:
    """Right at one layer with one objective; elsewhere it knows nothing, or is constant."""

    layer: str = "first"
    objective: str = "cos"

    def __post_init__(self) -> None:
        if self.layer == "none":
            raise ValueError("no layer 'none'")

    def explain(self, model, probes, references, *, contrast=None, generator):
        if (self.layer, self.objective) == ("right", "triplet"):
            return patch().expand(len(probes), -1, -1).clone()
        if self.layer == "flat":
            return torch.zeros_like(probes[:, 0])
        if self.layer == "absent":
            raise ExplainerContractError("planted: no layer 'absent'. There is: right.")
        ramp = Ramp().explain(model, probes, references, generator=generator)
        return ramp.flip(-1) if self.layer == "right" else ramp


def parameters(**more) -> Parameters:
    given = {
        "layers": ("first", "flat", "none", "absent", "right"), "objectives": ("cos", "triplet"),
        "fractions": (0.06,), "select_by": "occlusion_cosine_drop", **FEW,
    }  # fmt: skip
    return Parameters(**{**given, **more})


@pytest.fixture(scope="module")
def found():
    limits = [
        BetterThan("occlusion_cosine_drop", better_than="control.random_blobs"),
        BetterThan("occlusion_cosine_drop", better_than="control.as_given"),
    ]
    network = TorchFaceModel("a", SMALL, Corner().eval(), "cosine", 0.9, "c" * 64)
    return measured(
        KIND, parameters(), explainer=Planted(), source=People(62), limits=limits, network=network
    )


def test_the_one_right_configuration_is_found_and_passes_on_the_report_half(found):
    result, _ = found
    assert result.selection.selected == {"layer": "right", "objective": "triplet"}
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert result.selection.n_identities == {"selection": 31, "report": 31}
    assert result.selection.report_rank == 1
    assert {limit.under["half"] for limit in result.limits} == {"report"}


def test_the_choice_is_the_same_when_it_is_made_again_from_the_files(found):
    result, rows = found
    plan, facts = (
        form(**{name: getattr(result, name) for name in form.model_fields})
        for form in (CellPlan, CellFacts)
    )
    written = [Row.model_validate_json(row.model_dump_json()) for row in rows]
    read = CellResult.model_validate_json(result.model_dump_json())
    assert results_of(plan, facts, written[::-1]) == result == read


def test_refused_configurations_are_listed_with_their_reasons_and_the_others_go_on(found):
    result, _ = found
    said = {one.under["layer"]: one.refused for one in result.selection.refused}
    assert set(said) == {"none", "absent"}
    assert said["none"].startswith("explainer 'occlusion' refuses layer 'none', objective ")
    assert "no layer 'absent'" in said["absent"]
    assert result.selection.n_tried == 10


def test_equal_maps_are_one_configuration(found):
    """The ramp does not depend on the objective, so its configurations are one."""
    result, rows = found
    same = {one.under["layer"]: one.same for one in result.selection.candidates}
    assert same["first"] == [{"layer": "first", "objective": "triplet"}]
    assert same["flat"] == [{"layer": "flat", "objective": "triplet"}]
    assert result.selection.n_distinct == 4
    keys = {tuple(one.under.items())[:2] for row in rows for one in row.measured}
    assert (("layer", "first"), ("objective", "triplet")) not in keys


def test_a_constant_map_is_unfit_and_beats_nothing(found):
    result, _ = found
    (flat,) = (one for one in result.selection.candidates if one.under["layer"] == "flat")
    assert "are degenerate (constant)" in flat.unfit
    assert result.selection.candidates[-1] == flat
    assert set(result.states) == {RowState.OK}


def test_every_row_is_in_one_half_and_all_rows_of_a_person_in_the_same(found):
    _, rows = found
    by_person: dict[int, set[str]] = {}
    for row in rows:
        own = {str(one.under["half"]) for one in row.measured}
        assert len(own) == 1
        by_person.setdefault(row.identities[0], set()).update(own)
    sizes = [list(by_person.values()).count({half}) for half in ("selection", "report")]
    assert sizes == [31, 31]


def test_the_explainer_as_given_has_the_values_of_its_own_configuration():
    """What a variant is measured to be, the explainer set to it is measured to be."""
    asked = parameters(layers=("conv1", "conv[-1]"), objectives=("triplet", "cos"))
    of = {}
    for explainer in (GradCAMpp(), GradCAMpp(layer="conv1", objective="triplet")):
        _, rows = measured(KIND, asked, explainer=explainer, source=People(3))
        for row in rows:
            for one in row.measured:
                if "layer" in one.under or one.map == "control.as_given":
                    name = one.under.get("layer"), one.under.get("objective"), one.map
                    of[explainer.layer, row.row, name] = one.values
    ids = {row for _, row, _ in of}
    assert len(ids) == 6
    for row in ids:
        as_given = of["conv1", row, (None, None, "control.as_given")]
        assert as_given == of[None, row, ("conv1", "triplet", "explainer")]


@pytest.mark.parametrize(("kind", "n"), [(GradCAM, 1), (LayerCAM, 1), (GradCAMpp, 2)])
def test_a_margin_alone_is_no_configuration_but_for_grad_cam_pp(kind, n):
    asked = parameters(layers=("conv[-1]",), objectives=("cos", "arc_pair(m=0.3)"))
    result, _ = measured(KIND, asked, explainer=kind(), source=People(4))
    assert result.selection.n_distinct == n


@pytest.mark.parametrize("layer", ["conv[-2]", "stage[-2]"])
@pytest.mark.parametrize("kind", [GradCAM, LayerCAM, GradCAMpp])
def test_on_a_bundled_network_a_margin_changes_the_maps_of_grad_cam_pp_alone(kind, layer):
    card = shipped_card("mini_resnet")
    model, pack = load_card(card), FacePack(card.parents[1] / "rendered_faces")
    listing = pack.listing()
    images = pack.images([*listing.probe[:4], *listing.reference[:4]], model.crop).float() / 255
    probes, references = images.split(4)
    maps = [
        kind(layer=layer, objective=objective)
        .explain(model, probes, references, generator=np.random.default_rng(0))
        .positive
        for objective in ("cos", "arc_pair(m=0.3)", "arc_pair(m=0.5)")
    ]
    for other in maps[1:]:
        assert same_maps(maps[0], other) is (kind is not GradCAMpp)


def test_if_every_configuration_is_refused_the_cell_says_why():
    asked = parameters(layers=("none", "absent"))
    with pytest.raises(ExplainerContractError, match=r"all 4 configurations are refused: .*'none'"):
        measured(KIND, asked, explainer=Planted(), source=People(3))


def test_an_explainer_without_a_layer_is_unsupported_and_the_field_is_named():
    with pytest.raises(UnsupportedError, match="explainer 'occlusion' has no field 'layer'"):
        measured(KIND, parameters(), explainer=Occlusion(), source=People(3))


def test_another_explainer_is_compared_at_the_same_configuration():
    asked = parameters(layers=("conv[-1]",), objectives=("cos",))
    limit = BetterThan("occlusion_cosine_drop", better_than="explainer:layercam")
    result, rows = measured(
        KIND, asked, explainer=GradCAM(), source=People(3), limits=[limit],
        compared={"layercam": LayerCAM()},
    )  # fmt: skip
    of = {one.map: one for one in rows[0].measured if "layer" in one.under}
    assert of["explainer:layercam"].under == of["explainer"].under
    assert result.limits[0].estimate is not None
    _, alone = measured(KIND, asked, explainer=LayerCAM(), source=People(3))
    theirs = {one.map: one for one in alone[0].measured if "layer" in one.under}
    assert of["explainer:layercam"].values == theirs["explainer"].values


def test_another_explainer_without_a_layer_is_left_out_and_the_cell_goes_on():
    asked = parameters(layers=("conv[-1]",), objectives=("cos",))
    limit = BetterThan("occlusion_cosine_drop", better_than="explainer:ramp")
    result, _ = measured(
        KIND, asked, explainer=GradCAM(), source=People(3), limits=[limit],
        compared={"ramp": Ramp()},
    )  # fmt: skip
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "explainer:ramp: no values: explainer 'ramp' has no field" in result.verdict.reason
    assert result.selection.selected is not None


@dataclass(frozen=True)
class Drawn:
    """Another random map at every seed."""

    layer: str = "a"
    objective: str = "cos"

    def explain(self, model, probes, references, *, contrast=None, generator):
        drawn = torch.from_numpy(generator.random(tuple(probes.shape[-2:]), dtype=np.float32))
        return (drawn + ord(self.layer)).expand(len(probes), -1, -1).clone()


def test_a_stochastic_explainer_has_values_of_every_configuration_at_every_seed():
    """With one draw for all layers, they give the same maps, and count once."""
    asked = parameters(layers=("a", "b"), objectives=("cos",))
    result, rows = measured(KIND, asked, explainer=Drawn(), source=People(3), seeds=3)
    seeds = {(one.map, one.under.get("layer"), one.seed) for one in rows[0].measured}
    for seed in range(3):
        assert ("explainer", "a", seed) in seeds
        assert ("control.as_given", None, seed) in seeds
    assert result.selection.n_distinct == 1
    assert result.repeatability.depends_on_seed


def test_order_and_batches_change_no_value():
    @dataclass(frozen=True)
    class Reversed(People):
        def listing(self):
            found = super().listing()
            return found.take(range(len(found) - 1, -1, -1))

    asked = parameters(layers=("first", "right"))
    _, rows = measured(KIND, asked, explainer=Planted(), source=People(6))
    _, again = measured(KIND, asked, explainer=Planted(), source=Reversed(6), batch=3)
    by_id = {row.row: row for row in again}
    assert {row.row for row in rows} == {*by_id}
    for row in rows:
        for one, other in zip(row.measured, by_id[row.row].measured, strict=True):
            assert (one.map, one.under) == (other.map, other.under)
            assert one.values == pytest.approx(other.values, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_halves_are_balanced_and_a_person_keeps_its_half_in_any_order(n):
    @dataclass(frozen=True)
    class Listed:
        id: tuple[str, ...]
        identities: torch.Tensor

    ids = tuple(f"row{person}-{turn}" for person in range(n) for turn in range(3))
    people = torch.arange(n).repeat_interleave(3)[:, None]

    def seeds(purpose, row, label):
        return seed_of(5, purpose, row, label)

    before = dict(zip(ids, halves(Listed(ids, people), seeds), strict=True))
    order = np.random.default_rng(n).permutation(len(ids))
    other = Listed(tuple(ids[one] for one in order), (n - people)[torch.from_numpy(order)])
    assert dict(zip(other.id, halves(other, seeds), strict=True)) == before
    of_people = [{before[f"row{person}-{turn}"] for turn in range(3)} for person in range(n)]
    assert all(len(one) == 1 for one in of_people)
    reports = sum(one == {"report"} for one in of_people)
    assert reports == (n + 1) // 2


def test_a_variant_is_made_once_and_leaves_the_explainer_as_it_is():
    own, variants = OtherExplainer("gradcam", GradCAM()), Variants()
    settings = {"layer": "conv1", "objective": "triplet"}
    made = variants.of(own, settings)
    assert made.explainer == GradCAM(layer="conv1", objective="triplet")
    assert own.explainer == GradCAM()
    assert variants.of(own, settings) is made


@pytest.mark.slow
def test_a_variant_of_an_explainer_in_a_process_of_its_own_gets_its_settings_there():
    given = IsolatedExplainer("fxeval.explainers.grad_cam:GradCAM", {"reading": None})
    made = variant_of("mine", given, {"layer": "conv1", "objective": "triplet"})
    try:
        assert made.settings == {"reading": None, "layer": "conv1", "objective": "triplet"}
        assert "contrast" in traits_of(made).needs
    finally:
        made.close()
    with pytest.raises(ExplainerContractError, match="layer must be a name"):
        variant_of("mine", given, {"layer": "conv[x]"})


def test_maps_are_never_named_by_the_address_of_an_explainer_that_is_gone():
    keys = set()
    for _ in range(50):  # without a reference, addresses would be used again
        keys.add(_Same(replace(GradCAM(), layer="conv1")))
    assert len(keys) == 50
    one = GradCAM()
    assert _Same(one) == _Same(one)
    assert _Same(one) != _Same(GradCAM())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objectives": ("cosine",)}, "objective must be one of"),
        ({"objectives": ("arc_pair(m=9)",)}, "0 <= m < pi"),
        ({"layers": ("conv[x]",)}, "layer must be a name such as"),
        ({"layers": ("a", "a")}, "expected every entry at most once"),
        ({"layers": ()}, "at least 1 item"),
    ],
)
def test_what_names_no_configuration_is_refused_before_anything_runs(given, said):
    with pytest.raises(ValueError, match=said):
        parameters(**given)


def test_the_shipped_defaults_are_objectives_and_layers():
    assert Parameters().objectives == ("cos", "arc_softmax(s=64, m=0.3)", "triplet")
    assert search.SELECTS.of(Parameters()).by == ["occlusion_tmr", "occlusion_cosine_drop"]
    chosen_by = Parameters(select_by="occlusion_cosine_drop")
    assert search.SELECTS.of(chosen_by).by == ["occlusion_cosine_drop", "occlusion_tmr"]


@pytest.mark.slow
def test_in_a_process_of_its_own_an_explainer_is_searched_as_in_the_run():
    asked = parameters(layers=("conv[-1]", "gone"), objectives=("cos",), controls=())
    given = IsolatedExplainer("fxeval.explainers.grad_cam:GradCAM")
    result, rows = measured(KIND, asked, explainer=given, source=People(2))
    _, expected = measured(KIND, asked, explainer=GradCAM(), source=People(2))
    assert [row.measured for row in rows] == [row.measured for row in expected]
    (refused,) = result.selection.refused
    assert refused.under["layer"] == "gone"
