"""The parts of a record about maps: their cost, the networks they are of, whether they repeat."""

from typing import Literal

from fxeval.records.form import Count, Form, Number


class LayerEntry(Form):
    """A layer of a network that maps were made at.

    Attributes:
        shape: Of its output for one image.
        reading: ``channels_first``, ``channels_last`` or ``tokens``.
        grid: [height, width] of the map that it was read as.
    """

    name: str
    shape: list[int]
    reading: str
    grid: list[int]


class Explaining(Form):
    """The cost of one set of maps at the time it was made, and the layers it was made at.

    Attributes:
        network: The network that was explained.
        side: Which images, by which seed and settings.
        n_maps: Number of maps.
        was_shared: An earlier cell had made them.
        forwards: Images in forward passes.
        backwards: Images in backward passes.
        seconds: Wall time.
        answered: Images that were asked for and answered from memory, beside ``forwards``.
        peak_memory: Bytes that making them took at most, as far as it was seen; null = not known.
        layers: The layers that they were made at.
    """

    network: str
    side: str
    n_maps: Count
    was_shared: bool
    forwards: Count
    backwards: Count
    seconds: float
    answered: Count = 0
    peak_memory: Count | None = None
    layers: list[LayerEntry] = []


class Network(Form):
    """A re-drawn network.

    Attributes:
        name: For example ``re-drawn network 1``.
        spread: Mean pairwise (1 - cosine) of its embeddings.
        redrawn_share: Share of the parameters that changed, 0 to 1.
        made: ``redrawn``: weights of the network were drawn anew; ``nudged``: each was changed by
            next to nothing; ``foreign``: the network is a black box, and a random one with the
            same crop and size of embedding stands in for it.
        layers: Which layers were re-drawn, such as ``stage4 to fc``; empty = all.
        buffers_share: Share of the values of the buffers that changed, such as the statistics of
            batch norms, 0 to 1; null if there are none.
        kept: Parameters and buffers of these layers of which no value changed.
        auc: Chance that a mated pair of the list has a higher similarity than a nonmated one, by
            this network; 0.5 = it knows nothing of faces; null if it is not known.
        auc_pairs: Number of mated pairs, and of nonmated ones, that it was found with.
    """

    name: str
    spread: Number
    redrawn_share: float
    made: Literal["redrawn", "nudged", "foreign"] = "redrawn"
    layers: str = ""
    buffers_share: Number = None
    kept: list[str] = []
    auc: Number = None
    auc_pairs: Count = 0


class Taught(Form):
    """A small network of fxeval's own that a check trained.

    Attributes:
        name: For example ``network trained on permuted labels``.
        labels: ``true``, or ``permuted`` image by image.
        accuracy: Share of the training images whose label it knows, 0 to 1.
        epochs: Passes over all images that it took.
        budget: Passes that it had at most.
        n_images: Number of training images.
        n_identities: Number of people in them.
        unchanged: Share of the images whose label is their own, 0 to 1.
    """

    name: str
    labels: Literal["true", "permuted"]
    accuracy: float
    epochs: Count
    budget: Count
    n_images: Count
    n_identities: Count
    unchanged: float


class Repeatability(Form):
    """Whether an explainer gives the same maps again, found on a few rows before any verdict.

    Attributes:
        n_rows: Number of rows explained again.
        repeats: Whether the same seed gave the same maps, up to rounding.
        depends_on_seed: Whether another seed gave other maps: the explainer is stochastic.
        change: Largest change of a map with the same seed, as a share of the map's range.
        reason: Why it does not repeat; empty if it does.
    """

    n_rows: Count
    repeats: bool
    depends_on_seed: bool
    change: Number
    reason: str = ""
