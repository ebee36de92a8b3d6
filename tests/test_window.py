"""Windows and optimiser moments."""

from typing import Any

import pytest
import torch
from torch import nn

from deadreckon.forecast import (
    Layout,
    Moments,
    TensorSpec,
    Window,
    has_moments,
    keeps_moments,
    layout_of,
    raw_moments,
    read_moments,
)
from deadreckon.forecast.errors import WindowError

LAYOUT = Layout((TensorSpec("w", (3,), "float32", 0, "weight"),))


def window(num_rows: int = 4, spacing: int = 10) -> Window:
    """A window of that many rows."""
    values = torch.arange(3.0 * num_rows).reshape(num_rows, 3)
    rates = torch.full((num_rows,), 0.1, dtype=torch.float64)
    return Window(values, torch.arange(num_rows) * spacing, LAYOUT, learning_rates=rates)


def test_tail_keeps_the_newest_rows() -> None:
    """The tail has the last rows, steps and learning rates, and the same last row."""
    whole = window()
    tail = whole.tail(2)
    assert tail.steps.tolist() == [20, 30]
    assert tail.last_step == whole.last_step == 30
    assert tail.learning_rates is not None
    assert len(tail.learning_rates) == len(tail) == 2
    torch.testing.assert_close(tail.last, whole.last, rtol=0, atol=0)
    with pytest.raises(WindowError, match="has 4 rows, 5 were asked for"):
        whole.tail(5)


def test_spacing_is_told_only_where_it_is_even() -> None:
    """An even window knows its spacing, an uneven or one-row window says that it has none."""
    assert window(spacing=7).spacing == 7
    uneven = Window(torch.zeros(3, 3), torch.tensor([0, 1, 3]), LAYOUT)
    for bad in (uneven, window(1)):
        with pytest.raises(WindowError, match="evenly spaced"):
            _ = bad.spacing


@pytest.mark.parametrize(
    ("values", "steps", "extra", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 1]), {}, r"shape \[time, 3\]"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), {}, "at least one row"),
        (torch.zeros(2, 3, dtype=torch.int32), torch.tensor([0, 1]), {}, "floating point"),
        (torch.zeros(2, 3), torch.tensor([0, 1, 2]), {}, r"int64 of shape \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), {}, "int64"),
        (torch.zeros(2, 3), torch.tensor([1, 1]), {}, "must increase"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), {"learning_rates": torch.zeros(3)}, "`learning_rates`"),
    ],
)
def test_impossible_windows_are_refused(
    values: torch.Tensor, steps: torch.Tensor, extra: dict[str, Any], message: str
) -> None:
    """A window cannot be made with wrong shapes, types or steps that do not increase."""
    with pytest.raises(WindowError, match=message):
        Window(values, steps, LAYOUT, **extra)


def _trained(optimizer_of: type[torch.optim.Optimizer], **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Linear(2, 2)
    optimizer = optimizer_of(module.parameters(), **options)
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()
    return module, optimizer


def test_moments_are_those_of_the_optimiser() -> None:
    """The moments read are the optimiser's own, in layout order, with its settings."""
    module, optimizer = _trained(torch.optim.AdamW, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    moments = read_moments(optimizer, module, layout_of(module))
    state = [optimizer.state[value] for value in module.parameters()]
    expected = torch.cat([entry["exp_avg"].reshape(-1) for entry in state])
    torch.testing.assert_close(moments.exp_avg, expected, rtol=0, atol=0)
    assert (moments.num_updates, moments.beta1, moments.beta2, moments.weight_decay) == (3, 0.8, 0.9, 0.1)
    assert moments.learning_rate.item() == pytest.approx(0.01)


def test_l2_decay_is_not_decoupled_decay() -> None:
    """Adam's weight decay is already in its gradient, so the moments carry none."""
    module, optimizer = _trained(torch.optim.Adam, lr=0.01, weight_decay=0.1)
    assert read_moments(optimizer, module, layout_of(module)).weight_decay == 0


def test_learning_rates_of_groups_are_told_apart() -> None:
    """Where groups differ in their rate, each coordinate has its own."""
    module = nn.Linear(2, 1)
    optimizer = torch.optim.Adam([{"params": [module.weight], "lr": 0.1}, {"params": [module.bias], "lr": 0.2}])
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    rates = read_moments(optimizer, module, layout_of(module)).learning_rate
    torch.testing.assert_close(rates, torch.tensor([0.1, 0.1, 0.2]))


def test_moments_are_refused_where_there_are_none() -> None:
    """SGD, amsgrad, groups with unlike betas and an optimiser before its first update are refused by name."""
    module, optimizer = _trained(torch.optim.SGD, lr=0.01)
    assert not has_moments(optimizer)
    with pytest.raises(WindowError, match="got SGD"):
        read_moments(optimizer, module, layout_of(module))
    assert not has_moments(torch.optim.Adam(module.parameters(), amsgrad=True))
    with pytest.raises(WindowError, match="made no update yet"):
        read_moments(torch.optim.Adam(module.parameters()), module, layout_of(module))
    weight, bias = module.parameters()
    optimizer = torch.optim.Adam([{"params": [weight], "betas": (0.5, 0.9)}, {"params": [bias]}])
    optimizer.step()
    assert keeps_moments(optimizer)
    assert not has_moments(optimizer)
    torch.testing.assert_close(
        raw_moments(optimizer, module, layout_of(module))["exp_avg"][:4],
        optimizer.state[weight]["exp_avg"].reshape(-1),
    )
    with pytest.raises(WindowError, match="must share betas"):
        read_moments(optimizer, module, layout_of(module))


def test_impossible_moments_are_refused() -> None:
    """Moments of unlike lengths, of no update, or of another length than the window are refused."""
    rest = {"learning_rate": torch.tensor(0.1), "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.0}
    with pytest.raises(WindowError, match="two vectors of one length"):
        Moments(torch.zeros(3), torch.zeros(2), 1, **rest)
    with pytest.raises(WindowError, match="`num_updates` must be at least 1"):
        Moments(torch.zeros(3), torch.zeros(3), 0, **rest)
    with pytest.raises(WindowError, match="must have 3 coordinates, got 2"):
        Window(torch.zeros(1, 3), torch.tensor([0]), LAYOUT, moments=Moments(torch.zeros(2), torch.zeros(2), 1, **rest))
