"""Admits the models of a run: on their device, checked once, and by evidence on each pair list."""

from collections.abc import Sequence

import torch

from fxeval.contracts import Explainer, FaceModel, Faces, RowState, traits_of
from fxeval.engine.forward_pool import precise
from fxeval.errors import ModelContractError, UnansweredError, UnsupportedError
from fxeval.models.admission import Admission, admit
from fxeval.models.black_box import EmbeddingFunction
from fxeval.models.loading import check_loaded


class Admissions:
    """Remembers which models were admitted, and watches the models of the current cell.

    Args:
        worker: Number of this process among those of the run; ``auto`` spreads them over the GPUs.
        at_once: Most images in one forward pass.
    """

    def __init__(self, worker: int, at_once: int) -> None:
        self._worker = worker
        self._at_once = at_once
        self._checked: list[FaceModel] = []
        self._found: dict[tuple[object, ...], Admission | ModelContractError] = {}
        self._current: dict[str, tuple[FaceModel, Admission]] = {}

    def placed(self, model: FaceModel, device: str) -> torch.device:
        """Move a model to the device of a cell, check it once, and return the device.

        Raises:
            ModelContractError: If it cannot embed.
        """
        place = _device(device, self._worker)
        if model.module is not None:
            model.module.to(place)
        if not any(model is one for one in self._checked):
            with precise(place):
                check_loaded(model)
            self._checked.append(model)
        return place

    def admitted(
        self, model: FaceModel, key: tuple[object, ...], faces: Faces, device: torch.device
    ) -> tuple[Admission, bool]:
        """Admit a model by evidence on the faces of a pair list.

        Args:
            model: The model, placed.
            key: Names model, faces and device.
            faces: Images of the pair list.
            device: The model's.

        Returns:
            The admission, and whether it is new.

        Raises:
            ModelContractError: If the model is unfit; again for every cell that uses it.
        """
        is_new = key not in self._found
        if is_new:
            try:
                with precise(device):
                    self._found[key] = admit(model, faces, device, self._at_once)
            except UnansweredError:  # a later cell asks again
                raise
            except ModelContractError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, ModelContractError):
            raise found
        return found, is_new

    def begin(self) -> None:
        """Begin a cell."""
        self._current = {}

    def watch(self, name: str, model: FaceModel, admission: Admission) -> None:
        """Watch a model of the current cell, by its name in the suite."""
        self._current[name] = model, admission

    def release(self) -> None:
        """Free the networks; what was found out about them is kept."""
        self._checked, self._current = [], {}

    def noise(self, model: str) -> float:
        """How much similarities of a model differ if an image is embedded again."""
        return self._current[model][1].noise if model in self._current else 0.0

    def check_gradient(self, model: str, name: str, explainer: Explainer) -> None:
        """Refuse an explainer that needs gradients if a model of the cell has none.

        Raises:
            UnsupportedError: With the reason why the model has none.
        """
        if "gradients" in traits_of(explainer).needs:
            self._refuse(model, name, "it needs gradients, and")

    def check_failure(
        self, model: str, name: str, states: Sequence[RowState], reasons: Sequence[str]
    ) -> None:
        """Blame a model if it has no gradient and user code fails in autograd for every map.

        Raises:
            UnsupportedError: With the reason why the model has none.
        """
        failed = all(state is RowState.EXPLAINER_RAISED for state in states)
        if states and failed and all(reason.startswith("RuntimeError") for reason in reasons):
            self._refuse(model, name, "it raises RuntimeError for every pair, and")

    def _refuse(self, of: str, name: str, why: str) -> None:
        if of not in self._current or not self._current[of][1].no_gradient:
            return
        model, found = self._current[of]
        said = f"{name} cannot explain {model.name}: {why} in this model "
        also = (
            ". Let gradients pass in its forward, or use an explainer that only asks for "
            "embeddings, such as srise."
        )
        raise UnsupportedError(
            f"{said}{found.no_gradient_told}{also}", public=f"{said}{found.no_gradient}{also}"
        )

    def notes(self) -> list[str]:
        """Return what a report must say about the answers of a black box.

        Raises:
            ModelContractError: If its answers changed too much since it was admitted.
        """
        several = [self._of(*one) for one in self._current.values()]
        return list(dict.fromkeys(note for notes in several for note in notes))

    def _of(self, model: FaceModel, found: Admission) -> list[str]:
        notes = []
        if found.noise > 0 and model.module is None:
            notes.append(
                f"{found.n_faces} faces, embedded twice: their similarities differ by up to "
                f"{found.noise:.2g}"
            )
        if isinstance(model, EmbeddingFunction):
            if model.calls.noise > found.noise_allowed:
                raise ModelContractError(
                    f"model '{model.name}': its answers changed during the run: similarities of "
                    f"the same image, asked for again {model.calls.asked_again} times, differ by "
                    f"up to {model.calls.noise:.2g}; at most {found.noise_allowed:.2g} is allowed. "
                    "Pin the version of the service, and measure again."
                )
            notes += model.calls.take_notes()
        return [f"model '{model.name}': {note}" for note in notes]


def _device(name: str, worker: int) -> torch.device:
    if name == "auto" and torch.cuda.is_available():
        return torch.device("cuda", worker % torch.cuda.device_count())
    if name == "auto":
        return torch.device("cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelContractError(
            f"device '{name}' asked for, but there is no CUDA device. Set device: auto or cpu."
        )
    return torch.device(name)
