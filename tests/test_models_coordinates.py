"""Coordinates from seeds: PRANC, NOLA, LoRA and MCNC, and modules that train in them."""

import copy
import hashlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import Layout, LayoutError, TensorSpec, pack
from deadreckon.models import ModelError
from deadreckon.models.coordinates import (
    MCNC,
    NOLA,
    PRANC,
    GivenStart,
    LoRA,
    ReducedModule,
    SeededCoordinates,
    SeededStart,
    ZeroStart,
    choose_layout,
    load_parameters,
    sphere_coverage,
    uniform_points,
)
from deadreckon.models.coordinates.basis import Basis
from deadreckon.models.coordinates.gaussian_basis import GaussianBasis, quantiles
from deadreckon.models.coordinates.hadamard_basis import HadamardBasis
from deadreckon.models.coordinates.random_words import random_words, stream_key
from deadreckon.models.coordinates.sign_basis import SignBasis
from deadreckon.models.coordinates.sphere_network import sines

LAYOUT = Layout(
    (
        TensorSpec("0.weight", (30, 20), "float32", 0, "weight"),
        TensorSpec("2.weight", (5, 30), "float32", 600, "weight"),
    )
)
MADE: dict[str, Callable[[], SeededCoordinates]] = {
    "hadamard": lambda: PRANC(LAYOUT, 50, seed=3),
    "sign": lambda: PRANC(LAYOUT, 50, seed=3, basis="sign"),
    "gaussian": lambda: PRANC(LAYOUT, 50, seed=3, basis="gaussian", start=SeededStart(1)),
    "lora": lambda: LoRA(LAYOUT, 2),
    "nola": lambda: NOLA(LAYOUT, 20, rank=4, seed=3),
    "mcnc": lambda: MCNC(LAYOUT, 3, chunk=128, width=16, seed=3),
}
# What the six make of fixed coordinates: to change one is to break every file that names its kind.
GOLDEN = {
    "hadamard": "52391f228d86fc91",
    "sign": "9590309b6e0bd390",
    "gaussian": "41d0831f95bebc31",
    "lora": "88f5ad4200962cab",
    "nola": "fc8c1ec8df433bb6",
    "mcnc": "ad0bd07d7176e88c",
}


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))


def _point(coordinates: SeededCoordinates, seed: int = 1) -> Tensor:
    """Coordinates of size 1 that no generator of torch has a say in."""
    words = random_words(seed, 0, coordinates.size).astype(np.float64)
    return torch.from_numpy(words / 2.0**63 - 1.0).float()


@pytest.fixture(params=MADE)
def coordinates(request: pytest.FixtureRequest) -> SeededCoordinates:
    return MADE[request.param]()


