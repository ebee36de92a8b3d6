"""The training loop."""

import pytest
import torch

from deadreckon.models import FittingError
from deadreckon.models.threads import one_thread
from deadreckon.models.training import train


def test_threads_are_restored(two_threads: None) -> None:
    """Inside there is one thread; afterwards as many as before, on an error too."""
    with pytest.raises(KeyError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError("inside")
    assert torch.get_num_threads() == 2


class Quartic(torch.nn.Module):
    """One number, to be moved from 1 towards 0."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))


def test_training_keeps_the_best_and_stops_when_it_no_longer_improves() -> None:
    """With a validation error that is least half way, the parameters from there are kept and training ends early."""
    module = Quartic()
    iterations, best, stopped = train(
        module, lambda: module.value**2, lambda: (module.value - 0.5) ** 2, num_iterations=10**5, deadline=None
    )
    assert stopped == "converged"
    assert iterations < 300
    assert abs(float(module.value) - 0.5) < 0.05
    assert best == float((module.value - 0.5) ** 2)
    assert not module.value.requires_grad


def test_training_that_diverges_is_an_error() -> None:
    """An error that is not finite ends the fit; the iteration is named."""
    module = Quartic()
    with pytest.raises(FittingError, match="Training diverged: the error is nan in iteration 5"):
        train(module, lambda: module.value * torch.nan, lambda: module.value**2, 50, None)
    module = Quartic()
    with pytest.raises(FittingError, match="Training diverged: the error is inf in iteration 0"):
        train(module, lambda: module.value, lambda: module.value * torch.inf, 50, None)
