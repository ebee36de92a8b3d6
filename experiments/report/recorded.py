"""The section of a report about a recorded run."""

from collections.abc import Sequence
from pathlib import Path

from ..figures import forecast_beside_truth, ledger_bars, loss_curve, pca_path
from ..figures_codec import bits_by_layer, cosines, model_fit
from ..figures_costs import loss_over_costs, record_line
from ..results import Result
from ..verdicts import megabytes
from . import html as web
from .jump_table import jump_table
from .sentences import forecasts, layers, likeness, model, plane, regimes, spent
from .summary import titled


def record_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """What a run was; figures are written into `folder`."""
    data = result.data
    pictures = [
        web.svg_of(
            loss_curve(data["loss_curve"], data["jumps"], folder / "loss_curve"),
            "Training loss of each batch, and its running median.",
        )
    ]
    caption = "The running median of the training loss, over steps, samples, seconds and all that the run cost."
    pictures.append(web.svg_of(loss_over_costs([record_line(data, "loss")], folder / "costs"), caption))
    if data["pca"] is not None and data["pca"]["points"]:
        caption = "The weights over the run, projected on the plane in which they moved most, and the loss there."
        pictures.append(web.svg_of(pca_path(data["pca"], data["jumps"], folder / "pca_path"), caption))
    if data["forecasts"] is not None:
        caption = "Forecasts from one step, and where training went. The star is the end of the way; closer is better."
        pictures.append(web.svg_of(forecast_beside_truth(data["forecasts"], folder / "forecasts"), caption))
    if data["anatomy"] is not None:
        caption = "The gradients through the codec once more, without prediction: what each tensor takes."
        pictures.append(web.svg_of(bits_by_layer(data["anatomy"], folder / "layers"), caption))
        caption = "Above, flat where the coder's model is right; below, on the line where its scales are."
        pictures.append(web.svg_of(model_fit(data["anatomy"], folder / "model"), caption))
    if data["likeness"] is not None:
        caption = "Red: the gradients of the two steps point the same way. Blue: they point against each other."
        pictures.append(web.svg_of(cosines(data["likeness"], folder / "cosines"), caption))
    if data["ledger"]:
        caption = "Where the run's time went."
        pictures.append(web.svg_of(ledger_bars(data["ledger"], data["wall_seconds"], folder / "ledger"), caption))
    streams = [
        [name, stream["rows"], stream["every"], megabytes(stream["bytes"])] for name, stream in data["streams"].items()
    ]
    parts = [
        f"<h2>{web.escape(titled('Recorded run', result, results))}</h2>",
        web.paragraphs(
            spent(data)
            + plane(data["pca"])
            + forecasts(data["forecasts"])
            + layers(data["anatomy"])
            + model(data["anatomy"])
            + likeness(data["likeness"])
            + regimes(data["jumps"])
        ),
        web.figures(pictures),
        web.table(["stream", "rows", "every (steps)", "size"], streams),
    ]
    if data["online"]:
        columns = ["forecaster", "step", "horizon", "skill", "fit (s)"]
        rows = [
            [
                row["forecaster"],
                row["step"],
                row["horizon"],
                web.number(row["skill"], "+.3f"),
                web.number(row["fit_seconds"]),
            ]
            for row in data["online"]
        ]
        parts.append(web.folded("Scores taken while it ran", web.table(columns, rows)))
    if data["jumps"]:
        parts.append(jump_table(data["jumps"]))
    return parts
