"""Pictures of runs are of the weights that were there, and leave the run as it was."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments import portrait, record
from deadreckon.experiments.anatomy import spread
from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.options import RaceOptions, RecordOptions
from deadreckon.experiments.plane import MAX_SAMPLES, grid_points, losses_on, plane_of
from deadreckon.experiments.race import command as race
from deadreckon.experiments.results import read_result
from deadreckon.experiments.tasks import Split, load_task, make_network
from deadreckon.experiments.training import make_classifier
from deadreckon.forecast import Trajectory, cases, pack, unpack
from deadreckon.models import make_forecaster

QUIET: dict[str, Any] = {"logger": "none", "progress": False}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run."""
    out = tmp_path_factory.mktemp("recorded") / "record"
    options = {"steps": 80, "every": 2, "horizons": (4, 8), "forecasters": ("hold", "linear")}
    record.run(RecordOptions(out=str(out), batch_size=32, fit_every=40, **options, **QUIET))
    return out


def test_the_loss_on_the_plane_is_that_of_the_weights_there() -> None:
    """Every value of the grid and both ends are what a network with these weights has; the network stays as it was."""
    task = load_task("digits", None)
    network = make_network("mlp", task, 0)
    start, layout = pack(network)
    noise = torch.randn((6, layout.size), generator=torch.Generator().manual_seed(0))
    rows = start + 0.05 * noise.cumsum(0)
    plane = plane_of(rows)
    assert plane is not None
    points = plane.from_parameters(rows).tolist()
    found = losses_on(plane, points, rows[-1], network, layout, task.verify)
    assert found is not None
    assert torch.equal(pack(network)[0], start)
    assert found["x"][0] < min(x for x, _ in points) < max(x for x, _ in points) < found["x"][-1]
    other = make_network("mlp", task, 1)
    some = Split(task.verify.inputs[:MAX_SAMPLES], task.verify.labels[:MAX_SAMPLES])

    def loss(weights: torch.Tensor) -> float:
        other.load_state_dict(unpack(weights, layout), strict=False)
        return evaluate(other, some).loss

    for row, column in ((0, 0), (3, 7), (12, 12)):
        at = torch.tensor([found["x"][column], found["y"][row]])
        assert found["values"][row][column] == pytest.approx(loss(plane.to_parameters(at)), rel=1e-4)
    assert found["end"] == pytest.approx(loss(rows[-1]), rel=1e-4)
    assert found["end_on_plane"] == pytest.approx(loss(plane.to_parameters(plane.from_parameters(rows[-1]))), rel=1e-4)
    assert found["num_evaluations"] == len(found["x"]) * len(found["y"]) + 2
    assert found["num_samples"] == MAX_SAMPLES


def test_large_networks_get_a_coarser_grid_or_none() -> None:
    """What a grid may take is bounded by parameters, samples and places of a text."""
    images, texts = torch.zeros(500, 1, 8, 8), torch.zeros((500, 64), dtype=torch.int64)
    assert [grid_points(size, images) for size in (10_000, 20_000_000, 10**9)] == [13, 7, 0]
    assert [grid_points(size, texts) for size in (10_000, 400_000, 10**7)] == [13, 7, 0]


def test_rows_on_a_line_span_no_plane() -> None:
    """Neither two rows nor rows along a line nor lost ones have a plane."""
    line = torch.arange(5.0)[:, None] * torch.ones(1, 4)
    assert plane_of(line) is plane_of(line[:2]) is plane_of(torch.full((5, 4), torch.nan)) is None


