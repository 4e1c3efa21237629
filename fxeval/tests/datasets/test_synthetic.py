"""Rendered faces: kit, identities, nuisances, renderer, training."""

import gzip
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxeval.datasets.faces.alignment import ARCFACE_112
from fxeval.datasets.faces.part_labels import Part
from fxeval.fixtures.synthetic import bake
from fxeval.fixtures.synthetic import kit as kit_module
from fxeval.fixtures.synthetic.identity import (
    HEAD_SHAPES,
    REGIONS,
    sample_identity,
    sliders_of,
    target_weights,
)
from fxeval.fixtures.synthetic.kit import Group, Surface, load_kit, vertex_normals
from fxeval.fixtures.synthetic.make_pack import FOLDER
from fxeval.fixtures.synthetic.nuisance import EXPRESSIONS, sample_nuisance
from fxeval.fixtures.synthetic.raster import rasterise
from fxeval.fixtures.synthetic.render import render
from fxeval.fixtures.synthetic.texture import noise, sample
from fxeval.tests.rounding import assert_rounded

KIT_DIGEST = "407811a81d581f04a3a99660b836e128c2ad4a675ab6502de46d19b5735e92d3"
FOLDER_OF_KIT = Path(kit_module.__file__).parent


def test_the_kit_is_the_one_its_provenance_describes():
    digest = hashlib.sha256((FOLDER_OF_KIT / "kit.npz").read_bytes()).hexdigest()
    assert digest == KIT_DIGEST
    assert digest in (FOLDER_OF_KIT / "PROVENANCE.md").read_text()
    assert "Creative Commons CC0 1.0" in (FOLDER_OF_KIT / "LICENSE-CC0.txt").read_text()
    assert (FOLDER_OF_KIT / "kit.npz").stat().st_size <= 1_000_000


@pytest.fixture
def small_source(tmp_path):
    """Squares of the body at the height of the head and at the feet, with targets for both."""
    (tmp_path / "3dobjs").mkdir()
    corners = [(0, 6), (1, 6), (1, 7), (0, 7), (0, 0), (1, 0), (1, 1), (0, 1)]
    lines = [f"v {x} {y} 0" for x, y in corners] + ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    lines += [
        "g joint-head",
        "f 1/1 2/2 3/3 4/4",
        "g body",
        "f 5/1 6/2 7/3 8/4",
        "f 1/1 2/2 3/3 4/4",
    ]
    (tmp_path / "3dobjs" / "base.obj").write_text("# mesh\n" + "\n".join(lines))
    (tmp_path / "textures").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[:32, 32:] = 255  # the upper right quarter
    for name in bake.MASKS.values():
        cv2.imwrite(str(tmp_path / "textures" / f"mpfb_{name}.jpg"), mask)
    targets = tmp_path / "targets"
    for folder in (*bake.FOLDERS, bake.EXPRESSIONS, "macrodetails"):
        (targets / folder).mkdir(parents=True)
    for _, file in bake._target_files(tmp_path):
        file.write_bytes(gzip.compress(b"5 1 1 1\n"))
    for name, text in (("b", "# note\n2 0 .5 0\n5 1 1 1\n"), ("a", "0 1 0 0\n")):
        file = targets / "nose" / f"nose-{name}.target.gz"
        file.write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_baking_keeps_the_head_and_the_targets_that_move_it(small_source):
    arrays = bake.bake(small_source)
    assert arrays["vertices"].tolist() == [[0, 6, 0], [1, 6, 0], [1, 7, 0], [0, 7, 0]]
    assert arrays["triangles"].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert arrays["groups"].tolist() == [Group.BODY, Group.BODY]
    assert arrays["target_names"].tolist() == ["nose/nose-a", "nose/nose-b"]
    assert arrays["target_starts"].tolist() == [0, 1, 2]
    assert arrays["target_vertices"].tolist() == [0, 2]
    assert arrays["target_deltas"].tolist() == [[1, 0, 0], [0, 0.5, 0]]
    assert (arrays["mask_lips"] > 127).tolist() == [False, False, True, False]


