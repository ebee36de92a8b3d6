"""Reduced networks on disk, and checkpoints compressed without loss."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deadreckon.forecast import pack
from deadreckon.models import ModelFileError
from deadreckon.models.coordinates import (
    MCNC,
    NOLA,
    PRANC,
    GivenStart,
    LoRA,
    ReducedModule,
    SeededCoordinates,
    SeededStart,
    choose_layout,
    compress_tensors,
    decompress_tensors,
    load_reduced,
    make_coordinates,
    save_reduced,
)


def network(seed: int = 0) -> nn.Sequential:
    """With buffers, and biases and norms that the coordinates leave out."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


LAYOUT = choose_layout(network(), num_axes=2)
MADE: dict[str, Callable[[], SeededCoordinates]] = {
    "pranc": lambda: PRANC(LAYOUT, 20, seed=1, basis="sign"),
    "pranc_given": lambda: PRANC(LAYOUT, 20, seed=1, start=GivenStart(pack_matrices(network(5)))),
    "lora": lambda: LoRA(LAYOUT, 1),
    "nola": lambda: NOLA(LAYOUT, 10, rank=3, start=SeededStart(4)),
    "mcnc": lambda: MCNC(LAYOUT, 2, chunk=64, width=16, frequency=0.5),
}


def pack_matrices(module: nn.Sequential) -> Tensor:
    return torch.cat([module[index].weight.detach().reshape(-1) for index in (0, 3)])  # pyright: ignore


def trained(coordinates: SeededCoordinates) -> ReducedModule:
    reduced = ReducedModule(network(), coordinates)
    optimizer = torch.optim.SGD(reduced.parameters(), 0.3)
    inputs = torch.sin(torch.arange(96.0)).reshape(8, 12)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(reduced(inputs), torch.arange(8) % 4).backward()
        optimizer.step()
    return reduced


@pytest.fixture(params=MADE)
def reduced(request: pytest.FixtureRequest) -> ReducedModule:
    return trained(MADE[request.param]())


