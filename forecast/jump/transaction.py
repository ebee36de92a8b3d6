"""Try something on a network in training, and take it back."""

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..ledger import Ledger


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

    Put back, bit for bit: parameters (frozen ones too), buffers, train or eval mode of every submodule, the optimiser's
    state, the global random generators of torch, numpy and Python, and whatever else is given. Parameters and buffers
    are written in place, so references to them stay valid. Gradients are not touched.

    Args:
        module: the network.
        optimizer: its optimiser.
        ledger: charged for `copying` and `rolling back`.
        others: more state that a trial may change: codec states and residuals, for example.
    """

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, ledger: Ledger, others: Sequence[Stateful] = ()
    ) -> None:
        self._module = module
        self._ledger = ledger
        self._optimizer = optimizer
        self._others = tuple(others)
        self._committed = False

    def commit(self) -> None:
        """Keep what was changed. Only modes and random generators are put back then."""
        self._committed = True

    def __enter__(self) -> "Transaction":
        with self._ledger.charge("copying"), torch.no_grad():
            self._save()
        return self

    def _save(self) -> None:
        self._tensors = [(value, value.detach().clone()) for value in self._all_tensors()]
        self._modes = [(part, part.training) for part in self._module.modules()]
        self._optimizer_state = {
            parameter: {
                key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in state.items()
            }
            for parameter, state in self._optimizer.state.items()
        }
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
        del self._tensors, self._optimizer_state, self._other_states

    def _all_tensors(self) -> list[torch.Tensor]:
        return [*self._module.parameters(), *self._module.buffers()]

    def _roll_back(self) -> None:
        for value, saved in self._tensors:
            value.copy_(saved)
        state = self._optimizer.state
        for parameter in list(state):
            if parameter not in self._optimizer_state:
                del state[parameter]
        for parameter, saved_state in self._optimizer_state.items():
            present = state[parameter]
            for key in list(present):
                if key not in saved_state:
                    del present[key]
            for key, saved in saved_state.items():
                if isinstance(saved, torch.Tensor) and isinstance(present.get(key), torch.Tensor):
                    present[key].copy_(saved)
                else:
                    present[key] = saved
        for other, saved in zip(self._others, self._other_states, strict=True):
            other.load_state_dict(saved)