def test_the_kit_has_every_target_that_identities_and_nuisances_move():
    index = load_kit().index
    expected = {"nose": 21, "mouth": 21, "eyes": 17, "eyebrows": 3, "cheek": 4}
    expected |= {"chin": 7, "forehead": 4, "head": 5, "ears": 9}
    assert {region: len(sliders_of(region)) for region in REGIONS} == expected
    assert all(f"expression/{unit}" in index for _, _, units in EXPRESSIONS for unit in units)
    assert all(f"head/head-{shape}" in index for shape in HEAD_SHAPES)


def test_a_slider_has_its_two_ends_and_both_sides_of_the_face():
    index = load_kit().index
    ends = {(index["nose/nose-width1-decr"],): (index["nose/nose-width1-incr"],)}
    assert ends.items() <= {s.low: s.high for s in sliders_of("nose")}.items()
    assert all(len(slider.low) == len(slider.high) == 2 for slider in sliders_of("ears"))


def test_the_landmark_vertices_lie_where_a_face_has_them():
    kit = load_kit()
    assert kit.vertices[kit.left_eye, 0].min() > 0.1
    assert kit.vertices[kit.right_eye, 0].max() < -0.1
    assert abs(kit.vertices[kit.nose_tip, 0]) < 0.08
    left, right = kit.vertices[kit.left_mouth_corner], kit.vertices[kit.right_mouth_corner]
    assert np.allclose(left * (-1, 1, 1), right, atol=0.02)
    assert kit.vertices[kit.nose_tip, 1] > left[1]


def test_normals_of_the_body_point_outwards():
    kit = load_kit()
    triangles, _ = kit.triangles_of(Group.LEFT_EYE)
    normals = vertex_normals(kit.vertices, triangles)[kit.left_eye]
    outward = kit.vertices[kit.left_eye] - kit.vertices[kit.left_eye].mean(0)
    assert ((normals * outward).sum(1) > 0).mean() > 0.95


def test_fields_of_the_surface_stay_within_bounds():
    surface = Surface(*load_kit().surface.T)
    for name in Surface._fields[3:]:
        values = getattr(surface, name)
        assert values.min() >= 0, name
        assert 0.9 < values.max() <= 1, name


def test_weights_of_the_build_sum_to_one():
    identity = sample_identity(3)
    weights = target_weights(identity, age=0.5, weight=0.5, expression={})
    kit = load_kit()
    ancestry = [
        row for name, row in kit.index.items() if name.startswith("macro/") and "univ" not in name
    ]
    assert len(ancestry) == 12
    assert weights[ancestry].sum() == pytest.approx(1)
    assert weights.min() >= 0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_every_seed_gives_an_identity_within_its_ranges(seed):
    identity = sample_identity(seed)
    assert all(np.abs(values).max() <= 1.1 for values in identity.sliders.values())
    for value in (identity.skin.melanin, identity.build.gender, identity.build.age):
        assert 0 <= value <= 1
    weights = target_weights(identity, age=1.0, weight=1.0, expression={"mouth-open": 0.5})
    assert np.isfinite(weights).all()


def test_one_seed_gives_one_identity_and_another_seed_another():
    one, again, other = sample_identity(5), sample_identity(5), sample_identity(6)
    for region in REGIONS:
        assert np.array_equal(one.sliders[region], again.sliders[region])
        assert not np.array_equal(one.sliders[region], other.sliders[region])
    assert one.brows == again.brows != other.brows


def test_mild_nuisances_are_nearly_frontal_and_wild_ones_are_not():
    mild = [sample_nuisance(1, number, "mild") for number in range(60)]
    wild = [sample_nuisance(1, number, "wild") for number in range(60)]
    assert np.std([n.yaw for n in mild]) < 0.25 < np.std([n.yaw for n in wild])
    assert max(n.age_offset for n in mild) <= 0.12 < max(n.age_offset for n in wild)


