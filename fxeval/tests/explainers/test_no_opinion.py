"""A blind model gets no map made of rounding, from any explainer that asks for embeddings only."""

import numpy as np
import pytest
import torch

from fxeval.contracts import RowState
from fxeval.explainers import shipped
from fxeval.tests.black_boxes import BlackBox, images

SIZE = (28, 28)
FEW = {
    "corrrise": {"masks": 40, "patch_size": 30},
    "minplus": {"step": 28, "rounds": 3},
    "occlusion": {},
    "rise": {"masks": 40, "cells": 4},
    "srise": {"masks": 40, "patches": 4},
    "xface": {},
}


class Blind:
    """Embeds every image alike, up to the rounding of the order of summation."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(batch), 4) * (1 + 2e-7 * torch.rand(1, generator=self._generator)) + (
            1e-7 * torch.rand(len(batch), 4, generator=self._generator)
        )


@pytest.mark.parametrize("kind", ["cosine", "neg_l2"])
@pytest.mark.parametrize("contrasted", [False, True])
@pytest.mark.parametrize("id", FEW)
def test_rounding_is_no_opinion(id, kind, contrasted):
    found = shipped(id)(**FEW[id]).explain(
        BlackBox(Blind(), kind), images(2, 1, SIZE), images(2, 2, SIZE),
        contrast=images(2, 3, SIZE) if contrasted else None, generator=np.random.default_rng(0),
    )  # fmt: skip
    assert set(found.states) == {RowState.DEGENERATE_MAP}
    assert all(found.reasons)
    assert not found.positive.any()
    assert found.negative is None or not found.negative.any()


@pytest.mark.parametrize("map_", ["s0", "s1", "s0_minus", "s1_plus", "avg"])
def test_rounding_is_no_opinion_of_any_part_of_minplus(map_):
    explainer = shipped("minplus")(map=map_, step=28, rounds=3)
    found = explainer.explain(
        BlackBox(Blind()), images(1, 1, SIZE), images(1, 2, SIZE),
        generator=np.random.default_rng(0),
    )  # fmt: skip
    assert found.states == (RowState.DEGENERATE_MAP,)
    assert not found.positive.any()
