"""Small networks of many architectures, in plain torch, for the tests of the neural graph."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

VOCABULARY, CONTEXT, CLASSES = 11, 6, 3


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, CLASSES))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 4, 12),
        nn.ReLU(),
        nn.Linear(12, CLASSES),
    )


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in (6, 8, 8):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, CLASSES)]
    return nn.Sequential(*layers, *head)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.relu(self.first_norm(self.first(inputs)))
        return functional.relu(self.second_norm(self.second(hidden)) + self.shortcut(inputs))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        ResidualBlock(6, 6, 1),
        ResidualBlock(6, 8, 2),
        ResidualBlock(8, 8, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


class InvertedResidual(nn.Module):
    """An expansion, a depth-wise convolution with squeeze-and-excitation, and a projection."""

    def __init__(self, channels: int, expanded: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, expanded, 1, bias=False), nn.BatchNorm2d(expanded), nn.ReLU6())
        self.depthwise = nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False)
        self.norm = nn.BatchNorm2d(expanded)
        self.squeeze = nn.Conv2d(expanded, 4, 1)
        self.excite = nn.Conv2d(4, expanded, 1)
        self.project = nn.Sequential(nn.Conv2d(expanded, channels, 1, bias=False), nn.BatchNorm2d(channels))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = functional.hardswish(self.norm(self.depthwise(self.expand(inputs))))
        gate = self.excite(functional.relu(self.squeeze(hidden.mean((2, 3), keepdim=True))))
        return inputs + self.project(hidden * functional.hardsigmoid(gate))


def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.Hardswish(),
        InvertedResidual(6, 12),
        InvertedResidual(6, 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, groups=12, bias=False),
        nn.ConvTranspose2d(12, 6, 3),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList([nn.Conv2d(6 + 4 * n, 4, 3, padding=1) for n in range(3)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(6 + 4 * n) for n in range(3)])
        self.head = nn.Linear(18, CLASSES)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden = torch.cat([hidden, layer(functional.relu(norm(hidden)))], 1)
        return self.head(hidden.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.LSTM | nn.GRU | nn.RNN], **options: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 5)
        self.cell = cell(5, 6, num_layers=2, batch_first=True, **options)
        self.head = nn.Linear(12 if options.get("bidirectional") else 6, CLASSES)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.cell(self.embedding(tokens))[0][:, -1])


class CellLoop(nn.Module):
    """A recurrent network with its loop written out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 6)
        self.head = nn.Linear(6, CLASSES)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        state = inputs.new_zeros(inputs.shape[0], 6)
        for step in inputs.unbind(1):
            state = self.cell(step, state)
        return self.head(state)


class TransposedLinear(nn.Module):
    """A linear layer whose matrix is stored as [in, out]."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_in, num_out) * 0.3)
        self.bias = nn.Parameter(torch.zeros(num_out))

    @override
    def forward(self, values: Tensor) -> Tensor:
        return torch.addmm(self.bias, values.view(-1, values.shape[-1]), self.weight).view(*values.shape[:-1], -1)


class GPT2Attention(nn.Module):
    bias: Tensor

    def __init__(self, width: int, num_heads: int, context: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.c_attn = TransposedLinear(width, 3 * width)
        self.c_proj = TransposedLinear(width, width)
        self.register_buffer("bias", torch.tril(torch.ones(context, context, dtype=torch.bool)))

    @override
    def forward(self, values: Tensor) -> Tensor:
        batch, length, width = values.shape
        parts = self.c_attn(values).split(width, dim=2)
        queries, keys, contents = (p.view(batch, length, self.num_heads, -1).transpose(1, 2) for p in parts)
        if self.fused:
            mixed = functional.scaled_dot_product_attention(queries, keys, contents, is_causal=True)
        else:
            scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
            scores = scores.masked_fill(~self.bias[:length, :length], float("-inf"))
            mixed = scores.softmax(-1) @ contents
        return self.c_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class GPT2Block(nn.Module):
    def __init__(self, width: int, num_heads: int, context: int, fused: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = GPT2Attention(width, num_heads, context, fused)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": TransposedLinear(width, 4 * width), "c_proj": TransposedLinear(4 * width, width)}
        )

    @override
    def forward(self, values: Tensor) -> Tensor:
        values = values + self.attn(self.ln_1(values))
        hidden = functional.gelu(self.mlp["c_fc"](self.ln_2(values)), approximate="tanh")
        return values + self.mlp["c_proj"](hidden)


class GPT2(nn.Module):
    """GPT-2 with the head tied to the token embedding, under the names of the well-known implementation."""

    def __init__(
        self,
        vocabulary: int = VOCABULARY,
        context: int = CONTEXT,
        width: int = 12,
        num_heads: int = 3,
        num_layers: int = 2,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, width),
                "wpe": nn.Embedding(context, width),
                "h": nn.ModuleList([GPT2Block(width, num_heads, context, fused) for _ in range(num_layers)]),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        values = self.transformer["wte"](tokens) + self.transformer["wpe"](torch.arange(tokens.shape[1]))
        for block in self.transformer["h"]:  # type: ignore[union-attr]
            values = block(values)
        return self.lm_head(self.transformer["ln_f"](values))


class Bert(nn.Module):
    """A post-norm encoder with three embeddings, separate queries, keys and values, and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        width = 12
        self.words, self.places, self.kinds = (
            nn.Embedding(VOCABULARY, width),
            nn.Embedding(CONTEXT, width),
            nn.Embedding(2, width),
        )
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([BertLayer(width, 3) for _ in range(2)])
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1])
        values = self.norm(self.words(tokens) + self.kinds(torch.zeros_like(tokens)) + self.places(places))
        for layer in self.layers:
            values = layer(values)
        return self.head(torch.tanh(self.pooler(values[:, 0])))