def test_words_are_those_of_splitmix() -> None:
    """The words of key 1234567 are the published first outputs of SplitMix64, and any stretch is part of the whole."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert random_words(1234567, 0, 5).tolist() == expected
    assert random_words(1234567, 3, 2).tolist() == expected[3:]
    assert random_words(2**64 - 1, 0, 3).tolist() == random_words(-1 % 2**64, 0, 3).tolist()
    assert len({stream_key(seed, stream) for seed in range(30) for stream in range(30)}) == 900


def test_tables_are_safe_to_round() -> None:
    """No entry of the tables of quantiles and sines is so near to a half that another machine may round otherwise."""
    normal = NormalDist()
    exact = np.array([256 * normal.inv_cdf((level + 0.5) / 65536) for level in range(32768, 65536)])
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6
    np.testing.assert_array_equal(quantiles()[32768:], np.rint(exact))
    np.testing.assert_array_equal(quantiles()[:32768], -quantiles()[:32767:-1])
    turns = np.arange(65536)
    exact = 32767 * np.sin(2 * np.pi * turns / 65536)
    assert np.abs(exact[:16384] - np.floor(exact[:16384]) - 0.5).min() > 1e-6
    assert np.abs(sines() - exact).max() < 0.5
    assert hashlib.sha256(quantiles().astype("<i2").tobytes()).hexdigest()[:16] == "586fabbefab1ca02"
    assert hashlib.sha256(sines().astype("<i2").tobytes()).hexdigest()[:16] == "e0313f89310605ac"


@pytest.mark.parametrize("kind", [SignBasis, HadamardBasis, GaussianBasis])
@pytest.mark.parametrize(("num_coefficients", "num_parameters"), [(1, 1), (9, 130), (70, 70000)])
def test_a_basis_is_linear_and_its_projection_is_the_transpose(
    kind: type[Basis], num_coefficients: int, num_parameters: int
) -> None:
    """Combinations are exact sums of single vectors in any grouping, and <B c, v> equals <c, B^T v>."""
    basis = kind(num_coefficients, num_parameters, 5)
    coefficients = np.rint(np.linspace(-900, 1000, num_coefficients))
    whole = basis.combine(coefficients)
    parts = [basis.combine(np.where(np.arange(num_coefficients) % 3 == third, coefficients, 0)) for third in range(3)]
    np.testing.assert_array_equal(whole, sum(parts))
    vector = np.rint(np.cos(np.arange(num_parameters)) * 100)
    assert float(coefficients @ basis.project(vector)) == float(whole @ vector)
    first = basis.combine(np.eye(1, num_coefficients)[0])
    assert np.abs(first).max() <= basis.largest_entry
    if num_parameters > 1000:
        assert math.sqrt(np.square(first).mean()) == pytest.approx(basis.entry_size, rel=0.02)
        second = basis.combine(np.eye(1, num_coefficients, 1)[0])
        assert abs(float(first @ second)) < 5 * basis.entry_size**2 * math.sqrt(num_parameters)
        assert abs(float(first.sum())) < 5 * basis.entry_size * math.sqrt(num_parameters)


def test_the_hadamard_blocks_are_orthogonal() -> None:
    """Of whole blocks the basis vectors of randomised Hadamard blocks are orthogonal."""
    basis = HadamardBasis(60, 192, 5)
    vectors = np.stack([basis.combine(row) for row in np.eye(60)])
    np.testing.assert_array_equal(vectors @ vectors.T, 192 * np.eye(60))


def test_normal_entries_are_normal() -> None:
    """The moments of normal entries are those of the normal distribution, up to the sampling error."""
    entries = GaussianBasis(1, 2**18, 1).combine(np.ones(1)) / 256
    assert entries.mean() == pytest.approx(0, abs=0.01)
    assert np.square(entries).mean() == pytest.approx(1, abs=0.01)
    assert (entries**4).mean() == pytest.approx(3, abs=0.06)
    assert (np.abs(entries) > 3).mean() == pytest.approx(0.0027, abs=0.0005)


def test_coordinates_keep_the_contract(coordinates: SeededCoordinates) -> None:
    """Sizes, batches, types and digests are as the contract says."""
    assert coordinates.num_parameters == LAYOUT.size
    assert coordinates.size == sum(part.numel for part in coordinates.parts) == len(coordinates.initial())
    torch.testing.assert_close(coordinates.initial(1), coordinates.initial(1), rtol=0, atol=0)
    points = torch.stack([_point(coordinates, seed) for seed in range(6)]).reshape(2, 3, -1)
    rows = coordinates.to_parameters(points)
    assert rows.shape == (2, 3, LAYOUT.size)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows[1, 2], coordinates.to_parameters(points[1, 2]), rtol=0, atol=0)
    fine = coordinates.to_parameters(points.double())
    assert fine.dtype == torch.float64
    torch.testing.assert_close(fine.float(), rows, rtol=0, atol=0)
    assert 0.3 < float((rows - coordinates.beginning).std() / coordinates.scales.mean()) < 3
    assert coordinates.digest in {made().digest for made in MADE.values()}
    with pytest.raises(ModelError, match=rf"`coordinates` must have shape \[..., {coordinates.size}\]"):
        coordinates.to_parameters(torch.zeros(coordinates.size + 1))
    with pytest.raises(ModelError, match="`parameters` must have shape"):
        coordinates.from_parameters(torch.zeros(3))
    with pytest.raises(ModelError, match="Parameters must be finite"):
        coordinates.from_parameters(torch.full((LAYOUT.size,), float("nan")))


def test_digests_tell_maps_apart() -> None:
    """Kind, options, layout and start each change the digest."""
    other = choose_layout(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 6)), num_axes=2)
    variants = [
        *(made() for made in MADE.values()),
        PRANC(LAYOUT, 51, seed=3),
        PRANC(LAYOUT, 50, seed=4),
        PRANC(other, 50, seed=3),
        PRANC(LAYOUT, 50, seed=3, start=SeededStart(0)),
        PRANC(LAYOUT, 50, seed=3, start=GivenStart(torch.zeros(LAYOUT.size))),
        PRANC(LAYOUT, 50, seed=3, start=GivenStart(torch.ones(LAYOUT.size))),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)
    assert PRANC(LAYOUT, 50, seed=3, start=ZeroStart()).digest == MADE["hadamard"]().digest


def test_the_gradient_is_that_of_differences(coordinates: SeededCoordinates) -> None:
    """The gradient along a direction equals the difference quotient of the parameters."""
    point = _point(coordinates).double().requires_grad_()
    cotangent = torch.cos(torch.arange(LAYOUT.size, dtype=torch.float64))
    (coordinates.to_parameters(point) @ cotangent).backward()
    assert point.grad is not None
    direction, step = _point(coordinates, 2).double(), 1e-2
    with torch.no_grad():
        difference = coordinates.to_parameters(point + step * direction) - coordinates.to_parameters(
            point - step * direction
        )
    assert float(point.grad @ direction) == pytest.approx(float(difference @ cotangent) / (2 * step), rel=0.02)


def test_parameters_come_back(coordinates: SeededCoordinates) -> None:
    """Parameters that coordinates made are made again by those that are found for them; linear ones are the same."""
    point = _point(coordinates).double()
    made = coordinates.to_parameters(point)
    found = coordinates.from_parameters(made)
    error = (coordinates.to_parameters(found) - made).square().sum() / (made - coordinates.beginning).square().sum()
    assert float(error) < (0.3 if coordinates.kind == "nola" else 1e-3)
    if coordinates.kind == "pranc":
        torch.testing.assert_close(found, point, rtol=0, atol=1e-5)


def test_what_cannot_be_expressed_comes_back_as_the_nearest() -> None:
    """The coordinates of any parameters under PRANC are those of least squares, and under LoRA of the best rank."""
    parameters = torch.sin(torch.arange(LAYOUT.size, dtype=torch.float64)) * 0.1
    pranc = MADE["gaussian"]()
    matrix = (pranc.to_parameters(torch.eye(50, dtype=torch.float64)) - pranc.beginning).T
    expected = torch.linalg.lstsq(matrix, (parameters - pranc.beginning)[:, None]).solution[:, 0]
    torch.testing.assert_close(pranc.from_parameters(parameters), expected, rtol=1e-5, atol=1e-6)
    lora = LoRA(LAYOUT, 2, ZeroStart())
    made = lora.to_parameters(lora.from_parameters(parameters))[:600].reshape(30, 20)
    left, singular, right = torch.linalg.svd(parameters[:600].reshape(30, 20))
    torch.testing.assert_close(made, (left[:, :2] * singular[:2]) @ right[:2], rtol=0, atol=1e-5)


def test_a_start_is_where_training_begins(coordinates: SeededCoordinates) -> None:
    """With a start other than zero, initial coordinates make the start, and the start's own coordinates make it too."""
    if isinstance(coordinates.start, ZeroStart):
        assert float(coordinates.to_parameters(coordinates.initial()).std()) > 0.05
        return
    start = coordinates.beginning.float()
    torch.testing.assert_close(coordinates.to_parameters(coordinates.initial()), start, rtol=0, atol=0)
    found = coordinates.from_parameters(coordinates.beginning)
    torch.testing.assert_close(coordinates.to_parameters(found).float(), start, rtol=0, atol=2e-6)


