"""What becomes of an optimiser's moments after a jump."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from ..errors import JumpError

MomentName = Literal["keep", "reset", "rescale", "transport"]

# State entries that are running sums or means of gradients, by what the optimisers of torch call them, and the decay
# that makes them.
_FIRST_MOMENTS = {"exp_avg": "betas", "momentum_buffer": "momentum"}


class MomentRule(abc.ABC):
    """Changes an optimiser's state once the weights have jumped; inside the jump's transaction.

    Attributes:
        name: its name in `SkipAhead`.
    """

    name: ClassVar[MomentName]

    @abc.abstractmethod
    def apply(self, optimizer: torch.optim.Optimizer, steps: dict[Tensor, Tensor], horizon: int) -> None:
        """Change the state.

        Args:
            optimizer: whose state.
            steps: by how much each parameter was moved, by the parameter, in its shape.
            horizon: how many optimiser steps the jump stands for.
        """

    def check(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimiser whose state the rule cannot change, before training starts.

        Raises:
            JumpError: naming it.
        """
        return None


@final
class KeepMoments(MomentRule):
    """Leaves them: the next steps go on in the direction of the gradients before the jump."""

    name: ClassVar[MomentName] = "keep"

    @override
    def apply(self, optimizer: torch.optim.Optimizer, steps: dict[Tensor, Tensor], horizon: int) -> None:
        return None


@final
class ResetMoments(MomentRule):
    """Forgets them, step counts included: the optimiser starts anew, bias corrections and all.

    Adam's first step after it is as long as its learning rate in every coordinate, whatever the gradient.
    """

    name: ClassVar[MomentName] = "reset"

    @override
    def apply(self, optimizer: torch.optim.Optimizer, steps: dict[Tensor, Tensor], horizon: int) -> None:
        for parameter in steps:
            optimizer.state.pop(parameter, None)


@final
class RescaleMoments(MomentRule):
    """Ages first moments by the steps jumped over: m <- beta^horizon m; second moments stay.

    After that many steps on gradients that average to nothing, that is what would be left. Second moments, whose memory
    is a hundred times longer, keep the step size. Concerns optimisers with `exp_avg` (Adam and its kin) or
    `momentum_buffer` (SGD, RMSprop, Muon); of others nothing is changed.
    """

    name: ClassVar[MomentName] = "rescale"

    @override
    def apply(self, optimizer: torch.optim.Optimizer, steps: dict[Tensor, Tensor], horizon: int) -> None:
        for state, decay, key, _, _ in _first_moments(optimizer, steps):
            state[key].mul_(decay**horizon)


@final
class TransportMoments(MomentRule):
    """Sets first moments so that the next step goes on at the jump's own mean speed.

    With u the move of a coordinate per step of the jump and u = -rate m_hat / (sqrt(v_hat) + eps) Adam's step,

        m <- -(1 - beta1^t) u (sqrt(v_hat) + eps) / rate,

    and m <- -u / rate for SGD with momentum and without Nesterov's. Second moments and step counts stay. The forecast's
    average velocity is steadier than one gradient's, and is all that the forecast knows of the gradient there.

    For torch's Adam and AdamW without `amsgrad`, and SGD with momentum; others are refused.
    """

    name: ClassVar[MomentName] = "transport"

    @override
    def check(self, optimizer: torch.optim.Optimizer) -> None:
        adam = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
        sgd = isinstance(optimizer, torch.optim.SGD)
        for group in optimizer.param_groups:
            if (
                not (adam or sgd)
                or group.get("amsgrad")
                or group.get("maximize")
                or (sgd and (not group["momentum"] or group["nesterov"]))
            ):
                raise JumpError(
                    "Moments 'transport' needs torch's Adam or AdamW without `amsgrad`, or SGD with momentum and "
                    f"without `nesterov`, neither with `maximize`; got {type(optimizer).__name__}. "
                    "Use 'keep' or 'reset'."
                )

    @override
    def apply(self, optimizer: torch.optim.Optimizer, steps: dict[Tensor, Tensor], horizon: int) -> None:
        for state, decay, key, parameter, group in _first_moments(optimizer, steps):
            rate = float(group["lr"])
            if not rate > 0:
                continue
            speed = (steps[parameter] / horizon).to(state[key].dtype)
            if key == "momentum_buffer":
                state[key].copy_(-speed / rate)
                continue
            count = float(state["step"])
            beta2 = float(group["betas"][1])
            root = (state["exp_avg_sq"] / (1 - beta2**count)).sqrt() + group["eps"]
            state[key].copy_(-(1 - decay**count) * speed * root / rate)


MOMENT_RULES: dict[MomentName, type[MomentRule]] = {
    rule.name: rule for rule in (KeepMoments, ResetMoments, RescaleMoments, TransportMoments)
}


def moment_rule(name: str) -> MomentRule:
    """The rule of a name.

    Raises:
        JumpError: if there is none.
    """
    for rule in MOMENT_RULES.values():
        if rule.name == name:
            return rule()
    raise JumpError(f"`moments` must be one of {', '.join(MOMENT_RULES)}, got {name!r}.")


def _first_moments(
    optimizer: torch.optim.Optimizer, steps: dict[Tensor, Tensor]
) -> Iterator[tuple[dict[str, Any], float, str, Tensor, dict[str, Any]]]:
    """State, decay, key, parameter and group of every first moment that there is."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            for key, option in _FIRST_MOMENTS.items():
                if parameter in steps and isinstance(state.get(key), Tensor) and option in group:
                    value = group[option]
                    yield state, float(value[0] if option == "betas" else value), key, parameter, group
