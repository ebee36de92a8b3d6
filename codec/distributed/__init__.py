"""The codec between processes, without Lightning."""

from .aggregation import Aggregation
from .choice import AggregationChoice, choose_aggregation, measure_link
from .errors import PeerError, PeerLostError, ReplicaError
from .exchange import PacketExchange
from .hook import GradientCodec, collect, give_back, register_gradient_codec
from .lattice_sum import LatticeSum
from .options import ExchangeConfig
from .peers import require_equal, require_same_codecs
from .replicas import ReplicaCheck
from .sharded import ShardedExchange
from .traffic import Traffic
from .wire import GroupWire, Wire

__all__ = [
    "Aggregation",
    "AggregationChoice",
    "ExchangeConfig",
    "GradientCodec",
    "GroupWire",
    "LatticeSum",
    "PacketExchange",
    "PeerError",
    "PeerLostError",
    "ReplicaCheck",
    "ReplicaError",
    "ShardedExchange",
    "Traffic",
    "Wire",
    "choose_aggregation",
    "collect",
    "give_back",
    "measure_link",
    "register_gradient_codec",
    "require_equal",
    "require_same_codecs",
]
