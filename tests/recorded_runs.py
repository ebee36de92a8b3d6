"""Recorded runs made up in no time, and a small forecaster that is trained in batches."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from problems import relaxing_rows, small_layout
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import Forecast, Trajectory, Window
from deadreckon.models import TrainableForecaster, TrainingItems
from deadreckon.models.fitting import Examples

SHAPES = {"first.weight": (6, 4), "first.bias": (6,), "second.weight": (3, 6)}
STEPS = 400


def write_run(
    folder: Path,
    seed: int = 0,
    task: str = "digits",
    steps: int = STEPS,
    every: int = 10,
    streams: tuple[str, ...] = ("weights",),
    noise: float = 0.002,
    shapes: dict[str, tuple[int, ...]] = SHAPES,
    broken_from: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """A run whose weights come to rest by friction, with some noise; NaN from a step on if asked for.

    `facts` replace what the trajectory tells of its run.

    Returns:
        The run's folder, with the trajectory in it.
    """
    generator = torch.Generator().manual_seed(seed)
    layout = small_layout(shapes)
    rows = relaxing_rows(steps // every + 1, layout.size, 3, generator)
    rows = rows + noise * torch.randn(rows.shape, generator=generator)
    told: dict[str, Any] = {
        "task": task,
        "network": "mlp",
        "width": 1.0,
        "optimizer": "adam",
        "learning_rate": 0.003,
        "schedule": "constant",
        "batch_size": 64,
        "seed": seed,
        "steps": steps,
        "adam": {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    } | dict(facts or {})
    folder.mkdir(parents=True, exist_ok=True)
    with Trajectory.create(folder / "trajectory", layout, streams, told) as trajectory:
        for row, values in enumerate(rows):
            step = row * every
            if broken_from is not None and step >= broken_from:
                values = torch.full_like(values, torch.nan)
            scalars = {"wall_seconds": 0.002 * step, "learning_rate": 0.003}
            trajectory.append(step, dict.fromkeys(streams, values), scalars)
    return folder


def write_corpus(folder: Path, tasks: Sequence[str] = ("digits", "teacher"), per_task: int = 4, **options: Any) -> Path:
    """A folder of runs, some of each task."""
    for number, task in enumerate(tasks):
        for index in range(per_task):
            write_run(folder / f"{task}_{index}", seed=100 * number + index, task=task, **options)
    return folder


class Gains(TrainableForecaster):
    """last + gain(horizon) (last - row before), the gains trained from 0; a random choice of coordinates."""

    name: ClassVar[str] = "gains"
    batch_size: ClassVar[int | None] = 32
    learning_rate: ClassVar[float] = 0.1
    check_every: ClassVar[int] = 8
    patience: ClassVar[int] = 3
    history = 2

    def __init__(self, sampled: int = 200, decay: float = 0.0, stream: str = "weights") -> None:
        super().__init__(stream)
        self.sampled = sampled
        self.decay = decay
        self._state: dict[str, Tensor] = {}

    @property
    @override
    def fitted(self) -> bool:
        return bool(self._state)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"sampled": self.sampled, "decay": self.decay, "stream": self.stream}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._state.items()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._state = {name: value.clone() for name, value in state.items()}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        known = self._state["horizons"].tolist()
        moved = window.last - window.values[-2]
        for horizon in horizons:
            gain = self._state["gains"][known.index(horizon)].to(moved)
            yield Forecast(horizon, window.last + gain * moved, moved.abs())

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        error = self.relative_error(network, items)
        return error + self.decay * cast(nn.Linear, network).weight.square().sum() if self.decay else error

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        cases, weights = examples.cases[part], examples.weights[part]
        moved = torch.cat([case.window.last - case.window.values[-2] for case in cases])
        wanted = torch.cat(
            [torch.stack([case.targets[h] - case.window.last for h in examples.horizons], dim=1) for case in cases]
        )
        weight = torch.cat(
            [weight.expand(case.window.layout.size) for case, weight in zip(cases, weights, strict=True)]
        )
        chosen = torch.randperm(len(moved), generator=generator)[: self.sampled]
        parts = (moved[chosen], wanted[chosen])
        return TrainingItems.of(parts, weight[chosen], parts[1].double().square())

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        network = nn.Linear(1, len(examples.horizons), bias=False)
        with torch.no_grad():
            network.weight.copy_(0.1 * torch.randn(len(examples.horizons), 1, generator=generator))
        return network

    @override
    def squared_errors(self, network: nn.Module, items: tuple[Tensor, ...]) -> Tensor:
        moved, wanted = items
        return (network(moved.unsqueeze(1)) - wanted).square()

    @override
    def finish(self, network: nn.Module, examples: Examples) -> None:
        gains = cast(nn.Linear, network).weight.detach()[:, 0].clone()
        self._state = {"gains": gains, "horizons": torch.tensor(examples.horizons)}
