"""Small networks that learn the faces of a list, kept for all explainers and cells of a run."""

import torch

from fxeval.contracts import Crop, Pairs
from fxeval.engine.forward_pool import ForwardPool, PooledModel, precise
from fxeval.metrics.protocol import Training
from fxeval.models.loading import TorchFaceModel
from fxeval.models.training import Learnt, Lesson, permuted, trained
from fxeval.records.schema import Taught
from fxeval.run.guard import Guard
from fxeval.run.keys import digest_of
from fxeval.run.map_maker import TRAINING, Progress
from fxeval.run.wanted import NetworkHandle
from fxeval.seeding import seed_of
from fxeval.suite.cells import Cell


class Teaching:
    """Trains networks; all are kept, as they are small and take minutes.

    Args:
        pool: All forward passes.
        guard: Compares networks with what they were.
        progress: Takes (cell id, stage, done, total).

    Attributes:
        kept: The networks.
        known: The facts about them.
        forwards: Images that passed a network while it was trained.
    """

    def __init__(self, pool: ForwardPool, guard: Guard, progress: Progress) -> None:
        self._pool, self._guard, self._progress = pool, guard, progress
        self.kept: dict[str, PooledModel] = {}
        self.known: dict[str, Taught] = {}
        self.forwards = 0

    def taught(
        self, cell: Cell, crop: Crop, pairs: Pairs, wanted: Training, device: torch.device
    ) -> tuple[NetworkHandle, Taught]:
        """Return a network that learnt the images of the pairs, and the facts about it.

        Args:
            cell: The cell, whose seed and name are used.
            crop: Of the images.
            pairs: All images of them whose identity is known are learnt, in the order of their
                content, so that the order of the list decides nothing.
            wanted: With which labels, and for how long at most.
            device: Where it is trained and explained.
        """
        faces = pairs.faces()
        known = [place for place in range(len(faces.images)) if int(faces.identity[place]) >= 0]
        known.sort(key=lambda place: faces.image_digests[place])
        people = [int(faces.identity[place]) for place in known]
        numbers = {one: number for number, one in enumerate(dict.fromkeys(people))}
        labels = torch.tensor([numbers[one] for one in people])
        content = [faces.image_digests[place] for place in known]
        key = digest_of("taught", cell.seed, wanted, crop, device.type, *labels.tolist(), *content)
        if key not in self.kept:
            seed = seed_of(cell.seed, "data randomisation")
            given = labels
            if wanted.labels == "permuted":
                given = permuted(labels, seed_of(cell.seed, "data randomisation", "labels"))
            lesson = Lesson(faces.images[known], given, wanted.epochs, seed)
            learnt = self._learn(cell, lesson, f"{TRAINING} on {wanted.labels} labels", device)
            model = TorchFaceModel(wanted.label, crop, learnt.network, "cosine", None, key)
            self.kept[key] = PooledModel(model, self._pool, key)
            self.known[key] = Taught(
                name=wanted.label,
                labels=wanted.labels,
                accuracy=learnt.accuracy,
                epochs=learnt.epochs,
                budget=wanted.epochs,
                n_images=len(labels),
                n_identities=len(numbers),
                unchanged=float((given == labels).double().mean()),
            )
        self._guard.admit(wanted.label, self.kept[key].model)
        handle = NetworkHandle(wanted.label, key, lambda: self.kept[key], wanted.label)
        return handle, self.known[key]

    def _learn(self, cell: Cell, lesson: Lesson, stage: str, device: torch.device) -> Learnt:
        with precise(device):
            learnt = trained(
                lesson, device, lambda done: self._progress(cell.id, stage, done, lesson.epochs)
            )
        self.forwards += learnt.forwards
        return learnt
