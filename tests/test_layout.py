"""Layouts, packing and unpacking."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from deadreckon.forecast import Layout, TensorSpec, flatten, layout_of, load_vector, pack, unpack
from deadreckon.forecast.errors import LayoutError


class Tied(nn.Module):
    """A network with every kind of parameter, a tied head, a frozen bias and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.convolution = nn.Conv1d(4, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)


def test_pack_and_unpack_are_an_inverse_pair() -> None:
    """Unpacking a packed module gives its trainable parameters, exactly, tied ones once and frozen ones not."""
    module = Tied()
    vector, layout = pack(module)
    tensors = unpack(vector, layout)
    expected = {name: value for name, value in module.named_parameters() if value.requires_grad}
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value.detach(), rtol=0, atol=0)
    assert layout.size == vector.numel() == 20 + 48 + 4 + 8 + 5 + 1
    torch.testing.assert_close(flatten(tensors, layout), vector, rtol=0, atol=0)


def test_kinds_follow_the_owning_module() -> None:
    """Each tensor's kind tells what module owns it."""
    _, layout = pack(Tied())
    kinds = {spec.name: spec.kind for spec in layout}
    assert kinds == {
        "temperature": "other",
        "embedding.weight": "embedding",
        "convolution.weight": "convolution",
        "convolution.bias": "bias",
        "norm.weight": "norm",
        "norm.bias": "norm",
        "head.bias": "bias",
    }


def test_half_precision_survives_the_round_trip() -> None:
    """A bfloat16 parameter is packed as float32 and comes back as the same bfloat16."""
    module = nn.Linear(3, 2).bfloat16()
    vector, layout = pack(module)
    assert vector.dtype == torch.float32
    torch.testing.assert_close(unpack(vector, layout)["weight"], module.weight.detach(), rtol=0, atol=0)
    assert pack(nn.Linear(3, 2).double())[0].dtype == torch.float64


def test_load_vector_writes_in_place() -> None:
    """Loading a vector changes the values of the very same parameters, and all of them."""
    module = Tied()
    pointers = [value.data_ptr() for value in module.parameters()]
    vector, layout = pack(module)
    load_vector(module, vector + 1, layout)
    assert [value.data_ptr() for value in module.parameters()] == pointers
    torch.testing.assert_close(pack(module)[0], vector + 1)


def test_load_vector_refuses_another_network_and_writes_nothing() -> None:
    """A vector of another layout is refused with the first difference named, and the module stays as it was."""
    module, other = nn.Linear(3, 2), nn.Linear(2, 3)
    before = copy.deepcopy(module.state_dict())
    vector, layout = pack(other)
    with pytest.raises(LayoutError, match=r"expected 'weight' \(3, 2\)"):
        load_vector(module, vector, layout)
    with pytest.raises(LayoutError, match=r"must have shape \(8,\)"):
        load_vector(module, torch.zeros(7), layout_of(module))
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


