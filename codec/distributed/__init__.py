"""The codec between processes, without Lightning."""

from .exchange import PacketExchange, require_equal_peers
from .hook import GradientCodec, collect, give_back, register_gradient_codec

__all__ = [
    "GradientCodec",
    "PacketExchange",
    "collect",
    "give_back",
    "register_gradient_codec",
    "require_equal_peers",
]
