"""What travels between a server and its clients, and which codecs both ends make for it.

down    w_v, the server's weights of version v, as the differences that the client lacks, or whole
up      d = w_v - w_local, the pseudo-gradient of one client, coded; what it was told apart from first

A packet of differences is a key frame: a client that missed some takes them in order, or gets the weights whole. A
packet of a pseudo-gradient goes on from the client's last one where the server has decoded that; else it is a key
frame too.
"""

from typing import NamedTuple

from torch import Tensor

from ...forecast import Layout
from ..codec import Codec
from ..config import CodecConfig
from ..errors import ConfigError

PSEUDO_GRADIENTS = "pseudo_gradients"
DIFFERENCES = "weight_differences"
# Cheap to make and next to nothing to keep: a server holds the state of every client's link.
UP = CodecConfig("none", entropy="runs", nmse=0.1, feedback="classic")
DOWN = CodecConfig("none", entropy="runs", nmse=0.1)


class Downlink(NamedTuple):
    """What a server sends to one client.

    Attributes:
        version: of the weights that the client has afterwards.
        packets: the differences that it lacks, oldest first; empty where it has them all, or gets them whole.
        whole: the weights themselves, `[param]`; `None` where packets do.
        acknowledged: step of the client's last packet that the server has decoded, -1 for none.
    """

    version: int
    packets: tuple[bytes, ...]
    whole: Tensor | None
    acknowledged: int

    @property
    def num_bytes(self) -> int:
        """Of packets and weights."""
        return sum(map(len, self.packets)) + (self.whole.nbytes if self.whole is not None else 0)


class Update(NamedTuple):
    """What a client sends back.

    Attributes:
        version: of the weights that it began from.
        packet: of its pseudo-gradient, less what was predicted.
        coefficients: of the prediction by the last difference, coded; empty where there was none.
    """

    version: int
    packet: bytes
    coefficients: bytes = b""

    @property
    def num_bytes(self) -> int:
        """Of both parts."""
        return len(self.packet) + len(self.coefficients)


def up_codec(layout: Layout, config: CodecConfig | None) -> Codec:
    """Of pseudo-gradients."""
    return Codec(layout, UP if config is None else config, PSEUDO_GRADIENTS)


def down_codec(layout: Layout, config: CodecConfig | None) -> Codec:
    """Of differences of weights.

    Raises:
        ConfigError: with error feedback: a difference to what clients have holds all past errors already.
    """
    config = DOWN if config is None else config
    if config.feedback != "off":
        raise ConfigError(
            f"Differences of weights make up for the last packet's error by themselves; leave `feedback` of the way "
            f"down off, got {config.feedback!r}."
        )
    return Codec(layout, config, DIFFERENCES)
