"""Persistence: nothing moves."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

from typing_extensions import override

from ..forecast import Forecast, Window
from .closed_form import ClosedForm
from .motion import walked
from .options import require_integer


@final
class Hold(ClosedForm):
    """The last row, for every horizon: the reference that every other forecaster has to beat.

    mean = last row, bit for bit. scale = sigma sqrt(horizon), where sigma is the standard deviation of one step, taken
    from the differences of the window's rows (`random_walk`). With the default of two rows that is one difference a
    coordinate, a crude estimate; more rows steady it, and make it slower to follow a change.

    Args:
        history: rows in the window, at least 2. More rows change only the scale.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    name: ClassVar[str] = "hold"
    order: int | None = 0

    def __init__(self, history: int = 2, stream: str = "weights") -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 2)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            yield Forecast(horizon, window.last.clone(), walked(window, horizon**0.5))
