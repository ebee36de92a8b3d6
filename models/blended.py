"""Several forecasters, mixed as fits best."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import NotFittedError
from .errors import FittingError, ModelError
from .fitting import Examples
from .horizons import between
from .learned_linear import LearnedLinear
from .linear import Linear
from .motion import working_dtype
from .saved_options import describe
from .scales import LearnedScale
from .stored_state import require_tensors
from .wrapper import Member, Members, Wrapper, step_of

MAX_MEMBERS = 6  # the exact solution looks at every subset of them


@final
class Blended(Wrapper):
    """mean = last + sum_k a_k(horizon) (mean of member k - last), with fitted a_k >= 0, sum_k a_k <= 1.

    A mixture of the members and of standing still, in other words. The a_k minimise the squared error on the validation
    cases, for each trained horizon by itself, all coordinates together; on those, because learned members know the
    training cases by heart (stacking: Wolpert 1992; with these constraints Breiman 1996). Between trained horizons they
    are linear in the horizon; beyond the longest, and below the shortest, those of the nearest are taken.

    With one member it is `damped` with fitted factors. scale: see `LearnedScale`.

    Args:
        members: what is mixed, at most 6; `linear` and `learned_linear` if not given.
        stream: the stream it forecasts.

    Raises:
        ModelError: if there is none or are too many, or one is of another stream.
    """

    name: ClassVar[str] = "blended"

    def __init__(self, members: Members | None = None, stream: str = "weights") -> None:
        default: tuple[Member, ...] = (Linear(stream=stream), LearnedLinear(stream=stream))
        super().__init__(default if members is None else members, stream)
        if len(self.members) > MAX_MEMBERS:
            raise ModelError(f"`members` must be at most {MAX_MEMBERS} forecasters, got {len(self.members)}.")
        self._mixture = torch.zeros(0, 0, dtype=torch.float64)
        self._scale: LearnedScale | None = None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"members": [describe(member) for member in self.members], "stream": self.stream}

    @property
    @override
    def fitted(self) -> bool:
        return self._scale is not None and super().fitted

    @override
    def _own_state(self) -> dict[str, Tensor]:
        if self._scale is None:
            return {}
        return {"mixture": self._mixture.clone(), **self._scale.state_dict()}

    @override
    def _load_own(self, state: dict[str, Tensor]) -> None:
        if not state:
            self._scale = None
            return
        scale = LearnedScale.read(self.name, state)
        own = {key: value for key, value in state.items() if not key.startswith("scale.")}
        shape = (len(scale.horizons), len(self.members))
        require_tensors(self.name, own, {"mixture": (torch.float64, shape)})
        if not bool((own["mixture"] >= 0).all() and (own["mixture"].sum(dim=1) <= 1 + 1e-9).all()):
            raise NotFittedError(f"'mixture' of {self.name!r} must not be negative, nor sum to more than 1.")
        self._mixture, self._scale = own["mixture"].clone(), scale

    def mixture(self, horizon: int) -> Tensor:
        """a, `[member]`, float64.

        Raises:
            NotFittedError: if it has not been fitted.
        """
        if self._scale is None:
            raise NotFittedError(f"{self.name!r} has not been fitted. Call `fit_forecaster` first, or load it.")
        horizons = self._scale.horizons
        nearest = min(max(horizon, int(horizons[0])), int(horizons[-1]))
        return between(horizons, self._mixture, nearest)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            assert self._scale is not None  # `forecast` refuses to go on without
            yield Forecast(horizon, self._mean(window, horizon), self._scale.at(window, horizon))

    def _mean(self, window: Window, horizon: int) -> Tensor:
        mean = window.last.to(working_dtype(window.values.dtype)).clone()
        for share, member in zip(self.mixture(horizon).tolist(), self.members, strict=True):
            if share > 0:
                mean += share * step_of(member, window, horizon)[0]
        return mean.to(window.values.dtype)

    @override
    def _fit_own(self, examples: Examples) -> None:
        size, num_horizons = len(self.members), len(examples.horizons)
        gram = torch.zeros(num_horizons, size, size, dtype=torch.float64)
        cross = torch.zeros(num_horizons, size, dtype=torch.float64)
        part = examples.validation
        for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True):
            for index, horizon in enumerate(examples.horizons):
                found = [step_of(member, case.window, horizon) for member in self.members]
                steps = torch.stack([step for step, _, _ in found]).double()
                moved = (case.targets[horizon].to(found[0][2]) - found[0][2]).double()
                gram[index] += weight * (steps @ steps.T).cpu()
                cross[index] += weight * (steps @ moved).cpu()
        if not bool(torch.isfinite(gram).all() and torch.isfinite(cross).all()):
            raise FittingError("A member's forecasts are not finite, or too large to fit.")
        self._mixture = torch.stack([mix(*pair) for pair in zip(gram, cross, strict=True)])
        self._scale = LearnedScale([""], torch.tensor(examples.horizons), torch.zeros(num_horizons, 1).double())
        self._scale = LearnedScale.of(examples, lambda window, horizons: [self._mean(window, h) for h in horizons])


def mix(gram: Tensor, cross: Tensor) -> Tensor:
    """The a that minimises a . G a - 2 a . b under a >= 0, sum a <= 1, exactly.

    At the minimum some entries are 0, and either the sum is free or it is 1. Every such choice is a linear system; the
    best solution that keeps the constraints is the minimum. Standing still (a = 0) is one of them.

    Args:
        gram: G, `[member, member]`, positive semidefinite, float64.
        cross: b, `[member]`.
    """
    best, least = torch.zeros_like(cross), 0.0
    for count in range(1, len(cross) + 1):
        for chosen in combinations(range(len(cross)), count):
            index = torch.tensor(chosen)
            inner, outer = gram[index][:, index], cross[index]
            for part in _candidates(inner, outer):
                error = float(part @ inner @ part - 2 * part @ outer)
                if bool((part >= 0).all()) and float(part.sum()) <= 1 + 1e-12 and error < least:
                    best, least = torch.zeros_like(cross), error
                    best[index] = part
    return best


def _candidates(gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """The unconstrained minimum, and the minimum with a sum of 1; of singular systems the solutions of least norm."""
    size = len(cross)
    inverse = torch.linalg.pinv(gram, hermitian=True)
    bordered = torch.ones(size + 1, size + 1, dtype=gram.dtype)
    unit = float(gram.diagonal().max()) or 1.0  # so that the border is no larger or smaller than the rest
    bordered[:size, :size] = gram / unit
    bordered[size, size] = 0.0
    right = torch.cat((cross / unit, cross.new_ones(1)))
    return inverse @ cross, (torch.linalg.pinv(bordered, hermitian=True) @ right)[:size]
