"""SCAFFOLD: clients correct their steps by how their data differ from everybody's, at no more bits on the way up.

    y = y - lr (g - c_i + c)                  a client's step; c_i its control variate, c the mean of all
    c_i' = c_i - c + d_i / (K lr)             after K steps (option II), d_i = w - y
    c = c + (sum over the round's clients of c_i' - c_i) / N

The paper sends c_i' - c_i beside d_i. It is a function of c and d_i, which the server has: so nothing else is sent up,
provided that the client takes d_i as the server decodes it (`ClientLink.sent`). c itself has to reach the clients: one
more vector on the way down, which a second `ServerLinks` carries like weights.

References:
    Karimireddy et al. 2019, SCAFFOLD: stochastic controlled averaging for federated learning, arXiv:1910.06378,
    algorithm 1.
"""

from typing import final

import torch
from torch import Tensor

from ..errors import ConfigError


@final
class ControlVariates:
    """The server's c, and how c_i moves on either end.

    Args:
        size: coordinates of the weights.
        num_clients: N, of all, those that miss rounds included.

    Attributes:
        mean: c, `[param]`.

    Raises:
        ConfigError: if there is no client.
    """

    def __init__(self, size: int, num_clients: int) -> None:
        if num_clients < 1:
            raise ConfigError(f"`num_clients` must be at least 1, got {num_clients}.")
        self.mean = torch.zeros(size)
        self._num_clients = num_clients

    @staticmethod
    def change(mean: Tensor, sent: Tensor, num_steps: int, learning_rate: float) -> Tensor:
        """c_i' - c_i, `[param]`; the same on client and server, if both have the same `mean`.

        Args:
            mean: c as the client had it.
            sent: d_i as the server decodes it.
            num_steps: K.
            learning_rate: lr, of the client's steps.

        Raises:
            ConfigError: if one of the numbers is not above 0.
        """
        if num_steps < 1 or not learning_rate > 0:
            raise ConfigError(f"Steps and rate must be above 0, got {num_steps} and {learning_rate}.")
        return sent / (num_steps * learning_rate) - mean

    def update(self, changes: list[Tensor]) -> None:
        """Take in the changes of a round's clients."""
        for change in changes:
            self.mean = self.mean + change / self._num_clients