def test_ages_lie_decades_apart_and_poses_are_turned_to_both_sides():
    aged = [sample_nuisance(1, number, "aged") for number in range(60)]
    posed = [sample_nuisance(1, number, "posed") for number in range(60)]
    assert min(n.age_offset for n in aged) >= 0.45 > 0.12 >= max(n.age_offset for n in posed)
    assert max(abs(n.yaw) for n in aged) < 0.6
    assert 0.25 <= min(abs(n.yaw) for n in posed) <= max(abs(n.yaw) for n in posed) <= 0.85
    assert {n.yaw > 0 for n in posed} == {True, False}
    assert np.std([n.pitch for n in posed]) > 1.5 * np.std([n.pitch for n in aged])


def test_age_shows(few_ages):
    """An aged face differs more from the young one than two young ones under one nuisance."""
    young, old, other = few_ages
    assert np.abs(old - young).mean() > 3 * np.abs(other - young).mean() > 0


@pytest.fixture(scope="module")
def few_ages():
    nuisance, identity = sample_nuisance(5, 0), sample_identity(5)
    return [
        render(identity, replace(nuisance, age_offset=offset)).image.astype(int)
        for offset in (0.0, 0.7, 0.02)
    ]


def slow_raster(points, depth, triangles, size):
    """Rasterise one pixel and one triangle at a time."""
    nearest = np.full(size * size, -np.inf)
    shown = np.full(size * size, -1)
    for number, corners in enumerate(triangles):
        (x0, y0), (x1, y1), (x2, y2) = points[corners]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area >= 0:
            continue
        for row in range(size):
            for column in range(size):
                b = ((column - x0) * (y2 - y0) - (x2 - x0) * (row - y0)) / area
                c = ((x1 - x0) * (row - y0) - (column - x0) * (y1 - y0)) / area
                at = depth[corners] @ (1 - b - c, b, c)
                if min(1 - b - c, b, c) >= 0 and at > nearest[row * size + column]:
                    nearest[row * size + column], shown[row * size + column] = at, number
    return shown, nearest


def test_the_raster_agrees_with_a_slow_one():
    generator = np.random.default_rng(0)
    points = generator.uniform(-4, 20, (36, 2)).astype(np.float32)
    depth = generator.uniform(0, 1, 36).astype(np.float32)
    triangles = generator.permutation(36).reshape(-1, 3).astype(np.int32)
    cover = rasterise(points, depth, triangles, 16)
    shown, nearest = slow_raster(points.astype(np.float64), depth, triangles, 16)
    fast = np.full(256, -1)
    fast[cover.pixels] = cover.triangles
    assert (fast == shown).mean() > 0.98  # pixels on an edge may belong to either side
    same = (fast == shown) & (shown >= 0)
    assert same.sum() > 50
    # About 12 roundings; the products of sides are up to 8 times their difference, the area.
    assert_rounded(cover.depth[same[cover.pixels]], nearest[same], terms=12, condition=8)


def test_the_raster_of_nothing_is_empty():
    nothing = rasterise(np.zeros((3, 2), np.float32), np.zeros(3), np.zeros((0, 3), np.int32), 8)
    assert nothing.pixels.shape == (0,)
    assert nothing.interpolate(np.ones((3, 4), np.float32)).shape == (0, 4)


def test_looking_up_at_whole_pixels_returns_the_pixels():
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    rows, columns = np.divmod(np.tile(np.arange(12), 40), 4)
    assert np.array_equal(sample(image, columns, rows), np.tile(np.arange(12), 40))
    assert sample(image, np.array([-5.0]), np.array([0.0])) == 0
    assert sample(image, np.array([4.0]), np.array([0.0]), wrap=True) == 0


def test_noise_has_unit_variance_and_follows_its_generator():
    piece = noise(np.random.default_rng(1), 4, 300, 232)
    assert piece.shape == (300, 232)
    assert 0.8 < piece.std() < 1.2
    assert np.array_equal(piece, noise(np.random.default_rng(1), 4, 300, 232))