@pytest.mark.slow
def test_of_long_runs_of_large_networks_some_rows_are_read(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path keeps its first and last row and stays within the limit, whatever the run's length."""
    task = load_task("digits")
    with Trajectory.open(recorded / "trajectory") as trajectory:
        weights = trajectory.stream("weights")
        module = make_classifier(task, "mlp", "adam", 0.003, "constant", 10, 0)
        monkeypatch.setattr(portrait, "MAX_NUMBERS", 4.5 * trajectory.layout.size)
        path = portrait.portrait(trajectory, module, task, None, (10,), 0.1)["pca"]
        assert len(weights) > 4
        assert len(path["points"]) == len(path["steps"]) == 4
        assert [path["steps"][0], path["steps"][-1]] == [weights.steps[0], weights.steps[-1]]
    assert portrait._some(10**6, 1) == [0, 500_000, 999_999]


def test_forecasts_are_measured_from_the_recorded_rows(recorded: Path) -> None:
    """Distances to the end of the way are those of the forecast weights to the recorded ones."""
    data = read_result(recorded).data
    found = data["forecasts"]
    assert [row["forecaster"] for row in found["by"]] == ["hold", "linear"]
    with Trajectory.open(recorded / "trajectory") as trajectory:
        weights = trajectory.stream("weights")
        place = {int(step): row for row, step in enumerate(weights.steps)}
        step, ahead = found["step"], found["horizons"][-1]
        assert (step, ahead) == (72, 8)
        start, end = (torch.from_numpy(weights[place[at]]).double() for at in (step, step + ahead))
        forecaster = make_forecaster("linear")
        case = next(
            case for case in cases(trajectory, "weights", forecaster.history, (ahead,)) if case.window.last_step == step
        )
        linear = next(forecaster.forecast(case.window, (ahead,))).mean.double()
        middle = torch.from_numpy(weights[place[step + 4]]).double()
        assert data["pca"]["points"][place[step]] == pytest.approx(found["start"])
    way = (end - start).norm()
    row = found["by"][1]
    assert ((row["along"][-1] - 1) ** 2 + row["off"][-1] ** 2) ** 0.5 == pytest.approx(
        float((linear - end).norm() / way), rel=1e-3
    )
    truth = found["truth"]
    assert (truth["along"][-1], truth["off"][-1]) == pytest.approx((1, 0), abs=1e-6)
    assert (truth["along"][0] ** 2 + truth["off"][0] ** 2) ** 0.5 == pytest.approx(float((middle - start).norm() / way))


def test_bits_of_tensors_add_up_to_the_packets(recorded: Path) -> None:
    """The bits of all tensors are the length of the coded part within a hundredth, and every coordinate is counted."""
    data = read_result(recorded).data
    found = data["anatomy"]
    assert sum(tensor["size"] for tensor in found["tensors"]) == data["num_parameters"]
    assert len(found["bits"]) == len(found["steps"]) == 79  # all rows but the first
    assert sum(map(sum, found["bits"])) == pytest.approx(sum(found["coded_bits"]), rel=0.02)
    assert sum(found["histogram"]) == pytest.approx(1)
    assert sum(row["number"] for row in found["classes"]) == 79 * data["num_parameters"]


def test_the_anatomy_is_of_the_packets_that_the_codec_sends(recorded: Path) -> None:
    """Coded bits of consecutive rows are those of the codec without prediction."""
    data = read_result(recorded).data
    with Trajectory.open(recorded / "trajectory") as trajectory:
        gradients = trajectory.stream("gradients")
        encoder = Codec(trajectory.layout, CodecConfig("none", "Z", nmse=0.1)).encoder()
        sent = []
        for row in range(6):
            encoder.encode(torch.from_numpy(gradients[row]), int(gradients.steps[row]))
            sent.append(encoder.last_report.symbol_bits)
    assert data["anatomy"]["coded_bits"][:5] == sent[1:]


def test_a_stream_that_fits_the_model_has_a_flat_histogram() -> None:
    """Where each magnitude comes as often as its table says, no bin of probability stands out."""
    tables = np.random.default_rng(0).dirichlet(np.ones(4), size=2)
    ends = tables.cumsum(1)
    places = np.stack([np.c_[np.zeros(2), ends[:, :-1]], ends], 2)
    shares = spread(1000 * tables, places) / 2000
    assert shares == pytest.approx(np.full(20, 0.05))
    skewed = spread(np.array([[0.0, 0.0, 0.0, 10.0]]), places[:1]) / 10
    assert skewed[-1] > 0.05 > skewed[0]


def test_cosines_are_of_the_recorded_rows(recorded: Path) -> None:
    """The map's entries are cosines of rows at its steps; neighbours are those of the first and the last third."""
    found = read_result(recorded).data["likeness"]
    with Trajectory.open(recorded / "trajectory") as trajectory:
        gradients = trajectory.stream("gradients")
        place = {int(step): row for row, step in enumerate(gradients.steps)}
        rows = [torch.from_numpy(gradients[place[step]]).double() for step in found["steps"]]
        late = [torch.from_numpy(gradients[row]).double() for row in range(80 - 26, 80)]
    cosine = torch.nn.functional.cosine_similarity
    assert found["cosines"][3][10] == pytest.approx(float(cosine(rows[3], rows[10], 0)))
    assert found["cosines"][5][5] == pytest.approx(1)
    mean = float(torch.stack([cosine(left, right, 0) for left, right in pairwise(late)]).mean())
    assert found["late"] == pytest.approx(mean)


def test_costs_of_a_run_grow_and_end_at_its_last_step(recorded: Path) -> None:
    """The cost curve goes from the start to the last step, never back, and holds no more than the run took."""
    data = read_result(recorded).data
    steps, wall, cpu = zip(*data["cost_curve"], strict=True)
    assert (steps[0], steps[-1]) == (0, 80)
    assert list(wall) == sorted(wall)
    assert list(cpu) == sorted(cpu)
    assert 0 < wall[-1] <= data["wall_seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("forecaster", ["linear"])
def test_a_race_leaves_a_picture_of_its_jumps(tmp_path: Path, forecaster: str) -> None:
    """The watched run's arrows begin at its own rows and end elsewhere, one for each jump that was verified."""
    out = tmp_path / "race"
    options = {"seeds": (3,), "steps": 60, "target": 0.8, "forecaster": forecaster}
    race.run(RaceOptions(out=str(out), **options, **QUIET))
    data = read_result(out).data
    picture = data["picture"]
    assert picture["seed"] == 3
    assert picture["steps"][-1] == 60
    assert picture["arrows"]
    place = dict(zip(picture["steps"], picture["points"], strict=True))
    for arrow in picture["arrows"]:
        assert arrow["start"] == pytest.approx(place[arrow["step"]], abs=1e-4)
        assert arrow["end"] != pytest.approx(arrow["start"], abs=1e-3)
    assert [row[0] for row in data["arms"][0]["losses"]] == [row[0] for row in data["arms"][0]["curve"]]
    assert data["arms"][0]["losses"][-1][1] == pytest.approx(data["arms"][0]["final"]["test_loss"])
