"""Checks what a pair source says about its images."""

from collections.abc import Sequence

from fxeval.contracts import PairSource
from fxeval.errors import DataContractError
from fxeval.slices import AttributeValue, check_columns


def check_attributes(
    source: PairSource, image_ids: Sequence[str]
) -> dict[str, tuple[AttributeValue, ...]]:
    """Return the attributes of images by name, one value for each image; {} if it has none.

    Args:
        source: The source; ``attributes(image_ids)`` is optional.
        image_ids: The images.

    Raises:
        DataContractError: If it returns something else.
    """
    ask = getattr(source, "attributes", None)
    if ask is None:
        return {}
    owner = f"pairs '{source.name}': attributes(image_ids)"
    if not callable(ask):
        said = f"{owner}: expected a method, got {type(ask).__name__}."
        raise DataContractError(said, public=said)
    return check_columns(owner, ask(list(image_ids)), len(image_ids))
