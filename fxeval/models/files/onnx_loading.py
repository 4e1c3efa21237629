"""Loads an ONNX file as a black box, or with gradients if a converter is installed."""

from fxeval.contracts import FaceModel
from fxeval.errors import ModelContractError
from fxeval.models.files.onnx_file import OnnxFile, read_onnx
from fxeval.models.files.onnx_gradients import converted, unknown_operators
from fxeval.models.files.onnx_model import OnnxFacts, black_box
from fxeval.models.loading import check_loaded


def load_onnx(data: bytes, where: str, facts: OnnxFacts) -> FaceModel:
    """Load a face model from the bytes of an ONNX file.

    Args:
        data: The whole file, with the digest given in ``facts``.
        where: Its path, for messages.
        facts: Facts that are not in the file.

    Returns:
        An :class:`OnnxFaceModel`, or a ``ConvertedFaceModel`` with gradients; the traits
        of both name the runtime.

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
    except ModelContractError:  # onnx2torch cannot be imported
        return False
