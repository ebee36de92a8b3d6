"""Networks that do unusual things with their neurons, for the tests of the neural graph."""

from collections.abc import Callable

import torch
from graph_networks import CLASSES, CONTEXT, VOCABULARY, images, tokens, vectors
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

HIDDEN = 8


class Between(nn.Module):
    """Does something to the hidden neurons between two linear layers."""

    def __init__(self, middle: Callable[[Tensor], Tensor], hidden: int = HIDDEN, out: int = HIDDEN) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, hidden), nn.Linear(out, CLASSES)
        self.middle = middle

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(torch.tanh(self.first(inputs))))


class Channels(nn.Module):
    """Does something to the channels between two convolutions."""

    def __init__(self, middle: Callable[[Tensor], Tensor], channels: int = HIDDEN) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, HIDDEN, 3), nn.Conv2d(channels, CLASSES, 3)
        self.middle = middle

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.middle(self.first(inputs))).mean((2, 3))


class Scaled(nn.Module):
    """A learned gain and shift, an attention without softmax, and a gram matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.gain, self.shift = nn.Parameter(torch.rand(HIDDEN)), nn.Parameter(torch.rand(1, HIDDEN))
        self.number = nn.Parameter(torch.tensor(0.7))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs) * self.gain.exp() + self.number * self.shift
        return self.last((hidden @ hidden.T) @ hidden)


class Shared(nn.Module):
    """One layer used three times over, as in weight-shared transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.norm = nn.Linear(5, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN)
        self.last = nn.Linear(HIDDEN, CLASSES)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        for _ in range(3):
            hidden = hidden + torch.relu(self.again(self.norm(hidden)))
        return self.last(hidden)


class Written(nn.Module):
    """Writes hidden neurons into parts of a tensor of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(8, CLASSES)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.new_zeros(inputs.shape[0], 8)
        hidden[:, :4] = self.first(inputs)
        hidden[:, 4:] += self.second(inputs)
        return self.last(hidden)


class Experts(nn.Module):
    """A mixture of experts, all of them computed by one batched product."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, HIDDEN)
        self.widen = nn.Parameter(torch.randn(3, HIDDEN, 6))
        self.narrow = nn.Parameter(torch.randn(3, 6, HIDDEN))
        self.gate, self.last = nn.Linear(HIDDEN, 3), nn.Linear(HIDDEN, CLASSES)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.embed(inputs)
        wide = torch.einsum("bd,edf->ebf", hidden, self.widen).relu()
        made = torch.bmm(wide, self.narrow)
        return self.last(torch.einsum("ebd,be->bd", made, self.gate(hidden).softmax(-1)))


