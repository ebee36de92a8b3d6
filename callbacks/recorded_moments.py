"""What each optimiser keeps about a parameter from one step to the next, by the optimiser's own names."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

MomentName = Literal[
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_avg_diff",
    "previous_grad",
    "prev_grad",
    "momentum",
    "momentum_buffer",
    "square_avg",
    "m",
    "v",
    "n",
    "z",
]

# By package and class, the keys of `optimizer.state[parameter]` that are laid out like the parameter. Read in the
# sources of torch 2.13, adamp 0.3.0, adan-pytorch 0.1.0, pytorch_optimizer 4.1.0 and schedulefree 1.4.1.
_ADAM = ("exp_avg", "exp_avg_sq")
_KEPT: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("torch", "Adam"): _ADAM,
    ("torch", "AdamW"): _ADAM,
    ("torch", "NAdam"): _ADAM,
    ("torch", "RAdam"): _ADAM,
    ("torch", "SGD"): ("momentum_buffer",),
    ("torch", "Muon"): ("momentum_buffer",),
    ("torch", "RMSprop"): ("square_avg",),
    ("adamp", "AdamP"): _ADAM,
    ("adamp", "SGDP"): ("momentum",),
    ("adan_pytorch", "Adan"): ("m", "v", "n", "prev_grad"),
    ("pytorch_optimizer", "Adan"): ("exp_avg", "exp_avg_sq", "exp_avg_diff", "previous_grad"),
    ("pytorch_optimizer", "AdamP"): _ADAM,
    ("pytorch_optimizer", "ScheduleFreeAdamW"): ("z", "exp_avg_sq"),
    ("pytorch_optimizer", "ScheduleFreeSGD"): ("z",),
    ("schedulefree", "AdamWScheduleFree"): ("z", "exp_avg_sq"),
    ("schedulefree", "RAdamScheduleFree"): ("z", "exp_avg_sq"),
    ("schedulefree", "SGDScheduleFree"): ("z",),
}


def moment_names(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """The moments that an optimiser keeps with its settings; empty if it keeps none or is not known.

    A class derived from a known one counts as that.
    """
    for kind in type(optimizer).__mro__:
        names = _KEPT.get((kind.__module__.partition(".")[0], kind.__name__))
        if names is None:
            continue
        groups = optimizer.param_groups
        if names == ("momentum_buffer",) and kind.__name__ == "SGD":
            return names if any(group["momentum"] for group in groups) else ()
        if any(group.get("amsgrad") for group in groups) and kind.__name__ in ("Adam", "AdamW"):
            return (*names, "max_exp_avg_sq")
        return names
    return ()


def overwrites_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser is known to leave something else than the gradient in `parameter.grad` after its step."""
    home = type(optimizer).__module__.partition(".")[0]
    return home in ("schedulefree", "pytorch_optimizer") and "ScheduleFree" in type(optimizer).__name__


def moments_by_name(
    key: str, optimizers: Sequence[torch.optim.Optimizer], parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor | None]:
    """One moment of every parameter, as it is now; None where no optimiser keeps it or none has been made yet."""
    found: dict[str, Tensor | None] = dict.fromkeys(parameters)
    for name, parameter in parameters.items():
        for optimizer in optimizers:
            # `get`: the state is a defaultdict, and asking by index would put an entry there.
            value = optimizer.state.get(parameter, {}).get(key)
            if value is not None:
                found[name] = value
    return found