class BertLayer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output, self.output_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.widen, self.narrow, self.norm = nn.Linear(width, 20), nn.Linear(20, width), nn.LayerNorm(width)

    @override
    def forward(self, values: Tensor) -> Tensor:
        def heads(part: Tensor) -> Tensor:
            return part.view(*part.shape[:2], self.num_heads, -1).permute(0, 2, 1, 3)

        queries, keys, contents = heads(self.query(values)), heads(self.key(values)), heads(self.value(values))
        weights = torch.matmul(queries, keys.transpose(-1, -2)).div(2.0).softmax(-1)
        mixed = torch.matmul(weights, contents).permute(0, 2, 1, 3).contiguous().flatten(2)
        values = self.output_norm(self.output(mixed) + values)
        return self.norm(self.narrow(functional.gelu(self.widen(values))) + values)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    @override
    def forward(self, values: Tensor) -> Tensor:
        return self.weight * (values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(values: Tensor) -> Tensor:
    """Rotary positions by halves."""
    length, width = values.shape[-2:]
    rates = 1.0 / 100 ** (torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(length), rates)
    angles = torch.cat([angles, angles], -1)
    first, second = values.chunk(2, -1)
    return values * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


class LlamaLayer(nn.Module):
    def __init__(self, width: int, num_heads: int, num_keys: int, rotary: bool, norm_heads: bool, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.num_keys, self.rotary, self.fused = num_heads, num_keys, rotary, fused
        size = 4
        self.q_proj = nn.Linear(width, num_heads * size, bias=False)
        self.k_proj = nn.Linear(width, num_keys * size, bias=False)
        self.v_proj = nn.Linear(width, num_keys * size, bias=False)
        self.o_proj = nn.Linear(num_heads * size, width, bias=False)
        self.gate_proj, self.up_proj = nn.Linear(width, 20, bias=False), nn.Linear(width, 20, bias=False)
        self.down_proj = nn.Linear(20, width, bias=False)
        self.norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.q_norm = nn.RMSNorm(size) if norm_heads else nn.Identity()
        self.k_norm = nn.RMSNorm(size) if norm_heads else nn.Identity()

    @override
    def forward(self, values: Tensor) -> Tensor:
        batch, length, _ = values.shape
        normed = self.norm(values)
        queries = self.q_norm(self.q_proj(normed).view(batch, length, self.num_heads, -1)).transpose(1, 2)
        keys = self.k_norm(self.k_proj(normed).view(batch, length, self.num_keys, -1)).transpose(1, 2)
        contents = self.v_proj(normed).view(batch, length, self.num_keys, -1).transpose(1, 2)
        if self.rotary:
            queries, keys = rotate(queries), rotate(keys)
        if self.fused:
            mixed = functional.scaled_dot_product_attention(queries, keys, contents, is_causal=True, enable_gqa=True)
        else:
            repeats = self.num_heads // self.num_keys
            keys = keys[:, :, None].expand(-1, -1, repeats, -1, -1).reshape(batch, self.num_heads, length, -1)
            contents = contents.repeat_interleave(repeats, dim=1)
            mask = torch.full((length, length), float("-inf")).triu(1)
            mixed = (queries @ keys.transpose(2, 3) / 2.0 + mask).softmax(-1) @ contents
        values = values + self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        normed = self.mlp_norm(values)
        return values + self.down_proj(functional.silu(self.gate_proj(normed)) * self.up_proj(normed))


class Llama(nn.Module):
    def __init__(
        self, num_keys: int = 2, rotary: bool = True, norm_heads: bool = False, fused: bool = False, num_heads: int = 4
    ) -> None:
        super().__init__()
        width = 12
        self.embed = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(
            [LlamaLayer(width, num_heads, num_keys, rotary, norm_heads, fused) for _ in range(2)]
        )
        self.norm, self.head = RMSNorm(width), nn.Linear(width, VOCABULARY, bias=False)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        values = self.embed(tokens)
        for layer in self.layers:
            values = layer(values)
        return self.head(self.norm(values))


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = 12
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 10, width))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 3, 20, batch_first=True, norm_first=True, activation="gelu"),
            2,
            enable_nested_tensor=False,
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    @override
    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        values = torch.cat([self.token.expand(images.shape[0], -1, -1), patches], 1) + self.places
        return self.head(self.norm(self.encoder(values))[:, 0])


