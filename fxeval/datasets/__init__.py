"""Readers of faces and pair lists, and their alignment; the visible catalogue of the pair lists."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

# Strings, so that reading the catalogue loads no torch.
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "rendered": "fxeval.datasets.face_pack:FacePack",
        "lfw": "fxeval.datasets.lfw:LfwPairs",
        "calfw": "fxeval.datasets.flat_pairs:FlatPairs",
        "cplfw": "fxeval.datasets.flat_pairs:FlatPairs",
        "insightface_bin": "fxeval.datasets.insightface_bin:InsightfaceBin",
        "csv": "fxeval.datasets.tables:CsvPairs",
        "csv_triplets": "fxeval.datasets.tables:CsvTriplets",
        "gallery_probe": "fxeval.datasets.tables:GalleryProbePairs",
        "listed": "fxeval.datasets.spaced_lists:ListedPairs",
        "listed_triplets": "fxeval.datasets.spaced_lists:ListedTriplets",
        "patch_lfw": "fxeval.datasets.flat_pairs:PatchPairs",
        "identity_folders": "fxeval.datasets.identity_folders:IdentityFolders",
    }
)


def shipped(id: str) -> type:
    """Return the class of a shipped pair list; its fields are its parameters.

    Raises:
        KeyError: If there is no such pair list.
    """
    module, _, name = SHIPPED[id].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
