"""Trajectories with known answers, shared by tests."""

from collections.abc import Sequence
from itertools import accumulate
from typing import get_args

import torch
from nino_graphs import plain_graph
from torch import Tensor

from deadreckon.forecast import Layout, Moments, TensorSpec, Window
from deadreckon.forecast.case import Case
from deadreckon.forecast.layout import Kind
from deadreckon.models import ClosedForm, FittableForecaster
from deadreckon.models.fitting import Budget, fit_forecaster

SHAPES = {"first.weight": (4, 3), "first.bias": (4,), "second.weight": (5, 4), "second.bias": (5,)}


def small_layout(shapes: dict[str, tuple[int, ...]] = SHAPES) -> Layout:
    """A layout of these shapes; a tensor's kind is its name's last part where that is a kind."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    offsets = accumulate(sizes, initial=0)
    specs: list[TensorSpec] = []
    for (name, shape), offset in zip(shapes.items(), offsets, strict=False):
        kinds: list[Kind] = [kind for kind in get_args(Kind) if kind == name.rpartition(".")[2]]
        specs.append(TensorSpec(name, shape, "float32", offset, kinds[0] if kinds else "other"))
    return Layout(tuple(specs))


def flat_layout(num_parameters: int) -> Layout:
    """A layout of one tensor."""
    return small_layout({"weight": (num_parameters,)})


def window_of(
    values: Tensor,
    steps: Sequence[int] | None = None,
    layout: Layout | None = None,
    stream: str = "weights",
    moments: Moments | None = None,
    with_graph: bool = False,
) -> Window:
    """A window of `values` `[time, param]`, at steps 0, 1, 2, ... unless told otherwise."""
    steps = range(len(values)) if steps is None else steps
    layout = flat_layout(values.shape[1]) if layout is None else layout
    graph = plain_graph(layout) if with_graph else None
    return Window(values, torch.tensor(list(steps)), layout, stream, moments=moments, graph=graph)


def cases_of(
    values: Tensor,
    steps: Sequence[int],
    history: int,
    horizons: Sequence[int],
    layout: Layout,
    stream: str = "weights",
    with_graph: bool = False,
) -> list[Case]:
    """All cases of recorded rows, oldest first."""
    row_of = {step: row for row, step in enumerate(steps)}
    found: list[Case] = []
    for last in range(history - 1, len(steps)):
        if all(steps[last] + horizon in row_of for horizon in horizons):
            first = last - history + 1
            window = window_of(values[first : last + 1], steps[first : last + 1], layout, stream, with_graph=with_graph)
            found.append(Case(window, {horizon: values[row_of[steps[last] + horizon]] for horizon in horizons}))
    return found


def some_moments(num_parameters: int, generator: torch.Generator, size: float = 1.0) -> Moments:
    """Moments as Adam may have them after 20 updates; all zero with `size` 0."""
    gradient = torch.randn(num_parameters, generator=generator) * size
    return Moments(
        exp_avg=0.5 * gradient,
        exp_avg_sq=0.02 * gradient**2,
        num_updates=20,
        learning_rate=torch.tensor(1e-3),
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.0,
    )


def drifting_rows(num_rows: int, num_parameters: int, generator: torch.Generator) -> Tensor:
    """A random walk whose increments are correlated in time (0.8 from row to row), about a random start."""
    increments = torch.zeros(num_parameters)
    rows = [torch.randn(num_parameters, generator=generator)]
    for _ in range(num_rows - 1):
        increments = 0.8 * increments + 0.05 * torch.randn(num_parameters, generator=generator)
        rows.append(rows[-1] + increments)
    return torch.stack(rows)


def relaxing_rows(num_rows: int, num_parameters: int, rank: int, generator: torch.Generator) -> Tensor:
    """Motion in `rank` hidden directions that slows down by friction, each at its own rate: v' = -v / tau.

    w(t) = w_end - sum_i a_i exp(-t / tau_i) direction_i, with tau from 5 to 40 rows.
    """
    directions = torch.linalg.qr(torch.randn(num_parameters, rank, generator=generator))[0]
    rates = torch.linspace(1 / 40, 1 / 5, rank)
    decay = torch.exp(-torch.arange(num_rows).unsqueeze(1) * rates)
    end = torch.randn(num_parameters, generator=generator)
    return end - (decay * torch.linspace(3, 1, rank)) @ directions.T


def fitted(
    forecaster: ClosedForm | FittableForecaster, layout: Layout, spacing: int = 2
) -> ClosedForm | FittableForecaster:
    """The forecaster, fitted to drifting rows if it has to be, up to a horizon of six spacings."""
    if isinstance(forecaster, FittableForecaster):
        rows = drifting_rows(40, layout.size, torch.Generator().manual_seed(5))
        steps = range(0, 40 * spacing, spacing)
        cases = cases_of(
            rows, steps, forecaster.history, [spacing, 6 * spacing], layout, forecaster.stream, forecaster.needs_graph
        )
        fit_forecaster(forecaster, cases, Budget(iterations=5), torch.Generator().manual_seed(1))
    return forecaster
