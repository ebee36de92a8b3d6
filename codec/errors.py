"""What can go wrong between an encoder and a decoder."""


class CodecError(Exception):
    """Base of every error that `deadreckon.codec` raises on purpose."""


class ConfigError(CodecError, ValueError):
    """A codec, or an exchange built on it, is configured in a way that cannot work."""


class EncodeError(CodecError, ValueError):
    """An encoder was asked for something it cannot do: a step that does not increase, an abort without a packet."""


class PacketError(CodecError, ValueError):
    """Bytes that are no packet of this link: damaged, cut, forged, of another version, layout or configuration."""


class OutOfStepError(CodecError, RuntimeError):
    """A sound packet that does not follow the last decoded one. A key frame heals it."""


class StateError(CodecError, ValueError):
    """A saved state does not belong to this codec, or is damaged."""
