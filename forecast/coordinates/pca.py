"""Principal components of a trajectory as coordinates."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from ..errors import WindowError
from .contract import Coordinates


@dataclass(frozen=True)
class PCACoordinates(Coordinates):
    """Coordinates along the directions in which a trajectory varied most: w = mean + z basis.

    A few principal components of any smooth path, and of a plain random walk too, hold most of its variance (Antognini
    and Sohl-Dickstein 2018, arXiv 1806.08805): a high explained variance is no sign that the path is predictable.

    Attributes:
        mean: centre of the rows it was fitted to, `[param]`.
        basis: orthonormal rows, `[rank, param]`, most variance first.
        explained_variance_ratio: share of the rows' total variance along each, `[rank]`.
    """

    mean: Tensor
    basis: Tensor
    explained_variance_ratio: Tensor

    @classmethod
    def fit(cls, values: Tensor, rank: int) -> "PCACoordinates":
        """Principal components of recorded rows, by the eigenvectors of their Gram matrix.

        Works in `time * time` memory besides the rows, so it suits few rows of many parameters. Each basis row's sign
        is fixed by making its largest entry positive, so that equal rows give equal coordinates.

        Args:
            values: rows, `[time, param]`.
            rank: how many components, at most one fewer than there are distinct rows.

        Raises:
            WindowError: if the rows do not vary in `rank` directions, or are not finite.
        """
        if values.ndim != 2 or not 1 <= rank <= values.shape[0] - 1:
            raise WindowError(
                f"{rank} components need rows [time, param] with time > {rank}, got shape {tuple(values.shape)}."
            )
        if not bool(torch.isfinite(values).all()):
            raise WindowError("Rows must be finite to have principal components.")
        mean = values.mean(dim=0)
        # In float64: a Gram matrix rounded to float32 has directions of its own, which would pass for motion below.
        centred = values.double() - mean.double()
        gram = centred @ centred.T
        eigenvalues, eigenvectors = torch.linalg.eigh(gram)
        eigenvalues, eigenvectors = eigenvalues.flip(0), eigenvectors.flip(1)
        total = float(eigenvalues.clamp(min=0).sum())
        # Below this share a direction is the rounding of float32 rows, not motion.
        if not total > 0 or float(eigenvalues[rank - 1]) <= 1e-12 * total:
            raise WindowError(f"The rows do not vary in {rank} directions. Ask for fewer components or give more rows.")
        scaled = eigenvectors[:, :rank] / eigenvalues[:rank].sqrt()
        basis = scaled.T @ centred
        # One more orthonormalisation: for small eigenvalues the product above is orthogonal to about 1e-3 only.
        basis = torch.linalg.qr(basis.T)[0].T
        largest = basis.abs().argmax(dim=1, keepdim=True)
        basis = (basis * basis.gather(1, largest).sign()).to(values.dtype)
        return cls(mean, basis.contiguous(), (eigenvalues[:rank] / total).to(values.dtype))

    @property
    @override
    def size(self) -> int:
        return self.basis.shape[0]

    @property
    @override
    def num_parameters(self) -> int:
        return self.basis.shape[1]

    @property
    @override
    def digest(self) -> str:
        text = hashlib.sha256(b"pca")
        for part in (self.mean, self.basis):
            text.update(part.detach().cpu().contiguous().numpy().tobytes())
        return text.hexdigest()

    @override
    def to_parameters(self, coordinates: Tensor) -> Tensor:
        return coordinates @ self.basis + self.mean

    @override
    def from_parameters(self, parameters: Tensor) -> Tensor:
        return (parameters - self.mean) @ self.basis.T
