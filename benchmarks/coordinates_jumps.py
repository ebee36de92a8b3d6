"""Skill of forecasts, and what jumps are worth, in reduced coordinates against full ones, on the digits.

The network is 64-64-32-10 with ReLU, trained by Adam at a constant rate with batches of 64. `subspace k` is PRANC from
a seeded start with k coefficients, `mcnc` has 9 + 1 numbers for each 256 weights, `nola` 50 for each of the six
factors of the three matrices; biases are trained, recorded and forecast as they are. The rate of each was chosen out
of `RATES` by the mean loss on `tune` over the last 100 of 400 steps with seed 100, which is not used otherwise.
`neural_ode window` and `flow_matching` are fitted to the run with seed 100 in the same kind of coordinates (whose map
has another seed), `neural_ode pca` to the first 240 steps of the run itself; none is shown what it is scored on. Rows
are 4 steps apart, 8 of them make a window.

Skill is 1 - squared error over that of standing still, from step 240 to 480, a geometric mean over runs. Jump value:
the forecast weights are put into the network, and it is credited with as many steps as the run itself needed from that
moment to their loss on 600 samples that are neither trained on nor verified with, as in `nino_compare.py`. `net` is
what is left when the CPU time of a forecast of all three horizons, in steps of the run, is taken off. What is left of
the run bounds the credit: 128 to 240 steps.

Runs with `SkipAhead`: 300 steps, an opportunity every 20, horizons 8 and 32, in all coordinates the same limit on cost,
10 % of the run's CPU time. `credited` is the ledger's own account, from the 200 samples that jumps are verified with;
`cost` its CPU seconds in steps of the run, with forecasts, verification and history, without the fit; `net` the
difference. `gained` is another account: over the last 100 steps, how many steps sooner than the same run without jumps
it had its loss on the 600 samples, before any cost.

Intervals are 95 %, by bootstrap over runs. What was measured is kept in `--work`, so that a second call goes on.

Run: `python benchmarks/coordinates_jumps.py --work FOLDER [--minutes 2] [--text FILE]`
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from codec_tables import provenance, report
from nino_compare import step_of
from nino_tables import interval
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from deadreckon.callbacks import SkipAhead
from deadreckon.experiments.bootstrap import as_skill, estimates, log_ratio
from deadreckon.experiments.classifier import Classifier, evaluate, probe
from deadreckon.experiments.tasks import Batches, Split, TaskData, load_task, make_network, sequential_batches
from deadreckon.experiments.training import TrainingClock, train
from deadreckon.forecast import Case, Forecaster, Ledger, Window, layout_of, load_vector, pack
from deadreckon.models import (
    Budget,
    FlowMatching,
    NeuralODE,
    fit_forecaster,
    load_forecaster,
    make_forecaster,
    save_forecaster,
)
from deadreckon.models.coordinates import (
    MCNC,
    NOLA,
    PRANC,
    ReducedModule,
    SeededCoordinates,
    SeededStart,
    choose_layout,
)

BATCH = 64
FITTING_SEED = 100
STEPS, JUMPED_STEPS, TUNING_STEPS = 480, 300, 400
CUT = STEPS // 2
SPACING, ROWS = 4, 8
HORIZONS = (8, 32, 128)
JUMPS = (8, 32)
SHARE = 0.1
EVERY = 10  # steps between losses
RATES = {
    "full": (0.002, 0.004, 0.008),
    "subspace 300": (0.05, 0.1, 0.2),
    "mcnc": (0.05, 0.1, 0.2),
    "nola": (0.05, 0.1, 0.2),
}
TOLD = ("linear", "neural_ode pca", "neural_ode window", "flow_matching")
JUMPERS = ("linear", "neural_ode window", "flow_matching")
RESAMPLES = 2000


@cache
def task() -> TaskData:
    return load_task("digits")


@cache
def held_out() -> Split:
    """What is neither trained on nor verified with."""
    return Split(*(torch.cat(parts) for parts in zip(task().tune, task().test, strict=True)))


def make_module(arm: str, seed: int, rate: float, num_steps: int) -> Classifier:
    module: nn.Module = make_network("mlp", task(), seed, 1.0)
    if arm != "full":
        layout = choose_layout(module, num_axes=2)
        start = SeededStart(seed)
        coordinates: SeededCoordinates = MCNC(layout, 9, 256, seed=seed, start=start)
        if arm.startswith("subspace"):
            coordinates = PRANC(layout, int(arm.split()[1]), seed, start=start)
        elif arm == "nola":
            coordinates = NOLA(layout, 50, seed=seed, start=start)
        module = ReducedModule(module, coordinates, coordinates.initial(seed))
    return Classifier(module, "adam", rate, "constant", num_steps)


class Run(NamedTuple):
    """A run without jumps.

    Attributes:
        module: trained; its weights are changed at will.
        rows: of weights, by step.
        losses: on the 600 samples, by step.
    """

    module: Classifier
    rows: dict[int, Tensor]
    losses: dict[int, float]

    def cases(self, first: int, last: int, every: int = SPACING) -> list[Case]:
        """Windows and what came after them, all between two steps."""
        found: list[Case] = []
        layout = layout_of(self.module)
        for now in range(first + SPACING * (ROWS - 1), last - HORIZONS[-1] + 1, every):
            steps = [now - SPACING * back for back in range(ROWS - 1, -1, -1)]
            window = Window(torch.stack([self.rows[step] for step in steps]), torch.tensor(steps), layout)
            found.append(Case(window, {horizon: self.rows[now + horizon] for horizon in HORIZONS}))
        return found

    def loss_of(self, weights: Tensor) -> float:
        """On the 600 samples."""
        load_vector(self.module, weights, layout_of(self.module))
        return evaluate(self.module, held_out()).loss

    def step_of(self, loss: float) -> float:
        """At which step the run had a loss."""
        steps, losses = np.array(list(self.losses), float), np.array(list(self.losses.values()))
        return step_of(loss, steps, losses)


def run(arm: str, seed: int, rate: float, num_steps: int = STEPS) -> Run:
    module = make_module(arm, seed, rate, num_steps)
    optimizer = torch.optim.Adam(module.parameters(), rate)
    found = Run(module, {0: pack(module)[0].clone()}, {0: evaluate(module, held_out()).loss})
    for step, (inputs, labels) in enumerate(Batches(task().train, BATCH, num_steps, seed), 1):
        optimizer.zero_grad()
        functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
        if step % SPACING == 0:
            found.rows[step] = pack(module)[0].clone()
        if step % EVERY == 0:
            found.losses[step] = evaluate(module, held_out()).loss
    return found


# -- what is measured, in pieces small enough to be interrupted between them


class Pieces:
    """What was measured, one file a piece; nothing new begins when the time is over.

    Args:
        work: where the files are.
        minutes: how long.
    """

    def __init__(self, work: Path, minutes: float) -> None:
        self.work = work
        self._until = time.monotonic() + 60 * minutes
        work.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """A piece, read or made.

        Raises:
            TimeoutError: if it has to be made and the time is over.
        """
        path = self.work / f"{name}.json"
        if not path.exists():
            self.require_time()
            path.write_text(json.dumps(make()))
        return json.loads(path.read_text())

    def require_time(self) -> None:
        """Raise if the time is over."""
        if time.monotonic() > self._until:
            raise TimeoutError

    def run(self, arm: str, seed: int, rate: float) -> Run:
        """A run without jumps."""
        path = self.work / f"{arm} {seed}.pt"
        if not path.exists():
            self.require_time()
            made = run(arm, seed, rate)
            rows, losses = torch.stack(list(made.rows.values())), torch.tensor(list(made.losses.values()))
            torch.save({"rows": rows, "losses": losses.double()}, path)
        stored = torch.load(path, weights_only=True)
        return Run(
            make_module(arm, seed, rate, STEPS),
            dict(zip(range(0, STEPS + 1, SPACING), stored["rows"], strict=True)),
            dict(zip(range(0, STEPS + 1, EVERY), stored["losses"].tolist(), strict=True)),
        )


def badness(arm: str, rate: float) -> float:
    """Mean loss on `tune` over the last 100 steps with the seed that is not used otherwise."""
    found = run(arm, FITTING_SEED, rate, TUNING_STEPS)
    losses: list[float] = []
    for step, weights in found.rows.items():
        if step > TUNING_STEPS - 100:
            load_vector(found.module, weights, layout_of(found.module))
            losses.append(evaluate(found.module, task().tune).loss)
    return sum(losses) / len(losses)


def fitted(forecaster: NeuralODE | FlowMatching, given: Sequence[Case], iterations: int) -> float:
    """CPU seconds of the fit."""
    generator = torch.Generator().manual_seed(0)
    return fit_forecaster(forecaster, given, Budget(iterations), generator).cpu_seconds


def prepare(arm: str, pieces: Pieces, iterations: int) -> dict[str, Any]:
    """The rate, and the forecasters that are fitted to another run, as files."""
    worth = {rate: pieces.get(f"{arm} rate {rate}", lambda rate=rate: badness(arm, rate)) for rate in RATES[arm]}
    rate = min(worth, key=lambda rate: worth[rate])
    found: dict[str, Any] = {"rate": rate, "fit_seconds": {}}
    for name in TOLD[2:]:

        def fit(name: str = name) -> float:
            forecaster = NeuralODE("window", 2, history=ROWS) if name.startswith("neural") else FlowMatching(ROWS, 4)
            seconds = fitted(forecaster, pieces.run(arm, FITTING_SEED, rate).cases(0, STEPS), iterations)
            save_forecaster(forecaster, pieces.work / f"{arm} {name}.forecaster")
            return seconds

        found["fit_seconds"][name] = pieces.get(f"{arm} {name}", fit)
    return found


def measure(arm: str, seed: int, pieces: Pieces, rate: float, iterations: int) -> dict[str, Any]:
    """Everything about one run."""
    plain = pieces.run(arm, seed, rate)
    forecasters: dict[str, Forecaster] = {"linear": make_forecaster("linear", history=ROWS)}
    forecasters |= {name: load_forecaster(pieces.work / f"{arm} {name}.forecaster") for name in TOLD[2:]}

    def forecasts_of(name: str) -> dict[str, Any]:
        if name != "neural_ode pca":
            return forecasts(forecasters[name], plain)
        own = NeuralODE("pca", rank=4, history=ROWS)
        seconds = fitted(own, plain.cases(0, CUT), iterations)
        return {**forecasts(own, plain), "fit_seconds": seconds}

    found: dict[str, Any] = {"arm": arm, "numbers": layout_of(plain.module).size, "forecasts": {}, "jumped": {}}
    for name in TOLD:
        found["forecasts"][name] = pieces.get(f"{arm} {seed} {name}", lambda name=name: forecasts_of(name))
    for name in JUMPERS:
        found["jumped"][name] = pieces.get(
            f"{arm} {seed} {name} jumped", lambda name=name: jumped(arm, seed, rate, forecasters[name], plain)
        )
    found["step_seconds"] = min(item["step_seconds"] for item in found["jumped"].values())
    return found


def forecasts(forecaster: Forecaster, plain: Run) -> dict[str, Any]:
    """Squared errors, credits and seconds, by horizon."""
    given = plain.cases(CUT - SPACING * (ROWS - 1), STEPS, every=16)
    errors, still, credits = ({str(horizon): 0.0 for horizon in HORIZONS} for _ in range(3))
    list(forecaster.forecast(given[0].window, HORIZONS))  # what is made once only
    seconds = 0.0
    for case in given:
        began = time.process_time()
        means = [forecast.mean for forecast in forecaster.forecast(case.window, HORIZONS)]
        seconds += time.process_time() - began
        now = plain.step_of(plain.loss_of(case.window.last))
        for horizon, mean in zip(HORIZONS, means, strict=True):
            errors[str(horizon)] += float((mean - case.targets[horizon]).double().square().sum())
            still[str(horizon)] += float((case.window.last - case.targets[horizon]).double().square().sum())
            credits[str(horizon)] += (plain.step_of(plain.loss_of(mean)) - now) / len(given)
    # One forecast of one horizon is at most what all three take together.
    return {"errors": errors, "still": still, "credits": credits, "seconds": seconds / len(given)}


class Losses(pl.Callback):
    """Losses on the 600 samples, at the cost of an account of their own."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.losses: dict[int, float] = {}

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % EVERY == 0:
            with self.ledger.charge("evaluating"):
                self.losses[trainer.global_step] = evaluate(pl_module, held_out()).loss


