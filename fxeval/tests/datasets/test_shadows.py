"""The shadows of rendered heads: a lamp's ray is followed by hand."""

import numpy as np
import pytest

from fxeval.fixtures.synthetic.head import pose
from fxeval.fixtures.synthetic.identity import sample_identity
from fxeval.fixtures.synthetic.kit import Group, load_kit
from fxeval.fixtures.synthetic.nuisance import sample_nuisance
from fxeval.fixtures.synthetic.shadows import in_shadow


@pytest.fixture(scope="module")
def head():
    return pose(sample_identity(90_000), sample_nuisance(90_000, 0))


def direction(side: float, height: float) -> np.ndarray:
    return np.array([np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)])


def blockers(head, point: np.ndarray, towards: np.ndarray) -> list[float]:
    """Return the distances at which the ray from a point to the lamp meets the body (slow)."""
    triangles, _ = load_kit().triangles_of(Group.BODY)
    a, b, c = (head.vertices[triangles[:, corner]].astype(float) for corner in range(3))
    along, across = b - a, c - a
    normal = np.cross(np.broadcast_to(towards, across.shape), across)
    scale = (along * normal).sum(1)
    scale = np.where(np.abs(scale) < 1e-12, np.inf, scale)
    start = point - a
    u = (start * normal).sum(1) / scale
    second = np.cross(start, along)
    v = (second @ towards) / scale
    distance = (across * second).sum(1) / scale
    meets = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    return sorted(distance[meets])


@pytest.mark.parametrize("side", [-0.9, 0.0, 0.9])
def test_shadows_fall_where_rays_to_the_lamp_meet_the_head(head, side):
    towards = direction(side, 0.5)
    triangles, _ = load_kit().triangles_of(Group.BODY)
    used = np.unique(triangles)
    facing = used[(head.normals[used] @ towards > 0.3) & (head.normals[used, 2] > 0.2)]
    chosen = np.random.default_rng(0).permutation(facing)[:150]
    hidden = in_shadow(head, head.vertices[chosen], towards)
    # A blocker within 0.25 dm is left to the softness of the edge.
    far = [any(d > 0.25 for d in blockers(head, head.vertices[i], towards)) for i in chosen]
    clear = [not blockers(head, head.vertices[i] + 0.02 * towards, towards) for i in chosen]
    assert hidden.shape == (150,)
    assert hidden[far].mean() > 0.7 if any(far) else side == 0.0
    assert hidden[clear].mean() < 0.1  # soft edges
    assert sum(clear) > 50


def test_the_nose_shades_the_cheek_away_from_the_lamp(head):
    kit = load_kit()
    left, right = (head.vertices[eye].mean(0) for eye in (kit.left_eye, kit.right_eye))
    tip = head.vertices[kit.nose_tip]
    ball = np.concatenate([kit.left_eye, kit.right_eye])
    assert in_shadow(head, tip[None], direction(0.9, 0.2))[0] < 0.2
    from_right = in_shadow(head, head.vertices[ball], direction(1.4, 0.1))
    is_left = np.isin(ball, kit.left_eye)
    # The bridge of the nose hides the lamp from the eye beyond it.
    near, beyond = (True, False) if left[0] > right[0] else (False, True)
    assert from_right[is_left == beyond].mean() > from_right[is_left == near].mean() + 0.2
