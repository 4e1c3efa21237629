"""Readers of faces and pair lists, face alignment, and the catalogue of the shipped pair lists."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

# Strings, so that reading the catalogue loads no torch.
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "rendered": "fxeval.datasets.lists.face_pack:FacePack",
        "rendered_age": "fxeval.datasets.lists.face_pack:AgedFacePack",
        "rendered_pose": "fxeval.datasets.lists.face_pack:PosedFacePack",
        "rendered_twins": "fxeval.datasets.lists.twin_pairs:TwinPairs",
        "rendered_on_demand": "fxeval.fixtures.synthetic.on_demand:RenderedOnDemand",
        "lfw": "fxeval.datasets.lists.lfw:LfwPairs",
        "calfw": "fxeval.datasets.lists.flat_pairs:FlatPairs",
        "cplfw": "fxeval.datasets.lists.flat_pairs:FlatPairs",
        "insightface_bin": "fxeval.datasets.lists.insightface_bin:InsightfaceBin",
        "csv": "fxeval.datasets.lists.tables:CsvPairs",
        "csv_triplets": "fxeval.datasets.lists.tables:CsvTriplets",
        "gallery_probe": "fxeval.datasets.lists.tables:GalleryProbePairs",
        "arcface_pairs": "fxeval.datasets.lists.file_pairs:FilePairs",
        "listed": "fxeval.datasets.lists.spaced_lists:ListedPairs",
        "listed_triplets": "fxeval.datasets.lists.spaced_lists:ListedTriplets",
        "patch_lfw": "fxeval.datasets.lists.flat_pairs:PatchPairs",
        "identity_folders": "fxeval.datasets.lists.identity_folders:IdentityFolders",
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
