"""The codec between a server and clients that come and go; without any federated framework, but for `flower`."""

from .client import ClientLink
from .control import ControlVariates
from .direction import DirectionFit
from .messages import Downlink, Update
from .server import ServerLinks
from .server_steps import Averaging, GeneralisedHeavyBall, HeavyBall, ServerState, ServerStep

__all__ = [
    "Averaging",
    "ClientLink",
    "ControlVariates",
    "DirectionFit",
    "Downlink",
    "GeneralisedHeavyBall",
    "HeavyBall",
    "ServerLinks",
    "ServerState",
    "ServerStep",
    "Update",
]
