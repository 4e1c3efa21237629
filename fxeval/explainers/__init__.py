"""Explainers and controls, and the visible catalogue of the shipped explainers."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

# Strings, so that reading the catalogue loads no torch.
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "gradcam": "fxeval.explainers.cam:GradCAM",
        "gradcampp": "fxeval.explainers.cam:GradCAMpp",
        "layercam": "fxeval.explainers.cam:LayerCAM",
        "srise": "fxeval.explainers.masking:SRISE",
        "corrrise": "fxeval.explainers.corr_rise:CorrRISE",
        "rise": "fxeval.explainers.rise:RISE",
        "occlusion": "fxeval.explainers.removal:OcclusionSensitivity",
        "xface": "fxeval.explainers.removal:XFace",
        "minplus": "fxeval.explainers.min_plus:MinPlus",
    }
)


def shipped(id: str) -> type:
    """Return the class of a shipped explainer; its fields are its parameters.

    Raises:
        KeyError: If there is no such explainer.
    """
    module, _, name = SHIPPED[id].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
