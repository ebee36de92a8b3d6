"""Where the training of our NiNo begins: the best combination of odd numbers on the whole, and how cases differ."""

import torch
from torch import Tensor

STEP = 0.3  # what an output of the network at 1 moves a forecast by, relative to the motion up to the horizon
RIDGE = 1e-4  # of the mean eigenvalue; also the least one, so that directions that hardly vary are not blown up
LEAST = 1e-30  # an eigenvalue where nothing moves at all
FLOOR = 0.05  # relative error below which a case counts no more
PASSES = 3  # of least squares; each weighs cases by what the one before leaves


def least_squares(basis: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients for all cases alike, and directions in which to correct them.

    Every case counts in proportion to 1 / its remaining error, at each horizon: that is least squares of the logarithm
    of relative errors, as training reduces it (iteratively reweighted).

    Args:
        basis: odd numbers of each scalar, `[case, edge, number]`.
        target: what came, in units and row spacings, `[case, edge, horizon]`.
        weight: of each scalar, `[case, edge]`.

    Returns:
        Coefficients, `[horizon, number]`, and directions, `[horizon, number, direction]`, float32.
    """
    weight, basis, target = weight.double(), basis.double(), target.double()
    still = (weight.unsqueeze(2) * target.square()).sum(dim=1).T  # [horizon, case]
    counts = torch.where(still > 0, 1 / still.where(still > 0, 1.0), 0.0)
    size = torch.einsum("c,ce,cer->r", counts.sum(dim=0), weight, basis.square()).sqrt()
    size = size.where(size > 0, 1.0)
    basis = basis / size
    products = torch.stack([(w.unsqueeze(1) * b).T @ b for w, b in zip(weight, basis, strict=True)])
    shared = [(w.unsqueeze(1) * t).T @ b for w, t, b in zip(weight, target, basis, strict=True)]
    crossed = torch.stack(shared).transpose(0, 1)  # [horizon, case, number]
    found = torch.zeros(len(still), basis.shape[2], dtype=torch.float64)
    directions = torch.zeros(len(still), basis.shape[2], basis.shape[2], dtype=torch.float64)
    for horizon, (cross, own, count) in enumerate(zip(crossed, still, counts, strict=True)):
        values, vectors = torch.linalg.eigh(torch.einsum("c,cij->ij", count, products))
        lengths = values.clamp(min=max(float(values.mean()) * RIDGE, LEAST))
        directions[horizon] = STEP * float((count > 0).sum()) ** 0.5 * vectors / lengths.sqrt() / size.unsqueeze(1)
        for _ in range(PASSES):
            total = torch.einsum("c,cij->ij", count, products)
            ridge = max(RIDGE * float(total.diagonal().mean()), LEAST)
            best = torch.linalg.solve(total + ridge * torch.eye(len(total)), count @ cross)
            error = own - 2 * cross @ best + torch.einsum("i,cij,j->c", best, products, best)
            count = torch.where(own > 0, 1 / (error.clamp(min=0) + FLOOR * own).where(own > 0, 1.0), 0.0)
            found[horizon] = best / size
    return found.float(), directions.float()
