"""Candidates before held-out data."""

import math
from collections.abc import Callable, Iterator, Sized
from typing import Any, final

import torch
from torch import Tensor

from ..errors import JumpError
from .batches import batch_length
from .outcome import Outcome
from .proposal import Candidate
from .regime import captured_features
from .sequential import SequentialTest
from .setting import JumpSetting
from .verification import PairedSums, Verdict, batch_losses, require_evidence
from .weights import LoadedWeights


@final
class Trial:
    """Measures candidates on held-out batches, one batch after the other, and stops as soon as it can tell.

    Works inside a `Transaction`, since loaders and probes may draw from global random generators.

    Args:
        setting: the network and its held-out data.
        loaded: switches its weights.
        step: the optimiser step, for the regime.
        required: the fall of the mean loss that is asked for, given the mean loss before.

    Attributes:
        losses_before: mean losses of the present weights, by batch, over all processes.
        losses_after: those of the chosen candidate on the same batches.
        num_samples: how many samples the decision took.
        over: whether screening has decided already.
    """

    def __init__(
        self, setting: JumpSetting, loaded: LoadedWeights, step: int, required: Callable[[float], float]
    ) -> None:
        self.losses_before: list[float] = []
        self.losses_after: list[float] = []
        self.num_samples = 0
        self.over = False
        self._setting = setting
        self._loaded = loaded
        self._step = step
        self._required = required
        self._sums = PairedSums(torch.zeros(5, dtype=torch.float64))
        self._asked = 0.0
        self._kept = False
        self._threshold = 0.0
        setting.module.eval()  # the transaction puts modes back
        with setting.ledger.charge("loading"):
            batches = setting.batches if isinstance(setting.batches, Sized) else list(setting.batches)
            self._num_batches = len(batches)
            self._batches: Iterator[Any] = iter(batches)
        setting.agreement.require_equal(self._num_batches, "number of held-out batches")
        if not self._num_batches:
            raise JumpError("Verification needs at least one held-out batch, got none.")

    def screen(self, candidates: list[Candidate]) -> Candidate:
        """The candidate with the lowest loss on the first batch; with one candidate nothing is measured.

        Raises:
            JumpError: if there is a choice but one batch only, which cannot both choose and test.
        """
        if len(candidates) == 1:
            return candidates[0]
        if self._num_batches < 2:
            raise JumpError(
                "Several candidates need at least two held-out batches: the first chooses, the others test. "
                "Make the batches smaller."
            )
        setting, batch = self._setting, self._next()
        before = self._measure(None, batch)
        with setting.ledger.charge("screening", self._equivalents(batch) * len(candidates)), setting.precision():
            losses = setting.screen.losses(
                setting.module, setting.probe, batch, candidates, self._loaded.layout, self._loaded.use
            )
        count = float(before.numel())
        sums = setting.agreement.sum(torch.cat([torch.tensor([count, before.sum()]), count * losses]).double())
        mean_before, means = float(sums[1] / sums[0]), sums[2:] / sums[0]
        means = torch.where(torch.isfinite(means), means, math.inf)
        best = int(means.argmin())
        self.num_samples = int(sums[0])
        self.losses_before.append(mean_before)
        self.losses_after.append(float(means[best]))
        asked = self._ask(mean_before)
        if not mean_before - float(means[best]) > asked:
            # Not even the best of several, which flatters it, does what is asked.
            self.over, self._asked = True, asked
            fall = mean_before - float(means[best])
            self._sums = PairedSums(sums[0] * torch.tensor([1.0, fall, fall**2, mean_before, float(means[best])]))
        return candidates[best]

    def test(self, candidate: Candidate) -> None:
        """Compare a candidate with the present weights on the batches left, until the test says yes or no."""
        policy = self._setting.policy
        left = self._num_batches - len(self.losses_before)
        num_looks = min(policy.max_looks, left)
        test = SequentialTest(num_looks, policy.num_standard_errors, policy.futility)
        for look in range(1, num_looks + 1):
            for _ in range(left * look // num_looks - left * (look - 1) // num_looks):
                self._compare(candidate, self._next())
            sums = self._sums
            self._asked, self._threshold = self._ask(sums.loss_before), test.threshold(look)
            if look == num_looks:
                require_evidence(sums.num_samples, policy.num_standard_errors)
            if not math.isfinite(sums.loss_after):
                return
            decided = test.decide(look, sums.num_samples, sums.mean_fall - self._asked, sums.standard_error)
            if decided is not None:
                self._kept = decided
                return

    def verdict(self, shortfall: Outcome) -> Verdict:
        """What came of it.

        Args:
            shortfall: the outcome of a candidate whose loss fell, but by too little.
        """
        sums = self._sums
        before, after = sums.loss_before, sums.loss_after
        if not math.isfinite(after):
            return Verdict(Outcome.NOT_FINITE, -math.inf, before, after)
        error = self._threshold * sums.standard_error if self._threshold else 0.0
        margin = sums.mean_fall - self._asked - error
        if self._kept:
            return Verdict(Outcome.KEPT, margin, before, after)
        fell = sums.mean_fall > error
        return Verdict(shortfall if fell else Outcome.NOT_BETTER, margin, before, after)

    def _compare(self, candidate: Candidate, batch: Any) -> None:
        before = self._measure(None, batch)
        after = self._measure(candidate, batch)
        sums = PairedSums(self._setting.agreement.sum(PairedSums.of(before, after).values))
        self.losses_before.append(sums.loss_before)
        self.losses_after.append(sums.loss_after)
        self.num_samples += sums.num_samples
        self._sums = self._sums.plus(sums.values)

    def _measure(self, weights: Candidate | None, batch: Any) -> Tensor:
        setting = self._setting
        self._loaded.use(weights)
        first = weights is None and not self.losses_before
        with setting.ledger.charge("verifying", self._equivalents(batch)), setting.precision():
            if not first or setting.regimes is None:
                return batch_losses(setting.module, setting.probe, batch)
            with captured_features(setting.module) as features:
                losses = batch_losses(setting.module, setting.probe, batch)
            if features:
                setting.regimes.see_features(self._step, features[0], setting.agreement)
            return losses

    def _next(self) -> Any:
        with self._setting.ledger.charge("loading"):
            return self._setting.prepare(next(self._batches))

    def _ask(self, loss_before: float) -> float:
        """What the rule asks; it may go by the clock, so the first process's counts."""
        asked = torch.tensor(self._required(loss_before), dtype=torch.float64)
        return float(self._setting.agreement.first(asked))

    def _equivalents(self, batch: Any) -> float:
        # A forward pass is about a third of a forward and a backward one.
        size = self._setting.batch_size
        return batch_length(batch) / (3 * size) if size else 0.0
