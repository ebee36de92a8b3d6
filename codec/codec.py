"""A codec: the two ends of a link, made to fit."""

from typing import final

from ..forecast import Layout
from .config import CodecConfig
from .decoder import Decoder
from .encoder import Encoder
from .endpoint import Endpoint


@final
class Codec:
    """Makes encoders and decoders of one stream of vectors; the two ends each make one from equal arguments.

    A vector is predicted from what was decoded before, and the quantised residual is entropy-coded against integer
    tables that adapt to what was decoded before. Both ends own equal copies of that state.

    Args:
        layout: what the vectors hold, `forecast.Layout`.
        config: how they are coded.
        stream: the stream's name; packets of another stream are refused, and a forecaster must be of this one.
        key: secret shared by both ends, 1 to 64 bytes. Packets then carry a message authentication code (keyed BLAKE2b,
            16 bytes); without it anybody who can write to the wire can make packets. It does not hide their content.

    Attributes:
        digest: what both ends must share, in hexadecimal: coder, configuration, layout and stream.

    Raises:
        ConfigError: if these do not fit together.

    Examples:
        >>> import torch
        >>> from deadreckon.forecast import pack
        >>> vector, layout = pack(torch.nn.Linear(64, 64))
        >>> codec = Codec(layout, CodecConfig(nmse=0.01))
        >>> encoder, decoder = codec.encoder(), codec.decoder()
        >>> packet = encoder.encode(vector, step=1)
        >>> decoded = decoder.decode(packet)
        >>> torch.equal(decoded, encoder.reconstruction), len(packet) < 4 * layout.size
        (True, True)
    """

    def __init__(
        self, layout: Layout, config: CodecConfig | None = None, stream: str = "gradients", key: bytes | None = None
    ) -> None:
        self.layout = layout
        self.config = CodecConfig() if config is None else config
        self.stream = stream
        self._key = key
        # An endpoint made here raises here, rather than at the first use.
        self.digest = Endpoint(layout, self.config, stream, key).identity.hex()

    def encoder(self, seed: int = 0) -> Encoder:
        """A new sending end, which begins with a key frame.

        Args:
            seed: of stochastic rounding. Workers whose vectors are averaged need different ones.
        """
        return Encoder(self.layout, self.config, self.stream, self._key, seed)

    def decoder(self) -> Decoder:
        """A new receiving end, which waits for a key frame."""
        return Decoder(self.layout, self.config, self.stream, self._key)

    def derived(self, layout: Layout, config: CodecConfig | None = None) -> "Codec":
        """A codec of the same stream and key for another layout, such as a shard's, and perhaps other settings."""
        return Codec(layout, self.config if config is None else config, self.stream, self._key)
