"""A neural differential equation in the principal components of one run."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import LayoutError, NotFittedError
from .fitting import Examples
from .latent_flow import Flow, Solver, integrate, integrate_penalised, random_signs
from .latent_frame import Frame, Latents
from .scales import LearnedScale
from .small_network import SmallNetwork
from .stored_state import require_tensors
from .threads import one_thread
from .trainable import Items, TrainableForecaster, TrainingItems

PREFIX = "acceleration."


@final
class PrincipalODE(TrainableForecaster):
    """The parts of `NeuralODE` with `coordinates="pca"`; see there."""

    name: ClassVar[str] = "neural_ode"

    def __init__(
        self, history: int, rank: int, width: int, solver: Solver, jacobian_penalty: float, stream: str
    ) -> None:
        super().__init__(stream)
        self.history = history
        self.rank = rank
        self.width = width
        self.solver = solver
        self.jacobian_penalty = jacobian_penalty
        self._learned: _Learned | None = None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {}  # those of the forecaster that this is a part of

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    def _before(self, examples: Examples) -> "_Learned | None":
        """What was learned on the same network; on another one there is nothing to go on from."""
        before, digest = self._learned, examples.layout.digest
        return before if before is not None and before.layout_digest == digest else None

    def _frame(self, examples: Examples) -> Frame:
        before = self._before(examples)
        # What was learned before stays until the fit is over, so that its identity tells it apart meanwhile.
        key = ("principal frame", self.rank, id(before))
        return examples.derived(key, lambda: Frame.of(examples, self.rank, None if before is None else before.frame))

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        latents = Latents.of(examples, part, self._frame(examples))
        probe = random_signs(latents.start.shape, generator)
        return TrainingItems.of((*latents, probe), examples.weights[part], latents.persistence)

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        before, frame = self._before(examples), self._frame(examples)
        times = torch.tensor(examples.horizons, dtype=torch.float64) / frame.spacing
        if before is not None:
            acceleration = copy.deepcopy(before.acceleration)
        else:
            acceleration = SmallNetwork(2 * self.rank, self.width, self.rank)
            acceleration.initialise(generator)
        return _Network(acceleration, frame.unit, times).requires_grad_(True).train()

    @override
    def squared_errors(self, network: nn.Module, items: Items) -> Tensor:
        start, velocity, targets, _, outside, _ = items
        own = cast(_Network, network)
        flow, direction, speed = own.flow(start, velocity)
        moved = integrate(flow, direction, own.get_buffer("times"), self.solver) * speed
        return _off(moved, targets, outside)

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        start, velocity, targets, _, outside, probe = items.items
        own = cast(_Network, network)
        flow, direction, speed = own.flow(start, velocity)
        moved, steepness = integrate_penalised(flow, direction, own.get_buffer("times"), self.solver, probe)
        error = (items.share * _off(moved * speed, targets, outside)).mean()
        return error + self.jacobian_penalty * steepness.mean()

    @override
    def finish(self, network: nn.Module, examples: Examples) -> None:
        acceleration, frame = cast(_Network, network).acceleration, self._frame(examples)
        scale = LearnedScale.of(
            examples,
            lambda window, horizons: [self._mean(frame, acceleration, window, horizon) for horizon in horizons],
        )
        self._learned = _Learned(frame, acceleration, examples.layout.digest, scale)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        return self.forecasts(window, horizons)

    def forecasts(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        """What `forecast` gives once it has checked everything that concerns all forecasters."""
        learned = cast(_Learned, self._learned)
        if window.layout.digest != learned.layout_digest:
            raise LayoutError(f"The window's layout is not the one that {self.name!r} was fitted to. Fit it anew.")
        return self._each(learned, window, horizons)

    def _each(self, learned: "_Learned", window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            mean = self._mean(learned.frame, learned.acceleration, window, horizon)
            yield Forecast(horizon, mean, learned.scale.at(window, horizon))

    def _mean(self, frame: Frame, acceleration: SmallNetwork, window: Window, horizon: int) -> Tensor:
        start, velocity = (part.unsqueeze(0) for part in frame.encode(window))
        times = torch.tensor([horizon / frame.spacing], dtype=torch.float64)
        with torch.no_grad(), one_thread():
            flow, direction, speed = _Network(acceleration, frame.unit, times).flow(start, velocity)
            moved = (integrate(flow, direction, times, self.solver) * speed)[0, 0]
        return frame.moved(window.last, moved)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        learned = self._learned
        if learned is None:
            return {}
        return {
            "mean": learned.frame.mean.clone(),
            "basis": learned.frame.basis.clone(),
            "unit": learned.frame.unit.clone(),
            "spacing": torch.tensor(learned.frame.spacing, dtype=torch.float64),
            "layout": torch.tensor(list(bytes.fromhex(learned.layout_digest)), dtype=torch.uint8),
            **{PREFIX + name: value.clone() for name, value in learned.acceleration.state_dict().items()},
            **learned.scale.state_dict(),
        }

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._learned = self._read(state) if state else None

    def _read(self, state: Mapping[str, Tensor]) -> "_Learned":
        """Take over untrusted tensors.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        scale = LearnedScale.read(self.name, state)
        own = {key: value for key, value in state.items() if not key.startswith("scale.")}
        num_parameters = own["mean"].numel() if "mean" in own else 0
        wide = "mean" in own and own["mean"].dtype == torch.float64
        float_type = torch.float64 if wide else torch.float32
        shapes = SmallNetwork.shapes(2 * self.rank, self.width, self.rank)
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "mean": (float_type, (num_parameters,)),
            "basis": (float_type, (self.rank, num_parameters)),
            "unit": (torch.float64, (self.rank,)),
            "spacing": (torch.float64, ()),
            "layout": (torch.uint8, (32,)),
            **{PREFIX + name: (torch.float64, shape) for name, shape in shapes.items()},
        }
        require_tensors(self.name, own, expected)
        own = {name: value.clone() for name, value in own.items()}
        spacing = float(own["spacing"])
        if not (spacing > 0 and bool((own["unit"] > 0).all())):
            raise NotFittedError(f"'spacing' and 'unit' of {self.name!r} must be above 0.")
        acceleration = SmallNetwork(2 * self.rank, self.width, self.rank)
        acceleration.load_state_dict({name: own[PREFIX + name] for name in shapes})
        frame = Frame(own["mean"], own["basis"], own["unit"], spacing)
        digest = bytes(own["layout"].tolist()).hex()
        return _Learned(frame, acceleration.requires_grad_(False), digest, scale)


