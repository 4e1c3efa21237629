"""Labels of the parts of a face, one for each pixel of an image."""

from enum import IntEnum


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
