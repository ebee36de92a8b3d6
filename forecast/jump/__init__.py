"""Jumps ahead: proposed, verified, kept or taken back."""

from .attempt import Jump, JumpPolicy, attempt_jump
from .controller import ControllerState, HorizonController
from .outcome import Outcome
from .transaction import Stateful, Transaction
from .verification import Probe, Verdict, compare_losses, probe_losses

__all__ = [
    "ControllerState",
    "HorizonController",
    "Jump",
    "JumpPolicy",
    "Outcome",
    "Probe",
    "Stateful",
    "Transaction",
    "Verdict",
    "attempt_jump",
    "compare_losses",
    "probe_losses",
]
