"""What cells share, and what is refused before anything is measured."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fxeval.contracts import CardFacts, ExplainerTraits, ModelTraits, PairListing
from fxeval.datasets.lists.contradictions import ContradictoryListError
from fxeval.engine.selection import chosen_rows, load_pairs
from fxeval.errors import (
    DataContractError,
    ExplainerContractError,
    ModelContractError,
    UnsupportedError,
)
from fxeval.explainers.grad_cam import GradCAM
from fxeval.metrics import CATALOGUE
from fxeval.metrics.protocol import Redraw
from fxeval.models.loading import TorchFaceModel
from fxeval.redaction import PublicReason
from fxeval.run.descriptions import settings_of
from fxeval.run.workshop import Subjects, Workshop
from fxeval.suite.cells import Cell, Use
from fxeval.tests.subjects import CROP, ConvNet, CountingModel
from fxeval.tests.toy_world import LARGE, SMALL, Occlusion, People, cell_of

KIND = "sanity.model_randomisation"
CELL = Cell(
    "c", "s", "check", KIND, "", Use("tiny"), Use("mean"), Use("memory"), None,
    CATALOGUE[KIND].Parameters(), (), 1, 0.95, "fail", "fail", "cpu", "s.yaml:1:1",
)  # fmt: skip


@dataclass(frozen=True)
class Memory:
    n: int = 8
    name: str = "memory"
    banner: str | None = None

    def listing(self):
        ids = tuple(str(row) for row in range(self.n))
        return PairListing(
            tuple(f"{row}a" for row in ids), tuple(f"{row}b" for row in ids), (True,) * self.n,
            ids, ids,
        )  # fmt: skip

    def images(self, image_ids, crop):
        seeds = [[int(image_id[:-1]), ord(image_id[-1])] for image_id in image_ids]
        draws = [np.random.default_rng(seed).integers(0, 256, (3, *crop.size)) for seed in seeds]
        return torch.from_numpy(np.stack(draws).astype(np.uint8))


@dataclass(frozen=True)
class Mean:
    power: float = 1.0

    def explain(self, model, probes, references, *, contrast=None, generator):
        with torch.enable_grad():
            images = probes.clone().requires_grad_()
            similarity = (model.module(images) * model.embed(references)).sum()
            (gradient,) = torch.autograd.grad(similarity, images)
        return gradient.abs().mean(1) ** self.power


def tiny(seed=0):
    return TorchFaceModel("tiny", CROP, ConvNet(seed), "cosine", 0.5, f"{seed:064d}")


@pytest.fixture
def workshop():
    return Workshop(batch_size=16, emit=lambda *a: None, progress=lambda *a: None)


def ready(workshop, cell, subjects):
    """The evidence of a cell's protocol, for all rows at once."""
    prepared = workshop.prepare(cell, subjects)
    evidence = prepared.evidence

    def explain(side, subject=evidence.subject):
        engine = prepared.engine  # is_judged: the maps alone, none of them again
        rows = evidence.on(side).everyone
        return engine.made(rows, subject, engine.own, 0, is_judged=False)

    return SimpleNamespace(
        explain=explain, clean=evidence.subject.clean, redraw=evidence.subject.redraw,
        explaining=prepared.explaining, has_weights=evidence.subject.has_weights,
    )  # fmt: skip


def listing(rows):
    """Rows of (probe, reference, probe identity, reference identity)."""
    probe, reference, one, two = zip(*rows, strict=True)
    mated = tuple(a == b for a, b in zip(one, two, strict=True))
    return PairListing(probe, reference, mated, one, two)


MANY = listing(
    [(f"{who}{n}", f"{who}{n}x", who, who) for who in "abcd" for n in range(5)]
    + [("a0", "b0", "a", "b")]
)


def test_different_identities_come_before_any_comes_again():
    for n in (4, 8, 20):
        rows = chosen_rows(MANY, n, 1, "many")
        met = [MANY.probe_identity[row] for row in rows]
        assert len(set(rows)) == n
        for turn in range(0, n, 4):
            assert set(met[turn : turn + 4]) == set("abcd")


