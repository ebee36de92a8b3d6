"""What can go wrong between ranks."""

from ..errors import CodecError


class PeerLostError(CodecError, RuntimeError):
    """Another rank ended, or did not answer within the timeout."""


class PeerError(CodecError, RuntimeError):
    """Another rank reported that it cannot go on; its own error says why."""


class ReplicaError(CodecError, RuntimeError):
    """Parameters that must be equal on all ranks are not."""
