"""`deadreckon compare`: replay a recorded stream through the codec and others, and score the forecasters."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codec import Codec, CodecConfig, EncodeError, Encoder
from ..forecast import ForecastError, LearnedForecaster, Trajectory, cases, score
from ..models import Budget, fit_forecaster, make_forecaster
from ..models.threads import one_thread
from .closing import close_run
from .compare_limits import LIMIT_COLUMNS, MOST_VECTORS, OUR_CODER, limit_rows, limits_text, model_of
from .errors import OptionError
from .figures import rate_distortion, skill_by_horizon
from .files import write_whole
from .options import CompareOptions
from .progress import tracked
from .references import Ends, Reference, references
from .results import write_result
from .run_graphs import graph_of_run
from .run_logger import log_figure, log_table, make_logger
from .runs import find_runs

COST_COLUMNS = ("nmse_target", "nmse", "bits_per_coordinate", "bytes", "encode_seconds", "decode_seconds")
CODEC_COLUMNS = ("coder", "setting", *COST_COLUMNS)
SKILL_COLUMNS = ("forecaster", "horizon", "skill", "coverage", "num_cases", "seconds_per_forecast")
FIT_ITERATIONS = 400
TRAINING_SHARE = 0.6  # of the recorded steps; forecasters are scored on the rest


@one_thread()
def run(options: CompareOptions) -> None:
    """Compare predictors, other coders and forecasters on one trajectory; results and figures go to `options.out`.

    Raises:
        OptionError: if the trajectory does not hold what is asked of it.
        TrajectoryError: if there is no such trajectory or it is damaged.
    """
    out = Path(options.out)
    with Trajectory.open(options.trajectory) as trajectory:
        if options.stream not in trajectory.streams:
            raise OptionError(
                f"{options.trajectory} holds no stream {options.stream!r}; it has {', '.join(trajectory.streams)}."
            )
        trajectory.verify()
        logger = make_logger(options.logger, out, "compare", asdict(options), options.wandb_mode)
        # First what may turn out to be impossible, so that no minutes of coding are lost to it.
        skill, per_tensor = _skill_rows(trajectory, options)
        rows, others = _codec_rows(trajectory, options), _reference_rows(trajectory, options)
        num_packets = _num_packets(trajectory, options)
        model = model_of(_sampled(trajectory, options), trajectory.layout)
        limits = limit_rows(model, rows, others, options.entropy, num_packets, options.seed) if model else []
        data = {
            "stream": options.stream,
            "num_packets": num_packets,
            "num_coordinates": trajectory.layout.size,
            "rows": rows,
            "references": others,
            "limits": limits,
            "skill": skill,
            "skill_per_tensor": per_tensor,
            "trajectory": str(options.trajectory),
            "trajectory_digest": trajectory.digest,
            "options": asdict(options),
        }
    write_result(out, "compare", data)
    named = [(OUR_CODER, row["predictor"], row) for row in rows]
    named += [(row["reference"], row["setting"], row) for row in others]
    cells = [[coder, setting, *(row[name] for name in COST_COLUMNS)] for coder, setting, row in named]
    log_table(logger, "codec/rates", CODEC_COLUMNS, cells)
    log_table(logger, "forecast/skill", SKILL_COLUMNS, [[row[name] for name in SKILL_COLUMNS] for row in skill])
    log_table(logger, "codec/limits", LIMIT_COLUMNS, [[row[name] for name in LIMIT_COLUMNS] for row in limits])
    log_figure(logger, "codec/rate_distortion", rate_distortion(rows, out / "rate_distortion", others, limits))
    write_whole(out / "limits.md", limits_text(limits) + "\n")
    if skill:
        log_figure(logger, "forecast/skill_by_horizon", skill_by_horizon(skill, out / "skill_by_horizon"))
    close_run(logger, out, [options.trajectory])


def _num_packets(trajectory: Trajectory, options: CompareOptions) -> int:
    num_rows = len(trajectory.stream(options.stream))
    return num_rows if options.packets is None else min(options.packets, num_rows)


def _vectors(trajectory: Trajectory, options: CompareOptions) -> Iterator[tuple[int, Tensor]]:
    """The newest rows of the stream with their steps, as one codec would meet them."""
    stream = trajectory.stream(options.stream)
    for row in range(len(stream) - _num_packets(trajectory, options), len(stream)):
        yield int(stream.steps[row]), torch.from_numpy(stream[row].copy())


def _sampled(trajectory: Trajectory, options: CompareOptions) -> list[NDArray[np.float32]]:
    """A few of those rows, evenly spaced."""
    stream, number = trajectory.stream(options.stream), _num_packets(trajectory, options)
    taken = min(MOST_VECTORS, number)
    return [stream[len(stream) - number + place * number // taken].copy() for place in range(taken)]


def _codec_rows(trajectory: Trajectory, options: CompareOptions) -> list[dict[str, Any]]:
    # Lattice Z by name: `limits.md` divides the gap into that of ideal Z and the rest.
    configs = [("raw", None, CodecConfig("none", lattice="raw"))]
    configs += [
        (predictor, nmse, CodecConfig(predictor, lattice="Z", nmse=nmse, entropy=options.entropy))
        for predictor in options.predictors
        for nmse in options.nmse
    ]
    rows = []
    for predictor, nmse, config in tracked(configs, "replaying through the codec", options.progress):
        codec = Codec(trajectory.layout, config, stream=options.stream)
        cost = _replay(trajectory, options, (codec.encoder(), codec.decoder()))
        rows.append({"predictor": predictor, "nmse_target": nmse, **cost})
    return rows


def _reference_rows(trajectory: Trajectory, options: CompareOptions) -> list[dict[str, Any]]:
    chosen: list[Reference] = [item for name in options.references for item in references(name, options.nmse)]
    rows = []
    for item in tracked(chosen, "replaying through other coders", options.progress):
        cost = _replay(trajectory, options, item.ends(trajectory.layout, options.stream))
        rows.append({"reference": item.name, "setting": item.setting, "nmse_target": item.nmse_target, **cost})
    return rows


def _replay(trajectory: Trajectory, options: CompareOptions, ends: Ends) -> dict[str, Any]:
    """One pass of the stream through an encoder and a decoder that sees packets only."""
    encoder, decoder = ends
    num_bytes = header_bits = 0
    error = energy = encode_seconds = decode_seconds = 0.0
    for step, vector in _vectors(trajectory, options):
        begin = time.perf_counter()
        try:
            packet = encoder.encode(vector, step)
        except EncodeError:
            # Baselines refuse what is not finite, or too large for them; our codec sends float32 then. So it counts.
            packet = None
        middle = time.perf_counter()
        received = vector if packet is None else decoder.decode(packet)
        decode_seconds += time.perf_counter() - middle
        encode_seconds += middle - begin
        num_bytes += 4 * len(vector) if packet is None else len(packet)
        if isinstance(encoder, Encoder):
            report = encoder.last_report
            header_bits += report.num_bits - report.symbol_bits - report.raw_bits
        if bool(torch.isfinite(vector).all()):  # others travel exactly, and have no energy to compare with
            error += float((received - vector).double().square().sum())
            energy += float(vector.double().square().sum())
    num_coordinates = trajectory.layout.size * _num_packets(trajectory, options)
    cost = {
        "nmse": error / energy if energy > 0 else 0.0,
        "bits_per_coordinate": 8 * num_bytes / num_coordinates,
        "bytes": num_bytes,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }
    return cost | ({"header_bits": header_bits / num_coordinates} if isinstance(encoder, Encoder) else {})


def _skill_rows(trajectory: Trajectory, options: CompareOptions) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Skill on the last two fifths of the run of forecasters fitted, where they are fitted, to the first three.

    All are scored on the same cases, those that the one with the longest history can use.
    """
    if "weights" not in trajectory.streams or not options.forecasters:
        return [], []
    forecasters = [make_forecaster(name) for name in options.forecasters]
    needy = [item.name for item in forecasters if item.needs_moments]
    if needy and not {"exp_avg", "exp_avg_sq"} <= set(trajectory.streams):
        raise OptionError(
            f"{needy[0]!r} needs the streams exp_avg and exp_avg_sq, which {options.trajectory} does not hold. "
            "Record them, or leave it out of `forecasters`."
        )
    graph = None
    if any(item.needs_graph for item in forecasters):
        run = find_runs([options.trajectory], diverged=True)[0]
        graph = graph_of_run(run, trajectory.layout, options.data)
    weights = trajectory.stream("weights")
    cut = int(weights.steps[0] + TRAINING_SHARE * (weights.steps[-1] - weights.steps[0]))
    history = max(item.history for item in forecasters)
    horizons = options.horizons
    read = partial(cases, trajectory, "weights", history, horizons, with_moments=bool(needy), graph=graph)
    training, held_out = read(last_step=cut), read(first_step=cut + 1)
    if not training or not held_out:
        raise OptionError(
            f"{options.trajectory} is too short to score horizons of {max(horizons)} steps. "
            "Record a longer run, ask for shorter `horizons`, or give no `forecasters`."
        )
    table: list[dict[str, Any]] = []
    per_tensor: list[dict[str, Any]] = []
    for forecaster in tracked(forecasters, "scoring forecasters", options.progress):
        if isinstance(forecaster, LearnedForecaster):
            generator = torch.Generator().manual_seed(options.seed)
            try:
                fit_forecaster(forecaster, training, Budget(iterations=FIT_ITERATIONS), generator)
            except ForecastError as error:
                raise OptionError(
                    f"{forecaster.name!r} cannot be fitted to {options.trajectory}: {error} "
                    "Record a longer run, or ask for shorter `horizons`."
                ) from error
        for result in score(forecaster, held_out):
            entry = asdict(result)
            by_tensor = entry.pop("skill_per_tensor")
            table.append({"forecaster": forecaster.name, **entry})
            per_tensor += [
                {"forecaster": forecaster.name, "horizon": result.horizon, "tensor": tensor, "skill": value}
                for tensor, value in by_tensor.items()
            ]
    return table, per_tensor
