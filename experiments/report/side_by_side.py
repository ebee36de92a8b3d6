"""Several results of one kind side by side: a table of the figures that matter, and their curves in one picture."""

from collections.abc import Sequence
from pathlib import Path

from ..figures_costs import CostLine, loss_over_costs, race_lines, record_line
from ..figures_rates import rates_of_runs
from ..measures import REFERENCE_FORECASTER, Data, bit_saving, race_gains, tally
from ..results import Result
from ..verdicts import arm_name, percent
from . import html as web
from .comparison import Named
from .naming import names_of
from .summary import jumping_arms


def side_by_side(results: Sequence[Result], folder: Path) -> list[str]:
    """The part of the page that compares; nothing where no kind of result is there twice.

    Args:
        results: of the page.
        folder: where its figures are written.
    """
    names = names_of(results)
    parts: list[str] = []
    for kind, writer in (("record", _records), ("compare", _compares), ("race", _races)):
        some = [(name, result.data) for name, result in zip(names, results, strict=True) if result.kind == kind]
        if len(some) > 1:
            parts += writer(some, folder)
    return ["<h2>Side by side</h2>", *parts] if parts else []


def _records(runs: Named, folder: Path) -> list[str]:
    columns = ["run", "task", "network", "optimiser", "steps", "seed", "parameters", "training loss", "test loss"]
    columns += ["test accuracy", "wall (s)", "CPU (s)", "besides training", "bits a coordinate"]
    rows = []
    for name, data in runs:
        final, compression, wall = data["final"], data["compression"], data["wall_seconds"]
        cpu = data["cost_curve"][-1][2] if data["cost_curve"] else None
        besides = sum(cost["wall_seconds"] or 0.0 for cost in data["ledger"].values())
        rows.append(
            [
                name,
                data["task"],
                data["network"],
                data["options"].get("optimizer", web.DASH),
                data["steps"],
                data["seed"],
                data["num_parameters"],
                web.number(final["train_loss"], ".4f"),
                web.number(final["test_loss"], ".4f"),
                web.DASH if final["test_accuracy"] is None else f"{100 * final['test_accuracy']:.1f} %",
                web.number(wall),
                web.number(cpu),
                percent(besides / wall) if wall else web.DASH,
                web.DASH if compression is None else web.number(compression["bits_per_coordinate"]),
            ]
        )
    lines = [record_line(data, name) for name, data in runs]
    caption = "Running median of the training loss, over what it cost. Total cost counts everything that a run did."
    picture = loss_over_costs(lines, folder / "losses_of_runs").with_suffix(".svg")
    return ["<h3>Recorded runs</h3>", web.figures([(picture, caption)]), web.table(columns, rows, 4)]


def _compares(runs: Named, folder: Path) -> list[str]:
    horizons = sorted({row["horizon"] for _, data in runs for row in data["skill"]})
    columns = ["run", "stream", "coordinates", "packets", "NMSE asked", "best front-end", "bits", "without prediction"]
    columns += ["saved", *(f"best skill {horizon} ahead" for horizon in horizons)]
    rows = []
    for name, data in runs:
        found = bit_saving(data["rows"])
        codec = [web.DASH] * 5
        if found is not None:
            known = found.reference_bits is not None
            codec = [
                f"{found.nmse_target:g}",
                found.predictor,
                f"{found.bits:.3g}",
                web.number(found.reference_bits),
                percent(found.saving) if known else web.DASH,
            ]
        skill = [_best_skill(data, horizon) for horizon in horizons]
        rows.append([name, data["stream"], data["num_coordinates"], data["num_packets"], *codec, *skill])
    caption = "Bits over error: solid with each run's best front-end, dashed without prediction."
    picture = rates_of_runs(runs, folder / "rates_of_runs").with_suffix(".svg")
    return ["<h3>Codec and forecasts</h3>", web.figures([(picture, caption)]), web.table(columns, rows, 2)]


def _best_skill(data: Data, horizon: int) -> str:
    known = [
        (row["skill"], row["forecaster"])
        for row in data["skill"]
        if row["horizon"] == horizon and row["skill"] is not None and row["forecaster"] != REFERENCE_FORECASTER
    ]
    if not known:
        return web.DASH
    value, name = max(known)
    return f"{value:+.2f} ({name})"


def _races(runs: Named, folder: Path) -> list[str]:
    columns = ["race", "task", "network", "arm", "proposed by", "target", "seeds", "CPU (s) with", "without", "saved"]
    columns += ["steps with", "steps without", "jumps kept", "of proposed"]
    rows = []
    lines: list[CostLine] = []
    for name, data in runs:
        total = tally([jump for arm in jumping_arms(data) for jump in arm["jumps"]])
        target = f"{data['target']['metric']} {data['target']['value']:g}"
        for gain in race_gains(data):
            known = bool(gain.complete)
            means, steps = gain.means, gain.mean_steps
            rows.append(
                [
                    name,
                    data["task"],
                    data["network"],
                    arm_name(gain.arm),
                    data["forecaster"] or web.DASH,
                    target,
                    len(gain.pairs),
                    *(f"{value:.3g}" if known else web.DASH for value in means),
                    percent(gain.saving) if known else web.DASH,
                    *(f"{value:.0f}" if known else web.DASH for value in steps),
                    total.kept,
                    total.proposed,
                ]
            )
        lines += race_lines(data, f"{name} ")
    caption = "Test loss of every run of every race, over what it cost. Total cost counts everything that jumps need."
    picture = loss_over_costs(lines, folder / "losses_of_races", "test loss (nats)").with_suffix(".svg")
    return ["<h3>Races</h3>", web.figures([(picture, caption)]), web.table(columns, rows, 6)]
