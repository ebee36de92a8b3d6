"""Reduced coordinates under `torch.compile`: traced in every way, and compiled where there is a C++ compiler."""

import copy
import shutil
from collections.abc import Callable
from typing import cast

import pytest
import torch
from coordinates_peer import MADE, make_module, make_supermasks, train
from torch import Tensor, fx, nn
from typing_extensions import override

from deadreckon.forecast import pack

# Torch looks for a gradient on what the map made, and hides that warning of its own only where warnings are no errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


class Watching:
    """A backend that compiles nothing, and keeps what it was given."""

    def __init__(self) -> None:
        self.functions: list[str] = []

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        self.functions += [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        return graph.forward


@pytest.fixture(autouse=True)
def forget() -> None:
    """No compiled code of other tests."""
    torch.compiler.reset()


class Scaled(nn.Module):
    """A module of which a reduced one is a part."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.ones(()))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.inner(inputs)


def test_the_wrapped_module_is_compiled_and_the_map_is_not() -> None:
    """The compiler gets the network's own functions and none of the map's, and numbers stay the same bit for bit."""
    plain, backend = make_module("pranc"), Watching()
    losses = train(plain, None)
    wrapped = make_module("pranc")
    compiled = torch.compile(wrapped, backend=backend)
    assert isinstance(compiled, nn.Module)
    assert train(compiled, None) == losses
    torch.testing.assert_close(pack(wrapped)[0], pack(plain)[0], rtol=0, atol=0)
    assert [sum(word in name for name in backend.functions) for word in ("linear", "relu", "batch_norm")] == [2, 1, 1]
    assert len(backend.functions) == 4
    assert pack(wrapped)[1].names == pack(plain)[1].names


@pytest.mark.slow
@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("how", ["whole", "in place", "part", "parent"])
def test_compiled_training_equals_plain(kind: str, how: str) -> None:
    """With forward and backward graphs traced, whatever is compiled, trained coordinates are those without."""
    plain, wrapped = make_module(kind), make_module(kind)
    train(plain if how != "parent" else Scaled(plain), None)
    module: nn.Module = wrapped
    match how:
        case "whole":
            module = cast(nn.Module, torch.compile(wrapped, backend="aot_eager"))
        case "in place":
            wrapped.compile(backend="aot_eager")
        case "part":
            wrapped.module.compile(backend="aot_eager")
        case "parent":
            module = cast(nn.Module, torch.compile(Scaled(wrapped), backend="aot_eager"))
    train(module, None)
    torch.testing.assert_close(pack(wrapped)[0], pack(plain)[0], rtol=0, atol=1e-6)
    with torch.no_grad():
        inputs = torch.sin(torch.arange(60.0)).reshape(3, 20)
        torch.testing.assert_close(wrapped.eval()(inputs), copy.deepcopy(wrapped).plain_module()(inputs))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [*MADE, "supermasks"])
def test_machine_code_trains_as_plain(kind: str) -> None:
    """Compiled to machine code, whose sums may go another way, the losses of all steps are within a thousandth."""

    def made() -> nn.Module:
        return make_supermasks() if kind == "supermasks" else make_module(kind)

    expected = train(made(), None)
    compiled = torch.compile(made())
    assert isinstance(compiled, nn.Module)
    torch.testing.assert_close(train(compiled, None), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_masks_are_trained_under_compilation(backend: str) -> None:
    """Scores and losses of a compiled mask are those without, bit for bit where nothing is fused."""
    plain, wrapped = make_supermasks(), make_supermasks()
    losses = train(plain, None)
    compiled = torch.compile(wrapped, backend=backend)
    assert isinstance(compiled, nn.Module)
    rtol, atol = (0.0, 0.0) if backend == "eager" else (1e-5, 1e-6)
    torch.testing.assert_close(train(compiled, None), losses, rtol=rtol, atol=atol)
    torch.testing.assert_close(wrapped.scores, plain.scores, rtol=rtol, atol=atol)


def test_one_graph_for_everything_is_refused() -> None:
    """`fullgraph=True` is refused with the reason why the map is not compiled."""
    compiled = torch.compile(make_module("pranc"), backend="eager", fullgraph=True)
    with pytest.raises(RuntimeError, match=r"ReducedModule.tensors.*parameters are made from whole numbers"):
        compiled(torch.ones(2, 20))