def test_pretrained_networks_are_starts() -> None:
    """Coordinates that start from a network's own tensors make that network before they are trained."""
    module = _network()
    inputs = torch.sin(torch.arange(60.0)).reshape(3, 20)
    before = module(inputs)
    layout = choose_layout(module, num_axes=2)
    for coordinates in (
        NOLA(layout, 10, start=GivenStart.of(module, layout)),
        LoRA(layout, 1, GivenStart.of(module, layout)),
    ):
        torch.testing.assert_close(ReducedModule(copy.deepcopy(module), coordinates)(inputs), before, rtol=0, atol=0)
    with pytest.raises(LayoutError, match="Tensor '0.weight' is missing"):
        GivenStart.of(nn.Linear(20, 30), layout)


def test_seeded_starts_are_as_torch_begins() -> None:
    """Matrices of a seeded start are uniform with torch's own spread, norm weights 1, other vectors 0."""
    module = nn.Sequential(nn.Linear(300, 200), nn.LayerNorm(200), nn.Linear(200, 3))
    layout = choose_layout(module)
    values = SeededStart(2).values(layout)
    weight = values[layout["0.weight"].span]
    assert float(weight.abs().max()) <= 1 / math.sqrt(300)
    assert float(weight.std()) == pytest.approx(float(module.get_parameter("0.weight").detach().std()), rel=0.02)
    assert values[layout["1.weight"].span].unique().tolist() == [1.0]
    assert values[layout["0.bias"].span].unique().tolist() == [0.0]
    assert not torch.equal(values, SeededStart(3).values(layout))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_coordinates_out_of_range_make_no_number(coordinates: SeededCoordinates, bad: float) -> None:
    """A coordinate that is not finite, or too large to be exact, gives NaN or infinity and never a wrong number."""
    point = _point(coordinates)
    point[0] = bad
    made = coordinates.to_parameters(point)
    assert not bool(torch.isfinite(made).all())
    if coordinates.kind == "pranc":
        assert bool(made.isnan().all())