class SlopedAttention(nn.Module):
    """Attention by einsum with another constant slope for each head, as in ALiBi: heads cannot be exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fused, self.mix = nn.Embedding(VOCABULARY, 12), nn.Linear(12, 36), nn.Linear(12, CLASSES)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        queries, keys, contents = self.fused(self.embed(inputs)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        places = torch.arange(CONTEXT, dtype=torch.float32)
        slopes = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1) * (places - places[:, None]).abs()
        weights = (torch.einsum("bhtd,bhsd->bhts", queries, keys) - slopes).softmax(-1)
        return self.mix(torch.einsum("bhts,bhsd->bthd", weights, contents).flatten(2))


class LowRank(nn.Module):
    """A frozen layer with a trained low-rank change, and a random projection kept as a buffer."""

    projection: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.first.weight.requires_grad_(False)
        self.down, self.up = nn.Linear(5, 2, bias=False), nn.Linear(2, HIDDEN, bias=False)
        self.register_buffer("projection", torch.randn(HIDDEN, HIDDEN))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs) + self.up(self.down(inputs))
        return self.last(torch.relu(hidden @ self.projection))


def shuffle(values: Tensor) -> Tensor:
    batch, channels, height, width = values.shape
    return values.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(values.shape)


def heads_without_bias(values: Tensor) -> Tensor:
    parts = values.view(-1, 2, 4)
    return (parts.softmax(1) * parts).flatten(1)


STEPS = torch.arange(1.0, 9.0)
WEIGHT_NORM = torch.nn.utils.parametrizations.weight_norm

ODD_NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], object]]] = {
    "cumulative": (lambda: Between(lambda v: v.cumsum(-1)), lambda: vectors(4, 5)),
    "sorted": (lambda: Between(lambda v: v.sort(-1).values), lambda: vectors(4, 5)),
    "flipped": (lambda: Between(lambda v: v.flip(-1)), lambda: vectors(4, 5)),
    "rolled": (lambda: Between(lambda v: v.roll(1, -1)), lambda: vectors(4, 5)),
    "scaled_by_place": (lambda: Between(lambda v: v * STEPS), lambda: vectors(4, 5)),
    "one_neuron_apart": (lambda: Between(lambda v: v + v[:, :1]), lambda: vectors(4, 5)),
    "neuron_by_index": (lambda: Between(lambda v: v[:, [0, 2, 1, 3, 4, 5, 7, 6]]), lambda: vectors(4, 5)),
    "every_other": (lambda: Between(lambda v: v[:, ::2], out=4), lambda: vectors(4, 5)),
    "halves": (lambda: Between(lambda v: functional.glu(v, -1), out=4), lambda: vectors(4, 5)),
    "halves_swapped": (lambda: Between(lambda v: torch.cat(v.chunk(2, -1)[::-1], -1)), lambda: vectors(4, 5)),
    "softmax": (lambda: Between(lambda v: v.softmax(-1)), lambda: vectors(4, 5)),
    "softmax_over_heads": (lambda: Between(heads_without_bias), lambda: vectors(4, 5)),
    "largest": (lambda: Between(lambda v: v - v.max(-1, keepdim=True).values), lambda: vectors(4, 5)),
    "arg_largest": (lambda: Between(lambda v: v + v.argmax(-1, keepdim=True)), lambda: vectors(4, 5)),
    "maxout": (lambda: Between(lambda v: v.view(-1, 4, 2).amax(-1), out=4), lambda: vectors(4, 5)),
    "unknown": (lambda: Between(lambda v: torch.fft.rfft(v).abs(), out=5), lambda: vectors(4, 5)),
    "windows": (lambda: Between(lambda v: v.unfold(-1, 3, 1).sum(-1), out=6), lambda: vectors(4, 5)),
    "as_strided": (lambda: Between(lambda v: v.as_strided((4, 8), (8, 1)).neg()), lambda: vectors(4, 5)),
    "repeated": (lambda: Between(lambda v: v.repeat(1, 2), out=16), lambda: vectors(4, 5)),
    "interleaved": (lambda: Between(lambda v: v.repeat_interleave(2, -1), out=16), lambda: vectors(4, 5)),
    "tall_reshape": (lambda: Between(lambda v: v.reshape(2, 16)[:, :8]), lambda: vectors(4, 5)),
    "across_reshape": (lambda: Between(lambda v: v.reshape(4, 2, 4).transpose(1, 2).flatten(1)), lambda: vectors(4, 5)),
    "one_unit": (lambda: Between(lambda v: v, hidden=1, out=1), lambda: vectors(4, 5)),
    "outer": (lambda: Between(lambda v: (v[:, :, None] * v[:, None]).flatten(1), out=64), lambda: vectors(4, 5)),
    "sampled_up": (lambda: Channels(nn.Upsample(scale_factor=2)), images),
    "pixel_shuffle": (lambda: Channels(nn.PixelShuffle(2), 2), images),
    "channel_shuffle": (lambda: Channels(shuffle), images),
    "instance_norm": (lambda: Channels(nn.InstanceNorm2d(HIDDEN, affine=True)), images),
    "prelu": (lambda: Channels(nn.PReLU(HIDDEN)), images),
    "spatial_norm": (lambda: Channels(nn.LayerNorm([HIDDEN, 10, 10])), images),
    "local_response": (lambda: Channels(nn.LocalResponseNorm(3)), images),
    "channel_dropout": (lambda: Channels(nn.Dropout2d()), images),
    "padded_channels": (lambda: Channels(lambda v: functional.pad(v, (0, 0, 0, 0, 1, 1)), 10), images),
    "gain": (Scaled, lambda: vectors(4, 5)),
    "shared": (Shared, lambda: vectors(4, 5)),
    "written": (Written, lambda: vectors(4, 5)),
    "experts": (Experts, lambda: vectors(4, 5)),
    "sloped": (SlopedAttention, tokens),
    "low_rank": (LowRank, lambda: vectors(4, 5)),
    "bilinear": (lambda: Twice(nn.Bilinear(5, 5, HIDDEN)), lambda: vectors(4, 5)),
    "weight_norm": (lambda: Twice(WEIGHT_NORM(nn.Linear(5, HIDDEN)), once=True), lambda: vectors(4, 5)),
    "attention_weights": (lambda: Averaged(), lambda: vectors(2, 4, 6)),
}


class Twice(nn.Module):
    """A layer that takes its input twice, or once, and a head."""

    def __init__(self, layer: nn.Module, once: bool = False) -> None:
        super().__init__()
        self.layer, self.last, self.once = layer, nn.Linear(HIDDEN, CLASSES), once

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.relu(self.layer(inputs) if self.once else self.layer(inputs, inputs)))


class Averaged(nn.Module):
    """Attention that also returns its weights, averaged over heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, CLASSES)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, add_bias_kv=True)

    @override
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(inputs)
        mixed, weights = self.attention(hidden, hidden, hidden)
        return self.last(mixed), weights


def build_odd(name: str) -> tuple[nn.Module, object]:
    """A network with random weights, and inputs for it."""
    make, inputs = ODD_NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(), inputs()
