"""fxeval: evaluation harness for explanations of face-recognition models.

All that user code needs is here, by name. A name is imported when it is first asked for, so that
``import fxeval`` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fxeval.contracts import Crop as Crop
    from fxeval.contracts import Explainer as Explainer
    from fxeval.contracts import ExplainerTraits as ExplainerTraits
    from fxeval.contracts import FaceModel as FaceModel
    from fxeval.contracts import ModelTags as ModelTags
    from fxeval.contracts import ModelTraits as ModelTraits
    from fxeval.contracts import PairListing as PairListing
    from fxeval.contracts import PairSource as PairSource
    from fxeval.contracts import SaliencyMaps as SaliencyMaps
    from fxeval.errors import FxevalError as FxevalError
    from fxeval.explainers.adapters import from_captum as from_captum
    from fxeval.explainers.adapters import from_function as from_function
    from fxeval.explainers.adapters import from_grad_cam as from_grad_cam
    from fxeval.explainers.precomputed import save_maps as save_maps
    from fxeval.isolation.explainer import IsolatedExplainer as IsolatedExplainer
    from fxeval.models.black_box import EmbeddingFunction as EmbeddingFunction
    from fxeval.models.from_card import load_card as load_card
    from fxeval.models.loading import TorchFaceModel as TorchFaceModel
    from fxeval.records.schema import Record as Record
    from fxeval.run.evaluation import evaluate as evaluate

__version__ = "0.1.0"

_HOMES = {
    "Crop": "fxeval.contracts",
    "EmbeddingFunction": "fxeval.models.black_box",
    "Explainer": "fxeval.contracts",
    "ExplainerTraits": "fxeval.contracts",
    "FaceModel": "fxeval.contracts",
    "FxevalError": "fxeval.errors",
    "IsolatedExplainer": "fxeval.isolation.explainer",
    "ModelTags": "fxeval.contracts",
    "ModelTraits": "fxeval.contracts",
    "PairListing": "fxeval.contracts",
    "PairSource": "fxeval.contracts",
    "Record": "fxeval.records.schema",
    "SaliencyMaps": "fxeval.contracts",
    "TorchFaceModel": "fxeval.models.loading",
    "evaluate": "fxeval.run.evaluation",
    "from_captum": "fxeval.explainers.adapters",
    "from_function": "fxeval.explainers.adapters",
    "from_grad_cam": "fxeval.explainers.adapters",
    "load_card": "fxeval.models.from_card",
    "save_maps": "fxeval.explainers.precomputed",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fxeval' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
