"""Patterns as attractors of a network of fixed size."""

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..options import require_integer
from .supermask import Supermasks
from .task_inference import entropy


class Hopfield:
    """A Hopfield network that learns by Storkey's rule and recalls what it learned from a part of it.

        W <- W + (z z^T - z h^T - h z^T) / n,  h_ij = sum over k other than i and j of W_ik z_k

    Storkey 1997, "Increasing the capacity of a Hopfield network without sacrificing functionality", ICANN; the network
    is that of Hopfield 1982, "Neural networks and physical systems with emergent collective computational abilities",
    PNAS 79. n^2 numbers, however many patterns: for masks that is less than one bit a weight and mask only beyond 32 n
    masks, far above what can be recalled. So it is a fixed size, not a small one. Capacity for random patterns is about
    n / sqrt(2 ln n) (Storkey and Valabregue 1999, "The basins of attraction of a new Hopfield learning rule", Neural
    Networks 12). The code of SupSup leaves the term k = j in h and keeps the diagonal out of W by z z^T - 1.

    Modern Hopfield networks (Krotov and Hopfield 2016, arXiv 1606.01164; Ramsauer et al. 2021, arXiv 2008.02217) hold
    far more, but keep the patterns themselves, which is what a fixed size is to avoid.

    Args:
        size: n, neurons.

    Attributes:
        weights: W, `[neuron, neuron]`, float32, symmetric.
        total: sum of the stored patterns as signs, `[neuron]`: their mean is where a recall without a pattern begins.
        num_patterns: how many were stored.

    Raises:
        ModelError: if the size is below 2.
    """

    def __init__(self, size: int) -> None:
        self.size = require_integer("size", size, 2)
        self.weights = torch.zeros(size, size)
        self.total = torch.zeros(size)
        self.num_patterns = 0

    def store(self, pattern: Tensor) -> None:
        """Learn a pattern, `[neuron]`, of booleans.

        Raises:
            ModelError: if it has another shape or type.
        """
        z = self._signs(pattern)
        field = self.weights @ z
        h = field[:, None] - (self.weights.diagonal() * z)[:, None] - self.weights * z[None, :]
        # The term k = i = j was taken away twice.
        h.diagonal().add_(self.weights.diagonal() * z)
        update = torch.outer(z, z) - z[:, None] * h.T - h * z[None, :]
        self.weights += update / self.size
        self.total += z
        self.num_patterns += 1

    def energy(self, state: Tensor) -> Tensor:
        """-z^T W z / 2 of a state, `[neuron]`, of real numbers; differentiable."""
        return -0.5 * state @ self.weights @ state

    def recall(self, pattern: Tensor, max_sweeps: int = 50) -> Tensor:
        """The attractor that a pattern, `[neuron]`, of booleans, falls into; neurons in turn, so energy never rises.

        Args:
            pattern: where to begin.
            max_sweeps: passes over all neurons, at most; it ends as soon as a pass changes nothing.

        Raises:
            ModelError: if it has another shape or type.
        """
        z = self._signs(pattern).numpy()
        weights = self.weights.numpy()
        diagonal = weights.diagonal()
        field = weights @ z
        first, changed, num_sweeps = 0, False, 0
        while num_sweeps < max_sweeps:
            against = np.flatnonzero((field - diagonal * z)[first:] * z[first:] < 0)
            if len(against):
                neuron = first + int(against[0])
                z[neuron] = -z[neuron]
                field += 2 * z[neuron] * weights[neuron]
                first, changed = neuron + 1, True
            elif changed:
                first, changed, num_sweeps = 0, False, num_sweeps + 1
            else:
                break
        return torch.from_numpy(z > 0)

    def _signs(self, pattern: Tensor) -> Tensor:
        if tuple(pattern.shape) != (self.size,) or pattern.dtype != torch.bool:
            raise ModelError(f"A pattern must be {self.size} booleans, got {tuple(pattern.shape)} of {pattern.dtype}.")
        return torch.where(pattern, 1.0, -1.0)


def recall_by_entropy(network: Supermasks, memory: Hopfield, inputs: Tensor, rate: float = 30.0) -> Tensor:
    """The stored mask under which the network is sure of some data, found without the data's task, `[param]`, booleans.

        z = m - rate * rms(m) * v / rms(v),  m the mean of the stored patterns,  v = W dH/dz at m;  then let it settle

    After Wortsman et al. 2020, arXiv 2006.14769, section 3.5 ("HopSupSup"). They descend from the same mean over many
    batches on the entropy H, whose share falls from 1 to 0, and on the memory's energy, whose share rises from 0; and
    their code has masks of the scales of normalisation layers, not of all weights. Here it is one step, and H's
    gradient goes through the memory's weights, which keep of it what lies along stored patterns. On eight tasks with
    1920 weights one step found 6 masks, twenty smaller ones 1 to 3; begun at an open mask, without W, the plain descent
    ended in complements of masks, which are attractors too. On ten tasks with 3296 weights it found 4
    (docs/coordinates.md): no substitute for kept masks.

    Args:
        network: its fixed weights are used, its remembered masks are not.
        memory: with the masks stored, of as many neurons as there are weights.
        inputs: a batch of one task, without labels.
        rate: how far to go. Small ones end in mixtures of masks, which are attractors as well; from 10 on it hardly
            matters, the mean having little weight then.

    Raises:
        ModelError: if the memory has another size, or nothing is stored.
    """
    if memory.size != network.layout.size:
        raise ModelError(f"The memory must have {network.layout.size} neurons, one a weight, got {memory.size}.")
    if not memory.num_patterns:
        raise ModelError("There is nothing to recall. Call `store` first.")
    mean = (memory.total / memory.num_patterns).requires_grad_()
    with torch.enable_grad():
        (surer,) = torch.autograd.grad(entropy(network.call((mean + 1) / 2, inputs)), mean)
    mean = mean.detach()
    along = memory.weights @ surer
    return memory.recall(mean - rate * along * (mean.norm() / along.norm().clamp(min=1e-30)) > 0)
