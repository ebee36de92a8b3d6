"""Runs of the race in which jumps cost nothing, and the families of proposals; see `race_headroom`."""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.race.averages import holding, trained
from deadreckon.experiments.race.clock import NORM_BATCHES, in_evaluation, spread
from deadreckon.experiments.race.methods import METHODS
from deadreckon.experiments.race.optimizers import make_race_optimizer, rate_factor
from deadreckon.experiments.race.problems import Problem
from deadreckon.experiments.tasks import Batches, TaskData, make_network
from deadreckon.forecast import Forecaster, Window, layout_of, load_vector, pack, unpack
from deadreckon.forecast.graph import trace_graph
from deadreckon.forecast.jump.batch_norm import batch_norms, reestimate_statistics
from deadreckon.models import load_pretrained, make_forecaster

LINE = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
HORIZONS = (10, 20, 50, 100, 200)
ROWS = 10  # kept between two opportunities
SPACING = 10  # optimiser steps between rows for forecasters that come with the package
FORECASTERS = ("adaptive_linear", "nino")
COMBINATIONS = ("line", "average", "trend", "low_rank", "per_layer")
FEATURES = (
    "log of the held-out loss there over that here",
    "the held-out change in its standard errors",
    "share of the run that is done",
    "log of the jump's length over the way of the latest two rows",
    "cosine between the jump and that way",
    "cosine between that way and the one before",
)
FAMILIES = (*COMBINATIONS, "any", "random", *FORECASTERS)


