"""Loads an ONNX file as a black box, or with gradients where a converter is at hand."""

from fxeval.contracts import FaceModel
from fxeval.errors import ModelContractError
from fxeval.models.files.onnx_file import OnnxFile, read_onnx
from fxeval.models.files.onnx_gradients import converted, unknown_operators
from fxeval.models.files.onnx_model import OnnxFacts, black_box
from fxeval.models.loading import check_loaded


def load_onnx(data: bytes, where: str, facts: OnnxFacts) -> FaceModel:
    """Load a face model from the bytes of an ONNX file.

    Args:
        data: The whole file, of the digest that the facts name.
        where: Its path, for messages.
        facts: What the file does not say.

    Returns:
        An :class:`OnnxFaceModel`, or a ``ConvertedFaceModel`` with gradients; the traits
        of either say what computes.

    Raises:
        ModelContractError: If the file cannot be trusted or used, or a library is missing.
    """
    file = read_onnx(data, where, facts.crop.size, facts.output)
    box = black_box(file, where, facts)
    check_loaded(box)
    if facts.runtime == "onnxruntime" or (facts.runtime == "auto" and not _can_convert(file)):
        return box
    return converted(file, where, facts, box)


def _can_convert(file: OnnxFile) -> bool:
    try:
        return not unknown_operators(file)
    except ModelContractError:  # it cannot be imported
        return False
