"""Try something on a network in training, and take it back."""

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..ledger import Ledger

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def as_optimizers(optimizers: Optimizers) -> tuple[torch.optim.Optimizer, ...]:
    """One optimiser or several, as a tuple."""
    return (optimizers,) if isinstance(optimizers, torch.optim.Optimizer) else tuple(optimizers)


class Stateful(Protocol):
    """Anything whose state can be read and put back, such as a codec's encoder."""

    def state_dict(self) -> Any:
        """The state."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Put it back."""
        ...


class Transaction:
    """Inside it, weights, buffers and optimiser state may be changed; without `commit` all is put back on every exit.

    Put back, bit for bit: parameters (frozen ones too), buffers, train or eval mode of every submodule, the optimisers'
    state and the settings of their groups, the global random generators of torch, numpy and Python, and whatever else
    is given. Parameters and buffers are written in place, so references to them stay valid. Gradients are not touched.
    On every exit means: also where an exception or an interrupt by the user ends the block, committed or not.

    Args:
        module: the network.
        optimizers: its optimiser, or several.
        ledger: charged for `copying` and `rolling back`.
        others: more state that a trial may change: codec states and residuals, for example.
    """

    def __init__(self, module: nn.Module, optimizers: Optimizers, ledger: Ledger, others: Sequence[Stateful] = ()):
        self._module = module
        self._ledger = ledger
        self._optimizers = as_optimizers(optimizers)
        self._others = tuple(others)
        self._committed = False

    def commit(self) -> None:
        """Keep what was changed. Only modes and random generators are put back then."""
        self._committed = True

    def __enter__(self) -> "Transaction":
        with self._ledger.charge("copying"), torch.no_grad():
            self._save()
        return self

    @property
    def saved(self) -> list[tuple[Tensor, Tensor]]:
        """Every parameter and buffer, with a copy of what it was."""
        return self._tensors

    def _save(self) -> None:
        self._tensors = [(value, value.detach().clone()) for value in self._all_tensors()]
        self._modes = [(part, part.training) for part in self._module.modules()]
        self._optimizer_states = [
            {parameter: {key: _copy(value) for key, value in state.items()} for parameter, state in each.state.items()}
            for each in self._optimizers
        ]
        self._groups = [
            [{key: _copy(value) for key, value in group.items() if key != "params"} for group in each.param_groups]
            for each in self._optimizers
        ]
        self._other_states = [other.state_dict() for other in self._others]
        self._torch_generator = torch.get_rng_state()
        self._cuda_generators = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._numpy_generator = np.random.get_state()  # noqa: NPY002 - the global one is what others may have drawn from
        self._python_generator = random.getstate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part, training in self._modes:
            part.training = training
        torch.set_rng_state(self._torch_generator)
        if self._cuda_generators:
            torch.cuda.set_rng_state_all(self._cuda_generators)
        np.random.set_state(self._numpy_generator)  # noqa: NPY002
        random.setstate(self._python_generator)
        if not self._committed or error is not None:
            with self._ledger.charge("rolling back"), torch.no_grad():
                self._roll_back()
        del self._tensors, self._optimizer_states, self._groups, self._other_states

    def _all_tensors(self) -> list[Tensor]:
        return [*self._module.parameters(), *self._module.buffers()]

    def _roll_back(self) -> None:
        for value, saved in self._tensors:
            value.copy_(saved)
        for optimizer, saved_states, groups in zip(self._optimizers, self._optimizer_states, self._groups, strict=True):
            _restore_states(optimizer.state, saved_states)
            for group, saved_group in zip(optimizer.param_groups, groups, strict=True):
                _restore(group, saved_group, keep=("params",))
        for other, saved in zip(self._others, self._other_states, strict=True):
            other.load_state_dict(saved)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _restore_states(state: Any, saved_states: dict[Any, dict[str, Any]]) -> None:
    for parameter in list(state):
        if parameter not in saved_states:
            del state[parameter]
    for parameter, saved_state in saved_states.items():
        _restore(state[parameter], saved_state)


def _restore(present: dict[str, Any], saved: dict[str, Any], keep: tuple[str, ...] = ()) -> None:
    """Make a dictionary what it was, tensors in place where they are still there."""
    for key in list(present):
        if key not in saved and key not in keep:
            del present[key]
    for key, value in saved.items():
        if isinstance(value, Tensor) and isinstance(present.get(key), Tensor) and present[key].shape == value.shape:
            present[key].copy_(value)
        else:
            present[key] = value
