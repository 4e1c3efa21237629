"""Loads an ONNX file as a black box, or with gradients if a converter is installed."""

from dataclasses import replace

from fxeval.contracts import FaceModel
from fxeval.models.files.onnx_file import read_onnx
from fxeval.models.files.onnx_gradients import NoTranslationError, converted
from fxeval.models.files.onnx_model import OnnxFacts, black_box
from fxeval.models.loading import check_loaded
from fxeval.redaction import in_one_line


def load_onnx(data: bytes, where: str, facts: OnnxFacts) -> FaceModel:
    """Load a face model from the bytes of an ONNX file.

    Args:
        data: The whole file, with the digest given in ``facts``.
        where: Its path, for messages.
        facts: Facts that are not in the file.

    Returns:
        An :class:`OnnxFaceModel`, or a ``ConvertedFaceModel`` with gradients; the traits
        of both name the runtime, and those of the first why there are no gradients.

    Raises:
        ModelContractError: If the file cannot be trusted or used, or a library is missing.
    """
    file = read_onnx(data, where, facts.expected)
    box = black_box(file, where, facts)
    check_loaded(box)
    if facts.runtime == "onnxruntime":
        return box
    try:
        return converted(file, where, facts, box)
    except NoTranslationError as error:
        if facts.runtime == "onnx2torch":
            raise
        runtime = f"{box.traits.runtime}; without gradients, because {in_one_line(error.reason)}"
        return replace(box, traits=replace(box.traits, runtime=runtime))