def test_a_choice_depends_on_the_seed_and_not_on_the_order_of_the_list():
    def names(of, seed):
        return {of.probe[row] for row in chosen_rows(of, 8, seed, "many")}

    turned = MANY.take(list(range(len(MANY)))[::-1])
    assert names(MANY, 1) == names(turned, 1)
    assert any(names(MANY, 1) != names(MANY, seed) for seed in (2, 3, 4))


def test_nonmated_pairs_are_never_chosen_and_too_few_are_refused():
    assert len(chosen_rows(MANY, None, 1, "many")) == 20
    with pytest.raises(
        DataContractError, match="expected at least 21 mated pairs, the list holds 20"
    ):
        chosen_rows(MANY, 21, 1, "many")
    with pytest.raises(DataContractError, match="holds 0"):
        chosen_rows(MANY.take([20]), None, 1, "many")


def test_an_image_of_several_pairs_is_loaded_once():
    rows = [("p", f"r{n}", "a", "a") for n in range(3)]

    class Source(Memory):
        def images(self, image_ids, crop):
            assert image_ids == ["p", "r0", "r1", "r2"]
            return torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16)

    pairs = load_pairs(Source(), listing(rows), CROP)
    assert pairs.probe.tolist() == [0, 0, 0]
    assert pairs.reference.tolist() == [1, 2, 3]
    assert len(set(pairs.image_digests)) == 4


@pytest.mark.parametrize(
    "images",
    [torch.zeros(16, 3, 16, 16), torch.zeros(16, 3, 8, 8, dtype=torch.uint8),
     torch.zeros(3, 3, 16, 16, dtype=torch.uint8)],
)  # fmt: skip
def test_a_source_that_breaks_the_contract_is_named(images):
    class Source(Memory):
        def images(self, image_ids, crop):
            return images

    with pytest.raises(DataContractError, match="pairs 'memory': images must be uint8"):
        load_pairs(Source(), Memory().listing(), CROP)


def test_maps_and_pairs_are_made_once_for_equal_explainers(workshop):
    model, asked = tiny(), []

    @dataclass(frozen=True)
    class Watched(Mean):
        def explain(self, *args, **kwargs):
            asked.append(self.power)
            return super().explain(*args, **kwargs)

    for power in (1.0, 1.0, 2.0):
        cell = replace(CELL, explainer=Use("mean", {"power": power}))
        ready(workshop, cell, Subjects(model, Watched(power), Memory())).explain("probe")
    assert asked == [1.0, 2.0]


@dataclass(frozen=True)
class Named(Memory):
    """Names a nonmate of each pair: the reference of the pair that is so many places further."""

    turn: int = 1

    def listing(self):
        found = super().listing()
        others = [(row + self.turn) % self.n for row in range(self.n)]
        return replace(
            found,
            contrast=tuple(found.reference[row] for row in others),
            contrast_identity=tuple(found.reference_identity[row] for row in others),
        )


def test_maps_against_other_nonmates_are_other_maps(workshop):
    """Two lists of the same pairs that name other nonmates, on the same images."""
    model, told = tiny(), []

    @dataclass(frozen=True)
    class Against(Mean):
        traits = ExplainerTraits(needs={"contrast"})

        def explain(self, model, probes, references, *, contrast, generator):
            told.append(contrast.numpy().tobytes())
            return contrast.mean(1)

    for turn in (1, 3, 1):
        cell = replace(CELL, pairs=Use("memory", {"turn": turn}))
        ready(workshop, cell, Subjects(model, Against(), Named(turn=turn))).explain("probe")
    assert len(told) == 2
    assert told[0] != told[1]


@pytest.mark.parametrize(
    "change",
    [
        {"explainer": Use("other")},
        {"explainer": Use("mean", {"power": 2.0})},
        {"file": "another.yaml"},
        {"seed": 2},
        {"model": Use("other")},
    ],
)
def test_another_fixture_parameter_suite_file_or_seed_is_asked_anew(workshop, change):
    model, asked = tiny(), []

    class Plain:
        def explain(self, model, probes, references, *, contrast=None, generator):
            asked.append(1)
            return probes.mean(1)

    for cell in (CELL, replace(CELL, id="same"), replace(CELL, **change)):
        ready(workshop, cell, Subjects(model, Plain(), Memory())).explain("probe")
    assert len(asked) == 2


