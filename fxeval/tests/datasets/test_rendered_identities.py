"""Changed and mixed identities, and the sets of faces that networks are trained on."""

from dataclasses import fields
from functools import partial

import numpy as np
import pytest

from fxeval.fixtures.synthetic.head import pose
from fxeval.fixtures.synthetic.identity import (
    PARTS,
    REGIONS,
    mixed,
    redrawn,
    sample_identity,
    target_weights,
)
from fxeval.fixtures.synthetic.jpeg import decoded, encoded
from fxeval.fixtures.synthetic.kit import load_kit
from fxeval.fixtures.synthetic.nuisance import sample_nuisance
from fxeval.fixtures.synthetic.render import render
from fxeval.fixtures.synthetic.training_set import (
    CALIBRATION,
    CALIBRATION_KINDS,
    FAMILIES,
    FAMILY_SIZE,
    N_DONORS,
    PACK,
    TRAINING,
    TRAINING_KINDS,
    make_sets,
    person_of,
    portraits,
    spread,
)

OF_PART = {
    "nose": {"nose"},
    "mouth": {"mouth", "lip_color"},
    "eyes": {"eyes", "iris", "iris_shift"},
    "brows": {"brows"},
    "jaw": {"cheek", "chin"},
}


def traits(identity):
    """Return everything that makes a person, by name and as exact text, without the label."""
    own = {field.name: getattr(identity, field.name) for field in fields(identity)}
    del own["seed"]
    own |= dict(own.pop("sliders"))
    with np.printoptions(floatmode="unique"):
        return {name: repr(value) for name, value in own.items()}


def differing(one, other):
    one, other = traits(one), traits(other)
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize("part", PARTS)
def test_a_redrawn_part_is_the_only_trait_that_changes(part):
    for seed in range(8):
        one = sample_identity(seed)
        assert differing(one, redrawn(one, part, 3)) == OF_PART[part]


@pytest.mark.parametrize("part", PARTS)
def test_a_redrawn_part_follows_its_seed_and_the_person(part):
    one, other = sample_identity(1), sample_identity(2)
    again = redrawn(sample_identity(1), part, 3)
    assert not differing(redrawn(one, part, 3), again)
    assert differing(again, redrawn(one, part, 4)) <= OF_PART[part]
    assert differing(again, redrawn(one, part, 4))
    a, b = traits(again), traits(redrawn(other, part, 3))
    assert any(a[name] != b[name] for name in OF_PART[part])


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        redrawn(sample_identity(1), "ears", 0)


def shift(one, other, part):
    """Return the distance of a part's sliders, in standard deviations."""
    regions = OF_PART[part] & set(REGIONS)
    return np.sqrt(
        sum((((one.sliders[r] - other.sliders[r]) / REGIONS[r]) ** 2).sum() for r in regions)
    )


@pytest.mark.parametrize("part", ["nose", "mouth", "jaw"])
def test_a_redrawn_part_is_farther_than_that_of_nearly_every_other_person(part):
    one = sample_identity(0)
    others = [shift(one, sample_identity(seed), part) for seed in range(1, 200)]
    redrawings = [shift(one, redrawn(one, part, seed), part) for seed in range(10)]
    assert np.median(redrawings) > np.quantile(others, 0.9)


@pytest.mark.parametrize("part", PARTS)
def test_a_redrawn_part_does_not_shift_the_eyes_or_the_rest_of_the_head(part):
    kit, nuisance = load_kit(), sample_nuisance(5, 0)
    one = sample_identity(5)
    before, after = pose(one, nuisance), pose(redrawn(one, part, 1), nuisance)
    shifts = after.vertices - before.vertices  # in decimetres
    moved = np.linalg.norm(shifts, axis=1)
    for eye in (kit.left_eye, kit.right_eye):
        assert np.linalg.norm(shifts[eye].mean(0)) < (0.004 if part == "eyes" else 1e-5)
    assert moved[kit.vertices[:, 2] < 0].max() < 0.002  # the back of the head
    is_moved = part != "brows"  # which are paint
    assert (moved.max() > 0.03) == is_moved


