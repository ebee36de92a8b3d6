import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import result_samples as samples
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

from deadreckon.experiments import (
    figures,
    figures_codec,
    figures_costs,
    figures_plane,
    figures_rates,
    plotting,
    timelines,
)

HOSTILE = "$x_{$ <script> \u6f22\n" + "y" * 80
RECORD, COMPARE, RACE = samples.record(), samples.compare(), samples.race()
JUMPS = [jump for arm in RACE["arms"] for jump in arm["jumps"]]
JUMPING = [
    {**arm, "jumps": [{**jump, "regime": "stable"} for jump in arm["jumps"]]} for arm in RACE["arms"] if arm["jumps"]
]
LINES = [figures_costs.record_line(RECORD, "one"), *figures_costs.race_lines(RACE)]
DRAWINGS: dict[str, Any] = {
    "loss_curve": lambda path: figures.loss_curve(RECORD["loss_curve"], RECORD["jumps"], path),
    "pca_path": lambda path: figures.pca_path(RECORD["pca"], RECORD["jumps"], path),
    "skill_by_horizon": lambda path: figures.skill_by_horizon(COMPARE["skill"], path),
    "rate_distortion": lambda path: figures.rate_distortion(
        COMPARE["rows"], path, COMPARE["references"], COMPARE["limits"]
    ),
    "race_curves": lambda path: figures.race_curves(RACE["arms"], RACE["target"], path),
    "ledger_bars": lambda path: figures.ledger_bars(RECORD["ledger"], 14.2, path),
    "jump_timeline": lambda path: figures.jump_timeline(JUMPS, path),
    "layers": lambda path: figures_codec.bits_by_layer(RECORD["anatomy"], path),
    "model": lambda path: figures_codec.model_fit(RECORD["anatomy"], path),
    "cosines": lambda path: figures_codec.cosines(RECORD["likeness"], path),
    "picture": lambda path: figures.pca_path(RACE["picture"], [], path),
    "forecast_beside_truth": lambda path: figures.forecast_beside_truth(RECORD["forecasts"], path),
    "regime_timeline": lambda path: timelines.regime_timeline(JUMPING, path),
    "loss_over_costs": lambda path: figures_costs.loss_over_costs(LINES, path),
    "rates_of_runs": lambda path: figures_rates.rates_of_runs([("one", COMPARE), ("two", COMPARE)], path),
}
EMPTY: dict[str, Any] = {
    "loss_curve": lambda path: figures.loss_curve([[1, None]], [], path),
    "pca_path": lambda path: figures.pca_path({"points": [], "steps": [], "explained": [None, None]}, [], path),
    "skill_by_horizon": lambda path: figures.skill_by_horizon([], path),
    "rate_distortion": lambda path: figures.rate_distortion([], path),
    "race_curves": lambda path: figures.race_curves([], RACE["target"], path),
    "ledger_bars": lambda path: figures.ledger_bars({}, None, path),
    "jump_timeline": lambda path: figures.jump_timeline([], path),
    "layers": lambda path: figures_codec.bits_by_layer(None, path),
    "model": lambda path: figures_codec.model_fit(None, path),
    "cosines": lambda path: figures_codec.cosines(None, path),
    "forecast_beside_truth": lambda path: figures.forecast_beside_truth(None, path),
    "regime_timeline": lambda path: timelines.regime_timeline([], path),
    "loss_over_costs": lambda path: figures_costs.loss_over_costs([], path),
    "rates_of_runs": lambda path: figures_rates.rates_of_runs([("one", {"rows": []})], path),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved during a test."""
    seen: list[Figure] = []

    def save(figure: Figure, path: str | Path) -> Path:
        seen.append(figure)
        return plotting.save(figure, path)

    monkeypatch.setattr(figures, "save", save)
    monkeypatch.setattr("deadreckon.experiments.race.figures.save", save)
    for module in (figures_codec, figures_costs, figures_plane, figures_rates, timelines):
        monkeypatch.setattr(module, "save", save)
    return seen


def texts(figure: Figure) -> list[Text]:
    found = [item for item in figure.findobj(Text) if isinstance(item, Text)]
    return [item for item in found if item.get_visible() and item.get_text().strip()]


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_text_is_cut_off_and_every_axis_is_labelled(name: str, tmp_path: Path, drawn: list[Figure]) -> None:
    """Every label, tick and legend lies within the picture, in a size that can be read, and PNG and SVG are there."""
    before = dict(matplotlib.rcParams)
    path = DRAWINGS[name](tmp_path / name)
    assert path == tmp_path / f"{name}.png"
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.with_suffix(".svg").read_text().count("<svg") == 1
    figure = drawn[0]
    box = figure.get_tightbbox()  # of all that is visible, in inches
    assert box.x0 >= -0.02
    assert box.y0 >= -0.02
    assert box.x1 <= figure.get_figwidth() + 0.02
    assert box.y1 <= figure.get_figheight() + 0.02
    assert all(float(item.get_fontsize()) >= 9 for item in texts(figure))
    for axes in figure.axes:
        assert axes.get_xlabel() or axes.get_ylabel()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", EMPTY)
def test_empty_results_make_empty_figures(name: str, tmp_path: Path) -> None:
    """With nothing to show a figure is drawn all the same."""
    assert EMPTY[name](tmp_path / name).is_file()


def test_names_from_files_cannot_break_a_figure(tmp_path: Path) -> None:
    """Mathematics, mark-up, unknown letters, line breaks and length in names are harmless, and no warning is given."""
    skill = [{"forecaster": HOSTILE, "horizon": 10, "skill": 0.5}]
    rows = [{"predictor": HOSTILE, "nmse_target": 0.1, "nmse": 0.1, "bits_per_coordinate": 1.0}]
    references = [{"reference": HOSTILE, "nmse": 0.1, "bits_per_coordinate": 1.0}]
    arms = [{**RACE["arms"][0], "name": HOSTILE}]
    for path in (
        figures.skill_by_horizon(skill, tmp_path / "skill"),
        figures.rate_distortion(rows, tmp_path / "rates", references),
        figures.race_curves(arms, RACE["target"], tmp_path / "race"),
        figures.ledger_bars({HOSTILE: samples.cost(1.0)}, 2.0, tmp_path / "ledger"),
    ):
        assert "<script" not in path.with_suffix(".svg").read_text()
    assert plotting.label(HOSTILE) == "$x_{$ <script> ??" + "y" * 10 + "…"


def test_many_long_names_leave_room_for_the_figure(tmp_path: Path) -> None:
    """Thirty front-ends and forecasters with long names do not crowd the panel out; the first twelve are drawn."""
    names = [f"{number:02}" + "w" * 40 for number in range(30)]
    skill = [{"forecaster": name, "horizon": horizon, "skill": 0.5} for name in names for horizon in (1, 10)]
    rows = [{"predictor": name, "nmse_target": 0.1, "nmse": 0.1, "bits_per_coordinate": 1.0} for name in names]
    assert figures.skill_by_horizon(skill, tmp_path / "skill").is_file()  # a warning of collapse would be an error
    assert figures.rate_distortion(rows, tmp_path / "rates").is_file()


def test_numbers_that_are_missing_leave_gaps(tmp_path: Path) -> None:
    """Null among the numbers of any figure is drawn as a gap."""
    curve = [[step, None if step % 3 == 0 else 1.0 / step] for step in range(1, 100)]
    jumps = [samples.jump(10, 5, "not_finite", None), samples.jump(20, 0, "cooling_down", None)]
    skill = [{"forecaster": "linear", "horizon": 10, "skill": None}]
    rows = [{"predictor": "none", "nmse_target": 0.1, "nmse": None, "bits_per_coordinate": None}]
    assert figures.loss_curve(curve, jumps, tmp_path / "loss").is_file()
    assert figures.jump_timeline(jumps, tmp_path / "jumps").is_file()
    assert figures.skill_by_horizon(skill, tmp_path / "skill").is_file()
    assert figures.rate_distortion(rows, tmp_path / "rates").is_file()


def test_a_figure_shows_its_numbers(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """The lines of the skill figure are the given skills; those below the floor are drawn on it, and that is said."""
    figures.skill_by_horizon(COMPARE["skill"], tmp_path / "skill")
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in drawn[0].axes[0].get_lines()}
    assert lines["learned_linear"] == [0.41, 0.21, 0.05]
    assert lines["linear"] == [0.35, -0.4, -1.0]
    assert any("worse than -1" in item.get_text() for item in texts(drawn[0]))


def test_regimes_stand_behind_the_loss(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Each known regime is a band from its opportunity to the next, named once; unknown ones are left out."""
    regimes = ["", "chaotic", "stable", "chaotic"]
    jumps = [{**samples.jump(10 * step, 0, "cooling_down"), "regime": name} for step, name in enumerate(regimes, 1)]
    figures.loss_curve([[step, 1.0] for step in range(1, 51)], jumps, tmp_path / "loss")
    bands = [(patch.get_x(), patch.get_width()) for patch in drawn[0].axes[0].patches if isinstance(patch, Rectangle)]
    assert bands == [(20, 10), (30, 10), (40, 10)]
    assert [item.get_text() for item in texts(drawn[0])].count("chaotic regime") == 1


def test_a_timeline_shows_what_became_of_each_jump(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Each run has a panel where kept and rejected jumps stand on its loss, in front of their regime."""
    timelines.regime_timeline(JUMPING[:2], tmp_path / "timeline")
    panels = drawn[0].axes
    assert [axes.get_ylabel() for axes in panels] == ["seed 0\ntest loss (nats)", "seed 1\ntest loss (nats)"]
    marks = {str(line.get_marker()): line for line in panels[0].get_lines()}
    loss = dict(JUMPING[0]["losses"])
    assert np.asarray(marks["^"].get_xdata()).tolist() == [50]
    assert np.asarray(marks["x"].get_xdata()).tolist() == [100]
    assert np.asarray(marks["^"].get_ydata()).tolist() == pytest.approx([loss[50]])
    assert np.asarray(marks["x"].get_ydata()).tolist() == pytest.approx([loss[100]])
    bands = [(patch.get_x(), patch.get_width()) for patch in panels[0].patches if isinstance(patch, Rectangle)]
    assert bands == [(50, 50), (100, 200)]
    assert {"kept (2)", "rejected (2)", "stable regime"} <= {item.get_text() for item in texts(drawn[0])}


def test_jumps_are_arrows_from_where_they_began(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Each arrow runs from start to end in the colour of what became of it; a kept jump without one joins two rows."""
    figures.pca_path(RACE["picture"], [], tmp_path / "picture")
    found = [item for item in drawn[0].axes[0].texts if isinstance(item, Annotation) and item.arrow_patch is not None]
    ends = {(tuple(item.xyann), tuple(item.xy), str(item.arrowprops["color"])) for item in found if item.arrowprops}
    assert ends == {((3, 1), (4, 1.5), plotting.GREEN), ((5, 1.5), (5.5, 2.5), plotting.VERMILION)}
    names = {item.get_text() for item in texts(drawn[0])}
    assert {"jump kept (1)", "jump rejected (1)", "held-out loss (nats)"} <= names
    bare = {**RACE["picture"], "arrows": [], "losses": None}
    figures.pca_path(bare, [samples.jump(48, 5, "kept"), samples.jump(60, 5, "not_better")], tmp_path / "bare")
    found = [item for item in drawn[1].axes[0].texts if isinstance(item, Annotation) and item.arrow_patch is not None]
    assert [tuple(item.xy) for item in found] == [pytest.approx(RACE["picture"]["points"][10])]


def test_contours_are_of_the_given_losses(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Lines of equal loss lie between the lowest loss and the ninth decile; a grid of nothing draws none."""
    figures.pca_path(RECORD["pca"], [], tmp_path / "pca")
    (lines,) = [item for item in drawn[0].axes[0].collections if isinstance(item, QuadContourSet)]
    values = np.array(RECORD["pca"]["losses"]["values"])
    levels = np.asarray(lines.levels)
    assert values.min() < levels[0]
    assert levels[-1] == pytest.approx(np.quantile(values, 0.9))
    flat = {**RECORD["pca"], "losses": {**RECORD["pca"]["losses"], "values": [[None] * 7] * 7}}
    figures.pca_path(flat, [], tmp_path / "flat")
    assert not [item for item in drawn[1].axes[0].collections if isinstance(item, QuadContourSet)]


def test_forecasts_are_drawn_where_they_led(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Each forecast's line begins at standing still; the truth ends at 1; leaving the picture is mentioned."""
    figures.forecast_beside_truth(RECORD["forecasts"], tmp_path / "beside")
    axes = drawn[0].axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.get_lines()}
    assert lines["training"] == [[0, 0], [0.3, 0.2], [1, 0]]
    assert lines["linear"] == [[0, 0], [0.3, 0.1], [1.4, 0.3]]
    assert any("out of the picture" in item.get_text() for item in texts(drawn[0]))
    tame = {**RECORD["forecasts"], "by": RECORD["forecasts"]["by"][:2]}
    figures.forecast_beside_truth(tame, tmp_path / "tame")
    assert not any("out of the picture" in item.get_text() for item in texts(drawn[1]))


def test_bits_are_drawn_by_layer(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Lines are bits over the size of each tensor; below, shares of all bits that add up to one."""
    figures_codec.bits_by_layer(RECORD["anatomy"], tmp_path / "layers")
    top, bottom = drawn[0].axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in top.get_lines()}
    assert lines["network.1.weight"] == pytest.approx(np.full(60, 0.8))
    assert lines["network.1.bias"][30] == pytest.approx((1140 + 19 * 30) / 570)
    last = bottom.collections[-1].get_paths()[0].vertices
    assert np.asarray(last)[:, 1].max() == pytest.approx(1)


def test_the_model_fit_shows_shares_and_scales(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Bars are shares over those expected; dots stand at the magnitudes expected and seen."""
    figures_codec.model_fit(RECORD["anatomy"], tmp_path / "model")
    top, bottom = drawn[0].axes
    heights = [patch.get_height() for patch in top.patches if isinstance(patch, Rectangle)]
    assert heights == pytest.approx([1.0] * 18 + [0.9, 1.1])
    dots = np.asarray(bottom.collections[0].get_offsets())
    assert dots[2].tolist() == pytest.approx([2.0**-3, 1.9**-3])


def test_the_cosine_map_is_of_the_given_cosines(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """The picture's values are the cosines, on a scale from -1 to 1, with the steps at its edges."""
    figures_codec.cosines(RECORD["likeness"], tmp_path / "cosines")
    axes = drawn[0].axes[0]
    (image,) = axes.get_images()
    assert np.asarray(image.get_array()).tolist() == RECORD["likeness"]["cosines"]
    assert image.get_clim() == (-1, 1)
    assert [item.get_text() for item in axes.get_xticklabels()][-1] == "221"


def test_losses_are_drawn_over_each_cost(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """The panels of one run end at its steps, samples, wall-clock and CPU seconds; unknown costs are said to be so."""
    figures_costs.loss_over_costs(LINES[:1], tmp_path / "costs")
    ends = [float(np.asarray(axes.get_lines()[0].get_xdata())[-1]) for axes in drawn[0].axes]
    assert ends == pytest.approx([400, 400 * 64, 0.03 * 400, 0.05 * 400])
    bare = {**RECORD, "cost_curve": [], "options": {}}
    figures_costs.loss_over_costs([figures_costs.record_line(bare, "bare")], tmp_path / "bare")
    said = [item.get_text() for item in texts(drawn[1])]
    assert sum("not recorded" in text for text in said) == 3
    arms = figures_costs.race_lines(RACE)
    assert [line.name for line in arms] == ["without jumps"] * 3 + ["with jumps"] * 3
    assert arms[3].cpu_seconds[-1] == pytest.approx(0.9)


def test_rates_of_several_runs_are_told_apart(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Each run has a solid line of its best front-end and a dashed one without prediction, in its colour."""
    figures_rates.rates_of_runs([("one", COMPARE), ("two", COMPARE)], tmp_path / "rates")
    lines = {str(line.get_label()): line for line in drawn[0].axes[0].get_lines()}
    assert list(lines) == ["one: fitted", "one: none", "two: fitted", "two: none"]
    assert np.asarray(lines["one: fitted"].get_ydata()).tolist() == [2.97, 1.49, 0.33]
    assert lines["two: none"].get_linestyle() == "--"
    assert lines["two: none"].get_color() == lines["two: fitted"].get_color() != lines["one: fitted"].get_color()


def test_other_coders_are_drawn_apart(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Each reference is one dotted line through its points, in the upper panel only, as far as there is room."""
    references = [*COMPARE["references"], {"reference": "odd", "nmse": None, "bits_per_coordinate": 1.0}]
    figures.rate_distortion(COMPARE["rows"], tmp_path / "rates", references)
    dotted = [line for axes in drawn[0].axes for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert [str(line.get_label()) for line in dotted] == ["tensor_tables", "eden", "topk"]
    assert np.asarray(dotted[1].get_xdata()).tolist() == [0.098, 0.36]
    assert np.asarray(dotted[1].get_ydata()).tolist() == [2.03, 1.03]
    assert drawn[0].axes[0].get_xlim() == drawn[0].axes[1].get_xlim()
    many = [{**COMPARE["rows"][1], "predictor": f"front-end {number}"} for number in range(11)]
    figures.rate_distortion(many, tmp_path / "many", references)
    dotted = [line for line in drawn[1].axes[0].get_lines() if line.get_linestyle() == ":"]
    assert [str(line.get_label()) for line in dotted] == ["tensor_tables"]


def test_the_bound_is_drawn_below_the_curves(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """The bound is one line through the limits' points, each once; without limits there is none."""
    figures.rate_distortion(COMPARE["rows"], tmp_path / "rates", COMPARE["references"], COMPARE["limits"])
    figures.rate_distortion(COMPARE["rows"], tmp_path / "bare", COMPARE["references"])
    lines = [
        {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].get_lines()}
        for figure in drawn
    ]
    expected = sorted((row["nmse"], row["bound"]) for row in COMPARE["limits"] if row["setting"] == "none")
    assert lines[0]["bound of the model"] == [pytest.approx(point) for point in expected]
    assert "bound of the model" not in lines[1]


def test_jumps_of_several_runs_do_not_hide_each_other(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """Bars at the same step stand side by side, as high as the horizon."""
    figures.jump_timeline(JUMPS, tmp_path / "jumps")
    bars = [patch for patch in drawn[0].axes[0].patches if isinstance(patch, Rectangle)]
    assert sorted(bar.get_height() for bar in bars) == [5, 5, 5, 10, 10, 10]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))


def test_the_ledger_shows_the_rest_of_the_run(tmp_path: Path, drawn: list[Figure], undrawn: None) -> None:
    """What no activity took is shown as training; without a total there is no such bar."""
    figures.ledger_bars(RECORD["ledger"], 14.2, tmp_path / "a")
    figures.ledger_bars(RECORD["ledger"], None, tmp_path / "b")
    with_total, without = ([item.get_text() for item in texts(figure)] for figure in drawn)
    assert any(re.search(r"10\.2 s, 72 %", text) for text in with_total)
    assert "training itself" not in without


def test_drawing_does_not_load_pyplot(tmp_path: Path) -> None:
    """Figures are made without pyplot and its global state."""
    code = (
        "import sys\nfrom deadreckon.experiments.figures import ledger_bars\n"
        f"ledger_bars({{}}, None, {str(tmp_path / 'x')!r})\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
