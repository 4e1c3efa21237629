"""Explainers, and the visible catalogue of the shipped ones."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from fxeval.traits import check_explainer_traits

# Strings, so that reading the catalogue loads no torch.
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "gradcam": "fxeval.explainers.grad_cam:GradCAM",
        "gradcampp": "fxeval.explainers.grad_cam:GradCAMpp",
        "layercam": "fxeval.explainers.grad_cam:LayerCAM",
        "leam": "fxeval.explainers.leam:LEAM",
        "cam": "fxeval.explainers.cam_exact:CAM",
        "sddcam": "fxeval.explainers.sdd_cam:SDDCAM",
        "srise": "fxeval.explainers.s_rise:SRISE",
        "corrrise": "fxeval.explainers.corr_rise:CorrRISE",
        "rise": "fxeval.explainers.rise:RISE",
        "gradient": "fxeval.explainers.gradients:Gradient",
        "input_x_gradient": "fxeval.explainers.gradients:InputXGradient",
        "integrated_gradients": "fxeval.explainers.gradients:IntegratedGradients",
        "smoothgrad": "fxeval.explainers.gradients:SmoothGrad",
        "xssab": "fxeval.explainers.xssab_fggb:XSSAB",
        "fggb": "fxeval.explainers.xssab_fggb:FGGB",
        "ebp": "fxeval.explainers.excitation_backprop:EBP",
        "rollout": "fxeval.explainers.rollout:Rollout",
        "occlusion": "fxeval.explainers.occlusion:OcclusionSensitivity",
        "xface": "fxeval.explainers.occlusion:XFace",
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
