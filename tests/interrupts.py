"""Processes that hear Ctrl-C, however the tests were started."""

import signal


def hear_interrupts() -> None:
    """To be run in a child before its program: a shell's background jobs ignore Ctrl-C, and so would the child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
