"""Labels of the parts of a face, one for each pixel of an image, their names, and their groups.

Sources of label maps know different parts: rendered faces have nineteen labels, a parser may call
them otherwise, five landmarks give six. Their names are made equal here (``part_named``), and
tables over several sources compare groups (``group_of``).
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType


class Part(IntEnum):
    """Labels in the order of CelebAMask-HQ; left and right are the head's own.

    Rendered faces have no glasses, earring, necklace or hat.
    """

    BACKGROUND = 0
    SKIN = 1
    LEFT_BROW = 2
    RIGHT_BROW = 3
    LEFT_EYE = 4
    RIGHT_EYE = 5
    GLASSES = 6
    LEFT_EAR = 7
    RIGHT_EAR = 8
    EARRING = 9
    NOSE = 10
    MOUTH = 11
    UPPER_LIP = 12
    LOWER_LIP = 13
    NECK = 14
    NECKLACE = 15
    CLOTH = 16
    HAIR = 17
    HAT = 18


PART_NAMES = tuple(part.name.lower() for part in Part)
"""Names of the labels, by their values; ``mouth`` is the mouth between the lips."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eyes": ("left_eye", "right_eye", "eyes"),
        "brows": ("left_brow", "right_brow", "brows"),
        "nose": ("nose",),
        "mouth": ("mouth", "upper_lip", "lower_lip", "lips", "mouth_region"),
        "skin": ("skin",),
        "ears": ("left_ear", "right_ear", "ears"),
        "hair": ("hair",),
        "beard": ("beard",),
        "neck": ("neck",),
        "glasses": ("glasses",),
        "mask": ("mask",),
        "hat": ("hat",),
        "jewellery": ("earring", "necklace"),
        "cloth": ("cloth",),
        "background": ("background",),
    }
)
"""Names of parts by group. A part that no group has is a group of its own."""

_ALIASES = {
    # CelebAMask-HQ
    "l_brow": "left_brow", "r_brow": "right_brow", "l_eye": "left_eye", "r_eye": "right_eye",
    "eye_g": "glasses", "l_ear": "left_ear", "r_ear": "right_ear", "ear_r": "earring",
    "u_lip": "upper_lip", "l_lip": "lower_lip", "neck_l": "necklace",
    # FaRL
    "face": "skin", "rr": "right_ear", "lr": "left_ear", "rb": "right_brow", "lb": "left_brow",
    "re": "right_eye", "le": "left_eye", "imouth": "mouth", "llip": "lower_lip",
    "ulip": "upper_lip", "eyeg": "glasses", "earr": "earring",
    # plain words
    "left_eyebrow": "left_brow", "right_eyebrow": "right_brow", "eyebrows": "brows",
    "eyebrow": "brows", "brow": "brows", "eye": "eyes", "ear": "ears", "lip": "lips",
    "inner_mouth": "mouth", "eyeglasses": "glasses", "eye_glasses": "glasses",
    "eyeglass": "glasses", "sunglasses": "glasses", "headwear": "hat", "head_wearable": "hat",
    "wearable": "hat", "wearables": "hat", "ear_ring": "earring", "earrings": "earring",
    "clothes": "cloth", "clothing": "cloth", "facial_hair": "beard",
    "beard_mustache": "beard", "beard_moustache": "beard", "mouth_mask": "mask",
    "face_mask": "mask", "facial_skin": "skin", "bg": "background",
}  # fmt: skip
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def part_named(name: str) -> str | None:
    """Return the name that a part has here, None for a part that is not known.

    Known are the names of CelebAMask-HQ, of FaRL's parser and plain words, in any case, with
    blanks, hyphens or underscores between words.

    >>> part_named("l_brow"), part_named("Upper lip"), part_named("imouth"), part_named("scar")
    ('left_brow', 'upper_lip', 'mouth', None)
    """
    plain = "_".join(name.lower().replace("-", " ").replace("_", " ").replace("/", " ").split())
    known = _ALIASES.get(plain, plain)
    return known if known in _GROUP_OF else None


def group_of(name: str) -> str:
    """Return the group of a part, by its name in label maps.

    >>> group_of("upper_lip"), group_of("left_eye"), group_of("scar")
    ('mouth', 'eyes', 'scar')
    """
    return _GROUP_OF.get(name, name)


def groups_of(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the groups that label maps can show, each with its labels.

    A group that is absent here is not known to the source; its share is unknown and not zero.

    Args:
        names: Names of the labels (``LabelMaps.names``).

    Returns:
        Labels by group, in the order of ``GROUPS``; groups of other names follow, by label.

    >>> groups_of(["background", "scar", "left_eye", "right_eye"])
    {'eyes': (2, 3), 'background': (0,), 'scar': (1,)}
    """
    found: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        found.setdefault(group_of(name), []).append(label)
    order = {group: place for place, group in enumerate(GROUPS)}
    ranked = sorted(found, key=lambda group: order.get(group, len(order)))
    return {group: tuple(found[group]) for group in ranked}
