"""The optimisers of the race that are our own: Muon and AuON for matrices, AdamW with an adaptive memory."""

import copy
import math

import pytest
import torch
from torch import nn

from deadreckon.experiments.race.adaptive_memory import AdaptiveMemoryAdamW
from deadreckon.experiments.race.matrix_optimizers import AuONAndAdamW, MuonAndAdamW, orthogonalised


def test_muon_and_adamw_are_one_optimiser() -> None:
    """Matrices and kernels step as with torch's Muon, up to its bfloat16, and the rest as with AdamW."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    copy = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    copy.load_state_dict(network.state_dict())
    own, other = list(network.parameters()), list(copy.parameters())
    start = [value.detach().clone() for value in own]
    optimizer = MuonAndAdamW(network, 0.02, 0.003)
    kernel = nn.Parameter(other[0].detach().reshape(4, 9).clone())
    inner = torch.optim.Muon([kernel, other[2]], lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    rest = [other[1], *other[3:]]
    outer = torch.optim.AdamW(rest, lr=0.003)
    generator = torch.Generator().manual_seed(0)
    for factor in (1.0, 0.5):
        for group, rate in zip(optimizer.param_groups, (0.02, 0.003), strict=True):
            group["lr"] = factor * rate
        inner.param_groups[0]["lr"], outer.param_groups[0]["lr"] = factor * 0.02, factor * 0.003
        for value, twin in zip(own, other, strict=True):
            value.grad = torch.randn(value.shape, generator=generator)
            twin.grad = value.grad.clone()
        kernel.grad = own[0].grad.reshape(4, 9).clone()  # type: ignore[union-attr]
        optimizer.step()
        inner.step()
        outer.step()
    for value, twin, before in ((own[0].flatten(1), kernel, start[0].flatten(1)), (own[2], other[2], start[2])):
        torch.testing.assert_close(value - before, twin - before, rtol=0.05, atol=0.001)
    for value, twin in zip([own[1], *own[3:]], rest, strict=True):
        torch.testing.assert_close(value, twin)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_orthogonalised_matrices_keep_their_directions(shape: tuple[int, int]) -> None:
    """All singular values come near 1 while the singular vectors stay."""
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrix)
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inside = left.T @ found @ right.T
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-4)


def test_auon_steps_by_normalised_momentum() -> None:
    """The first step of a matrix is its gradient over its norm and over the mean cosh, longer where it is tall."""
    network = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 2))
    weight = next(network.parameters())
    before = weight.detach().clone()
    gradient = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    for value in network.parameters():
        value.grad = torch.zeros_like(value)
    weight.grad = gradient
    AuONAndAdamW(network, 0.1, 0.001).step()
    # Momentum has a twentieth of the gradient, and Nesterov's look ahead keeps its direction: the norm takes both out.
    unit = gradient / gradient.norm()
    length = 2.0 / math.sqrt(float(unit.cosh().square().mean()))
    torch.testing.assert_close(before - weight, 0.1 * length * unit)


def test_auon_takes_shorter_steps_where_few_entries_have_all_the_weight() -> None:
    """A single entry is braked by cosh(1), many small ones by nothing."""
    optimizer = AuONAndAdamW(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), 0.1, 0.001)
    assert float(optimizer.direction(torch.tensor([[5.0]]))) == pytest.approx(1 / math.cosh(1))
    assert float(optimizer.direction(torch.ones(50, 50)).norm()) == pytest.approx(1, abs=1e-3)


def test_adaptive_memory_takes_the_shortest_direction() -> None:
    """No other momentum within 0 and 1 gives a shorter step in the norm of the preconditioner."""
    generator = torch.Generator().manual_seed(1)
    weights = nn.Parameter(torch.randn(30, generator=generator))
    optimizer = AdaptiveMemoryAdamW([weights], 0.01, 0.1)
    kept: list[float] = []
    square = torch.zeros(30)
    for step in range(1, 9):
        weights.grad = torch.randn(30, generator=generator) + 0.5
        memory = optimizer.state[weights]["memory"].clone() if step > 1 else weights.grad.clone()
        square = 0.999 * square + 0.001 * weights.grad.square()
        scale = 1 / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        before = weights.detach().clone()
        optimizer.step()
        shares = torch.linspace(0, 1, 1001)[:, None]
        tried = ((1 - shares) * weights.grad + (shares + 0.1) * memory) / 1.1
        lengths = (scale * tried.square()).sum(1)
        best = tried[lengths.argmin()]
        kept.append(float(shares[lengths.argmin()]))
        torch.testing.assert_close(weights.detach(), before * (1 - 0.0001) - 0.01 * scale * best, rtol=0, atol=3e-5)
    assert len({round(value, 2) for value in kept[1:]}) > 3  # momentum is another in every step


def test_adaptive_memory_forgets_at_once_what_points_the_other_way() -> None:
    """After a gradient of the opposite sign the memory is between both, and a zero gradient does no harm."""
    weights = nn.Parameter(torch.ones(4))
    optimizer = AdaptiveMemoryAdamW([weights], 0.1, 0.0)
    for gradient in (1.0, -1.0):
        weights.grad = torch.full((4,), gradient)
        optimizer.step()
    torch.testing.assert_close(optimizer.state[weights]["memory"], torch.zeros(4))
    weights.grad = torch.zeros(4)
    optimizer.step()
    assert bool(weights.isfinite().all())


@pytest.mark.parametrize("kind", [MuonAndAdamW, AuONAndAdamW])
def test_a_saved_optimiser_goes_on_as_if_nothing_had_happened(kind: type) -> None:
    """Moments of matrices and of the rest are in the state: saved, loaded elsewhere, it steps the same, bit for bit."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = torch.randn(20, 6)

    def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            module(inputs).square().mean().backward()
            optimizer.step()

    optimizer = kind(network, 0.02, 0.003)
    steps(network, optimizer, 3)
    again = copy.deepcopy(network)
    resumed = kind(again, 0.02, 0.003)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # loading does not copy
    steps(network, optimizer, 3)
    steps(again, resumed, 3)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
