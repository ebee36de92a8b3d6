"""A neural differential equation for the weights, in the principal components of their path."""

import time
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, cast, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import LayoutError, NotFittedError
from .fitting import Budget, Examples, FitResult, FittableForecaster, relative_error
from .horizons import between
from .latent_flow import Acceleration, Flow, Method, integrate
from .latent_frame import Frame, Latents, relative_variance
from .motion import random_walk
from .options import require_choice, require_flag, require_integer, require_positive
from .stored_state import require_horizons, require_tensors
from .threads import one_thread
from .training import train


@final
class NeuralODE(FittableForecaster):
    """Weights that move by z'' = s g(z, z' / s) in the principal components z of their path.

    g is a small network and s the speed with which the window moves, so that a slow window gives a proportionally small
    forecast and a constant one stays constant (see `Flow`; second order as in Norcliffe et al. 2020, arXiv 2006.07220,
    because weights under momentum have inertia and a first-order equation cannot cross its own path). g starts at zero:
    unfitted motion is a straight line along the least-squares slope of the window. The unit of time is the spacing of
    the training windows; windows of any spacing may be given.

        mean = last + (z(horizon) - z(0)) basis

    What lies outside the span of the basis is held. A path's later motion leaves the components of its earlier rows, so
    fit anew as a run goes on; a repeated fit starts from the present g.

    scale = sigma sqrt(r(horizon)) as in `LearnedLinear`: sigma is the window's motion per step, r the mean squared
    error on the validation cases over mean squared sigma, for each tensor. r is linear between trained horizons, zero
    at horizon 0, and grows with the square of the horizon beyond the largest trained one, as a wrong velocity does.

    Trained by Adam on all training cases at once; the weights with the least validation error are kept, a straight line
    among them.

    Args:
        rank: principal components. More hold more of the motion, but need more cases: fitted to 46 or 36 cases of one
            small run (digits, MLP 64-32-10, Adam, 10 and 50 steps ahead), 3 or 4 components beat the line on what came
            next, 8 and 16 often did not, though their training error was half as large.
        width: of the network's two hidden layers.
        history: rows in the window, at least 2; they give the initial velocity. More rows average its noise away.
        method: `rk4`, or `dopri5` with error control, slower and only useful to check the former.
        step_size: of `rk4`, in row spacings. Raise it for horizons of many spacings to save time; halve it to see
            whether it matters.
        adjoint: train by the adjoint equation: memory constant in time, slower.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        LayoutError: (on forecasting) if the window is of another layout than it was fitted to.
    """

    name: ClassVar[str] = "neural_ode"

    def __init__(
        self,
        rank: int = 4,
        width: int = 32,
        history: int = 5,
        method: Method = "rk4",
        step_size: float = 2.0,
        adjoint: bool = False,
        stream: str = "weights",
    ) -> None:
        super().__init__(stream)
        self.rank = require_integer("rank", rank, 1)
        self.width = require_integer("width", width, 1)
        self.history = require_integer("history", history, 2)
        self.method: Method = require_choice("method", method, ("rk4", "dopri5"))
        self.step_size = require_positive("step_size", step_size)
        self.adjoint = require_flag("adjoint", adjoint)
        self._learned: _Learned | None = None

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "rank": self.rank,
            "width": self.width,
            "history": self.history,
            "method": self.method,
            "step_size": self.step_size,
            "adjoint": self.adjoint,
            "stream": self.stream,
        }

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return self._learned.state_dict() if self._learned is not None else {}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._learned = _Learned.read(state, self.rank, self.width) if state else None

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        learned = cast(_Learned, self._learned)  # `forecast` refuses to go on without
        if window.layout.digest != learned.layout_digest:
            raise LayoutError("The window's layout is not the one that 'neural_ode' was fitted to. Fit it anew.")
        return self._each(learned, window, horizons)

    def _each(self, learned: "_Learned", window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        frame = learned.frame
        start, velocity = (part.unsqueeze(0) for part in frame.encode(window))
        sigma = random_walk(window)
        sizes = torch.tensor([spec.numel for spec in window.layout], device=sigma.device)
        dtype = window.values.dtype
        for horizon in horizons:
            times = torch.tensor([horizon / frame.spacing], dtype=torch.float64)
            with torch.no_grad(), one_thread():
                moved = self._move(frame, learned.acceleration, start, velocity, times)[0, 0]
            mean = window.last.to(sigma.dtype) + moved.to(sigma) @ frame.basis.to(sigma)
            factor = learned.variance_at(horizon).sqrt().to(sigma)
            scale = sigma * factor.repeat_interleave(sizes)
            yield Forecast(horizon, mean.to(dtype), scale.to(dtype))

    def _move(self, frame: Frame, acceleration: Acceleration, start: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
        """Latent displacements at `times`, in units of time, `[horizon, case, rank]`."""
        speed = velocity.norm(dim=-1, keepdim=True)
        direction = velocity / speed.where(speed > 0, 1.0)
        flow = Flow(acceleration, start / frame.unit, speed / frame.unit)
        return integrate(flow, direction, times, self.method, self.step_size, self.adjoint) * speed

    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        deadline = None if budget.seconds is None else time.perf_counter() + budget.seconds
        layout = examples.layout
        before = self._learned
        if before is not None and before.layout_digest != layout.digest:
            before = None  # another network: nothing to go on from
        frame = Frame.of(examples, self.rank, before.frame if before is not None else None)
        training = Latents.of(examples, examples.training, frame)
        validation = Latents.of(examples, examples.validation, frame)
        times = torch.tensor(examples.horizons, dtype=torch.float64) / frame.spacing
        acceleration = Acceleration(self.rank, self.width, generator)
        if before is not None:
            acceleration.load_state_dict(before.acceleration.state_dict())

        def error(latents: Latents) -> Tensor:
            moved = self._move(frame, acceleration, latents.start, latents.velocity, times)
            return relative_error(latents.squared_errors(moved), latents.persistence)

        with one_thread():
            iterations, validation_error, stopped = train(
                acceleration, lambda: error(training), lambda: error(validation), budget.iterations, deadline
            )
            with torch.no_grad():
                training_error = float(error(training))
                moved = self._move(frame, acceleration, validation.start, validation.velocity, times)
        variance = relative_variance(examples, examples.validation, frame, moved)
        self._learned = _Learned(frame, acceleration, layout.digest, torch.tensor(examples.horizons), variance)
        return FitResult(iterations, training_error, validation_error, stopped)


class _Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        frame: the coordinates.
        acceleration: g.
        layout_digest: of the layout it was fitted to.
        horizons: trained ones, `[horizon]`, int64, ascending.
        variance: squared error over squared motion, `[horizon, tensor]`, float64.
    """

    frame: Frame
    acceleration: Acceleration
    layout_digest: str
    horizons: Tensor
    variance: Tensor

    def variance_at(self, horizon: int) -> Tensor:
        """Squared error over squared motion at any horizon, `[tensor]`."""
        longest = int(self.horizons[-1])
        if horizon <= longest:
            return between(self.horizons, self.variance, horizon)
        return self.variance[-1] * (horizon / longest) ** 2

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as tensors."""
        return {
            "mean": self.frame.mean.clone(),
            "basis": self.frame.basis.clone(),
            "unit": self.frame.unit.clone(),
            "spacing": torch.tensor(self.frame.spacing, dtype=torch.float64),
            "layout": torch.tensor(list(bytes.fromhex(self.layout_digest)), dtype=torch.uint8),
            "horizons": self.horizons.clone(),
            "variance": self.variance.clone(),
            **{f"acceleration.{name}": value.clone() for name, value in self.acceleration.state_dict().items()},
        }

    @classmethod
    def read(cls, state: dict[str, Tensor], rank: int, width: int) -> "_Learned":
        """Take over untrusted tensors.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        num_parameters = state["mean"].numel() if "mean" in state else 0
        num_horizons = state["horizons"].numel() if "horizons" in state else 0
        num_tensors = state["variance"].shape[-1] if "variance" in state and state["variance"].ndim else 0
        float_type = state["mean"].dtype if "mean" in state else torch.float32
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "mean": (float_type if float_type == torch.float64 else torch.float32, (num_parameters,)),
            "basis": (float_type, (rank, num_parameters)),
            "unit": (torch.float64, (rank,)),
            "spacing": (torch.float64, ()),
            "layout": (torch.uint8, (32,)),
            "horizons": (torch.int64, (num_horizons,)),
            "variance": (torch.float64, (num_horizons, num_tensors)),
            "acceleration.inner.weight": (torch.float64, (width, 2 * rank)),
            "acceleration.inner.bias": (torch.float64, (width,)),
            "acceleration.hidden.weight": (torch.float64, (width, width)),
            "acceleration.hidden.bias": (torch.float64, (width,)),
            "acceleration.outer.weight": (torch.float64, (rank, width)),
            "acceleration.outer.bias": (torch.float64, (rank,)),
        }
        require_tensors("neural_ode", state, expected)
        state = {name: value.clone() for name, value in state.items()}
        require_horizons(state["horizons"])
        spacing = float(state["spacing"])
        if not (spacing > 0 and bool((state["unit"] > 0).all()) and bool((state["variance"] >= 0).all())):
            raise NotFittedError("'spacing' and 'unit' must be above 0, and 'variance' at least 0.")
        acceleration = Acceleration(rank, width)
        prefix = "acceleration."
        acceleration.load_state_dict(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        acceleration.requires_grad_(False)
        frame = Frame(state["mean"], state["basis"], state["unit"], spacing)
        digest = bytes(state["layout"].tolist()).hex()
        return cls(frame, acceleration, digest, state["horizons"], state["variance"])