def test_every_machine_makes_the_same_parameters() -> None:
    """Parameters made from fixed coordinates are those committed here, and also with two threads."""
    threads = torch.get_num_threads()
    for name, made in MADE.items():
        coordinates = made()
        digests = set[str]()
        for number in (1, 2):
            torch.set_num_threads(number)
            data = coordinates.to_parameters(_point(coordinates)).numpy().astype("<f4").tobytes()
            digests.add(hashlib.sha256(data).hexdigest()[:16])
        torch.set_num_threads(threads)
        assert digests == {GOLDEN[name]}, name


FRESH = """
import hashlib, sys, torch
sys.path.insert(0, sys.argv[1])
from test_models_coordinates import MADE, _point
for made in MADE.values():
    coordinates = made()
    print(hashlib.sha256(coordinates.to_parameters(_point(coordinates)).numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_fresh_process_makes_the_same_parameters() -> None:
    """Another process makes the same parameters of the same coordinates, bit for bit."""
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    expected = [
        hashlib.sha256(made().to_parameters(_point(made())).numpy().tobytes()).hexdigest() for made in MADE.values()
    ]
    assert ran.stdout.split() == expected


def test_options_out_of_range_are_refused() -> None:
    """Impossible options and tensors are refused by name."""
    with pytest.raises(ModelError, match="`num_coefficients` must be a whole number of at least 1, got 0"):
        PRANC(LAYOUT, 0)
    with pytest.raises(ModelError, match="`basis` must be one of 'hadamard', 'sign', 'gaussian', got 'cosine'"):
        PRANC(LAYOUT, 5, basis="cosine")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="`seed` must be a whole number of at least 0, got -1"):
        PRANC(LAYOUT, 5, seed=-1)
    with pytest.raises(ModelError, match="`rank` must be a whole number of at least 1, got 0"):
        LoRA(LAYOUT, 0)
    with pytest.raises(ModelError, match=r"two axes or more, got 'bias' of shape \(5,\)"):
        NOLA(Layout((TensorSpec("bias", (5,), "float32", 0, "bias"),)), 3)
    with pytest.raises(ModelError, match="`chunk` must be at most 8192 and `width` at most 1024, got 9000 and 64"):
        MCNC(LAYOUT, chunk=9000)
    with pytest.raises(ModelError, match="`frequency` must be a finite number above 0"):
        MCNC(LAYOUT, frequency=0)
    with pytest.raises(LayoutError, match="to fit the layout"):
        MCNC(LAYOUT, start=GivenStart(torch.zeros(3))).to_parameters(torch.zeros(30))
    with pytest.raises(LayoutError, match="has 3 axes or more"):
        choose_layout(_network(), num_axes=3)
    with pytest.raises(LayoutError, match="must match the name"):
        choose_layout(_network(), ["convolution*"])


def test_a_reduced_module_trains_its_coordinates(coordinates: SeededCoordinates) -> None:
    """A step of descent on the coordinates, and on what they leave out, lowers the loss; nothing else is trainable."""
    reduced = ReducedModule(_network(), coordinates)
    names = [name for name, _ in reduced.named_parameters()]
    assert names == [*(reduced.part_name(part.name) for part in coordinates.parts), "module.0.bias", "module.2.bias"]
    assert all(coordinates.digest[:12] in name for name in names[:-2])
    inputs, labels = torch.sin(torch.arange(640.0)).reshape(32, 20), torch.arange(32) % 5
    optimizer = torch.optim.Adam(reduced.parameters(), 0.01)
    losses: list[float] = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(reduced(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01


def test_a_reduced_module_equals_a_plain_one(coordinates: SeededCoordinates) -> None:
    """Outputs equal those of a plain network with the parameters that the coordinates make, copies included."""
    reduced = ReducedModule(_network(), coordinates, _point(coordinates))
    plain = _network()
    parameters = coordinates.to_parameters(_point(coordinates))
    with torch.no_grad():
        plain.get_parameter("0.weight").copy_(parameters[:600].reshape(30, 20))
        plain.get_parameter("2.weight").copy_(parameters[600:].reshape(5, 30))
    inputs = torch.sin(torch.arange(60.0)).reshape(3, 20)
    for module in (reduced, copy.deepcopy(reduced), reduced.plain_module()):
        torch.testing.assert_close(module(inputs), plain(inputs), rtol=0, atol=0)
    torch.testing.assert_close(pack(reduced.plain_module())[0], pack(plain)[0], rtol=0, atol=0)
    assert reduced.module[0].weight is None  # pyright: ignore
    with pytest.raises(RuntimeError), reduced.placed():
        raise RuntimeError
    assert reduced.module[0].weight is None  # pyright: ignore


def test_copies_of_a_reduced_module_are_apart() -> None:
    """Changing a deep copy leaves the original alone, and copies keep shared parameters shared."""
    reduced = ReducedModule(_network(), MADE["hadamard"]())
    twin = copy.deepcopy(reduced)
    before = reduced.vector.detach().clone()
    twin.set_vector(torch.zeros(50))
    torch.testing.assert_close(reduced.vector.detach(), before, rtol=0, atol=0)
    assert not bool(twin.vector.any())
    assert not bool(twin(torch.ones(1, 20)).sub(twin.module[2].bias).any())  # pyright: ignore


def test_tied_tensors_are_expressed_once_and_placed_everywhere() -> None:
    """A tensor that two layers share is expressed once, and both use what is made."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight

        @override
        def forward(self, inputs: Tensor) -> Tensor:
            return self.second(self.first(inputs))

    module = Tied()
    coordinates = PRANC(choose_layout(module), 8)
    assert coordinates.num_parameters == 16
    reduced = ReducedModule(module, coordinates)
    matrix = coordinates.to_parameters(coordinates.initial()).reshape(4, 4)
    torch.testing.assert_close(reduced(torch.eye(4)), matrix.T @ matrix.T)
    plain = reduced.plain_module()
    assert isinstance(plain, Tied)
    assert plain.first.weight is plain.second.weight
    assert [name for name, _ in reduced.named_parameters()] == [reduced.part_name("coefficients")]


