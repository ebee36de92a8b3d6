"""A neural differential equation for the weights, in few coordinates."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Forecast, Window
from .errors import ModelError
from .fitting import Examples
from .latent_flow import Method, Solver
from .options import require_choice, require_flag, require_integer, require_not_negative, require_positive
from .principal_ode import PrincipalODE
from .trainable import Items, TrainableForecaster, TrainingItems
from .window_ode import WindowODE

Coordinates = Literal["window", "pca"]


@final
class NeuralODE(TrainableForecaster):
    """Weights that move by z'' = g(z, z') in a few coordinates z, with g a small network.

    Second order as in Norcliffe et al. 2020 (arXiv 2006.07220), because weights under momentum have inertia and a
    first-order equation cannot cross its own path (see `Flow`). g starts at zero: unfitted motion is a straight line
    along the least-squares line of the window. The unit of time is the spacing of the rows.

        mean = last + (z(horizon) - z(0)) basis

    Coordinates, and what g is told besides:

    * `window`: each tensor has its own, along the directions that its window spans, in units of its own step
      (`WindowFrame`); one g for all, which also sees the kind of the tensor and how it moved (`gram_features`). It may
      be fitted to runs of many networks and used on another one. See `GramForecaster` for invariances, scale and items.
    * `pca`: principal components of one run; z'' = s g(z, z' / s) with s the speed of the window, so that a slow window
      gives a proportionally small forecast. What lies outside the components is held. Bound to one network, and to the
      stretch of its run that it was fitted to: later motion leaves the components of earlier rows, so fit anew as a run
      goes on. Windows of any spacing may be given. The scale is a `LearnedScale`.

    Both continue what stands still exactly, answer any horizon (the scale then grows in proportion to it), and keep the
    g of least validation error, a straight line among them. A repeated fit starts from the present g.

    Args:
        coordinates: as above. Fitted to the first 300 steps of one run, tested on the next 150 (8 runs of the digits,
            26 cases or fewer, 8 rows 10 steps apart, 10 and 50 steps ahead, squared error over persistence's):
            `window` 0.55 and 0.23 with rank 2, 0.56 and 0.30 with rank 3; `pca` 0.67 and 0.71 with rank 4; the line of
            5 rows 0.66 and 0.34.
        rank: coordinates; for each tensor with `window`, fewer than `history`. With `pca` take 3 or 4: 8 and 16 often
            lost to the line on what came next, though their training error was half as large.
        width: of g's two hidden layers.
        history: rows in the window; at least 3 with `window`, 2 with `pca`. They give the initial velocity. More rows
            average its noise away.
        method: `rk4`, or `dopri5` with error control, slower and only useful to check the former.
        step_size: of `rk4`, in row spacings. Raise it for horizons of many spacings to save time; halve it to see
            whether it matters.
        adjoint: train by the adjoint equation: memory constant in time, slower.
        jacobian_penalty: what the squared Frobenius norm of g's Jacobian, averaged along each path, adds to the
            training error (Finlay et al. 2020, arXiv 2002.02798; `integrate_penalised`). It keeps the field gentle, so
            that paths beside those seen stay close to them, and costs about three times the time. Try 0.01 to 1 where
            the validation error is far above the training error.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        LayoutError: (on forecasting, `pca`) if the window is of another layout than it was fitted to.
        WindowError: (on forecasting, `window`) if the rows are not spaced as those it was fitted to.
    """

    name: ClassVar[str] = "neural_ode"
    batch_size: ClassVar[int | None] = 256
    learning_rate: ClassVar[float] = 1e-2
    check_every: ClassVar[int] = 10
    patience: ClassVar[int] = 10

    def __init__(
        self,
        coordinates: Coordinates = "window",
        rank: int = 2,
        width: int = 32,
        history: int = 8,
        method: Method = "rk4",
        step_size: float = 4.0,
        adjoint: bool = False,
        jacobian_penalty: float = 0.0,
        stream: str = "weights",
    ) -> None:
        super().__init__(stream)
        self.coordinates: Coordinates = require_choice("coordinates", coordinates, ("window", "pca"))
        self.rank = require_integer("rank", rank, 1)
        self.width = require_integer("width", width, 1)
        self.history = require_integer("history", history, 3 if coordinates == "window" else 2)
        self.method: Method = require_choice("method", method, ("rk4", "dopri5"))
        self.step_size = require_positive("step_size", step_size)
        self.adjoint = require_flag("adjoint", adjoint)
        self.jacobian_penalty = require_not_negative("jacobian_penalty", jacobian_penalty)
        solver = Solver(self.method, self.step_size, self.adjoint)
        self._parts: WindowODE | PrincipalODE
        if coordinates == "window":
            if self.rank >= self.history:
                raise ModelError(f"`rank` must be below `history`, which is {history}, got {rank}.")
            self._parts = WindowODE(history, rank, width, solver, self.jacobian_penalty, stream)
        else:
            self._parts = PrincipalODE(history, rank, width, solver, self.jacobian_penalty, stream)

    @property
    @override
    def fitted(self) -> bool:
        return self._parts.fitted

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "coordinates": self.coordinates,
            "rank": self.rank,
            "width": self.width,
            "history": self.history,
            "method": self.method,
            "step_size": self.step_size,
            "adjoint": self.adjoint,
            "jacobian_penalty": self.jacobian_penalty,
            "stream": self.stream,
        }

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return self._parts.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._parts.load_state_dict(state)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        return self._parts.forecasts(window, horizons)

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        return self._parts.items(examples, part, generator)

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        return self._parts.network(examples, generator)

    @override
    def squared_errors(self, network: nn.Module, items: Items) -> Tensor:
        return self._parts.squared_errors(network, items)

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        if not self.jacobian_penalty:
            return self.relative_error(network, items)
        return self._parts.training_error(network, items)

    @override
    def finish(self, network: nn.Module, examples: Examples) -> None:
        self._parts.finish(network, examples)
