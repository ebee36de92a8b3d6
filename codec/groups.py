"""Which coordinates share an entropy table."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..forecast import Layout

MERGE_BELOW = 4096  # a table's worth of counts costs more than it saves on smaller tensors


class Groups:
    """The partition of a layout's coordinates into groups, each with a probability table of its own.

    A tensor of `MERGE_BELOW` coordinates or more is a group. Smaller ones are merged: those of at most one dimension
    (biases, norms) into one group, the others into another. Only what the layout's digest covers decides (names, shapes
    and order, not `kind`), so both ends of a link make the same groups. Empty tensors belong to none.

    Args:
        layout: the layout of the coded vector.

    Attributes:
        spans: for each group its slices of the flat vector, in layout order.
        sizes: coordinates in each group.
    """

    def __init__(self, layout: Layout) -> None:
        large: list[tuple[slice, ...]] = []
        small: dict[bool, list[slice]] = {True: [], False: []}
        for spec in layout:
            if spec.numel >= MERGE_BELOW:
                large.append((spec.span,))
            elif spec.numel:
                small[len(spec.shape) >= 2].append(spec.span)
        merged = [tuple(spans) for spans in small.values() if spans]
        self.spans: tuple[tuple[slice, ...], ...] = (*large, *merged)

    def __len__(self) -> int:
        return len(self.spans)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates in each group."""
        return tuple(sum(span.stop - span.start for span in spans) for spans in self.spans)

    def gather(self, values: npt.NDArray, group: int) -> npt.NDArray:
        """The values of one group, `[size]`; a view where the group is one tensor."""
        spans = self.spans[group]
        return values[spans[0]] if len(spans) == 1 else np.concatenate([values[span] for span in spans])

    def scatter(self, out: npt.NDArray, group: int, values: npt.NDArray) -> None:
        """Write one group's values, `[size]`, to their places in `out`, `[param]`; the inverse of `gather`."""
        start = 0
        for span in self.spans[group]:
            stop = start + span.stop - span.start
            out[span] = values[start:stop]
            start = stop
