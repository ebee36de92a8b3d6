"""The authors' graphs of their own cases, built by hand as tiles."""

from functools import cache
from itertools import pairwise

from deadreckon.forecast import Layout
from deadreckon.forecast.graph import Axis, EdgeBlock, NeuralGraph, NodeGroup
from deadreckon.forecast.graph.neural_graph import EdgeKind, NodeKind


class GraphBuilder:
    """Collects groups and blocks of a graph of `layout`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.axes: list[Axis] = []
        self.nodes: list[NodeGroup] = []
        self.blocks: list[EdgeBlock] = []

    def group(self, size: int, kind: NodeKind = "neurons", name: str = "") -> int:
        if kind != "constant":
            self.axes.append(Axis(name, size, False))
        axes = () if kind == "constant" else (len(self.axes) - 1,)
        self.nodes.append(NodeGroup(name or f"{kind}{len(self.nodes)}", size, kind, axes))
        return len(self.nodes) - 1

    def vector(self, name: str, target: int, kind: EdgeKind = "bias", begin: int = 0, end: int | None = None) -> None:
        """A bias or norm vector, or a part of one, with a node of its own."""
        size = (self.layout[name].numel if end is None else end) - begin
        block = EdgeBlock(
            kind,
            self.group(1, "constant"),
            target,
            name,
            ((begin, begin + size),),
            (size,),
            (0,),
            1,
            size,
        )
        self.blocks.append(block)

    def norm(self, name: str, target: int) -> None:
        self.vector(f"{name}.weight", target, "norm")
        self.vector(f"{name}.bias", target)

    def matrix(
        self, kind: EdgeKind, name: str, source: int, target: int, order: tuple[int, ...], part: int = 0
    ) -> None:
        """A matrix `[out, in]` (order 0, 1) or `[in, out]` (order 1, 0); `part` of several side by side."""
        shape = self.layout[name].shape
        rows, columns = self.nodes[target].size, self.nodes[source].size
        wanted = (rows, columns) if order == (0, 1) else (columns, rows)
        span = ((0, shape[0]), (part * wanted[1], (part + 1) * wanted[1]))
        self.blocks.append(EdgeBlock(kind, source, target, name, span, wanted, order, columns, rows))

    def convolution(self, name: str, source: int, target: int, groups: int = 1) -> None:
        shape = self.layout[name].shape
        slots = shape[2] * shape[3]
        span = tuple((0, extent) for extent in shape)
        parted = (groups, shape[0] // groups, shape[1], slots)
        block = EdgeBlock(
            "conv", source, target, name, span, parted, (0, 1, 2, 3), shape[1] * groups, shape[0], groups, slots
        )
        self.blocks.append(block)

    def identity(self, source: int, target: int) -> None:
        size = self.nodes[source].size
        self.blocks.append(EdgeBlock("residual", source, target, None, (), (), (), size, size, groups=size))

    def done(self, unexplained: tuple[str, ...] = ()) -> NeuralGraph:
        return NeuralGraph(tuple(self.axes), tuple(self.nodes), tuple(self.blocks), (), unexplained, self.layout.digest)


def chain(layout: Layout) -> NeuralGraph:
    """Convolutions and dense layers, each with a bias, one after another."""
    builder = GraphBuilder(layout)
    last: int | None = None
    for weight, bias in zip(layout.tensors[::2], layout.tensors[1::2], strict=True):
        if last is None:
            last = builder.group(weight.shape[1], "input")
        target = builder.group(weight.shape[0])
        if len(weight.shape) == 4:
            builder.convolution(weight.name, last, target)
        else:
            builder.matrix("dense", weight.name, last, target, (0, 1))
        builder.vector(bias.name, target)
        last = target
    return builder.done()


@cache
def plain_graph(layout: Layout) -> NeuralGraph:
    """`chain` of matrices, each with its bias, where they fit each other; otherwise a graph without edges."""
    pairs = list(zip(layout.tensors[::2], layout.tensors[1::2], strict=False))
    sizes = [weight.shape for weight, _ in pairs]
    fits = len(layout) % 2 == 0 and all(len(shape) == 2 for shape in sizes)
    fits = fits and all(bias.shape == weight.shape[:1] for weight, bias in pairs)
    if fits and all(after[1] == before[0] for before, after in pairwise(sizes)):
        return chain(layout)
    return NeuralGraph((), (), (), (), layout.names, layout.digest)


def gpt2(layout: Layout, num_heads: int, original: bool = True) -> NeuralGraph:
    """GPT-2; with the authors' edges of the key's bias into the residual nodes if `original`."""
    builder = GraphBuilder(layout)
    vocabulary, width = layout["transformer.wte.weight"].shape
    tokens = builder.group(vocabulary, "vocabulary")
    places = builder.group(layout["transformer.wpe.weight"].shape[0], "positions")
    stream = builder.group(width)
    builder.matrix("embedding", "transformer.wte.weight", tokens, stream, (1, 0))
    builder.matrix("position", "transformer.wpe.weight", places, stream, (1, 0))
    number = 0
    while f"transformer.h.{number}.ln_1.weight" in layout.names:
        block = f"transformer.h.{number}."
        builder.norm(block + "ln_1", stream)
        heads, queries, values = builder.group(num_heads, "heads"), builder.group(width), builder.group(width)
        attention = block + "attn.c_attn."
        builder.matrix("query", attention + "weight", stream, queries, (1, 0), 0)
        # Source-major in the file, [residual, key]: the target comes first.
        builder.matrix("key", attention + "weight", queries, stream, (0, 1), 1)
        builder.matrix("value", attention + "weight", stream, values, (1, 0), 2)
        builder.vector(attention + "bias", queries, begin=0, end=width)
        builder.vector(attention + "bias", stream if original else queries, begin=width, end=2 * width)
        builder.vector(attention + "bias", values, begin=2 * width, end=3 * width)
        for target in (queries, values):
            builder.blocks.append(
                EdgeBlock("head", heads, target, None, (), (), (), num_heads, width, groups=num_heads)
            )
        after = builder.group(width)
        builder.identity(stream, after)
        builder.matrix("dense", block + "attn.c_proj.weight", values, after, (1, 0))
        builder.vector(block + "attn.c_proj.bias", after)
        stream = after
        builder.norm(block + "ln_2", stream)
        hidden, after = builder.group(4 * width), builder.group(width)
        builder.matrix("dense", block + "mlp.c_fc.weight", stream, hidden, (1, 0))
        builder.vector(block + "mlp.c_fc.bias", hidden)
        builder.identity(stream, after)
        builder.matrix("dense", block + "mlp.c_proj.weight", hidden, after, (1, 0))
        builder.vector(block + "mlp.c_proj.bias", after)
        stream = after
        number += 1
    builder.norm("transformer.ln_f", stream)
    return builder.done()