class InterleavedHeads(nn.Module):
    """Attention whose fused matrix holds query, key and value side by side in each head, cut by slices or a view."""

    def __init__(self, by_view: bool) -> None:
        super().__init__()
        self.by_view = by_view
        self.embed = nn.Linear(5, 12)
        self.fused = nn.Linear(12, 36)
        self.mix = nn.Linear(12, CLASSES)

    @override
    def forward(self, values: Tensor) -> Tensor:
        batch, length, _ = values.shape
        fused = self.fused(self.embed(values))
        if self.by_view:
            queries, keys, contents = fused.view(batch, length, 3, 3, 4).unbind(3)
        else:
            queries, keys, contents = fused.view(batch, length, 3, 12).chunk(3, -1)
        parts = (part.transpose(1, 2) for part in (queries, keys, contents))
        return self.mix(functional.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(batch, length, 12))


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.target_embed = nn.Embedding(VOCABULARY, 12), nn.Embedding(VOCABULARY, 12)
        self.transformer = nn.Transformer(12, 2, 1, 1, 20, batch_first=True)
        self.head = nn.Linear(12, VOCABULARY)

    @override
    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.head(self.transformer(self.embed(tokens), self.target_embed(targets)))


def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (2, CONTEXT), generator=torch.Generator().manual_seed(1))


def images(channels: int = 3, size: int = 12) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(2))


def vectors(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], object]]] = {
    "mlp": (mlp, lambda: vectors(4, 5)),
    "lenet": (lenet, lambda: images(1, 16)),
    "vgg": (vgg, lambda: images(3, 16)),
    "resnet": (resnet, images),
    "mobilenet": (mobilenet, images),
    "grouped": (grouped, images),
    "densenet": (DenseNet, images),
    "lstm": (lambda: Recurrent(nn.LSTM), tokens),
    "lstm_both_ways": (lambda: Recurrent(nn.LSTM, bidirectional=True), tokens),
    "gru": (lambda: Recurrent(nn.GRU), tokens),
    "rnn": (lambda: Recurrent(nn.RNN), tokens),
    "cell_loop": (CellLoop, lambda: vectors(2, 3, 4)),
    "gpt2": (GPT2, tokens),
    "gpt2_fused": (lambda: GPT2(fused=True), tokens),
    "bert": (Bert, tokens),
    "llama": (Llama, tokens),
    "llama_plain": (lambda: Llama(rotary=False), tokens),
    "llama_fused": (lambda: Llama(rotary=False, fused=True), tokens),
    "llama_one_key": (lambda: Llama(num_keys=1, rotary=False), tokens),
    "qwen": (lambda: Llama(norm_heads=True), tokens),
    "vit": (VisionTransformer, images),
    "neox_heads": (lambda: InterleavedHeads(by_view=False), lambda: vectors(2, 4, 5)),
    "bloom_heads": (lambda: InterleavedHeads(by_view=True), lambda: vectors(2, 4, 5)),
    "encoder_decoder": (EncoderDecoder, lambda: (tokens(), tokens())),
}


def build(name: str) -> tuple[nn.Module, object]:
    """A network with random weights, and inputs for it."""
    make, inputs = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(), inputs()
