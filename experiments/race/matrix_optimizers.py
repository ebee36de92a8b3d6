"""Optimisers for the matrices inside a network, with AdamW for the rest: Muon and AuON."""

import abc
import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from typing_extensions import override

MATRIX_MOMENTUM = 0.95
MUON_SCALE = 0.2  # the root mean square of AdamW's updates, about
NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 5
TINY = 1e-7


class MatricesAndAdamW(Optimizer, abc.ABC):
    """Something for the matrices inside a network and AdamW for the rest, as one optimiser.

    B <- 0.95 B + 0.05 g;  W <- W - rate U(0.05 g + 0.95 B), with U what a subclass makes of a matrix. A kernel is the
    matrix `[out, in * height * width]`. Embeddings and the last matrix are left to AdamW.

    Args:
        network: whose parameters.
        rate: of the matrices.
        adam_rate: of AdamW.
    """

    def __init__(self, network: nn.Module, rate: float, adam_rate: float) -> None:
        embeddings = {part.weight for part in network.modules() if isinstance(part, nn.Embedding)}
        trained = [value for value in network.parameters() if value.requires_grad]
        inner = [value for value in trained if value.ndim >= 2 and value not in embeddings][:-1]
        chosen = set(inner)
        rest = [value for value in trained if value not in chosen]
        groups = [{"params": inner, "lr": rate}] if inner else []
        super().__init__([*groups, {"params": rest, "lr": adam_rate}], {"lr": adam_rate})
        self._adam = AdamW(rest, lr=adam_rate)

    @abc.abstractmethod
    def direction(self, matrix: Tensor) -> Tensor:
        """What is subtracted from the weights at a rate of one, `[rows, columns]` as given."""

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        *matrix_groups, adam_group = self.param_groups
        self._adam.param_groups[0]["lr"] = adam_group["lr"]
        self._adam.state = self.state  # one state, so that checkpoints and jumps see AdamW's part of it too
        self._adam.step()
        for group in matrix_groups:
            for value in group["params"]:
                if value.grad is not None:
                    self._matrix_step(value, group["lr"])
        return loss

    def _matrix_step(self, value: Tensor, rate: float) -> None:
        gradient = value.grad
        assert gradient is not None  # seen to by the caller
        buffer = self.state[value].setdefault("momentum", torch.zeros_like(value))
        buffer.lerp_(gradient, 1 - MATRIX_MOMENTUM)
        matrix = gradient.lerp(buffer, MATRIX_MOMENTUM).flatten(1)
        value.sub_(self.direction(matrix).view_as(value), alpha=rate)


@final
class MuonAndAdamW(MatricesAndAdamW):
    """Muon: U = 0.2 sqrt(max(rows, columns)) O, with O the nearest semi-orthogonal matrix, roughly.

    K. Jordan and others (2024), Muon: An optimizer for hidden layers in neural networks; the factor is that of
    `torch.optim.Muon` with `match_rms_adamw`.

    `torch.optim.Muon` iterates in bfloat16. On processors without instructions for it that takes ten times as long as
    float32 (64 x 784: 25 ms against 2.3 ms an optimiser step on one core of an EPYC with AVX2), which would be a race
    against a handicap; hence this one, in float32.
    """

    @override
    def direction(self, matrix: Tensor) -> Tensor:
        return MUON_SCALE * math.sqrt(max(matrix.shape)) * orthogonalised(matrix)


@final
class AuONAndAdamW(MatricesAndAdamW):
    """AuON: U = sqrt(max(1, rows / columns)) Z / rms(cosh(Z)), with Z the matrix over its Frobenius norm.

    D. Maity (2025), AuON: A Linear-time Alternative to Semi-Orthogonal Momentum Updates, arXiv:2509.24320. Since no
    entry of Z is above one, the root mean square of cosh(Z) lies between 1 and 1.55: it is normalised momentum, with
    up to a third less of a step where few entries have all the weight.
    """

    @override
    def direction(self, matrix: Tensor) -> Tensor:
        values = matrix / matrix.norm().clamp(min=TINY)
        aspect = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
        return values * (aspect / values.cosh().square().mean().sqrt())


def orthogonalised(matrix: Tensor) -> Tensor:
    """Roughly U V' of a matrix U S V': singular values between 0.7 and 1.2, by five Newton-Schulz iterations.

    X <- a X + (b X X' + c (X X')^2) X from X = matrix / |matrix|, with a, b, c of K. Jordan and others (2024).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    values = matrix.T if tall else matrix
    values = values / values.norm().clamp(min=TINY)
    first, second, third = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = values @ values.T
        values = first * values + (second * gram + third * gram @ gram) @ values
    return values.T if tall else values
