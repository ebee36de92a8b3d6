"""`deadreckon record`: train a network and record how its weights and gradients move."""

import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ..callbacks import GradientCompression, OnlineForecaster, TrajectoryRecorder
from ..codec import CodecConfig
from ..forecast import Ledger, Trajectory
from ..models.threads import one_thread
from .classifier import evaluate
from .closing import close_run
from .figures import loss_curve, pca_path
from .initialisation import initialise
from .options import RecordOptions
from .portrait import portrait
from .results import require_new, write_result
from .run_logger import log_figure, make_logger
from .runs import TRAJECTORY, RunFacts, summarise, write_summary
from .spending import SpendingClock
from .tasks import load_task
from .training import TrainingClock, make_classifier, train

MAX_CURVE_POINTS = 2000


@one_thread()
def run(options: RecordOptions) -> None:
    """Record one run into `options.out`: trajectory, figures and result.json.

    Raises:
        OptionError: if options contradict each other, or there is a trajectory already.
    """
    out = Path(options.out)
    require_new(out / TRAJECTORY)
    task = load_task(options.task, options.data)
    module = make_classifier(
        task,
        options.network,
        options.optimizer,
        options.learning_rate,
        options.schedule,
        options.steps,
        options.seed,
        options.width,
    )
    initialise(module.network, options.init, options.seed)
    cadence = {name: options.gradient_every if name == "gradients" else options.every for name in options.streams}
    facts = RunFacts(**{field.name: getattr(options, field.name) for field in fields(RunFacts)})
    recorder = TrajectoryRecorder(out / TRAJECTORY, cadence, options.streams, asdict(facts) | {"init": options.init})
    online = None
    if options.forecasters:
        online = OnlineForecaster(
            options.forecasters,
            options.horizons,
            every=options.fit_every,
            share=options.fit_share,
            seed=options.seed,
        )
    # Lattice Z by name, as in `compare`: on small networks the default takes a tenth fewer bits and four times as long.
    config = CodecConfig(options.codec, lattice="Z", nmse=options.nmse) if options.codec else None
    compression = GradientCompression(config) if config is not None else None
    ledgered = [item for item in (recorder, online, compression) if item is not None]
    clock, spending = TrainingClock(ledgered), SpendingClock(options.steps)
    logger = make_logger(options.logger, out, "record", asdict(options), options.wandb_mode)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    callbacks: list[pl.Callback] = [clock, *ledgered, spending]
    train(module, task, options.batch_size, options.steps, options.seed, callbacks, logger, options.progress)
    seconds = time.perf_counter() - begin
    final = evaluate(module, task.test)
    cpu_seconds = time.process_time() - cpu_begin
    ledger = Ledger.merged([item.ledger for item in ledgered])
    with Trajectory.open(out / TRAJECTORY) as trajectory:
        data = _facts(trajectory, cadence) | portrait(trajectory, module, task, online, options.horizons, options.nmse)
        write_summary(out, summarise(trajectory, final.loss, final.accuracy, cpu_seconds, clock.seconds_per_step))
    data |= {
        "task": options.task,
        "network": options.network,
        "steps": options.steps,
        "seed": options.seed,
        "final": {
            "train_loss": data["loss_curve"][-1][1],
            "test_loss": final.loss,
            "test_accuracy": final.accuracy,
        },
        "wall_seconds": seconds,
        "cost_curve": spending.curve,
        "ledger": ledger.to_dict(),
        "attribution": task.attribution,
        "trajectory": TRAJECTORY,
        "online": [asdict(item) for item in online.scores] if online is not None else [],
        "jumps": [],
        "compression": None,
        "options": asdict(options),
    }
    if compression is not None:
        data["compression"] = {
            "predictor": options.codec,
            "nmse_target": options.nmse,
            "bits_per_coordinate": compression.bits_per_coordinate,
            "packets": compression.num_packets,
            "bytes": compression.num_bytes,
        }
    write_result(out, "record", data)
    figures = [loss_curve(data["loss_curve"], [], out / "loss_curve")]
    if data["pca"] is not None:
        figures.append(pca_path(data["pca"], [], out / "pca_path"))
    for path in figures:
        log_figure(logger, f"record/{Path(path).stem}", path)
    close_run(logger, out)


def _facts(trajectory: Trajectory, cadence: dict[str, int]) -> dict[str, Any]:
    """What a trajectory holds, as plain data."""
    loss = trajectory.scalars["loss"]
    stride = -(-len(loss) // MAX_CURVE_POINTS)
    curve = [[int(step), float(value)] for step, value in zip(loss.steps, loss.values, strict=True)]
    streams = {
        name: {
            "rows": len(trajectory.stream(name)),
            "every": cadence[name],
            "bytes": 4 * len(trajectory.stream(name)) * trajectory.layout.size,
        }
        for name in trajectory.streams
    }
    return {
        "num_parameters": trajectory.layout.size,
        "streams": streams,
        "loss_curve": curve[::stride] if curve[::stride][-1] == curve[-1] else [*curve[::stride], curve[-1]],
        "trajectory_digest": trajectory.digest,
    }
