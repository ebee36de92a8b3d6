"""Jumps ahead: proposed, verified, kept or taken back."""

from .after import MOMENT_RULES, MomentName, MomentRule, moment_rule
from .agreement import Agreement, Alone, Together
from .attempt import attempt_jump
from .batch_norm import batch_norms, reestimate_statistics
from .batches import batch_length
from .candidates import CandidateScreen
from .controller import ControllerState, HorizonController, nino_schedule
from .history import RowKeeper
from .outcome import Outcome
from .progress import Progress
from .proposal import Candidate, propose
from .regime import Regime, RegimeTracker, WeightSignals, weight_signals
from .rules import JumpPolicy, RuleName
from .sequential import SequentialTest, upper_boundary
from .setting import Jump, JumpSetting
from .transaction import Stateful, Transaction
from .verification import Probe, Verdict, compare_losses, probe_losses

__all__ = [
    "MOMENT_RULES",
    "Agreement",
    "Alone",
    "Candidate",
    "CandidateScreen",
    "ControllerState",
    "HorizonController",
    "Jump",
    "JumpPolicy",
    "JumpSetting",
    "MomentName",
    "MomentRule",
    "Outcome",
    "Probe",
    "Progress",
    "Regime",
    "RegimeTracker",
    "RowKeeper",
    "RuleName",
    "SequentialTest",
    "Stateful",
    "Together",
    "Transaction",
    "Verdict",
    "WeightSignals",
    "attempt_jump",
    "batch_length",
    "batch_norms",
    "compare_losses",
    "moment_rule",
    "nino_schedule",
    "probe_losses",
    "propose",
    "reestimate_statistics",
    "upper_boundary",
    "weight_signals",
]