def test_equal_weights_fed_otherwise_are_another_model(workshop):
    class Turned(ConvNet):
        def forward(self, images):
            return super().forward(images.flip(1))

    one, two = tiny(), TorchFaceModel("bgr", CROP, Turned(), "cosine", 0.5, tiny().digest)
    first = ready(workshop, CELL, Subjects(one, Mean(), Memory()))
    second = ready(workshop, replace(CELL, model=Use("bgr")), Subjects(two, Mean(), Memory()))
    assert not torch.allclose(first.clean(), second.clean())
    assert not torch.allclose(first.explain("probe").positive, second.explain("probe").positive)


def test_a_network_in_training_mode_is_refused(workshop):
    class Training(CountingModel):
        def embed(self, images):
            with torch.inference_mode():
                return self.module.train()(images)

    with pytest.raises(ModelContractError, match="evaluation mode"):
        ready(workshop, CELL, Subjects(Training(ConvNet()), Mean(), Memory()))


def test_a_source_that_uses_its_buffer_again_spoils_nothing():
    buffer = torch.arange(16, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 16, 16)

    class Source(Memory):
        def images(self, image_ids, crop):
            return buffer

    pairs = load_pairs(Source(), Memory().listing(), CROP)
    buffer.fill_(77)
    assert int(pairs.images.max()) == 15


def test_what_maps_cost_is_counted_once_and_the_hook_is_gone(workshop):
    model, before = tiny(), workshop.forwards
    first = ready(workshop, CELL, Subjects(model, Mean(), Memory()))
    first.explain("probe")
    first.explain("probe")
    later = ready(workshop, CELL, Subjects(model, Mean(), Memory()))
    later.explain("probe")
    [made], [shared] = first.explaining, later.explaining
    assert (made.network, made.side, made.n_maps) == ("trained", "probe", 8)
    assert (made.forwards, made.backwards, made.was_shared) == (16, 8, False)
    assert shared == made.model_copy(update={"was_shared": True})
    assert workshop.forwards - before == 16  # probes and references
    assert not model.module._forward_hooks


def test_the_layers_that_maps_were_made_at_are_told_with_their_readings(workshop):
    cell = replace(CELL, explainer=Use("gradcam"))
    evidence = ready(workshop, cell, Subjects(tiny(), GradCAM(), Memory()))
    evidence.explain("probe")
    [made] = evidence.explaining
    [layer] = made.layers
    assert layer.reading == "channels_first"
    assert (layer.name, layer.shape, layer.grid) == ("conv2", [8, 8, 8], [8, 8])
    other = ready(workshop, CELL, Subjects(tiny(), Mean(), Memory()))
    other.explain("probe")
    assert [one.layers for one in other.explaining] == [[]]


def test_pooled_and_unpooled_passes_are_counted_and_batched_gradients_each(workshop):
    class Jacobian(Mean):
        def explain(self, model, probes, references, *, contrast=None, generator):
            model.embed(references)  # through the pool
            images = probes.clone().requires_grad_()
            embeddings = model.module(images)
            with torch.no_grad():
                model.module(images)
            rows = torch.eye(8)[:, None].expand(8, len(probes), 8)
            torch.autograd.grad(embeddings, images, rows, is_grads_batched=True)
            return probes.mean(1)

    evidence = ready(workshop, CELL, Subjects(tiny(), Jacobian(), Memory()))
    evidence.explain("probe")
    [cost] = evidence.explaining
    assert (cost.forwards, cost.backwards) == (3 * 8, 8 * 8)


@pytest.mark.parametrize("reason", ["it has a sigmoid", None])
def test_an_explainer_may_say_that_it_does_not_support_a_model(workshop, reason):
    class Picky(Mean):
        def unsupported(self, model):
            return reason

    subjects = Subjects(tiny(), Picky(), Memory())
    if reason is None:
        assert ready(workshop, CELL, subjects).explain("probe")
        return
    with pytest.raises(UnsupportedError, match="mean cannot explain tiny: it has a"):
        ready(workshop, CELL, subjects)


@pytest.mark.parametrize("answer", ["", False, True, 3])
def test_an_odd_answer_is_no_reason(workshop, answer):
    class Odd(Mean):
        def unsupported(self, model):
            return answer

    with pytest.raises(ExplainerContractError, match="expected the reason as text, or None"):
        ready(workshop, CELL, Subjects(tiny(), Odd(), Memory()))


