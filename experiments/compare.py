"""`deadreckon compare`: replay a recorded stream through the codec, once a front-end, and score the forecasters."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codec import Codec, CodecConfig
from ..forecast import ForecastError, LearnedForecaster, Trajectory, cases, score
from ..models import Budget, fit_forecaster, make_forecaster
from ..models.threads import one_thread
from .errors import OptionError
from .figures import rate_distortion, skill_by_horizon
from .options import CompareOptions
from .progress import tracked
from .results import write_result
from .run_logger import finish, log_figure, log_table, make_logger

CODEC_COLUMNS = ("predictor", "nmse_target", "nmse", "bits_per_coordinate", "bytes", "encode_seconds", "decode_seconds")
SKILL_COLUMNS = ("forecaster", "horizon", "skill", "coverage", "num_cases", "seconds_per_forecast")
FIT_ITERATIONS = 400
TRAINING_SHARE = 0.6  # of the recorded steps; forecasters are scored on the rest


@one_thread()
def run(options: CompareOptions) -> None:
    """Compare predictors on one trajectory: tables, figures and result.json in `options.out`.

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
        rows = _codec_rows(trajectory, options)
        num_packets = _num_packets(trajectory, options)
        data = {
            "stream": options.stream,
            "num_packets": num_packets,
            "num_coordinates": trajectory.layout.size,
            "rows": rows,
            "skill": skill,
            "skill_per_tensor": per_tensor,
            "trajectory": str(options.trajectory),
            "trajectory_digest": trajectory.digest,
            "options": asdict(options),
        }
    write_result(out, "compare", data)
    log_table(logger, "codec/rates", CODEC_COLUMNS, [[row[name] for name in CODEC_COLUMNS] for row in rows])
    log_table(logger, "forecast/skill", SKILL_COLUMNS, [[row[name] for name in SKILL_COLUMNS] for row in skill])
    log_figure(logger, "codec/rate_distortion", rate_distortion(rows, out / "rate_distortion"))
    if skill:
        log_figure(logger, "forecast/skill_by_horizon", skill_by_horizon(skill, out / "skill_by_horizon"))
    finish(logger)


def _num_packets(trajectory: Trajectory, options: CompareOptions) -> int:
    num_rows = len(trajectory.stream(options.stream))
    return num_rows if options.packets is None else min(options.packets, num_rows)


def _vectors(trajectory: Trajectory, options: CompareOptions) -> Iterator[tuple[int, Tensor]]:
    """The newest rows of the stream with their steps, as one codec would meet them."""
    stream = trajectory.stream(options.stream)
    for row in range(len(stream) - _num_packets(trajectory, options), len(stream)):
        yield int(stream.steps[row]), torch.from_numpy(stream[row].copy())


def _codec_rows(trajectory: Trajectory, options: CompareOptions) -> list[dict[str, Any]]:
    configs = [("raw", None, CodecConfig("none", lattice="raw"))]
    configs += [
        (predictor, nmse, CodecConfig(predictor, nmse=nmse))
        for predictor in options.predictors
        for nmse in options.nmse
    ]
    return [
        _replay(trajectory, options, predictor, nmse, config)
        for predictor, nmse, config in tracked(configs, "replaying through the codec", options.progress)
    ]


def _replay(
    trajectory: Trajectory, options: CompareOptions, predictor: str, nmse: float | None, config: CodecConfig
) -> dict[str, Any]:
    """One pass of the stream through an encoder and a decoder that sees packets only."""
    codec = Codec(trajectory.layout, config, stream=options.stream)
    encoder, decoder = codec.encoder(), codec.decoder()
    num_bytes = 0
    error = energy = encode_seconds = decode_seconds = 0.0
    for step, vector in _vectors(trajectory, options):
        begin = time.perf_counter()
        packet = encoder.encode(vector, step)
        middle = time.perf_counter()
        received = decoder.decode(packet)
        decode_seconds += time.perf_counter() - middle
        encode_seconds += middle - begin
        num_bytes += len(packet)
        error += float((received - vector).double().square().sum())
        energy += float(vector.double().square().sum())
    num_coordinates = trajectory.layout.size * _num_packets(trajectory, options)
    return {
        "predictor": predictor,
        "nmse_target": nmse,
        "nmse": error / energy if energy > 0 else 0.0,
        "bits_per_coordinate": 8 * num_bytes / num_coordinates,
        "bytes": num_bytes,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }


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
    weights = trajectory.stream("weights")
    cut = int(weights.steps[0] + TRAINING_SHARE * (weights.steps[-1] - weights.steps[0]))
    history = max(item.history for item in forecasters)
    horizons = options.horizons
    training = cases(trajectory, "weights", history, horizons, last_step=cut, with_moments=bool(needy))
    held_out = cases(trajectory, "weights", history, horizons, first_step=cut + 1, with_moments=bool(needy))
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
