"""A line with two numbers tuned: the simplest thing that a learned forecaster has to beat."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, cast, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from .fitting import Budget, Examples, FitResult, FittableForecaster
from .line_sums import LineSums
from .options import require_integer
from .polynomial import Design
from .rows import combine
from .scales import LearnedScale
from .stored_state import require_tensors

POWERS = torch.linspace(-1.0, 2.0, 301, dtype=torch.float64)


@final
class TunedLine(FittableForecaster):
    """mean = last + gain u^power (slope per row), u = horizon / spacing: a least-squares line, damped as fits best.

    Two numbers, gain and power, the same for all horizons and coordinates; gain = power = 1 is a line from the newest
    row along the slope of `linear`. They minimise the squared error relative to persistence, averaged over the trained
    horizons: for each of 301 powers from -1 to 2 the gain is solved for, and the best pair is taken (with one horizon
    every power does; then the one closest to 1). It forecasts any horizon and any spacing, taking the spacing of its
    rows as the unit of time.

    It is the control of `deadreckon score`: a learned forecaster that does not beat it has learned no more than how
    much to trust a slope.

    scale: see `LearnedScale`.

    Args:
        history: rows in the window, at least 2. More rows average noise away but follow curvature later.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) if the window's rows are not evenly spaced.
    """

    name: ClassVar[str] = "tuned_line"

    def __init__(self, history: int = 5, stream: str = "weights") -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 2)
        self._learned: _Learned | None = None

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "stream": self.stream}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        if self._learned is None:
            return {}
        gain, power, scale = self._learned
        return {"gain": gain.clone(), "power": power.clone(), **scale.state_dict()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if not state:
            self._learned = None
            return
        scale = LearnedScale.read(self.name, state)
        own = {key: value for key, value in state.items() if not key.startswith("scale.")}
        require_tensors(self.name, own, {"gain": (torch.float64, ()), "power": (torch.float64, ())})
        self._learned = _Learned(own["gain"].clone(), own["power"].clone(), scale)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        learned = cast(_Learned, self._learned)  # `forecast` refuses to go on without
        return self._each(learned, window, horizons, window.spacing)

    def _each(self, learned: "_Learned", window: Window, horizons: Sequence[int], spacing: int) -> Iterator[Forecast]:
        slope = _slope(window)
        for horizon in horizons:
            length = learned.gain * (horizon / spacing) ** learned.power
            yield Forecast(horizon, combine(window, length * slope), learned.scale.at(window, horizon))

    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        spacing = examples.spacing
        slopes = torch.stack([_slope(case.window) for case in examples.cases])
        train = LineSums.of(examples, examples.training, slopes[examples.training])
        valid = LineSums.of(examples, examples.validation, slopes[examples.validation])
        units = torch.tensor(examples.horizons, dtype=torch.float64) / spacing
        powers = POWERS[(POWERS - 1).abs().argsort()]  # of equals the first is taken
        best: tuple[float, Tensor, Tensor] | None = None
        for power in powers:
            lengths = units**power
            square = (lengths.square() * train.square).sum()
            gain = (lengths * train.cross).sum() / square.where(square > 0, 1.0)
            error = train.relative_error(gain * lengths)
            if best is None or error < best[0] - 1e-12:
                best = error, gain, power
        assert best is not None  # there are 301 powers
        error, gain, power = best
        lengths = gain * units**power

        def means(window: Window, horizons: Sequence[int]) -> list[Tensor]:
            return [combine(window, length * _slope(window)) for length in lengths]

        self._learned = _Learned(gain, power, LearnedScale.of(examples, means))
        return FitResult(1, error, valid.relative_error(lengths), "solved")


def _slope(window: Window) -> Tensor:
    """What each row counts for in the least-squares slope per row, `[time - 1]`, float64."""
    design = Design.of(window.steps, degree=1)
    return (design.weights(1) - design.weights(0))[:-1] * window.spacing


class _Learned(NamedTuple):
    """What a fit leaves behind: two numbers, 0-d float64, and the scale with the trained horizons."""

    gain: Tensor
    power: Tensor
    scale: LearnedScale
