"""The figure of several runs' bits over the error made."""

from collections.abc import Sequence
from pathlib import Path

from .measures import REFERENCE_PREDICTOR, Data, bit_saving
from .plotting import canvas, colors, finite, label, legend_below, nothing_to_show, plain_log_ticks, save


def rates_of_runs(runs: Sequence[tuple[str, Data]], path: str | Path) -> Path:
    """Bits a coordinate over the error, for each run with its best front-end and without prediction.

    Args:
        runs: name and data of a `compare` result.
        path: where, without a suffix.
    """
    with canvas(4.0) as (figure, (axes,)):
        looks = colors([name for name, _ in runs])
        ticks: set[float] = set()
        for name, data in runs:
            found = bit_saving(data["rows"])
            if found is None or name not in looks:
                continue
            color, marker = looks[name]
            for predictor, dashes in ((found.predictor, "-"), (REFERENCE_PREDICTOR, "--")):
                line = _line(data["rows"], predictor)
                if not line or (dashes == "--" and predictor == found.predictor):
                    continue
                text = f"{label(name)}: {label(predictor)}"
                axes.plot(*zip(*line, strict=True), color=color, marker=marker, linestyle=dashes, label=text)
                ticks |= {row["nmse_target"] for row in data["rows"] if row["nmse_target"]}
        if not ticks:
            nothing_to_show(axes, "no front-end was measured")
            return save(figure, path)
        axes.set_title("Bits for a given error, run by run")
        axes.set_xlabel("NMSE: squared error / squared norm")
        axes.set_ylabel("bits per coordinate")
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis)
        axes.set_xticks(sorted(ticks))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        legend_below(figure, axes)
        return save(figure, path)


def _line(rows: Sequence[Data], predictor: str) -> list[tuple[float, float]]:
    found = [(finite(row["nmse"]), finite(row["bits_per_coordinate"])) for row in rows if row["predictor"] == predictor]
    return sorted((nmse, bits) for nmse, bits in found if nmse > 0 and bits > 0)
