"""The gradient codec: prediction, lattice, entropy coding, packets."""

from .codec import Codec
from .config import CodecConfig
from .decoder import Decoder
from .encoder import Encoder, EncodeReport
from .errors import CodecError, ConfigError, EncodeError, OutOfStepError, PacketError, StateError
from .lattice import lattice_names
from .modes import Annulus, ModePolicy, RateDistortion, Scalar, Uniform
from .predictor_choice import predictor_names

__all__ = [
    "Uniform",
    "Scalar",
    "RateDistortion",
    "ModePolicy",
    "Annulus",
    "Codec",
    "CodecConfig",
    "CodecError",
    "ConfigError",
    "Decoder",
    "EncodeError",
    "EncodeReport",
    "Encoder",
    "OutOfStepError",
    "PacketError",
    "StateError",
    "lattice_names",
    "predictor_names",
]
