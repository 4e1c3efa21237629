"""What kinds of curves are called, what they show, and which curve is better."""

from collections.abc import Mapping

_FALLS, _RISES = "a curve that falls early", "a curve that rises early"
_REMOVED, _RESTORED = "removed, most salient first", "restored, most salient first"
_SIMILARITY = "similarity to the other image"
_RIGHT = "share of the pairs that the model decides rightly"
_FIRST, _RECIPROCAL = "share of the searches whose mate is at rank 1", "1 / rank of the mate"

# Kind of curve -> its title, what it shows, what becomes of pixels, which curve is better.
_CURVES: Mapping[str, tuple[str, str, str, str]] = {
    "deletion": ("Deletion", _SIMILARITY, _REMOVED, _FALLS),
    "insertion": ("Insertion", _SIMILARITY, _RESTORED, _RISES),
    "outside": (
        "Outside the clean images",
        "share of the images that are farther from every clean image than 99 % of the clean images "
        "are from another one",
        _REMOVED,
        "a low curve",
    ),
    "flip": (
        "From the probe to its twin",
        "share of the change of the margin between mate and nonmate",
        "replaced by those of the twin, most salient first",
        _RISES,
    ),
    "deletion_accuracy": ("Accuracy, deletion", _RIGHT, _REMOVED, _FALLS),
    "insertion_accuracy": ("Accuracy, insertion", _RIGHT, _RESTORED, _RISES),
    "deletion_rank1": ("Rank-1 rate, deletion", _FIRST, _REMOVED, _FALLS),
    "insertion_rank1": ("Rank-1 rate, insertion", _FIRST, _RESTORED, _RISES),
    "deletion_reciprocal_rank": ("Reciprocal rank, deletion", _RECIPROCAL, _REMOVED, _FALLS),
    "insertion_reciprocal_rank": ("Reciprocal rank, insertion", _RECIPROCAL, _RESTORED, _RISES),
    **{
        f"{prefix}hiding_{name}": (f"Hiding game{turn}, {name}", shown, f"hidden, {first}", better)
        for prefix, turn, first, better in (
            ("", "", "least salient first", "a curve that falls late"),
            ("reverse_", " in reverse", "most salient first", _FALLS),
        )
        for name, shown in (
            ("acceptance", "share of the pairs that the model accepts"),
            ("rank1", "share of the pairs whose mate is at rank 1"),
            ("similarity", _SIMILARITY),
        )
    },
}


def curve_words(kind: str) -> tuple[str, str, str, str]:
    """Return the title of a kind of curve, what it shows, over which pixels, and what is better.

    Of a kind that a plug-in adds, nobody here knows what is better: that is empty.

    >>> curve_words("insertion")[::2], curve_words("user_kind")[::3]
    (('Insertion', 'restored, most salient first'), ('User kind', ''))
    """
    return _CURVES.get(kind, (kind.replace("_", " ").capitalize(), "value", "removed", ""))
