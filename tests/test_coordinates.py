"""Reduced coordinates."""

import numpy as np
import pytest
import torch

from deadreckon.forecast.coordinates import FullCoordinates, PCACoordinates
from deadreckon.forecast.errors import WindowError


def _rows(num_rows: int = 12, num_parameters: int = 40, rank: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    path = torch.randn(num_rows, rank, generator=generator) * torch.tensor([10.0, 3.0, 1.0])[:rank]
    return path @ torch.randn(rank, num_parameters, generator=generator) + 5.0


def test_full_coordinates_leave_everything_as_it_is() -> None:
    """Full coordinates are the identity in both directions."""
    values = torch.randn(2, 5)
    full = FullCoordinates(5)
    assert full.size == full.num_parameters == 5
    assert full.to_parameters(values) is values
    assert full.from_parameters(values) is values
    assert full.digest != FullCoordinates(6).digest


def test_principal_components_equal_the_singular_vectors() -> None:
    """The basis and the explained variance equal those of a float64 singular value decomposition, up to sign."""
    rows = _rows()
    pca = PCACoordinates.fit(rows, 3)
    centred = rows.double().numpy() - rows.double().numpy().mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    overlap = np.abs(pca.basis.double().numpy() @ directions[:3].T)
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(pca.explained_variance_ratio, singular[:3] ** 2 / (singular**2).sum(), rtol=1e-4)


def test_paths_of_low_rank_survive_the_round_trip() -> None:
    """Rows that vary in three directions come back from three coordinates, and coordinates from parameters."""
    rows = _rows()
    pca = PCACoordinates.fit(rows, 3)
    coordinates = pca.from_parameters(rows)
    assert coordinates.shape == (12, 3)
    torch.testing.assert_close(pca.to_parameters(coordinates), rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pca.from_parameters(pca.to_parameters(coordinates)), coordinates, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pca.basis @ pca.basis.T, torch.eye(3), rtol=0, atol=1e-5)


def test_coordinates_are_differentiable_and_digested() -> None:
    """A gradient flows through the map, and its digest follows its content."""
    pca = PCACoordinates.fit(_rows(), 2)
    point = torch.zeros(2, requires_grad=True)
    pca.to_parameters(point).sum().backward()
    torch.testing.assert_close(point.grad, pca.basis.sum(dim=1))
    assert pca.digest == PCACoordinates.fit(_rows(), 2).digest
    assert pca.digest != PCACoordinates.fit(_rows() + 1, 2).digest


def test_more_components_than_the_rows_have_are_refused() -> None:
    """Ranks that the rows cannot give are refused: too few rows, or rows that do not vary so."""
    with pytest.raises(WindowError, match="time > 12"):
        PCACoordinates.fit(_rows(), 12)
    with pytest.raises(WindowError, match="do not vary in 5 directions"):
        PCACoordinates.fit(_rows().double(), 5)
    with pytest.raises(WindowError, match="do not vary in 1 directions"):
        PCACoordinates.fit(torch.ones(4, 6), 1)
    line = torch.arange(8.0)[:, None] * torch.ones(1000)
    with pytest.raises(WindowError, match="do not vary in 3 directions"):
        PCACoordinates.fit(line, 3)
    with pytest.raises(WindowError, match="must be finite"):
        PCACoordinates.fit(_rows() * float("inf"), 1)