class Families:
    """Candidates of each family from the latest rows.

    Args:
        network: the one that is trained.
        row_every: optimiser steps between rows.
        loss: of a vector, on the verification set; differentiable.
        sample: a few inputs, to trace the network's graph with.
        seed: of random steps.
    """

    def __init__(
        self, network: nn.Module, row_every: int, loss: Callable[[Tensor], Tensor], sample: Tensor, seed: int
    ) -> None:
        self.layout = layout_of(network)
        self.row_every = row_every
        self.rows: deque[Tensor] = deque(maxlen=ROWS)
        self.steps: deque[int] = deque(maxlen=ROWS)
        self.loss = loss
        self.graph = trace_graph(network, (sample,))
        self.seed = seed
        averages = [make_forecaster("lawa", history=count) for count in (2, 4, 8)]
        trend = make_forecaster("lawa", extrapolate=True, history=8)
        self.forecasters: dict[str, tuple[Sequence[Forecaster], Sequence[int]]] = {
            "average": (averages, HORIZONS[:1]),  # which propose the same for every horizon
            "trend": ([trend], HORIZONS),
            **{name: ([load_pretrained(name)], HORIZONS) for name in FORECASTERS},
        }

    def candidates(self, family: str) -> Iterator[Tensor]:
        """Vectors to choose from; none while the history is too short."""
        if family == "any":
            for name in COMBINATIONS:
                yield from self.candidates(name)
        elif len(self.rows) == ROWS:
            yield from self._forecasts(family) if family in self.forecasters else getattr(self, f"_{family}")()

    def _line(self) -> Iterator[Tensor]:
        for back in (2, 5):
            step = self.rows[-1] - self.rows[-1 - back]
            yield from (self.rows[-1] + share * step for share in LINE)

    def _random(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(1_000_000 * self.seed + self.steps[-1])
        for back in (2, 5):
            step = self.rows[-1] - self.rows[-1 - back]
            for share in LINE:
                noise = torch.randn(len(step), generator=generator)
                yield self.rows[-1] + share * step.norm() / noise.norm() * noise

    def _low_rank(self) -> Iterator[Tensor]:
        rows = torch.stack(list(self.rows)[-6:])
        yield self._fitted(rows.diff(dim=0))

    def _per_layer(self) -> Iterator[Tensor]:
        step = self.rows[-1] - self.rows[-6]
        parts = torch.zeros(len(self.layout), len(step))
        for part, spec in zip(parts, self.layout, strict=True):
            part[spec.span] = step[spec.span]
        yield self._fitted(parts)

    def _fitted(self, directions: Tensor) -> Tensor:
        """The best combination of directions that L-BFGS finds in a few steps."""
        base = self.rows[-1]
        shares = torch.zeros(len(directions), requires_grad=True)
        optimizer = torch.optim.LBFGS([shares], max_iter=8, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = self.loss(base + shares @ directions)
            value.backward()
            return value

        optimizer.step(closure)
        return base + shares.detach() @ directions

    def _forecasts(self, family: str) -> Iterator[Tensor]:
        members, horizons = self.forecasters[family]
        for member in members:
            window = Window(
                torch.stack(list(self.rows)[-member.history :]),
                torch.tensor(list(self.steps)[-member.history :]),
                self.layout,
                graph=self.graph if member.needs_graph else None,
            )
            yield from (forecast.mean for forecast in member.forecast(window, horizons))


class Look(NamedTuple):
    """What one family proposes at one opportunity.

    Attributes:
        vector: the best candidate by the verification set; none while the history is too short.
        better: whether it is better there than staying.
        features: see `FEATURES`.
    """

    vector: Tensor | None
    better: bool
    features: list[float]


class Saved(NamedTuple):
    """A run at one step, to go back to once."""

    step: int
    network: dict[str, Any]
    optimizer: dict[str, Any]
    average: list[Tensor] | None
    rows: list[Tensor]
    steps: list[int]


class Run:
    """One run of a baseline, to be taken along step by step.

    Args:
        task: what is learned.
        problem: of the race.
        method: a baseline.
        settings: as tuned.
        seed: of the network and of the batches' order.
        row_every: optimiser steps between rows.
        verified: samples that candidates are compared on.
        measured: samples of the `tune` set that losses are measured on.
    """

    def __init__(
        self,
        task: TaskData,
        problem: Problem,
        method: str,
        settings: Mapping[str, float],
        seed: int,
        row_every: int,
        verified: int,
        measured: int,
    ) -> None:
        recipe = METHODS[method]
        self.step = 0
        self.steps = round(problem.steps * settings.get("horizon", 1.0))
        self.network = make_network(problem.network, task, seed, problem.width)
        self.optimizer = make_race_optimizer(recipe.optimizer, self.network, settings, self.steps)
        self.average: list[Tensor] | None = None
        self._schedule = recipe.schedule
        self._rates: list[float] = [group["lr"] for group in self.optimizer.param_groups]
        self._decay = settings.get("decay")
        self._batches = Batches(task.train, problem.batch_size, self.steps, seed)
        self._checked, self._measured = spread(task.verify, verified), spread(task.tune, measured)
        self._layout = layout_of(self.network)
        self._families = Families(self.network, row_every, self._loss_of, self._checked.inputs[:2], seed)

    def _losses_of(self, vector: Tensor) -> Tensor:
        # Running statistics of normalisations stay what they are: the pass writes to copies of them.
        buffers = {name: value.clone() for name, value in self.network.named_buffers()}
        logits = functional_call(self.network, {**unpack(vector, self._layout), **buffers}, (self._checked.inputs,))
        return functional.cross_entropy(logits, self._checked.labels, reduction="none")

    def _loss_of(self, vector: Tensor) -> Tensor:
        return self._losses_of(vector).mean()

    def advance(self, until: int) -> None:
        """Train up to a step, that one included."""
        for step in range(self.step + 1, until + 1):
            inputs, labels = self._batches[step - 1]
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * rate_factor(self._schedule, step - 1, self.steps)
            self.optimizer.zero_grad()
            functional.cross_entropy(self.network(inputs), labels).backward()
            self.optimizer.step()
            if self._decay is not None:
                self.average = self.average or [value.clone() for value in trained(self.network)]
                for own, value in zip(self.average, trained(self.network), strict=True):
                    own.lerp_(value, 1 - min(self._decay, (1 + step) / (10 + step)))
            if step % self._families.row_every == 0:
                self._families.rows.append(pack(self.network)[0].clone())
                self._families.steps.append(step)
            self.step = step

    def look(self, family: str) -> Look:
        """The best candidate by the verification set, and what is known of it."""
        best: Tensor | None = None
        going = torch.tensor([math.inf])
        for vector in self._families.candidates(family):
            with torch.no_grad():
                losses = self._losses_of(vector)
            if losses.mean() < going.mean():
                going, best = losses, vector
        if best is None:
            return Look(None, False, [])
        here = pack(self.network)[0]
        with torch.no_grad():
            staying = self._losses_of(here)
        change = going - staying
        rows = list(self._families.rows)
        latest, before, jump = rows[-1] - rows[-3], rows[-3] - rows[-5], best - here
        features = [
            (going.mean() / staying.mean()).log().item(),
            (change.mean() / change.std() * math.sqrt(len(change))).item() if change.any() else 0.0,
            self.step / self.steps,
            math.log((jump.norm() / latest.norm()).item() + 1e-3),
            functional.cosine_similarity(jump, latest, dim=0).item(),
            functional.cosine_similarity(latest, before, dim=0).item(),
        ]
        return Look(best, bool(going.mean() < staying.mean()), features)

    def jump_to(self, vector: Tensor) -> None:
        """Go there; an average goes along, normalisations' statistics are estimated anew on the latest batches."""
        before = [value.clone() for value in trained(self.network)]
        load_vector(self.network, vector, self._layout)
        if self.average is not None:
            for own, old, new in zip(self.average, before, trained(self.network), strict=True):
                own.add_(new - old)
        if batch_norms(self.network):
            first = max(0, self.step - NORM_BATCHES)
            reestimate_statistics(self.network, [self._batches[step] for step in range(first, self.step)])
        self._families.rows.clear()  # the curve breaks here
        self._families.steps.clear()

    def loss(self) -> float:
        """Of what is evaluated, on the `tune` set: the average where there is one."""
        with in_evaluation(self.optimizer):
            if self.average is None:
                return evaluate(self.network, self._measured).loss
            with holding(self.network, self.average):
                return evaluate(self.network, self._measured).loss

    def save(self) -> Saved:
        """Everything that `restore` needs."""
        return copy.deepcopy(
            Saved(
                self.step,
                dict(self.network.state_dict()),
                self.optimizer.state_dict(),
                self.average,
                list(self._families.rows),
                list(self._families.steps),
            )
        )

    def restore(self, saved: Saved) -> None:
        """Go back to where a run was saved, once: the tensors that were saved are trained from there."""
        self.step = saved.step
        self.network.load_state_dict(saved.network)
        self.optimizer.load_state_dict(saved.optimizer)
        self.average = saved.average
        self._families.rows = deque(saved.rows, maxlen=ROWS)
        self._families.steps = deque(saved.steps, maxlen=ROWS)
