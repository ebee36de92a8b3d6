"""What can go wrong between a Trainer and the callbacks."""


class CallbackError(Exception):
    """Base of every error that `deadreckon.callbacks` raises on purpose."""


class CallbackOptionError(CallbackError, ValueError):
    """A callback was given an option that cannot work."""


class UnsupportedTrainerError(CallbackError, RuntimeError):
    """The Trainer is set up in a way that a callback does not support; the message names it."""


class ResumeError(CallbackError, RuntimeError):
    """A checkpoint does not fit the callback or the files it should go on with."""