def test_a_network_comes_back_bit_by_bit(reduced: ReducedModule, tmp_path: Path) -> None:
    """A network read back from its file has the same coordinates, parameters, buffers and digest, bit for bit."""
    save_reduced(reduced, tmp_path / "net")
    back = load_reduced(tmp_path / "net", network(7))
    assert back.coordinates.digest == reduced.coordinates.digest
    mine, theirs = reduced.plain_module().state_dict(), back.plain_module().state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    assert theirs["1.num_batches_tracked"] == 3
    save_reduced(back, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()


FRESH = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_models_coordinates_files import network
from deadreckon.models.coordinates import load_reduced
for path in sys.argv[2:]:
    module = load_reduced(path, network(9)).plain_module()
    print(sum(int(value.reshape(-1).view(torch.int32).long().sum()) for value in module.parameters()))
"""


@pytest.mark.slow
def test_a_fresh_process_reads_the_same_network(tmp_path: Path) -> None:
    """Another process makes the same parameters from the files: their digests fit, and so do sums of their bits."""
    expected: list[str] = []
    for name, made in MADE.items():
        reduced = trained(made())
        save_reduced(reduced, tmp_path / name)
        bits = [value.detach().reshape(-1).view(torch.int32).long() for value in reduced.plain_module().parameters()]
        expected.append(str(sum(int(value.sum()) for value in bits)))
    paths = [str(tmp_path / name) for name in MADE]
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, str(Path(__file__).parent), *paths], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == expected


def test_a_file_may_leave_a_given_start_out(tmp_path: Path) -> None:
    """Without its start a file is smaller by that, and is read with the same start only."""
    reduced = trained(MADE["pranc_given"]())
    save_reduced(reduced, tmp_path / "whole")
    save_reduced(reduced, tmp_path / "part", whole=False)
    saved = (tmp_path / "whole").stat().st_size - (tmp_path / "part").stat().st_size
    assert 4 * LAYOUT.size <= saved <= 4 * LAYOUT.size + 100
    back = load_reduced(tmp_path / "part", network(), pack_matrices(network(5)))
    torch.testing.assert_close(pack(back.plain_module())[0], pack(reduced.plain_module())[0], rtol=0, atol=0)
    with pytest.raises(ModelFileError, match="written without its start"):
        load_reduced(tmp_path / "part", network())
    with pytest.raises(ModelFileError, match="The start is another one"):
        load_reduced(tmp_path / "part", network(), pack_matrices(network(6)))


def _edited(path: Path, change: Callable[[dict[str, object], dict[str, Tensor]], None]) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["deadreckon"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    change(about, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"deadreckon": json.dumps(about)}))


def _first_flipped(tensors: dict[str, Tensor]) -> None:
    tensors["other.0.bias"][0] += 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about, tensors: about.update(format="other"), "does not describe a reduced network"),
        (lambda about, tensors: about.update(start=3), "does not describe a reduced network"),
        (lambda about, tensors: about.update(version=2), "format version 2; this library reads version 1"),
        (lambda about, tensors: about.update(kind="magic"), "There are no coordinates 'magic'"),
        (lambda about, tensors: about["options"].update(basis="cosine"), "`basis` must be one of"),
        (lambda about, tensors: about["options"].update(more=1), "does not take"),
        (lambda about, tensors: about["options"].update(num_coefficients=21), r"float32 tensor of shape \(21,\)"),
        (lambda about, tensors: about["options"].update(seed=2), "does not make the network that was saved"),
        (lambda about, tensors: about.update(start={"kind": "seeded", "seed": -1}), "`seed` must be a whole number"),
        (lambda about, tensors: about.update(start={"kind": "odd"}), "There is no start 'odd'"),
        (lambda about, tensors: about["layout"].update(digest="0"), "stored layout is damaged"),
        (lambda about, tensors: tensors.pop("coefficients"), "Part 'coefficients' must be"),
        (lambda about, tensors: tensors.pop("other.0.bias"), "differ in the tensor '0.bias'"),
        (lambda about, tensors: tensors.update({"other.x": torch.zeros(1)}), "differ in the tensor 'x'"),
        (lambda about, tensors: tensors.update({"other.0.bias": torch.zeros(2)}), r"'0.bias' must have shape \(16,\)"),
        (lambda about, tensors: _first_flipped(tensors), "does not make the network that was saved"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[dict[str, object], dict[str, Tensor]], None], message: str
) -> None:
    """A file with any part missing, changed or unknown is refused with what is wrong."""
    path = tmp_path / "net"
    save_reduced(trained(MADE["pranc"]()), path)
    _edited(path, change)
    with pytest.raises(ModelFileError, match=message):
        load_reduced(path, network())


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    """Missing files, other files, other modules, impossible folders and diverged networks are refused."""
    reduced = trained(MADE["pranc"]())
    save_reduced(reduced, tmp_path / "net")
    with pytest.raises(ModelFileError, match="There is no reduced network"):
        load_reduced(tmp_path / "nothing", network())
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ModelFileError, match="is not a saved reduced network"):
        load_reduced(tmp_path / "text", network())
    with pytest.raises(ModelFileError, match="cannot be used: The layout names"):
        load_reduced(tmp_path / "net", nn.Linear(3, 4))
    with pytest.raises(ModelFileError, match="Cannot write"):
        save_reduced(reduced, tmp_path / "no" / "folder")
    diverged = copy.deepcopy(reduced)
    diverged.set_vector(torch.full((20,), float("nan")))
    with pytest.raises(ModelFileError, match="This network has diverged"):
        save_reduced(diverged, tmp_path / "net")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "text"]


def test_coordinates_are_made_again_from_kind_and_options() -> None:
    """Kind, options, layout and start make coordinates of the same digest."""
    for made in MADE.values():
        first = made()
        again = make_coordinates(first.kind, LAYOUT, json.loads(json.dumps(first.options)), first.start)
        assert again.digest == first.digest


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.binary(max_size=600)), max_size=4))
def test_any_bits_come_back(parts: list[tuple[torch.dtype, bytes]]) -> None:
    """Tensors of any bits, empty ones, NaNs and denormals included, come back bit for bit."""
    tensors: dict[str, Tensor] = {}
    for index, (dtype, data) in enumerate(parts):
        if dtype == torch.bool:
            data = bytes(byte & 1 for byte in data)
        data = data[: len(data) // dtype.itemsize * dtype.itemsize]
        tensors[str(index)] = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    back = decompress_tensors(compress_tensors(tensors))
    assert list(back) == list(tensors)
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name].view(torch.uint8), value.view(torch.uint8))


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 0.85), (torch.bfloat16, 0.70), (torch.float16, 0.88)], ids=str
)
def test_exponents_take_less(dtype: torch.dtype, most: float) -> None:
    """Normal weights take the share of their bytes that the entropy of their exponents lets expect."""
    weights = (torch.randn(200, 300, generator=torch.Generator().manual_seed(0)) * 0.05).to(dtype)
    tensors = {"weight": weights, "scalar": torch.tensor(2.5), "constant": torch.ones(50, 50), "count": torch.tensor(3)}
    data = compress_tensors(tensors)
    back = decompress_tensors(data)
    for name, value in tensors.items():
        assert back[name].shape == value.shape
        torch.testing.assert_close(back[name], value, rtol=0, atol=0)
    assert len(data) < most * weights.nbytes + 0.76 * 10000 + 300
    large = {"large": weights * 300}
    assert len(compress_tensors(large)) < weights.nbytes
    torch.testing.assert_close(decompress_tensors(compress_tensors(large)), large, rtol=0, atol=0)
    if dtype == torch.bfloat16:
        exponents = (weights.view(torch.int16) >> 7 & 255).reshape(-1).long().bincount().double() / weights.numel()
        entropy = float(-(exponents[exponents > 0] * exponents[exponents > 0].log2()).sum())
        alone = len(compress_tensors({"weight": weights}))
        assert alone == pytest.approx(weights.numel() * (8 + entropy) / 8, rel=0.005)


def test_damaged_bytes_are_refused() -> None:
    """Bytes that are cut, changed in their header or too many are refused, and never read beyond their end."""
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    data = compress_tensors({"weight": weights})
    with pytest.raises(ModelFileError, match="not compressed tensors"):
        decompress_tensors(b"hello")
    with pytest.raises(ModelFileError, match="it ends too early"):
        decompress_tensors(data[:-1])
    with pytest.raises(ModelFileError, match="bytes are left over"):
        decompress_tensors(data + b"x")
    for place in range(9, 40):
        changed = bytearray(data)
        changed[place] ^= 0x5A
        with pytest.raises(ModelFileError):
            decompress_tensors(bytes(changed))
    with pytest.raises(ModelFileError, match="plain dense tensor"):
        compress_tensors({"sparse": torch.eye(3).to_sparse()})
