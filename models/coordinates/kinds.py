"""Coordinates by name, as files name them."""

from collections.abc import Mapping

from ...forecast.layout import Layout
from ..errors import ModelError
from .contract import SeededCoordinates
from .lora import LoRA
from .mcnc import MCNC
from .nola import NOLA
from .pranc import PRANC
from .start import Start

KINDS: dict[str, type[SeededCoordinates]] = {kind.kind: kind for kind in (PRANC, NOLA, LoRA, MCNC)}


def make_coordinates(kind: str, layout: Layout, options: Mapping[str, object], start: Start) -> SeededCoordinates:
    """Coordinates from their `kind` and `options`, as another object's attributes of these names give them.

    Raises:
        ModelError: if there is no such kind, or it does not take these options.
    """
    if kind not in KINDS:
        raise ModelError(f"There are no coordinates {kind!r}. There are: {', '.join(sorted(KINDS))}.")
    try:
        return KINDS[kind](layout, **options, start=start)
    except TypeError as error:
        raise ModelError(f"{kind!r} does not take {sorted(options)}: {error}.") from error