def test_a_model_that_is_changed_while_an_explainer_is_asked_comes_back(workshop):
    class Vandal(Mean):
        def unsupported(self, model):
            with torch.no_grad():
                model.module.fc.weight.mul_(2)

    model = tiny()
    before = model.module.fc.weight.clone()
    with pytest.raises(ExplainerContractError, match=r"changed the model: its weights"):
        ready(workshop, CELL, Subjects(model, Vandal(), Memory()))
    assert torch.equal(model.module.fc.weight, before)


def test_given_maps_are_not_asked_to_follow_a_redrawn_network(workshop):
    class Given(Mean):
        traits = ExplainerTraits(maps_are_given=True)

    evidence = ready(workshop, CELL, Subjects(tiny(), Given(), Memory()))
    assert evidence.explain("probe")
    with pytest.raises(UnsupportedError, match="do not change with a re-drawn one"):
        evidence.redraw(Redraw(0))


@pytest.mark.parametrize(
    ("explainer", "message"),
    [
        (Mean, r"got the class Mean. Return Mean\(\)"),
        (None, "got NoneType"),
        (lambda m, p, r: p, "from_function"),
        ({"needs": "gradients"}, r"'mean': 'needs' is not read as a trait: set traits = Expl"),
        (
            {"need": {"contrast"}},
            r"'need' is not read as a trait.* ExplainerTraits\(needs=\{\.\.\.\}\)",
        ),
        ({"traits": {"contrast"}}, r"'mean': traits: expected ExplainerTraits.* got set"),
    ],
)
def test_what_is_no_explainer_is_refused_before_it_is_asked(workshop, explainer, message):
    if isinstance(explainer, dict):
        [(name, value)], explainer = explainer.items(), Mean()
        object.__setattr__(explainer, name, value)
    with pytest.raises(ExplainerContractError, match=message):
        ready(workshop, CELL, Subjects(tiny(), explainer, Memory()))


def test_the_record_tells_two_settings_of_one_class_apart(workshop):
    for power in (1.0, 2.0):
        ready(workshop, CELL, Subjects(tiny(), Mean(power), Memory()))
        assert workshop.subjects["explainers"]["mean"]["params"] == {"power": power}


def test_an_explainer_that_cannot_be_asked_is_at_fault(workshop):
    class Rude(Mean):
        def unsupported(self, model):
            raise KeyError("no")

    with pytest.raises(ExplainerContractError, match=r"Rude.*raised KeyError"):
        ready(workshop, CELL, Subjects(tiny(), Rude(), Memory()))


def test_a_redrawn_network_is_another_network_and_the_model_stays(workshop):
    model = tiny()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    evidence = ready(workshop, CELL, Subjects(model, Mean(), Memory()))
    one, again, two = (
        evidence.redraw(Redraw(0)),
        evidence.redraw(Redraw(0)),
        evidence.redraw(Redraw(1)),
    )
    maps = [evidence.explain("probe", copy.subject).positive for copy in (one, again, two)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    assert one.network.redrawn_share > 0.9
    assert one.network.spread > 1e-3
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, before[name])


class Api(CountingModel):
    """A model behind an interface: no module to look into."""

    def __init__(self):
        super().__init__(None, name="api")
        self._inner = ConvNet().eval()

    def embed(self, images):
        with torch.inference_mode():
            return self._inner(images)


def test_a_black_box_is_refused_gradients_and_nudges_and_gets_a_foreign_network(workshop):
    @dataclass(frozen=True)
    class NeedsGradients(Mean):
        traits = ExplainerTraits(needs={"gradients"})

    other = replace(CELL, explainer=Use("other"))
    with pytest.raises(UnsupportedError, match="needs gradients, and the model is a black box"):
        ready(workshop, other, Subjects(Api(), NeedsGradients(), Memory()))
    evidence = ready(workshop, CELL, Subjects(Api(), Mean(), Memory()))
    assert not evidence.has_weights
    for wanted in (Redraw(nudge=0.001), Redraw(0, ("fc",), "fc")):
        with pytest.raises(UnsupportedError, match="is a black box"):
            evidence.redraw(wanted)
    redrawn = evidence.redraw(Redraw(0))
    assert redrawn.network.name == "foreign random network 1"
    assert (redrawn.network.made, redrawn.network.redrawn_share) == ("foreign", 1.0)
    assert redrawn.network.spread > 1e-4
    assert redrawn.subject.clean().shape == evidence.clean().shape
    assert redrawn.subject.has_weights


