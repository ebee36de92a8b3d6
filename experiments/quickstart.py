"""`deadreckon quickstart`: all of it on the digits, in a few minutes."""

from pathlib import Path

from rich.console import Console

from . import compare, record
from .options import CompareOptions, QuickstartOptions, RaceOptions, RecordOptions, ReportOptions
from .race import command as race
from .report import command as report

PACKETS = 300  # the newest; the codec has adapted long before, and twice as many took twice as long


def run(options: QuickstartOptions) -> None:
    """Record, compare, train through the codec, race, and report, into a folder that did not exist before."""
    out = fresh_folder(Path(options.out))
    console = Console(stderr=True)
    folders = {name: str(out / name) for name in ("record", "compare", "codec", "race")}

    console.print("[bold]1/4[/] Training on the digits; recording it; fitting forecasters meanwhile.")
    recorded = RecordOptions(
        out=folders["record"],
        seed=options.seed,
        steps=options.steps,
        streams=("weights", "gradients", "exp_avg", "exp_avg_sq"),
        forecasters=options.forecasters,
        logger=options.logger,
        progress=options.progress,
    )
    record.run(recorded)

    console.print("[bold]2/4[/] Replaying the gradients through the codec; scoring the forecasters on held-out steps.")
    compare.run(
        CompareOptions(
            trajectory=str(Path(folders["record"]) / "trajectory"),
            out=folders["compare"],
            predictors=options.predictors,
            forecasters=options.forecasters,
            packets=PACKETS,
            seed=options.seed,
            logger=options.logger,
            progress=options.progress,
        )
    )

    console.print("[bold]3/4[/] Training once more, every gradient through the codec, as over a link.")
    record.run(
        RecordOptions(
            out=folders["codec"],
            seed=options.seed,
            steps=options.steps,
            streams=("weights",),
            forecasters=(),
            codec="fitted",
            logger=options.logger,
            progress=options.progress,
        )
    )

    console.print("[bold]4/4[/] Racing plain training against training with verified jumps, three seeds each.")
    race.run(
        RaceOptions(
            out=folders["race"],
            seeds=tuple(range(options.seed, options.seed + 3)),
            steps=options.race_steps,
            forecaster=options.jump_forecaster,
            logger=options.logger,
            progress=options.progress,
        )
    )
    report.run(ReportOptions(runs=tuple(folders.values()), out=str(out)))


def fresh_folder(folder: Path) -> Path:
    """The folder itself, or the first of folder-2, folder-3, ... that does not exist: nothing is overwritten."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