def jumped(arm: str, seed: int, rate: float, forecaster: Forecaster, plain: Run) -> dict[str, Any]:
    """A run with jumps, by the ledger and by its losses."""
    batches = sequential_batches(task().verify, 50)
    skip_ahead = SkipAhead(forecaster, 20, JUMPS, probe, batches, cost_share=SHARE, spacing=SPACING, batch_size=BATCH)
    losses = Losses()
    clock = TrainingClock([skip_ahead, losses])
    module = make_module(arm, seed, rate, JUMPED_STEPS)
    train(module, task(), BATCH, JUMPED_STEPS, seed, [clock, skip_ahead, losses])
    late = [step for step in losses.losses if step > JUMPED_STEPS - 100]
    gained = [plain.step_of(losses.losses[step]) - plain.step_of(plain.losses[step]) for step in late]
    proposed = [jump for jump in skip_ahead.jumps if jump.outcome.proposed]
    return {
        "credited": skip_ahead.effective_step - JUMPED_STEPS,
        "cost": skip_ahead.ledger.total.cpu_seconds / clock.seconds_per_step,
        "gained": sum(gained) / len(gained),
        "proposed": len(proposed),
        "kept": sum(jump.outcome.kept for jump in proposed),
        "step_seconds": clock.seconds_per_step,
    }