def test_coordinates_are_fitted_to_a_plain_network() -> None:
    """Loading a network into coordinates gives the nearest one and says how far off it is."""
    reduced = ReducedModule(_network(), LoRA(LAYOUT, 5, ZeroStart()))
    error = load_parameters(reduced, _network())
    made = reduced.tensors()
    expected = _network()
    assert 0 < error < 0.9
    torch.testing.assert_close(made["2.weight"], expected[2].weight, rtol=0, atol=1e-5)
    with pytest.raises(LayoutError, match=r"'0.weight' is missing"):
        load_parameters(reduced, nn.Linear(20, 30))


def test_modules_that_do_not_fit_are_refused() -> None:
    """Another module, a recurrent layer and coordinates of another length are refused by name."""
    with pytest.raises(LayoutError, match="no such trainable tensor"):
        ReducedModule(nn.Linear(20, 30), MADE["hadamard"]())
    with pytest.raises(LayoutError, match=r"the module has shape \(31, 20\)"):
        ReducedModule(nn.Sequential(nn.Linear(20, 31), nn.ReLU(), nn.Linear(31, 5)), MADE["hadamard"]())
    lstm = nn.LSTM(3, 4)
    with pytest.raises(ModelError, match="'weight_ih_l0' belongs to LSTM"):
        ReducedModule(lstm, PRANC(choose_layout(lstm), 5))
    with pytest.raises(ModelError, match=r"`initial` must have shape \(50,\), got \(3,\)"):
        ReducedModule(_network(), MADE["hadamard"](), torch.zeros(3))
    with pytest.raises(ModelError, match=r"Coordinates must have shape \(50,\), got \(3,\)"):
        ReducedModule(_network(), MADE["hadamard"]()).set_vector(torch.zeros(3))


