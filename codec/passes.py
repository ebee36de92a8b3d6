"""In which order coordinates are coded: five passes, each spread evenly over all rows and columns."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..forecast import Layout
from .activity import Matrix, matrices
from .symbol_coder import NO_VECTOR, Levels

PASSES = np.repeat([0, 1, 2, 3, 4], [1, 1, 2, 4, 8]).astype(np.uint8)  # of 16 equal shares of the coordinates
NUM_PASSES = 5


class Pass(NamedTuple):
    """Coordinates that are coded together, in layout order, `[place]` each.

    Attributes:
        places: in the flat vector.
        rows: number of the row, counted through all matrices.
        columns: number of the column, likewise.
    """

    places: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]


class Geometry:
    """Rows, columns and passes of a layout. Takes 12 bytes a coordinate once it is used.

    Args:
        layout: of the coded vector.
        together: how many consecutive coordinates of a tensor share a pass, counted from its first.
    """

    def __init__(self, layout: Layout, together: int = 1) -> None:
        self.parts: tuple[Matrix, ...] = matrices(layout)
        self.size = layout.size
        self._together = together

    @cached_property
    def matrix_of_row(self) -> npt.NDArray[np.intp]:
        """`[row]`."""
        return np.repeat(np.arange(len(self.parts)), [part.num_rows for part in self.parts])

    @cached_property
    def matrix_of_column(self) -> npt.NDArray[np.intp]:
        """`[column]`."""
        return np.repeat(np.arange(len(self.parts)), [part.num_columns for part in self.parts])

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The coordinates in the order in which they are coded.

        Which pass a coordinate belongs to follows the R2 sequence, multiples of the reciprocals of the plastic number
        and its square modulo 1, here in 32-bit integers: even over rows, columns and any rectangle.
        """
        number = np.empty(self.size, np.uint8)
        rows, columns = np.empty(self.size, np.int32), np.empty(self.size, np.int32)
        first_row = first_column = 0
        for part in self.parts:
            places = np.arange(part.num_rows * part.num_columns, dtype=np.uint32)
            row, column = np.divmod(places, part.num_columns)
            number[part.span] = PASSES[_slots(*self._firsts(places, row, column, part.num_columns))]
            rows[part.span] = first_row + row
            columns[part.span] = first_column + column
            first_row += part.num_rows
            first_column += part.num_columns
        found = []
        for wanted in range(NUM_PASSES):
            places = np.flatnonzero(number == wanted).astype(np.int32)
            found.append(Pass(places, rows[places], columns[places]))
        return tuple(found)

    def _firsts(
        self, places: npt.NDArray[np.uint32], row: npt.NDArray, column: npt.NDArray, num_columns: int
    ) -> tuple[npt.NDArray, npt.NDArray]:
        """Row and column of the first coordinate that shares each one's pass; columns in units of what shares it."""
        if self._together == 1:
            return row, column
        row, column = np.divmod(places - places % np.uint32(self._together), num_columns)
        return row, column // self._together

    def coded_passes(self, levels: Levels) -> tuple[Pass, ...]:
        """The passes without the coordinates of matrices that have no vector."""
        if not (levels == NO_VECTOR).any():
            return self.passes
        coded = (levels != NO_VECTOR)[self.matrix_of_row]
        kept = [coded[part.rows] for part in self.passes]
        return tuple(
            Pass(part.places[keep], part.rows[keep], part.columns[keep])
            for part, keep in zip(self.passes, kept, strict=True)
        )


def _slots(row: npt.NDArray[np.uint32], column: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The first four bits of the R2 sequence."""
    return (row * np.uint32(3242174889) + column * np.uint32(2447445414)) >> np.uint32(28)
