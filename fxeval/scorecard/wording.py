"""Words and figures: how numbers are written, and the meanings of terms on a scorecard."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fxeval.statistics.redrawn import BLACK_BOX as BLACK_BOX

VERDICTS: Mapping[str, str] = {
    "pass": "every critical limit holds: the whole interval is on the good side of each.",
    "fail": "the whole interval of a critical limit is on the wrong side, or more than 1 % of the "
    "explainer's maps were constant, not finite or missing.",
    "inconclusive": "an interval straddles its limit, or too few identities were measured: a pass "
    "needs 30, a fail 10. It is not a pass; the suite says whether it stops the test.",
    "invalid": "there is no valid measurement: a subject could not be loaded, the model verifies "
    "worse than its card claims or the suite demands, a control is missing, or the metric cannot "
    "tell a true map from a random one here.",
    "information": "every limit of this check is for information (severity: info): it was "
    "measured, and decides nothing.",
    "unsupported": "the explainer cannot explain this kind of model, and the suite says to skip "
    "such models (on_unsupported: skip). Nothing was measured. Of a limit: it does not apply to "
    "such a model, and decides nothing.",
}

CONTROLS: Mapping[str, str] = {
    "random_pixels": "every pixel gets an independent random value",
    "random_blobs": "smoothed noise: random regions as coherent as those of real maps",
    "random_rectangle": "a rectangle of the image's proportions at a random place inside it",
    "centre": "a Gaussian in the middle of the crop, the same for every pair",
    "edge": "strength of the edges of the probe, computed without a model",
    "mean_map": "mean of the explainer's own maps over the other identities",
    "inverse": "the explainer's map with the order of its pixels reversed: must do worse than the "
    "map itself",
    "shuffled_identity": "the explainer's map of another person: a map that shows what identifies "
    "somebody must do better",
    "unoccluded": "nothing is removed: the value with clean images",
    "own_map": "the evaluating network's own map by the same explainer, made in its own crop",
    "oracle": "knows which pixels of the image are another face's",
    "blurred_oracle": "the oracle blurred: it points near the right pixels",
    "inverse_oracle": "the oracle with the order of its pixels reversed: it knows what not to show",
    "unrestored": "no pixel is restored: the value with all patches",
    "unpatched": "no pixel was replaced: the value of the clean images",
    "positive_map": "the explainer's map of what speaks for the similarity, in place of what "
    "speaks against it",
    "as_given": "the explainer with the settings of the suite, beside every other configuration",
    "image": "the brightness of the image itself: photographs of one person are alike, too",
}

KINDS: Mapping[str, str] = {
    "faithfulness.deletion_insertion": "Pixels are removed in the order of the saliency map, most "
    "salient first (deletion), or restored in that order on a filled image (insertion), while the "
    "similarity to the other image, which stays unchanged, is measured.",
    "truth.localisation": "The nonmate is the mate with one part of another person, so it is known "
    "to the pixel what tells the two apart. The probe is explained as the mate rather than the "
    "nonmate: does the map point at that part?",
    "truth.flip": "The nonmate is the mate with one part of another person, and the probe has a "
    "twin with the same part. The pixels of the probe that the map ranks first are replaced by "
    "those of its twin: how soon does the model find the nonmate nearer than the mate?",
    "faithfulness.accuracy_curves": "The most salient pixels of the probe are removed (deletion), "
    "or they alone are kept (insertion), in pairs of one person and of two. At every fraction, "
    "which share of all pairs does the model still decide rightly? Of pairs of two people, the "
    "pixels that speak against the similarity go first, where the explainer marks them.",
    "sanity.model_randomisation": "The network is re-drawn with random weights, the pair is "
    "explained again, and the two saliency maps are compared.",
    "sanity.two_sided": "The map of a pair is compared with the maps of the same pair again "
    "(another seed, slightly noisy pictures, half a pixel moved), with random or nudged weights, "
    "and with another person in the mate's place. What is compared is the part of the map that "
    "other people's maps lack. A map must repeat, and must change with the weights, the person and "
    "the picture.",
    "sanity.impostor_swap": "The map of a pair is compared with the map for another person in the "
    "mate's place, and with the maps of the same pair again (another seed, slightly noisy "
    "pictures, half a pixel moved). A map must repeat, and must change with the person.",
    "sanity.data_randomisation": "Two small networks of fxeval's own learn the faces of the list "
    "by heart in the model's crop, one with true labels and one with labels that were permuted "
    "image by image. The explainer explains both, and the maps are compared. The question is about "
    "the explainer; the model itself has no part in it.",
    "generalisability.occlusion": "The maps of other images of a person are averaged. The pixels "
    "that this mean ranks first are occluded in an image it was not made from, and the model "
    "compares that image with another one: does it still recognise the person?",
    "transfer.cross_model": "The mean map of other images of a person, made with one network, "
    "decides which pixels are occluded, and other networks, the evaluators, judge the pair. The "
    "map is carried into the crop of each evaluator, and equally many pixels are occluded there.",
    "search.layer_objective": "The explainer is run at every layer and with every objective, and "
    "the pixels that its mean map of other images of a person ranks first are occluded. The people "
    "are split in two halves: one chooses the best configuration, and the other one, which "
    "had no part in the choice, decides.",
    "occluders.patch_replacement": "Patches of another face are laid over the probe: of the "
    "reference, if the two show different people, and of somebody else if they show one. The "
    "patched probe is explained. If the model rejects it, the pixels that the map ranks last are "
    "restored; if it accepts it, those that the map ranks first. How soon is the decision right?",
    "occluders.false_match": "Pairs of different people that the model takes for one are "
    "explained. The pixels of the probe that the map ranks first are filled, or replaced by those "
    "of another image of the same person. Does the model then reject the pair?",
    "faithfulness.guided_occlusion": "The few pixels that the map ranks first are occluded, and "
    "for comparison equally many that were drawn at random, many times. How far does the "
    "similarity fall, to the other image or, where the check says so, to the image as it was?",
    "faithfulness.hiding_game": "The pixels of the probe that the map ranks last are hidden, more "
    "and more of them. How long does the model accept the pair, and find its person among the "
    "references of all pairs?",
    "faithfulness.reject_decisions": "Pairs of different people that the model rejects are "
    "explained by the map of what speaks against their similarity. The pixels that it ranks first "
    "are removed, which should make the pair more alike, or are all that is left of the probe, "
    "which should still be rejected.",
    "identification.deletion_insertion": "Some images of people are enrolled in a gallery, which "
    "is searched with another image of each of them. In that image, pixels are removed in the "
    "order of the saliency map, most salient first (deletion), or restored in that order on a "
    "filled image (insertion). At which rank is the right person?",
    "classifier.deletion_retention": "The model is used as a classifier of the people of the list, "
    "of whom some images are enrolled. In each of the others, the pixels that the map ranks first "
    "are removed (deletion), or all others are (retention). How far does the confidence fall in "
    "the person that the model named for the clean image, and does it now name another one?",
    "occluders.self_occlusion": "An object, such as a mask, is drawn over the face of one image of "
    "a pair, which is explained without it and with it. The object shows nothing of the person: "
    "does the saliency avoid it, and has it left the place that it covers?",
    "patterns.similarity": "The maps of two images are compared as patterns, for pairs of images "
    "of one person and of two. Each image is explained against another image of its own person, "
    "which no other map of the pair has used. The photographs are compared in the same way.",
    "stability.repetition": "The map of each pair is compared with its map by another draw of the "
    "explainer, and with those of images that differ by a little noise or by a shift of half a "
    "pixel or one. A constant map passes this: stability says nothing alone.",
    "cost.explaining": "The images that the explainer sent through the network, forward and "
    "backward, while it made the maps of all pairs were counted. The counts are the same on every "
    "machine.",
    "cost.resources": "Time and memory were taken while the explainer made the maps of all pairs. "
    "They depend on the machine, and on what else it does: no other run has the same figures.",
    "patterns.regions": "Several images of each person are explained one by one, and their maps "
    "are summed over the parts of the face: which parts do they rest on, how densely, and how "
    "much does that vary from image to image?",
}

# Kinds whose rows are no pairs -> what one row is, and several.
_ROWS: Mapping[str, tuple[str, str]] = {
    "classifier.deletion_retention": ("image", "images"),
    "patterns.regions": ("person", "people"),
    "identification.deletion_insertion": ("search", "searches"),
    "truth.localisation": ("triplet", "triplets"),
    "truth.flip": ("triplet", "triplets"),
}

FILLS: Mapping[str, str] = {
    "blur": "removed pixels are replaced by a blurred copy of the image",
    "mean": "removed pixels are replaced by the mean colour of the image",
    "black": "removed pixels are set to black",
    "white": "removed pixels are set to white",
    "donor": "removed pixels are replaced by those of another image at the same places",
    "random": "every channel of a removed pixel gets a random value, the same for every map",
    "road": "each removed pixel is the weighted mean of its eight neighbours, removed ones among "
    "them, with a little noise (ROAD)",
}

NOT_CLAIMED: tuple[str, ...] = (
    "Safety: no verdict here says that a model or an explainer is safe to deploy.",
    "Fairness: groups of people are not compared.",
    "Meaning to people: whether a person understands or trusts a map was not tested.",
    "Other conditions: a verdict holds for these weights, this explainer and its parameters, these "
    "pairs, this crop and these fills, and for the mean over identities, not for one pair.",
    "Real faces, if the pairs are rendered: rendered faces test explainers and metrics only.",
)

# state -> (of one map, of several maps)
_STATES: Mapping[str, tuple[str, str]] = {
    "degenerate_map": (
        "is constant and was ranked at random",
        "are constant and were ranked at random",
    ),
    "nan_map": ("holds NaN or infinite values", "hold NaN or infinite values"),
    "no_gradient": ("has no gradient", "have no gradient"),
    "wrong_shape": ("has the wrong shape", "have the wrong shape"),
    "explainer_raised": (
        "is missing: the explainer raised an error",
        "are missing: the explainer raised an error",
    ),
    "model_changed": (
        "is void: the explainer changed the model",
        "are void: the explainer changed the model",
    ),
}

# Characters with which a name could move the cursor, break the line or reverse the text around it.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def visible(value: Any) -> Any:  # noqa: ANN401  (JSON is what it is)
    r"""Return a copy of plain JSON whose strings hold no control or direction characters.

    >>> visible({"id": "a\x1b[31m"})
    {'id': 'a�[31m'}
    """
    if isinstance(value, str):
        if value.isprintable():  # most are
            return value
        return "".join(
            "\ufffd" if char in _BIDI or unicodedata.category(char) in _HIDDEN else char
            for char in value
        )
    if isinstance(value, Mapping):
        return {visible(key): visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible(item) for item in value]
    return value


def number(value: float | None, places: int = 3) -> str:
    """Write a measured value; null in a record is a missing number, never zero.

    >>> number(0.41249), number(-0.02), number(4e-05), number(None)
    ('0.412', '−0.020', '4.0e−05', 'none')
    """
    if value is None or not math.isfinite(value):
        return "none"
    tiny = value != 0 and abs(value) < 10**-places
    return (f"{value:.1e}" if tiny else f"{value:,.{places}f}").replace("-", "−")


def places_for(values: Iterable[float | None], lines: Sequence[float] = ()) -> int:
    """Return the number of decimals at which no value looks equal to a line it is judged by.

    >>> places_for([0.4004, 0.41], [0.4])
    4
    """
    known = [value for value in values if value is not None]
    apart = [(value, line) for line in lines for value in known if value != line]
    for places in range(3, 8):
        if all(number(value, places) != number(line, places) for value, line in apart):
            return places
    return 8


def interval(estimate: Mapping[str, Any] | None, *lines: float) -> str:
    """Write ``value [low, high]``; an interval without an end on one side is written in words.

    Args:
        estimate: A value and its interval, or None.
        lines: The numbers that it is judged by; none of its own looks equal to one without being.

    >>> interval({"value": 0.412, "low": 0.3911, "high": 0.433})
    '0.412 [0.391, 0.433]'
    >>> interval({"value": 0.25, "low": None, "high": 0.3})
    '0.250 (at most 0.300)'
    >>> interval({"value": 0.25, "low": None, "high": None})
    '0.250 (no interval)'
    """
    if estimate is None:
        return "no estimate"
    ends = [estimate["value"], estimate["low"], estimate["high"]]
    value, low, high = (number(end, places_for(ends, lines)) for end in ends)
    if estimate["low"] is None and estimate["high"] is None:
        return f"{value} (no interval)"
    if estimate["low"] is None:
        return f"{value} (at most {high})"
    return f"{value} (at least {low})" if estimate["high"] is None else f"{value} [{low}, {high}]"


def plain(value: object) -> str:
    """Write a parameter or an environment entry.

    >>> plain(["blur", 3]), plain(True), plain(1360000), plain(None), plain({"a": 1})
    ('blur, 3', 'yes', '1,360,000', 'none', 'a: 1')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def counted(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun.

    >>> counted(1, "cell"), counted(1200, "pair"), counted(2, "identity", "identities")
    ('1 cell', '1,200 pairs', '2 identities')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def row_names(kind: str) -> tuple[str, str]:
    """Return what the rows of a kind of check are, for one and for several.

    >>> row_names("patterns.regions"), row_names("user:kind")
    (('person', 'people'), ('pair', 'pairs'))
    """
    return _ROWS.get(kind, ("pair", "pairs"))


def rows_of(kind: str, rows: int, identities: int) -> str:
    """Write how many rows of a kind of check were measured, and of how many identities.

    >>> rows_of("patterns.regions", 80, 80), rows_of("faithfulness.deletion_insertion", 40, 1)
    ('80 people', '40 pairs of 1 identity')
    """
    one, many = row_names(kind)
    said = counted(rows, one, many)
    if one == "person":
        return said
    return f"{said} of {counted(identities, 'identity', 'identities')}"


def statistic_text(statistic: str) -> str:
    """Write the statistic of a metric.

    >>> statistic_text("auc"), statistic_text("mean")
    ('AUC', 'mean')
    """
    return "AUC" if statistic == "auc" else statistic


def of_maps(state: str, count: int, total: int) -> str:
    """Say in one sentence how many maps are in a state.

    >>> of_maps("nan_map", 2, 40)
    '2 of 40 maps hold NaN or infinite values'
    """
    unknown = state.replace("_", " ")
    one, many = _STATES.get(state, (f"is in state {unknown}", f"are in state {unknown}"))
    return f"{count:,} of {total:,} maps {one if count == 1 else many}"


def states_text(states: Mapping[str, int]) -> str:
    """Write how many rows are in which state.

    >>> states_text({"ok": 31, "not_crossed": 9})
    '31 ok, 9 not crossed'
    """
    return ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in states.items())


def condition(under: Mapping[str, Any], joint: str = ", ") -> str:
    """Write a condition to follow a title; "" if there is none.

    >>> condition({"fill": "blur", "fraction": 0.01})
    ', fill blur, fraction 0.01'
    """
    parts = [f"{axis} {plain(value)}" for axis, value in under.items()]
    return joint + ", ".join(parts) if parts else ""


def map_name(name: str) -> str:
    """Write the name of a map for readers.

    >>> map_name("control.random_blobs"), map_name("explainer:s_rise"), map_name("baseline")
    ('random blobs', 'explainer s_rise', 'baseline')
    """
    if name.startswith("explainer:"):  # a name that a suite gives
        return name.replace(":", " ", 1)
    return name.removeprefix("control.").replace("_", " ")


def begun(text: str) -> str:
    """Write a text as the beginning of a sentence; all but its first letter stays."""
    return text[:1].upper() + text[1:]


def clipped(text: str, length: int) -> str:
    """Shorten a name to a length; the full name appears elsewhere on the page."""
    return text if len(text) <= length else text[: length - 1] + "…"
