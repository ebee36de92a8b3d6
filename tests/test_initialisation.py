"""How weights begin: what each scheme promises, and what is left alone."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from deadreckon.experiments.cli import main
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.initialisation import init_names, initialise
from deadreckon.forecast import Trajectory


def some_network() -> nn.Sequential:
    """Layers wider than high, higher than wide, a convolution and a norm."""
    return nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.GroupNorm(4, 32), nn.Flatten(), nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 40)
    )


def weights_of(network: nn.Sequential, place: int) -> torch.Tensor:
    layer: Any = network[place]
    return layer.weight.detach()


@pytest.mark.parametrize("scheme", ["normal", "uniform", "orthogonal"])
def test_entries_have_the_variance_two_over_fan_in(scheme: str) -> None:
    """Whatever the layer's shape, the mean square of its weights is twice the reciprocal of its fan-in."""
    network = some_network()
    initialise(network, scheme, 0)
    for place in (0, 3, 5):
        weights = weights_of(network, place)
        assert float(weights.square().mean()) * weights[0].numel() == pytest.approx(2, rel=0.06)


def test_uniform_is_bounded_and_normal_is_not() -> None:
    """Uniform weights end at the square root of six over fan-in; Gaussian ones go beyond."""
    reach = {}
    for scheme in ("uniform", "normal"):
        network = some_network()
        initialise(network, scheme, 0)
        reach[scheme] = float(weights_of(network, 5).abs().max()) / math.sqrt(6 / 96)
    assert 0.98 < reach["uniform"] <= 1 + 1e-6
    assert reach["normal"] > 1.5


def test_orthogonal_rows_or_columns_are_at_right_angles() -> None:
    """The smaller side of each matrix is orthogonal, all of one norm."""
    network = some_network()
    initialise(network, "orthogonal", 0)
    for place in (0, 3, 5):
        matrix = weights_of(network, place).flatten(1)
        small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(small, small[0, 0] * torch.eye(len(small)), rtol=0, atol=1e-5)


def test_delta_orthogonal_kernels_are_zero_but_in_their_centre() -> None:
    """A convolution begins as one orthogonal map of each position; linear layers are as with `orthogonal`."""
    network = some_network()
    initialise(network, "delta_orthogonal", 0)
    kernel = weights_of(network, 0).clone()
    centre = kernel[:, :, 1, 1].clone()
    torch.testing.assert_close(centre.T @ centre, 2 * torch.eye(16), rtol=0, atol=1e-5)
    kernel[:, :, 1, 1] = 0
    assert not kernel.any()
    assert float(weights_of(network, 3).square().mean()) * 32 == pytest.approx(2, rel=0.01)


def test_default_changes_nothing_and_others_leave_norms_alone() -> None:
    """`default` keeps every weight; the others empty biases and keep norms."""
    network = some_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialise(network, "default", 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    initialise(network, "normal", 0)
    after = network.state_dict()
    assert torch.equal(after["1.weight"], before["1.weight"])
    assert torch.equal(after["1.bias"], before["1.bias"])
    assert not after["0.bias"].any()
    assert not torch.equal(after["0.weight"], before["0.weight"])


@pytest.mark.parametrize("scheme", init_names())
def test_a_seed_decides_and_global_random_numbers_are_left_alone(scheme: str) -> None:
    """The same seed gives the same weights, another others, and the global generator stays where it was."""
    network = some_network()
    state = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        initialise(network, scheme, seed)
        found.append(weights_of(network, 3).clone())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) == (scheme == "default")


def test_an_unknown_scheme_is_refused() -> None:
    """The message names the schemes there are."""
    with pytest.raises(OptionError, match="`init` must be one of default, normal"):
        initialise(some_network(), "zeros", 0)


@pytest.mark.slow
def test_record_begins_as_it_is_told(tmp_path: Any) -> None:
    """`record --init orthogonal` starts from such weights, and its trajectory says so."""
    arguments = [
        "record",
        "--out",
        str(tmp_path),
        "--steps=1",
        "--every=1",
        "--init=orthogonal",
        "--learning_rate=1e-12",
    ]
    assert main([*arguments, "--forecasters=[]", "--logger=none", "--progress=false", "--streams=[weights]"]) == 0
    with Trajectory.open(tmp_path / "trajectory") as trajectory:
        assert trajectory.metadata["init"] == "orthogonal"
        spec = next(spec for spec in trajectory.layout if len(spec.shape) == 2)
        matrix = torch.from_numpy(trajectory.stream("weights")[0][spec.span].copy()).reshape(spec.shape)
    small = matrix @ matrix.T if spec.shape[0] <= spec.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(small, small[0, 0] * torch.eye(len(small)), rtol=0, atol=1e-5)
