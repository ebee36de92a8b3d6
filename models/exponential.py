"""Exponentials: motion that slows down at a constant rate."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from .closed_form import ClosedForm
from .geometric import geometric_sum
from .motion import power_of_two_below, walked, working_dtype
from .options import require_integer
from .pieces import filled


@final
class Exponential(ClosedForm):
    """w(t) = a + b lambda^t for each coordinate, lambda between 0 and 1 per row.

    With d_1 .. d_n the differences of neighbouring rows, oldest first, all by least squares over them,

        lambda = sum_k d_{k+1} d_k / sum_k d_k^2,    c = sum_k lambda^(k-1) d_k / sum_k lambda^(2k-2),
        mean   = last + c lambda^(n-1) (lambda + lambda^2 + ... + lambda^m),    m = horizon / spacing,

    where c lambda^(n-1) is the newest difference as the fit has it and the sum is taken in closed form, for fractions
    of a spacing too. On an exponential this is exact. Where lambda falls outside (0, 1) the coordinate gets the nearest
    limit: from 1 on, where motion does not slow down, the line with the mean difference as its slope; up to 0, where
    differences alternate as those of noise do, and where nothing moves, its last value. Both limits are approached
    continuously. So on noise it stands still more than it errs; it pays where coordinates relax.

    scale = sigma sqrt(horizon) with sigma the window's motion per step (`random_walk`): persistence's, which is on the
    safe side where the fit is good.

    The noise of a coordinate's rows biases its ratio towards 0, and below it for independent noise: a damping, not a
    correct estimate. Rows further apart, or more of them, lessen that: with 5 rows it lost to persistence on some of
    three small runs under Adam, with 8 hardly on any. (An iterative fit, 200 times slower than a
    network in Jang et al. 2023, ICML, table 4, is not needed: two linear fits do.)

    Args:
        history: rows in the window, at least 3. With 3 it goes through every row.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range. On use, WindowError if the rows are not evenly spaced.
    """

    name: ClassVar[str] = "exponential"
    order: int | None = 1

    def __init__(self, history: int = 8, stream: str = "weights") -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 3)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        return _each(window, window.spacing, horizons)


def _each(window: Window, spacing: int, horizons: Sequence[int]) -> Iterator[Forecast]:
    dtype = working_dtype(window.values.dtype)
    for horizon in horizons:

        def ahead(span: slice, num_rows: float = horizon / spacing) -> Tensor:
            rows = window.values[:, span].to(dtype)
            return rows[-1] + _continued(rows.diff(dim=0), num_rows)

        yield Forecast(horizon, filled(window.last, ahead), walked(window, horizon**0.5))


def _continued(differences: Tensor, num_rows: float) -> Tensor:
    """How far from the newest row each coordinate will have moved `num_rows` rows later, `[coordinate]`.

    Args:
        differences: of neighbouring rows, `[time - 1, coordinate]`, oldest first; overwritten.
        num_rows: m, not necessarily whole.
    """
    unit = power_of_two_below(differences)  # so that squares neither overflow nor vanish
    differences /= unit
    energy, product = torch.zeros_like(differences[:2])
    for earlier, later in pairwise(differences):  # row by row: a reduction over the first axis is far slower
        energy.addcmul_(earlier, earlier)
        product.addcmul_(earlier, later)
    ratio = product.div_(energy.clamp_(min=torch.finfo(energy.dtype).tiny)).clamp_(0.0, 1.0)
    oldest, weight, power = differences[-1], torch.ones_like(ratio), torch.ones_like(ratio)
    for difference in reversed(differences[:-1].unbind()):  # Horner's scheme
        oldest = torch.addcmul(difference, oldest, ratio)
        power.mul_(ratio)
        weight.addcmul_(power, power)
    return oldest.mul_(power).div_(weight).mul_(geometric_sum(ratio, num_rows)).mul_(unit)
