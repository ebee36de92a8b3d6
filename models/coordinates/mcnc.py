"""MCNC: stretches of a network as points of a wound surface on the sphere."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ...forecast.layout import Layout
from ..errors import ModelError
from ..options import require_integer, require_positive
from .contract import Part, SeededCoordinates
from .sphere_network import SphereNetwork
from .start import SeededStart, Start

NUM_GUESSES = 256
NUM_ITERATIONS = 30
MAX_WIDTH, MAX_CHUNK = 2**10, 2**13


class _Exact(torch.autograd.Function):
    """phi in whole numbers, with the derivative of the smooth phi."""

    @staticmethod
    @override
    def forward(ctx: Any, alpha: Tensor, network: SphereNetwork) -> Tensor:
        ctx.save_for_backward(alpha)
        ctx.network = network
        return torch.from_numpy(network.exact(alpha.detach().cpu().double().numpy())).to(alpha.device)

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (alpha,) = ctx.saved_tensors
        with torch.enable_grad():
            inputs = alpha.detach().cpu().double().requires_grad_()
            (product,) = torch.autograd.grad(ctx.network.smooth(inputs), inputs, grads[0].detach().cpu().double())
        return product.to(alpha), None


@final
@dataclass(frozen=True, eq=False)
class MCNC(SeededCoordinates):
    """Chunk c of the parameters is theta_0 + s * beta_c * sqrt(n) * phi(alpha_c), phi a `SphereNetwork` onto S^(n-1).

    Thrash et al. 2025, "MCNC: Manifold-Constrained Reparameterization for Neural Compression", ICLR, arXiv 2406.19301:
    theta_0 + beta phi(alpha), phi a frozen random network of sines. Each chunk of n parameters, whatever tensors they
    belong to, has k numbers alpha and an amplitude beta.

    Where it differs from the paper: s makes one amplitude mean the same in every tensor, and sqrt(n) makes it a root
    mean square; f multiplies what enters both layers of sines, while the paper varies the frequency of the inputs;
    chunks are shorter, as the networks here are smaller (for language models the paper has 5 numbers for 5000
    parameters). phi is divided by its length, so that it lies on the sphere exactly.

    A surface of k dimensions comes close to more points of the sphere the faster it winds, and is harder to walk on:
    `frequency` is that trade. `sphere_coverage` measures the first, docs/coordinates.md both.

    `from_parameters` tries 256 random alphas and improves the best (Levenberg-Marquardt). It finds a local optimum,
    rarely the alpha that made the parameters. At parameters that do not differ from the start alpha is arbitrary.

    Args:
        layout: the tensors.
        num_inputs: k.
        chunk: n.
        width: of phi's hidden layers.
        frequency: f of phi.
        seed: of phi's entries.
        start: theta_0; `SeededStart()` when not given, `GivenStart` for a pretrained network.

    Raises:
        ModelError: if a number is out of range.
    """

    num_inputs: int
    chunk: int
    width: int
    frequency: float
    seed: int
    kind: ClassVar[str] = "mcnc"

    def __init__(
        self,
        layout: Layout,
        num_inputs: int = 9,
        chunk: int = 256,
        width: int = 64,
        frequency: float = 1.0,
        seed: int = 0,
        start: Start | None = None,
    ) -> None:
        super().__init__(layout, SeededStart() if start is None else start)
        object.__setattr__(self, "num_inputs", require_integer("num_inputs", num_inputs, 1))
        object.__setattr__(self, "chunk", require_integer("chunk", chunk, 2))
        object.__setattr__(self, "width", require_integer("width", width, 1))
        object.__setattr__(self, "frequency", require_positive("frequency", frequency))
        object.__setattr__(self, "seed", require_integer("seed", seed, 0))
        if chunk > MAX_CHUNK or width > MAX_WIDTH:
            raise ModelError(
                f"`chunk` must be at most {MAX_CHUNK} and `width` at most {MAX_WIDTH}, got {chunk} and {width}. "
                "Beyond, sums of whole numbers would not be exact."
            )

    @cached_property
    def network(self) -> SphereNetwork:
        """phi."""
        return SphereNetwork(self.num_inputs, self.chunk, self.width, self.frequency, self.seed)

    @property
    def num_chunks(self) -> int:
        """How many; the last may be cut."""
        return -(-self.layout.size // self.chunk)

    @property
    @override
    def parts(self) -> tuple[Part, ...]:
        return (Part("alpha", (self.num_chunks, self.num_inputs)), Part("amplitude", (self.num_chunks,)))

    @property
    @override
    def options(self) -> dict[str, int | str | float]:
        return {
            "num_inputs": self.num_inputs,
            "chunk": self.chunk,
            "width": self.width,
            "frequency": self.frequency,
            "seed": self.seed,
        }

    @override
    def initial(self, seed: int = 0) -> Tensor:
        """alpha standard normal, amplitudes zero: the start itself."""
        alpha = torch.randn(self.num_chunks * self.num_inputs, generator=torch.Generator().manual_seed(seed))
        return torch.cat((alpha, torch.zeros(self.num_chunks)))

    @override
    def displacement(self, coordinates: Tensor) -> Tensor:
        alpha, amplitude = self.split(coordinates)
        phi: Tensor = _Exact.apply(alpha, self.network)
        moved = amplitude.double()[:, None] * math.sqrt(self.chunk) * phi
        return moved.reshape(-1)[: self.layout.size]

    @override
    def nearest(self, displacement: Tensor) -> Tensor:
        rest = self.num_chunks * self.chunk - self.layout.size
        targets = torch.nn.functional.pad(displacement, (0, rest)).reshape(self.num_chunks, self.chunk)
        targets = targets / math.sqrt(self.chunk)
        mask = torch.nn.functional.pad(torch.ones_like(displacement), (0, rest)).reshape(targets.shape)
        guesses = torch.randn(
            NUM_GUESSES, self.num_inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        points = self.network.smooth(guesses)
        products = targets @ points.T
        gains = products.square() / (mask @ points.square().T).clamp(min=1e-12)
        best = gains.argmax(dim=1)
        alpha = guesses[best]
        amplitude = (products / (mask @ points.square().T).clamp(min=1e-12)).gather(1, best[:, None])
        found = _improve(self.network.smooth, torch.cat((alpha, amplitude), dim=1), targets, mask)
        return torch.cat((found[:, :-1].reshape(-1), found[:, -1]))


def _improve(phi: Callable[[Tensor], Tensor], points: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Levenberg-Marquardt from (alpha, beta) on, each chunk with its own damping; `[chunk, input + 1]`."""

    def made(point: Tensor, kept: Tensor) -> Tensor:
        return kept * point[-1] * phi(point[:-1])

    def errors(at: Tensor) -> Tensor:
        return (targets - mask * at[:, -1:] * phi(at[:, :-1])).square().sum(dim=1)

    jacobian = torch.func.vmap(torch.func.jacfwd(made))
    damping = torch.full((len(points),), 1e-2, dtype=torch.float64)
    identity = torch.eye(points.shape[1], dtype=torch.float64)
    error = errors(points)
    for _ in range(NUM_ITERATIONS):
        slopes: Tensor = jacobian(points, mask)
        residual = targets - mask * points[:, -1:] * phi(points[:, :-1])
        gram = slopes.mT @ slopes
        # Relative to the mean curvature, and never singular.
        size = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12) * damping
        step = torch.linalg.solve(gram + size[:, None, None] * identity, (slopes.mT @ residual[:, :, None]).squeeze(2))
        trial = points + step
        after = errors(trial)
        better = after < error
        points, error = torch.where(better[:, None], trial, points), torch.where(better, after, error)
        damping = torch.where(better, damping / 3, damping * 4).clamp(1e-9, 1e9)
    return points
