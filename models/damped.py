"""Another forecaster, believed in part."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

from typing_extensions import override

from ..forecast import Forecast, Window
from .errors import ModelError
from .fitting import Examples
from .linear import Linear
from .saved_options import describe
from .wrapper import Member, Wrapper, step_of


@final
class Damped(Wrapper):
    """mean = last + factor (mean of the member - last): shrinkage towards standing still.

    What is right for forecasts whose noise grows faster than their signal, as that of a line on noisy weights does. If
    the member's error is s per coordinate and independent of its step d, the error of the damped forecast is

        scale^2 = s^2 + (1 - factor)^2 d^2.

    The factor is given, not learned; `blended` with one member learns one for each horizon.

    Args:
        member: what is damped; `linear` if not given.
        factor: from 0, which stands still, to 1, which is the member itself.
        stream: the stream it forecasts.

    Raises:
        ModelError: if the factor lies outside, or the member is of another stream.
    """

    name: ClassVar[str] = "damped"

    def __init__(self, member: Member | None = None, factor: float = 0.5, stream: str = "weights") -> None:
        super().__init__([member if member is not None else Linear(stream=stream)], stream)
        if type(factor) not in (int, float) or not 0 <= factor <= 1:
            raise ModelError(f"`factor` must be a number from 0 to 1, got {factor!r}.")
        self.factor = float(factor)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"member": describe(self.members[0]), "factor": self.factor, "stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            step, scale, last = step_of(self.members[0], window, horizon)
            mean = last + self.factor * step
            wider = scale.hypot((1 - self.factor) * step)
            yield Forecast(horizon, mean.to(window.values.dtype), wider.to(window.values.dtype))

    @override
    def _fit_own(self, examples: Examples) -> None:
        return None
