"""What matrix products, convolutions and attention do to axes."""

from torch import Tensor

from .axes import Dim, extent, forbid_fan, leaves, new_dim, pin, regroup, unify
from .rules_elementwise import met
from .tracer import Call, Tracer, rule
from .values import Value, opaque_dims, tensors_in
from .wiring import Attention


def contract(trace: Tracer, left: Value, right: Value) -> Value:
    """The product of `[..., row, sum]` and `[..., sum, column]`.

    A parameter on one side makes dense edges. Where neither side is one, it may be queries that meet keys, or
    attention weights that meet values.
    """
    wiring = trace.wiring
    batch_left, batch_right = left.dims[:-2], right.dims[:-2]
    row, inner, column = left.dims[-2], left.dims[-1], right.dims[-1]
    unify(inner, right.dims[-2])
    batch: list[Dim] = []
    for one, other in zip(batch_left, batch_right, strict=True):
        unify(one, other)
        batch.append(one)
    result = Value([*batch, row, column], given=left.given or right.given)
    if (left.tensor is None) == (right.tensor is None):
        if left.tensor is not None:
            wiring.note(f"{left.tensor!r} is multiplied by {right.tensor!r} before it meets a value.")
            return result
        if left.weighs and left.scores is not None:
            wiring.attentions.append(Attention(*left.scores, right))
            result.dims = [*batch_right, row, column]
        elif wiring.neurons([inner]) and wiring.neurons([right.dims[-2]]):
            result.scores = (left, right)
        return result
    weight, value = (left, right) if left.tensor is not None else (right, left)
    own, theirs = (left.dims[-1], right.dims[-2]) if weight is left else (right.dims[-2], left.dims[-1])
    made = row if weight is left else column
    pairs = [pair for pair in zip(weight.dims[:-2], value.dims[:-2], strict=True) if extent(pair[0]) > 1]
    diagonal = [pair for pair in pairs if wiring.neurons([pair[1]])]
    batch = [mine if extent(mine) > 1 else other for mine, other in zip(weight.dims[:-2], value.dims[:-2], strict=True)]
    wiring.use(weight, "dense", out=[*(mine for mine, _ in pairs), made], links=[(own, theirs)], diagonal=diagonal)
    result.dims = [*batch, row, column]
    return result


@rule("mm", "bmm", "matmul")
def _mm(trace: Tracer, call: Call) -> None:
    trace.define(call.out, contract(trace, trace.value(call.args[0]), trace.value(call.args[1])))


@rule("addmm", "baddbmm")
def _addmm(trace: Tracer, call: Call) -> None:
    made = contract(trace, trace.value(call.args[1]), trace.value(call.args[2]))
    beta = call.options.get("beta", 1)
    start = trace.value(call.args[0])
    result = made if beta == 0 else met(trace, [made, start], additive=True)
    result.scores = made.scores
    trace.define(call.out, result)


@rule("mv")
def _mv(trace: Tracer, call: Call) -> None:
    left, right = trace.value(call.args[0]), trace.value(call.args[1])
    column = Value([*right.dims, ()], tensor=right.tensor, given=right.given)
    trace.define(call.out, _without_last(contract(trace, left, column)))


def _without_last(value: Value) -> Value:
    return Value(value.dims[:-1], given=value.given)


@rule("dot", "vdot")
def _dot(trace: Tracer, call: Call) -> None:
    left, right = trace.value(call.args[0]), trace.value(call.args[1])
    unify(left.dims[0], right.dims[0])
    trace.define(call.out, Value([], given=left.given or right.given))


@rule("linear")
def _linear(trace: Tracer, call: Call) -> None:
    source, weight = trace.value(call.args[0]), trace.value(call.args[1])
    rows: Dim = tuple(factor for dim in source.dims[:-1] for factor in dim)
    flat = Value([rows, source.dims[-1]], tensor=source.tensor, given=source.given)
    turned = Value(weight.dims[::-1], tensor=weight.tensor, given=weight.given)
    made = contract(trace, flat, turned)
    result = Value([*source.dims[:-1], made.dims[-1]], given=made.given)
    bias = call.get(2, "bias", None)
    trace.define(call.out, result if bias is None else met(trace, [result, trace.value(bias)], additive=True))


@rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution", "thnn_conv2d")
def _convolution(trace: Tracer, call: Call) -> None:
    source, weight = trace.value(call.args[0]), trace.value(call.args[1])
    bias = call.args[2]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    count = len(weight.dims) - 2
    channel = len(source.dims) - count - 1
    for dim in (*source.dims[channel + 1 :], *weight.dims[2:]):
        pin(dim)
    channels = regroup([source.dims[channel]], [groups, extent(source.dims[channel]) // groups])
    first = regroup([weight.dims[0]], [groups, extent(weight.dims[0]) // groups])
    unify(channels[0], first[0])
    made: Dim
    if not transposed:
        unify(channels[1], weight.dims[1])
        made = weight.dims[0]
        diagonal = [(first[0], channels[0])] if groups > 1 else []
        out = [first[0], first[1]] if groups > 1 else [made]
        links = [(weight.dims[1], channels[1])]
        trace.wiring.use(weight, "conv", out=out, links=links, diagonal=diagonal)
    elif groups == 1:
        unify(channels[1], weight.dims[0])
        made = weight.dims[1]
        trace.wiring.use(weight, "conv", out=[made], links=[(weight.dims[0], channels[1])])
    else:
        unify(channels[1], first[1])
        made = (*new_dim(groups), *weight.dims[1])
        unify(made[:1], first[0])
        trace.wiring.note(f"{weight.tensor!r} is a grouped transposed convolution, which gets no edges.")
    if isinstance(bias, Tensor):
        shift = trace.value(bias)
        unify(shift.dims[0], made)
        trace.wiring.use(shift, "bias", links=[(shift.dims[0], made)])
    spatial = opaque_dims(call.out.shape[channel + 1 :])
    trace.define(call.out, Value([*source.dims[:channel], made, *spatial], given=source.given or weight.given))


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math",
    "scaled_dot_product_attention",
)
def _attention(trace: Tracer, call: Call) -> None:
    queries, keys, values = (trace.value(tensor) for tensor in call.args[:3])
    unify(queries.dims[-1], keys.dims[-1])
    unify(keys.dims[-2], values.dims[-2])
    for one, other in zip(keys.dims[:-2], values.dims[:-2], strict=True):
        unify(one, other)
    batch: list[Dim] = []
    for mine, theirs in zip(queries.dims[:-2], values.dims[:-2], strict=True):
        repeats = extent(mine) // extent(theirs) if extent(theirs) else 1
        wide = (*theirs, *new_dim(repeats)) if repeats > 1 else theirs
        unify(mine, wide)
        batch.append(wide)
    forbid_fan([*queries.dims[:-2], queries.dims[-2]], leaves(keys.dims[-2]))
    for mask in tensors_in([call.args[3:], call.options]):
        trace.meet([Value([*queries.dims[:-1], keys.dims[-2]]), trace.value(mask)])
    trace.wiring.attentions.append(Attention(queries, keys, values))
    dims = [*batch, queries.dims[-2], values.dims[-1]]
    out = call.out
    trace.define(out, Value(dims, given=queries.given or values.given))
    for extra in call.outs[1:]:
        trace.define(extra, Value(opaque_dims(extra.shape)))


@rule("_weight_norm_interface")
def _weight_norm(trace: Tracer, call: Call) -> None:
    """A matrix of directions and a vector of lengths: together the weight."""
    directions, lengths = trace.value(call.args[0]), trace.value(call.args[1])
    pairs = [pair for pair in zip(lengths.dims, directions.dims, strict=True) if extent(pair[0]) > 1]
    for mine, theirs in pairs:
        unify(mine, theirs)
    trace.wiring.use(lengths, "norm", links=pairs)
    trace.define(call.out, Value([*directions.dims], tensor=directions.tensor))
    for norms in call.outs[1:]:
        trace.define(norms, Value([*lengths.dims]))
