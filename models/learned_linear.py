"""A linear combination of the window's rows, learned from what followed other windows."""

import json
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple, cast, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Layout, Window
from ..forecast.errors import NotFittedError
from .errors import FittingError
from .fitting import Budget, Examples, FitResult, FittableForecaster, relative_error
from .horizons import between, require_known
from .motion import walked
from .normal_equations import NormalEquations, best_ridge
from .options import require_choice, require_integer
from .rows import combine
from .stored_state import require_horizons, require_tensors

# A group with fewer numbers to learn from than this many per coefficient uses the coefficients of all.
SAMPLES_PER_COEFFICIENT = 20

Per = Literal["tensor", "kind", "all"]


@final
class LearnedLinear(FittableForecaster):
    """mean = last + sum_i a_i(horizon) (row_i - last), with coefficients a learned by ridge regression.

    The coefficients are shared by all coordinates of a group. Extrapolation, damping and averaging are all of this
    form, so this finds the best of them for the run at hand; every polynomial forecaster is a special case. Fitted in
    closed form: for each group and trained horizon, (A + ridge I) a = b with A, b the sums over cases and coordinates.
    The ridge is chosen per group and horizon: each candidate, persistence among them, is fitted to the older cases, and
    the one with the least error on the newest quarter is fitted again to all. Cases count by their own motion
    (`Examples`).

    scale = sigma sqrt(r(horizon)), with sigma the window's motion per step (`random_walk`, [param]) and r the group's
    mean squared validation error over its mean squared sigma. Between trained horizons a and r are linear in the
    horizon, zero at horizon 0.

    Args:
        history: rows in the window, at least 2.
        per: which coordinates share coefficients: those of a `tensor`, of all tensors of one `kind`, or `all`. A tensor
            that has fewer than 20 numbers for each coefficient to learn from, and one that was not there when it was
            fitted, uses those of all. `kind` or `all` if it is to be fitted to runs of several networks, or used on
            another one than it was fitted to.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the largest trained one.
    """

    name: ClassVar[str] = "learned_linear"

    def __init__(self, history: int = 5, per: Per = "tensor", stream: str = "weights") -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 2)
        self.per: Per = require_choice("per", per, ("tensor", "kind", "all"))
        self._learned: _Learned | None = None

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "per": self.per, "stream": self.stream}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        if self._learned is None:
            return {}
        names = json.dumps(self._learned.groups).encode()
        return {
            "groups": torch.tensor(list(names), dtype=torch.uint8),
            "spacing": torch.tensor(self._learned.spacing),
            "horizons": self._learned.horizons.clone(),
            "coefficients": self._learned.coefficients.clone(),
            "variance": self._learned.variance.clone(),
        }

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._learned = _Learned.read(state, self.history) if state else None

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        learned = cast(_Learned, self._learned)  # `forecast` refuses to go on without
        require_known(window, horizons, learned.spacing, int(learned.horizons[-1]))
        return self._each(learned, window, horizons)

    def _each(self, learned: "_Learned", window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        group_of = _groups(window.layout, self.per, learned.groups)
        for horizon in horizons:
            coefficients = between(learned.horizons, learned.coefficients, horizon)[group_of]
            factor = between(learned.horizons, learned.variance, horizon).sqrt()[group_of]
            yield Forecast(horizon, combine(window, coefficients), walked(window, factor))

    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        if self.per == "tensor":
            examples.layout  # noqa: B018  # refuses tensors of several networks, whose names may mean unlike things
        spacing = examples.spacing
        names = self._names(examples)

        def groups_of(layout: Layout) -> list[int]:
            return _groups(layout, self.per, names)

        train = NormalEquations.of(examples, examples.training, groups_of, len(names))
        valid = NormalEquations.of(examples, examples.validation, groups_of, len(names))
        pooled_train, pooled_valid = train.pooled(), valid.pooled()
        chosen, ridges = best_ridge(pooled_train, pooled_valid)
        variance = pooled_valid.squared_error(chosen) / pooled_valid.motion.where(pooled_valid.motion > 0, 1.0)
        # A group that stood still in the validation cases tells nothing about its errors; all of them together do.
        variance = variance.where(pooled_valid.motion > 0, variance[:, :1])
        final = (pooled_train + pooled_valid).solve(ridges)
        if not bool(torch.isfinite(final).all() and torch.isfinite(variance).all()):
            raise FittingError("The normal equations overflow: the values are too large to fit.")
        trained = torch.tensor(examples.horizons)
        self._learned = _Learned(names, spacing, trained, final.contiguous(), variance.contiguous())
        return FitResult(
            1,
            float(relative_error(train.squared_error(chosen).sum(dim=1), train.persistence.sum(dim=1))),
            float(relative_error(valid.squared_error(chosen).sum(dim=1), valid.persistence.sum(dim=1))),
            "solved",
        )

    def _names(self, examples: Examples) -> list[str]:
        """The groups with enough numbers to learn from; the first stands for all."""
        numbers: dict[str, int] = {}
        for case in examples.cases[examples.training]:
            for spec in case.window.layout:
                key = _key(spec.name, spec.kind, self.per)
                numbers[key] = numbers.get(key, 0) + spec.numel
        enough = SAMPLES_PER_COEFFICIENT * (self.history - 1)
        return [""] + [key for key, count in numbers.items() if key and count >= enough]


class _Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        groups: names of tensors or kinds; the first, the empty name, stands for all.
        spacing: optimiser steps between rows.
        horizons: trained ones, `[horizon]`, int64, ascending.
        coefficients: `[horizon, group, time - 1]`, float64, oldest row first.
        variance: squared error over squared motion, `[horizon, group]`, float64.
    """

    groups: list[str]
    spacing: int
    horizons: Tensor
    coefficients: Tensor
    variance: Tensor

    @classmethod
    def read(cls, state: dict[str, Tensor], history: int) -> "_Learned":
        """Take over untrusted tensors.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        num_groups = state["variance"].shape[-1] if "variance" in state and state["variance"].ndim else 0
        num_horizons = state["horizons"].numel() if "horizons" in state else 0
        num_bytes = state["groups"].numel() if "groups" in state else 0
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "groups": (torch.uint8, (num_bytes,)),
            "spacing": (torch.int64, ()),
            "horizons": (torch.int64, (num_horizons,)),
            "coefficients": (torch.float64, (num_horizons, num_groups, history - 1)),
            "variance": (torch.float64, (num_horizons, num_groups)),
        }
        require_tensors("learned_linear", state, expected)
        require_horizons(state["horizons"])
        horizons, variance, coefficients = (state[name].clone() for name in ("horizons", "variance", "coefficients"))
        try:
            groups = json.loads(bytes(state["groups"].tolist()))
        except ValueError as error:
            raise NotFittedError(f"'groups' is not a list of names: {error}.") from error
        if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
            raise NotFittedError("'groups' is not a list of names.")
        if len(groups) != num_groups or num_groups == 0:
            raise NotFittedError(f"'groups' must have one name for each of {num_groups} groups, got {len(groups)}.")
        if int(state["spacing"]) < 1 or not bool((variance >= 0).all()):
            raise NotFittedError("'spacing' must be at least 1 and 'variance' at least 0.")
        return cls(groups, int(state["spacing"]), horizons, coefficients, variance)


def _key(name: str, kind: str, per: Per) -> str:
    """The group that a tensor asks for."""
    return {"tensor": name, "kind": kind, "all": ""}[per]


def _groups(layout: Layout, per: Per, names: Sequence[str]) -> list[int]:
    """The group of each tensor; 0, which is all of them, where it has none of its own."""
    index_of = {name: index for index, name in enumerate(names)}
    return [index_of.get(_key(spec.name, spec.kind, per), 0) for spec in layout]
