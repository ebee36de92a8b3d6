"""A small transformer that tells classes apart."""

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

HEAD_WIDTH = 8  # numbers in a head of attention
NUM_HEADS = 4  # at width 1
NUM_BLOCKS = 2
EXPANSION = 4  # hidden units of a block's feed-forward part, for each number of a token


class Transformer(nn.Module):
    """Two pre-norm blocks over the tokens of an input, and a linear layer on the last token.

    x = E(token) + P(position);  x = x + A(N(x)), x = x + F(N(x)) in each block;  logits = L(N(x_last)).

    A is attention of every token to every token, without a mask (A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit,
    L. Jones, A. N. Gomez, L. Kaiser and I. Polosukhin, 2017, Attention Is All You Need, arXiv:1706.03762): one class is
    told for a whole input, so nothing has to be hidden. Norms come first (R. Xiong and others, 2020, On Layer
    Normalization in the Transformer Architecture, arXiv:2002.04745), so that no warm-up is needed. No dropout.

    Layers are made on the `meta` device; whoever makes it initialises it.

    Args:
        input_shape: `(context,)` of a text, whose symbols are the tokens; `(channel, height, width)` of an image, whose
            rows are.
        num_classes: number of classes.
        num_symbols: how many different symbols a text has; None for images.
        width: what the number of heads, of 8 numbers each, is multiplied by; 4 at width 1, at least 1.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_symbols: int | None, width: float = 1.0
    ) -> None:
        super().__init__()
        num_heads = max(1, round(NUM_HEADS * width))
        size = HEAD_WIDTH * num_heads
        if num_symbols is not None:
            (num_tokens,) = input_shape
            self.embedding: nn.Module = nn.Embedding(num_symbols, size, device="meta")
        else:
            num_channels, num_tokens, num_pixels = input_shape
            self.embedding = nn.Linear(num_channels * num_pixels, size, device="meta")
        self.positions = nn.Embedding(num_tokens, size, device="meta")
        self.blocks = nn.Sequential(*(Block(size, num_heads) for _ in range(NUM_BLOCKS)))
        self.norm = nn.LayerNorm(size, device="meta")
        self.head = nn.Linear(size, num_classes, device="meta")
        self._is_text = num_symbols is not None

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        # [batch, channel, height, width] -> [batch, height, channel * width]
        tokens = inputs if self._is_text else inputs.transpose(1, 2).flatten(2)
        values = self.blocks(self.embedding(tokens) + self.positions.weight)
        return self.head(self.norm(values[:, -1]))


class Block(nn.Module):
    """Attention and a feed-forward part, each normalised first and added to what goes in, `[batch, token, size]`.

    Args:
        size: numbers of a token.
        num_heads: heads of attention; `size` is a multiple of it.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(size, device="meta")
        self.queries_keys_values = nn.Linear(size, 3 * size, device="meta")
        self.mix = nn.Linear(size, size, device="meta")
        self.forward_norm = nn.LayerNorm(size, device="meta")
        self.widen = nn.Linear(size, EXPANSION * size, device="meta")
        self.narrow = nn.Linear(EXPANSION * size, size, device="meta")

    @override
    def forward(self, values: Tensor) -> Tensor:
        values = values + self._attend(self.norm(values))
        return values + self.narrow(functional.gelu(self.widen(self.forward_norm(values))))

    def _attend(self, values: Tensor) -> Tensor:
        heads = self.queries_keys_values(values).unflatten(-1, (3, self.num_heads, -1))
        queries, keys, contents = heads.permute(2, 0, 3, 1, 4)  # each [batch, head, token, number]
        attended = functional.scaled_dot_product_attention(queries, keys, contents)
        return self.mix(attended.transpose(1, 2).flatten(2))
