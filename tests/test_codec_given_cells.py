"""Rounding to cells that are given, beside the quantiser that searches."""

import numpy as np
import pytest
import torch

from deadreckon.codec.given_cells import round_to_cells
from deadreckon.codec.lattice import Quantiser, cell_index

ROWS = {
    "gaussian": np.random.default_rng(0).normal(size=5000).astype(np.float32),
    "mixed": np.concatenate([np.random.default_rng(1).laplace(size=(500)) * scale for scale in (1e-3, 1, 100)]).astype(
        np.float32
    ),
    "zeros": np.zeros(7, np.float32),
    "one": np.array([-3.0], np.float32),
    "empty": np.zeros(0, np.float32),
    "subnormal": np.array([1e-42, -3e-43, 0.0], np.float32),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("width", [0.01, 0.3, 1.0, 5.0, 1e4, 1e-43])
@pytest.mark.parametrize("dead_zone", [0.0, 0.2, 0.45])
def test_given_cells_round_as_the_quantiser_does(name, width, dead_zone):
    """Places, values and offsets are those of `Quantiser` at the same width; the error agrees to 1e-9 of the energy."""
    row, index = ROWS[name], cell_index(width)
    quantiser = Quantiser(row, dead_zone)
    found = round_to_cells(row, dead_zone, quantiser.energy, index)
    if index < quantiser.finest:
        return
    assert found is not None
    trial = quantiser.trial(index)
    np.testing.assert_array_equal(found.trial.offsets, trial.offsets)
    np.testing.assert_allclose(found.trial.error, trial.error, rtol=1e-9, atol=1e-9 * quantiser.energy)
    places, values = quantiser.nonzero(trial)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_array_equal(found.values, values)
    assert found.values.dtype == np.int32
    assert (found.values != 0).all()


def test_cells_that_are_too_fine_are_refused():
    """Integers beyond 32 bits give `None`, and the finest cells that fit do not."""
    row = np.array([1.0, -2.0], np.float32)
    assert round_to_cells(row, 0.2, 5.0, cell_index(1e-10)) is None
    found = round_to_cells(row, 0.2, 5.0, cell_index(2e-9))
    assert found is not None
    torch.testing.assert_close(found.values[1] / found.values[0], -2.0, rtol=1e-6, atol=0)
