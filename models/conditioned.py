"""A small network of a state and of a condition that stays the same while the state moves."""

import torch
from torch import Tensor, nn

from .small_network import SmallNetwork


class Conditioned:
    """`network(state, condition)` with the condition's part of the first layer computed once.

    An equation of motion is evaluated dozens of times while its condition, which has many more numbers than its state,
    stays the same.

    Args:
        network: its first inputs are the state.
        condition: `[..., condition]`.
    """

    def __init__(self, network: SmallNetwork, condition: Tensor) -> None:
        self._network = network
        num_state = network.inner.in_features - condition.shape[-1]
        self._state_weight = network.inner.weight[:, :num_state]
        self._fixed = nn.functional.linear(condition, network.inner.weight[:, num_state:], network.inner.bias)

    def __call__(self, state: Tensor) -> Tensor:
        """The output for a state, `[..., state]`; its leading axes fit those of the condition."""
        inner = torch.tanh(self._fixed + state @ self._state_weight.T)
        return self._network.outer(torch.tanh(self._network.hidden(inner)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that the output depends on, beside the state."""
        return (self._fixed, self._state_weight, *self._network.hidden.parameters(), *self._network.outer.parameters())
