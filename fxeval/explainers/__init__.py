"""Explainers and controls, and the visible catalogue of the shipped explainers."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from fxeval.traits import check_explainer_traits

# Strings, so that reading the catalogue loads no torch.
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "gradcam": "fxeval.explainers.cam:GradCAM",
        "gradcampp": "fxeval.explainers.cam:GradCAMpp",
        "layercam": "fxeval.explainers.cam:LayerCAM",
        "leam": "fxeval.explainers.leam:LEAM",
        "cam": "fxeval.explainers.class_cam:CAM",
        "sddcam": "fxeval.explainers.sdd_cam:SDDCAM",
        "srise": "fxeval.explainers.masking:SRISE",
        "corrrise": "fxeval.explainers.corr_rise:CorrRISE",
        "rise": "fxeval.explainers.rise:RISE",
        "gradient": "fxeval.explainers.backprop:Gradient",
        "input_x_gradient": "fxeval.explainers.backprop:InputXGradient",
        "integrated_gradients": "fxeval.explainers.backprop:IntegratedGradients",
        "smoothgrad": "fxeval.explainers.backprop:SmoothGrad",
        "xssab": "fxeval.explainers.embedding_gradients:XSSAB",
        "fggb": "fxeval.explainers.embedding_gradients:FGGB",
        "ebp": "fxeval.explainers.excitation:EBP",
        "occlusion": "fxeval.explainers.removal:OcclusionSensitivity",
        "xface": "fxeval.explainers.removal:XFace",
        "minplus": "fxeval.explainers.min_plus:MinPlus",
        "precomputed": "fxeval.explainers.precomputed:PrecomputedMaps",
    }
)


def shipped(id: str) -> type:
    """Return the class of a shipped explainer; its fields are its parameters.

    Raises:
        KeyError: If there is no such explainer.
        ExplainerContractError: If it has a trait that nobody would read.
    """
    module, _, name = SHIPPED[id].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    check_explainer_traits(id, found)
    return found