class Wrong(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: torch.ones(len(x), 4), "two different images"),
        (lambda x: x.flatten(1)[:, :4] * 0, "expected embeddings with length > 0"),
        (lambda x: x.flatten(1) * torch.nan, "NaN"),
        (lambda x: x, r"\(2, D\)"),
    ],
)
def test_a_model_that_tells_no_faces_apart_is_refused(workshop, answer, message):
    model = TorchFaceModel("bad", CROP, Wrong(answer), "cosine", 0.5, "f" * 64)
    with pytest.raises(ModelContractError, match=message):
        ready(workshop, CELL, Subjects(model, Mean(), Memory()))


def test_embed_and_module_must_agree(workshop):
    class Two(CountingModel):
        def embed(self, images):
            return super().embed(images * 255)

    model = Two(ConvNet().eval())
    with pytest.raises(ModelContractError, match="differ, so that gradient explainers"):
        ready(workshop, CELL, Subjects(model, Mean(), Memory()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(workshop):
    with pytest.raises(ModelContractError, match="there is no CUDA device"):
        ready(workshop, replace(CELL, device="cuda"), Subjects(tiny(), Mean(), Memory()))


def test_rows_that_the_list_sets_aside_are_never_chosen():
    aside = replace(MANY, set_aside=("wrongly labelled",) + ("",) * (len(MANY) - 1))
    chosen = chosen_rows(aside, None, 1, "many")
    assert 0 in chosen_rows(MANY, None, 1, "many")
    assert 0 not in chosen
    assert len(chosen) == 19


def test_nonmates_that_the_list_names_are_loaded_with_their_identities():
    class Triplets:
        name, banner = "triplets", None

        def images(self, image_ids, crop):
            return torch.stack(
                [torch.full((3, *crop.size), int(i), dtype=torch.uint8) for i in image_ids]
            )

    listing = PairListing(
        probe=("1",), reference=("2",), is_mated=(True,), probe_identity=("a",),
        reference_identity=("a",), contrast=("3",), contrast_identity=("b",),
    )  # fmt: skip
    pairs = load_pairs(Triplets(), listing, CROP)
    assert int(pairs.images[pairs.contrast[0], 0, 0, 0]) == 3
    assert pairs.contrast_identity.tolist() != pairs.probe_identity.tolist()


def test_a_network_whose_layers_are_out_of_reach_gets_a_foreign_one(workshop):
    scripted = replace(tiny(), traits=ModelTraits(has_layers=False))
    evidence = ready(workshop, CELL, Subjects(scripted, Mean(), Memory()))
    with pytest.raises(UnsupportedError, match="layers can't be reached"):
        evidence.redraw(Redraw(nudge=0.001))
    assert evidence.redraw(Redraw(0)).network.made == "foreign"


def test_a_file_is_recorded_by_its_name_and_not_by_where_it_lies():
    @dataclass(frozen=True)
    class Filed(Mean):
        file: Path = Path("/somewhere/private/maps.npz")

    assert settings_of(Filed())["file"] == "maps.npz"


def test_equal_weights_under_another_card_are_another_model(workshop):
    class Carded:
        def __init__(self, module, digest):
            self.module, self.traits = module, ModelTraits(card=CardFacts(digest=digest))
            self.__dict__.update({k: getattr(tiny(), k) for k in NAMES})

        def embed(self, images):
            with torch.inference_mode():
                return self.module.eval()(images)

    NAMES = ("name", "crop", "similarity", "operating_threshold", "digest")
    one, two = Carded(ConvNet(0), "a" * 64), Carded(ConvNet(1), "b" * 64)
    first = ready(workshop, CELL, Subjects(one, Mean(), Memory()))
    second = ready(workshop, CELL, Subjects(two, Mean(), Memory()))
    assert not torch.allclose(first.clean(), second.clean())


@dataclass(frozen=True)
class Triplets(Memory):
    next: int = 1

    def listing(self):
        nonmates = [str((row + self.next) % self.n) for row in range(self.n)]
        contrast = tuple(f"{row}a" for row in nonmates)
        return replace(super().listing(), contrast=contrast, contrast_identity=tuple(nonmates))


def test_lists_that_differ_in_their_nonmates_alone_have_different_digests(workshop):
    found = set()
    for source in (Memory(), Triplets(), Triplets(next=2), Triplets(next=2)):
        params = {"next": getattr(source, "next", None)}
        cell = replace(CELL, pairs=replace(CELL.pairs, params=params))
        ready(workshop, cell, Subjects(tiny(), Mean(), source))
        found.add(workshop.subjects["pairs"]["memory"]["digest"])
    assert len(found) == 3


class TwoSided(Memory):
    """As many nonmated pairs as mated ones."""

    def listing(self):
        ids, mates = super().listing().probe, super().listing().reference
        who = tuple(image[:-1] for image in ids)
        return PairListing(
            ids + ids, mates + mates[1:] + mates[:1], (True,) * self.n + (False,) * self.n,
            who + who, who + who[1:] + who[:1],
        )  # fmt: skip


def test_a_model_that_fails_on_an_image_of_the_list_is_not_measured_again_for_every_cell(workshop):
    class Failing(CountingModel):
        def embed(self, images):
            found = super().embed(images)
            return torch.full_like(found, torch.nan) if len(self.batches) > 5 else found

    model = Failing(ConvNet().eval())
    counts = []
    for explainer in ("mean", "other"):
        cell = replace(CELL, explainer=Use(explainer))
        with pytest.raises(ModelContractError, match="NaN"):
            ready(workshop, cell, Subjects(model, Mean(), TwoSided(n=40)))
        counts.append(len(model.batches))
    assert counts[0] == counts[1] > 5


def test_pairs_that_are_set_aside_are_counted_with_their_reasons(workshop):
    class Aside(Memory):
        def listing(self):
            found = super().listing()
            return replace(
                found, set_aside=(PublicReason("wrongly labelled"),) + ("",) * (len(found) - 1)
            )

    ready(workshop, CELL, Subjects(tiny(), Mean(), Aside()))
    assert workshop.subjects["pairs"]["memory"]["set_aside"] == {"wrongly labelled": 1}


@dataclass(frozen=True)
class Twins(Memory):
    """The second person's nonmated picture is the first one's, under another name."""

    n: int = 32

    def listing(self):
        mated, ids = super().listing(), tuple(str(row) for row in range(self.n))
        return PairListing(
            (*mated.probe, *mated.probe), (*mated.reference, *(f"{row}c" for row in ids)),
            (True,) * self.n + (False,) * self.n, (*ids, *ids), (*ids, *ids[1:], ids[0]),
        )  # fmt: skip

    def images(self, image_ids, crop):
        return super().images([one.replace("c", "a") for one in image_ids], crop)


def test_a_list_that_contradicts_its_pictures_is_refused_for_every_cell_and_read_once(workshop):
    subjects = Subjects(tiny(), Mean(), Twins())
    for _ in range(2):
        with pytest.raises(ContradictoryListError, match="64 of 64 entries are contradictory"):
            workshop.prepare(CELL, subjects)
        forwards = workshop.pool.forwards
    assert forwards == workshop.pool.forwards == 96


def test_a_list_is_read_once_for_all_kinds_of_rows_and_crops(workshop):
    read = []

    class Counted(People):
        def listing(self):
            read.append(1)
            return super().listing()

    source = Counted()
    models = [
        TorchFaceModel(name, crop, ConvNet(1, side=crop.size[0]), "cosine", 0.9, name * 64)
        for name, crop in (("a", SMALL), ("b", LARGE))
    ]
    for kind in ("faithfulness.deletion_insertion", "generalisability.occlusion"):
        for model in models:
            cell = replace(cell_of(kind, CATALOGUE[kind].Parameters()), model=Use(model.name))
            workshop.prepare(cell, Subjects(model, Occlusion(), source))
    assert len(read) == 1 + len(models)  # once for the rows, once for how well each verifies