def test_a_mixed_person_has_each_part_of_a_donor_and_the_rest_of_the_first():
    donors = [sample_identity(seed) for seed in (1, 2, 3)]
    for seed in range(30):
        person = mixed(seed, donors)
        assert person.seed == seed
        for names in OF_PART.values():
            givers = [d for d in donors if not differing(person, d) & names]
            assert len(givers) == 1
        assert all(differing(person, donor) for donor in donors)
        assert differing(person, donors[0]) <= set.union(*OF_PART.values())


def test_as_many_consecutive_seeds_as_there_are_mixtures_give_different_persons():
    donors = [sample_identity(seed) for seed in (1, 2)]
    persons = [mixed(seed, donors) for seed in range(7, 7 + 2**5 - 2)]
    weights = [target_weights(p, age=0, weight=0.5, expression={}).tobytes() for p in persons]
    traits_of_brows = [person.brows for person in persons]
    assert len({*zip(weights, traits_of_brows, strict=True)}) == 2**5 - 2


def test_identities_to_train_calibrate_and_evaluate_on_are_disjoint():
    sets = [set(TRAINING), set(CALIBRATION), set(PACK)]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 800 + 120 + 100
    assert set(FAMILIES) < set(TRAINING)
    assert len(FAMILIES) == 50 * FAMILY_SIZE


def test_a_family_shares_build_skin_and_head_and_its_members_differ():
    start = FAMILIES.start + FAMILY_SIZE
    family = [person_of(seed) for seed in range(start, start + FAMILY_SIZE)]
    parts = set.union(*OF_PART.values())
    for number, one in enumerate(family):
        assert one.seed == start + number
        for other in family[:number]:
            assert differing(one, other)
            assert differing(one, other) <= parts
    for names in OF_PART.values():  # every part comes from at most three donors
        kept = [{name: traits(member)[name] for name in names} for member in family]
        assert 2 <= len({repr(part) for part in kept}) <= N_DONORS
    stranger = person_of(start - 1)  # of the family before
    assert {"skin", "build", "head", "ears"} <= differing(family[0], stranger)


def test_identities_outside_the_families_are_drawn_alone():
    for seed in (FAMILIES.start - 1, CALIBRATION[0], PACK[0]):
        assert not differing(person_of(seed), sample_identity(seed))


def test_training_shows_every_kind_of_nuisance_and_calibration_those_of_the_protocols():
    assert len(TRAINING_KINDS) == 10
    assert set(TRAINING_KINDS) == {"wild", "mild", "aged", "posed"}
    assert sorted(CALIBRATION_KINDS) == ["aged", "mild", "mild", "posed"]


def test_portraits_have_passed_through_jpeg():
    (portrait,) = portraits(7, ("aged",))
    drawn = render(sample_identity(7), sample_nuisance(7, 0, "aged")).image
    assert np.array_equal(portrait, decoded(encoded(drawn)))
    assert not np.array_equal(portrait, drawn)
    assert np.abs(portrait.astype(int) - drawn).mean() < 5
    assert portrait.shape == (112, 112, 3)


def test_workers_and_portions_change_nothing(tmp_path):
    seeds = [FAMILIES.start + 1, 1_003, 1_001]
    kinds = TRAINING_KINDS[-1:]
    here = [portraits(seed, kinds) for seed in seeds]
    for workers, at_once in ((1, 1), (2, 2)):
        got = list(spread(partial(portraits, kinds=kinds), seeds, workers, at_once))
        assert np.array_equal(got, here), (workers, at_once)


def test_both_sets_are_written_to_one_file(tmp_path):
    make_sets(tmp_path / "faces.npz", range(1_000, 1_001), range(70_000, 70_002), workers=1)
    with np.load(tmp_path / "faces.npz") as sets:
        assert sorted(sets.files) == ["calibration", "training"]
        assert sets["training"].shape == (1, 10, 112, 112, 3)
        assert sets["calibration"].shape == (2, 4, 112, 112, 3)
        assert np.array_equal(sets["calibration"][1], portraits(70_001, CALIBRATION_KINDS))