class _Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        frame: the coordinates.
        acceleration: g.
        layout_digest: of the layout it was fitted to.
        scale: how far off it is.
    """

    frame: Frame
    acceleration: SmallNetwork
    layout_digest: str
    scale: LearnedScale


class _Network(nn.Module):
    """g, with what is needed to make an equation of it.

    Args:
        acceleration: g.
        unit: of length, `[rank]`.
        times: trained horizons in units of time, `[horizon]`.
    """

    def __init__(self, acceleration: SmallNetwork, unit: Tensor, times: Tensor) -> None:
        super().__init__()
        self.acceleration = acceleration
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("times", times, persistent=False)

    def flow(self, start: Tensor, velocity: Tensor) -> tuple[Flow, Tensor, Tensor]:
        """The equation of some cases, their directions at the start `[case, rank]`, and their speeds `[case, 1]`."""
        speed = velocity.norm(dim=-1, keepdim=True)
        direction = velocity / speed.where(speed > 0, 1.0)
        unit = self.get_buffer("unit")
        return Flow(self.acceleration, start / unit, speed / unit), direction, speed


def _off(moved: Tensor, targets: Tensor, outside: Tensor) -> Tensor:
    """Squared errors of displacements `[horizon, case, rank]`, `[case, horizon]`."""
    return (moved.transpose(0, 1) - targets).square().sum(dim=-1) + outside