# -- tables


def told(values: Sequence[float], digits: int) -> str:
    (found,) = estimates(np.array(values, float)[:, None], RESAMPLES, 0)
    return interval(*found, digits=digits)


def tables(rows: Sequence[dict[str, Any]], known: dict[str, dict[str, Any]]) -> Iterator[str]:
    arms = [arm for arm in RATES if any(row["arm"] == arm for row in rows)]
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    for arm, own in by_arm.items():
        fits = {
            **known[arm]["fit_seconds"],
            "neural_ode pca": np.median([row["forecasts"]["neural_ode pca"]["fit_seconds"] for row in own]),
        }
        seconds = ", ".join(f"{name} {value:.1f}" for name, value in fits.items())
        yield (
            f"{arm}: {own[0]['numbers']} numbers, rate {known[arm]['rate']:g}, {len(own)} runs, "
            f"{1000 * float(np.median([row['step_seconds'] for row in own])):.1f} CPU ms a step; "
            f"CPU s to fit: {seconds}."
        )
    yield ""
    yield "| coordinates | forecaster | steps ahead | skill | steps credited | net of its cost | CPU ms a forecast |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for arm, own in by_arm.items():
        for name in TOLD:
            items = [(row["forecasts"][name], row["step_seconds"]) for row in own]
            for key in map(str, HORIZONS):
                logs = np.array([log_ratio(item["errors"][key], item["still"][key]) for item, _ in items])
                skill = interval(*as_skill(estimates(logs[:, None], RESAMPLES, 0)[0]), digits=2)
                credits = told([item["credits"][key] for item, _ in items], 1)
                net = told([item["credits"][key] - item["seconds"] / seconds for item, seconds in items], 1)
                spent = 1000 * float(np.median([item["seconds"] for item, _ in items]))
                yield f"| {arm} | {name} | {key} | {skill} | {credits} | {net} | {spent:.1f} |"
    yield ""
    yield f"Runs of {JUMPED_STEPS} steps with SkipAhead, steps a run:"
    yield ""
    yield "| coordinates | forecaster | kept of tried | credited | cost | net | gained | gained less cost |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for arm, own in by_arm.items():
        for name in JUMPERS:
            items = [row["jumped"][name] for row in own]
            kept, tried = (sum(item[key] for item in items) for key in ("kept", "proposed"))
            cells: list[str] = []
            worth: list[Callable[[dict[str, float]], float]] = [
                lambda item: item["credited"],
                lambda item: item["cost"],
                lambda item: item["credited"] - item["cost"],
                lambda item: item["gained"],
                lambda item: item["gained"] - item["cost"],
            ]
            for of in worth:
                cells.append(told([of(item) for item in items], 1))
            yield f"| {arm} | {name} | {kept} of {tried} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for what was measured")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--arms", nargs="+", default=list(RATES), choices=list(RATES), help="which coordinates")
    parser.add_argument("--iterations", type=int, default=60, help="of a fit")
    parser.add_argument("--minutes", type=float, default=math.inf, help="nothing begins after so long")
    parser.add_argument("--text", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pieces = Pieces(given.work, given.minutes)
    known: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    try:
        for arm in given.arms:
            known[arm] = prepare(arm, pieces, given.iterations)
        for seed in range(given.seeds):
            for arm in given.arms:
                rows.append(measure(arm, seed, pieces, known[arm]["rate"], given.iterations))
    except TimeoutError:
        print(f"{len(rows)} of {given.seeds * len(given.arms)} runs are measured; call it again.")
    else:
        report(tables(rows, known), provenance(), given.text)


if __name__ == "__main__":
    main()