def test_compiled_submodules_keep_their_names() -> None:
    """The prefix that compiling a submodule adds to parameter names does not reach the layout."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    plain = layout_of(module)
    module[1] = torch.compile(module[1])  # pyright: ignore[reportArgumentType]
    assert any("_orig_mod" in name for name, _ in module.named_parameters())
    assert layout_of(module).digest == plain.digest


def test_missing_gradients_count_as_zero() -> None:
    """A `None` among the tensors is laid out as zeros."""
    module = nn.Linear(2, 1)
    layout = layout_of(module)
    vector = flatten({"weight": torch.tensor([[1.0, 2.0]]), "bias": None}, layout)
    assert vector.tolist() == [1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(1, 2)}, "'bias' is missing"),
        ({"weight": torch.zeros(2, 1), "bias": torch.zeros(1)}, r"must have shape \(1, 2\), got \(2, 1\)"),
    ],
)
def test_flatten_refuses_what_does_not_fit(tensors: dict[str, torch.Tensor | None], message: str) -> None:
    """A missing or misshapen tensor is an error that names it."""
    with pytest.raises(LayoutError, match=message):
        flatten(tensors, layout_of(nn.Linear(2, 1)))


def test_a_module_must_have_something_real_to_train() -> None:
    """Nothing to train, and complex parameters, are refused."""
    with pytest.raises(LayoutError, match="no trainable parameter"):
        pack(nn.ReLU())
    module = nn.Module()
    module.register_parameter("wave", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    with pytest.raises(LayoutError, match="got complex64 for 'wave'"):
        pack(module)


def test_digest_speaks_of_names_shapes_and_types() -> None:
    """The digest changes with a name, a shape or a type, and not with the kind."""
    base = TensorSpec("a", (2, 3), "float32", 0, "weight")
    digest = Layout((base,)).digest
    assert Layout((TensorSpec("a", (2, 3), "float32", 0, "bias"),)).digest == digest
    for other in (
        TensorSpec("b", (2, 3), "float32", 0, "weight"),
        TensorSpec("a", (3, 2), "float32", 0, "weight"),
        TensorSpec("a", (2, 3), "bfloat16", 0, "weight"),
    ):
        assert Layout((other,)).digest != digest


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=6), st.data())
def test_slices_cover_what_they_are_asked_for(shapes: list[list[int]], data: st.DataObject) -> None:
    """Cutting a layout in two gives two layouts whose tensors together hold every coordinate once."""
    specs, offset = [], 0
    for number, shape in enumerate(shapes):
        specs.append(TensorSpec(f"t{number}", tuple(shape), "float32", offset, "weight"))
        offset += specs[-1].numel
    layout = Layout(tuple(specs))
    cut = data.draw(st.integers(0, layout.size))
    left, right = layout.slice(0, cut), layout.slice(cut, layout.size)
    assert left.size == cut
    assert left.size + right.size == layout.size
    assert layout.slice(0, layout.size).size == layout.size


def test_a_cut_tensor_says_which_part_it_is() -> None:
    """A piece of a cut tensor is flat and carries its range in its name."""
    layout = layout_of(nn.Linear(4, 2))
    piece = layout.slice(2, 9)
    assert [(spec.name, spec.shape, spec.offset) for spec in piece] == [
        ("weight[2:8]", (6,), 0),
        ("bias[0:1]", (1,), 6),
    ]
    with pytest.raises(LayoutError, match="must lie within 0 and 10, got 3 to 11"):
        layout.slice(3, 11)


def test_layouts_survive_json_and_damage_is_noticed() -> None:
    """A layout equals itself after a round trip; a changed entry, a missing one or a wrong type is an error."""
    layout = layout_of(Tied())
    data = layout.to_dict()
    assert Layout.from_dict(data) == layout
    changed = copy.deepcopy(data)
    changed["tensors"][1]["shape"] = [4, 5]
    with pytest.raises(LayoutError, match="is damaged"):
        Layout.from_dict(changed)
    del changed["tensors"][0]["name"]
    with pytest.raises(LayoutError, match="Not a stored layout"):
        Layout.from_dict(changed)
    changed = copy.deepcopy(data)
    changed["tensors"][1]["shape"] = [4.5, 2]
    with pytest.raises(LayoutError, match="Not a stored layout"):
        Layout.from_dict(changed)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([("a", (1,), "float32", 0, "bias"), ("a", (1,), "float32", 1, "bias")], "'a' twice"),
        ([("a", (-1,), "float32", 0, "bias")], "at least 0"),
        ([("a", (1,), "int8", 0, "bias")], "`dtype` must be"),
        ([("a", (1,), "float32", 0, "odd")], "`kind` must be"),
        ([("a", (1,), "float32", 3, "bias")], "`offset` of 'a' must be 0"),
        ([("a", (2**41,), "float32", 0, "bias")], "at most"),
    ],
)
def test_impossible_layouts_are_refused(specs: list[tuple], message: str) -> None:
    """A layout cannot be made with repeated names, gaps, or impossible shapes, types or kinds."""
    with pytest.raises(LayoutError, match=message):
        Layout(tuple(TensorSpec(*spec) for spec in specs))


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    """Asking for a tensor that is not there lists those that are."""
    layout = layout_of(nn.Linear(2, 1))
    assert layout["bias"].span == slice(2, 3)
    with pytest.raises(LayoutError, match="There are: weight, bias"):
        layout["scale"]
    with pytest.raises(LayoutError, match="expected 2 tensors, got 1"):
        layout.require_same(layout.slice(0, 2), "the packet")