def test_faster_windings_cover_more_of_the_sphere() -> None:
    """Points of the sine network spread the more the higher its frequency, yet less than even ones."""
    alphas = torch.randn(400, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    slow, fast = (
        sphere_coverage(torch.from_numpy(MCNC(LAYOUT, 9, 128, 64, frequency).network.exact(alphas)))
        for frequency in (0.3, 2.0)
    )
    even = sphere_coverage(uniform_points(400, 128, seed=9))
    assert slow.effective_dimensions < fast.effective_dimensions < even.effective_dimensions
    assert slow.pair_energy > fast.pair_energy > even.pair_energy
    assert slow.sliced_distance > fast.sliced_distance > even.sliced_distance
    assert 0.5 < even.rayleigh < 1.5
    assert sphere_coverage(uniform_points(400, 128).abs()).rayleigh > 100
    with pytest.raises(ModelError, match="two or more"):
        sphere_coverage(torch.ones(1, 3))
    with pytest.raises(ModelError, match="finite and not zero"):
        sphere_coverage(torch.zeros(2, 3))


def test_exact_and_smooth_points_agree() -> None:
    """The sine network in whole numbers equals the one in float64 up to the resolution of its tables."""
    network = MCNC(LAYOUT, 4, 100, 32, 1.5).network
    alphas = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.from_numpy(network.exact(alphas.numpy()))
    torch.testing.assert_close(exact, network.smooth(alphas), rtol=0, atol=2e-4)
    torch.testing.assert_close(exact.norm(dim=1), torch.ones(50, dtype=torch.float64))