def test_a_rendering_shows_a_face_with_its_parts_where_they_belong():
    rendering = render(sample_identity(90_000), sample_nuisance(90_000, 0))
    assert rendering.image.shape == (112, 112, 3)
    assert rendering.image.dtype == rendering.labels.dtype == np.uint8
    assert set(np.unique(rendering.labels)) <= set(Part)
    right_eye, left_eye, nose = ARCFACE_112.template[:3]
    for part, (x, y) in (
        (Part.RIGHT_EYE, right_eye), (Part.LEFT_EYE, left_eye), (Part.NOSE, nose),
    ):  # fmt: skip
        rows, columns = np.nonzero(rendering.labels == part)
        assert np.hypot(columns.mean() - x, rows.mean() - y) < 8, part
    height = {part: np.nonzero(rendering.labels == part)[0].mean() for part in Part
              if (rendering.labels == part).any()}  # fmt: skip
    assert height[Part.LEFT_BROW] < height[Part.LEFT_EYE] < height[Part.NOSE]
    assert height[Part.NOSE] < height[Part.UPPER_LIP] < height[Part.LOWER_LIP]


def test_images_of_one_identity_are_closer_in_shape_than_those_of_another():
    one, other = sample_identity(1), sample_identity(2)
    nuisance = sample_nuisance(1, 0)
    a, b = render(one, nuisance), render(other, nuisance)
    assert np.abs(a.image.astype(int) - b.image).mean() > 5
    assert (a.labels != b.labels).mean() > 0.02


def test_a_given_alignment_confines_a_change_to_its_part():
    one = sample_identity(4)
    nuisance = replace(sample_nuisance(4, 1), age_offset=0.0)
    twin = replace(one, sliders=dict(one.sliders) | {"nose": -one.sliders["nose"]})
    image = render(one, nuisance)
    confined = render(twin, nuisance, placement=image.placement)
    moved = render(twin, nuisance)
    far = np.isin(image.labels, (Part.BACKGROUND, Part.HAIR, Part.LEFT_EAR, Part.RIGHT_EAR))

    def changed(other):
        return np.abs(image.image.astype(int) - other.image).sum(2) > 12

    assert changed(confined)[image.labels == Part.NOSE].mean() > 0.3
    assert not changed(confined)[far].any()
    assert changed(moved)[far].any()


def digest_in_another_process(seed):
    code = (
        "import hashlib\n"
        "from fxeval.fixtures.synthetic.identity import sample_identity\n"
        "from fxeval.fixtures.synthetic.nuisance import sample_nuisance\n"
        "from fxeval.fixtures.synthetic.render import render\n"
        f"r = render(sample_identity({seed}), sample_nuisance({seed}, 1))\n"
        "print(hashlib.sha256(r.image.tobytes() + r.labels.tobytes()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_two_processes_render_the_same_bytes():
    seed = 12
    rendering = render(sample_identity(seed), sample_nuisance(seed, 1))
    here = hashlib.sha256(rendering.image.tobytes() + rendering.labels.tobytes()).hexdigest()
    assert digest_in_another_process(seed) == here


def test_the_generator_still_renders_the_frozen_pack():
    """Images need not match to the byte: versions of NumPy and OpenCV differ at edges."""
    entries = json.loads((FOLDER / "manifest.json").read_text())["images"]
    for entry in entries[::48]:
        frozen = cv2.imread(str(FOLDER / entry["file"]))[:, :, ::-1].astype(int)
        seed, number = entry["identity"], entry["number"]
        kind = entry.get("attributes", {}).get("nuisance", "mild")
        drawn = render(sample_identity(seed), sample_nuisance(seed, number, kind)).image
        difference = np.abs(frozen - drawn)
        assert difference.mean() < 5  # JPEG of noisy images
        assert np.abs(cv2.blur((frozen - drawn).astype(np.float32), (5, 5))).max() < 20
