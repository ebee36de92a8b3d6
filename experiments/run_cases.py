"""Cases with known answers from many recorded runs: which runs, at which spacing, how many of each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch

from ..forecast import Case, Forecaster, Trajectory, cases
from ..forecast.case import cadence
from .errors import OptionError
from .run_graphs import graph_of_run
from .runs import RecordedRun, open_run

PHASES = ("early", "middle", "late")


@dataclass(frozen=True)
class CaseRequest:
    """Which cases are cut from each run.

    Attributes:
        stream: the stream they are of.
        history: rows in each window.
        horizons: optimiser steps ahead.
        spacing: optimiser steps between rows of a window, the same for all runs.
        per_run: at most so many cases of each run, evenly from its beginning to its end; None for all.
        with_moments: whether windows carry the optimiser's moments.
        with_graph: whether windows carry the network's neural graph.
        data: a folder with the files of tasks, for runs whose network has to be made to trace it.
    """

    stream: str
    history: int
    horizons: tuple[int, ...]
    spacing: int
    per_run: int | None
    with_moments: bool
    with_graph: bool = False
    data: str | None = None

    @classmethod
    def of(
        cls,
        forecasters: Sequence[Forecaster],
        runs: Sequence[RecordedRun],
        horizons: Sequence[int],
        spacing: int | None,
        per_run: int | None,
        data: str | None = None,
    ) -> "CaseRequest":
        """What serves all of these forecasters, so that they can be given the same cases.

        Raises:
            OptionError: if they forecast different streams, or the runs cannot be had at one spacing.
        """
        streams = {item.stream: item.name for item in forecasters}
        if len(streams) > 1:
            told = ", ".join(f"{name!r} {stream}" for stream, name in streams.items())
            raise OptionError(f"All forecasters must forecast one stream, got {told}. Take those of one stream.")
        stream = next(iter(streams))
        return cls(
            stream,
            max(item.history for item in forecasters),
            tuple(sorted(set(horizons))),
            common_spacing(runs, stream, spacing),
            per_run,
            any(item.needs_moments for item in forecasters),
            any(item.needs_graph for item in forecasters),
            data,
        )


@dataclass(frozen=True)
class RunCases:
    """The cases of one run.

    Attributes:
        run: the run.
        cases: oldest first.
        left_out: cases that were dropped because they hold values that are not finite.
        digest: of the run's trajectory.
        last_step: the last optimiser step of the stream, the run's end for `phase`.
    """

    run: RecordedRun
    cases: list[Case]
    left_out: int
    digest: str
    last_step: int

    def phase(self, step: int) -> str:
        """In which third of the run an optimiser step lies."""
        return PHASES[min(2, 3 * step // max(1, self.last_step))]


def choose_tasks(runs: Sequence[RecordedRun], only: Collection[str], exclude: Collection[str]) -> list[RecordedRun]:
    """The runs of some tasks.

    Args:
        runs: all there are.
        only: names of tasks; empty for all.
        exclude: names of tasks that are left out.

    Raises:
        OptionError: if no run has a task that was named, or none is left.
    """
    known_tasks(runs, "only_tasks", only)
    known_tasks(runs, "exclude_tasks", exclude)
    left = [run for run in runs if (not only or run.task in only) and run.task not in exclude]
    if not left:
        raise OptionError(f"No run is left of {len(runs)}. Ask for more tasks, or exclude fewer.")
    return left


def known_tasks(runs: Sequence[RecordedRun], option: str, tasks: Collection[str]) -> None:
    """Check that each task has a run: a task that is misspelt would be excluded from nothing.

    Raises:
        OptionError: naming the first that has none.
    """
    there = sorted({run.task for run in runs})
    for task in tasks:
        if task not in there:
            raise OptionError(f"`{option}` must name tasks of the runs ({', '.join(there)}), got {task!r}.")


def common_spacing(runs: Sequence[RecordedRun], stream: str, asked: int | None) -> int:
    """Optimiser steps between rows at which all runs can be read.

    Args:
        runs: at least one.
        stream: whose rows.
        asked: what the user wants; None for the distance at which the runs were recorded.

    Raises:
        OptionError: if a run lacks the stream, was recorded at another distance than the first, or at one of which
            `asked` is no multiple.
    """
    first: tuple[RecordedRun, int] | None = None
    for run in runs:
        with open_run(run) as trajectory:
            if stream not in trajectory.streams:
                raise OptionError(
                    f"{run.folder} holds no stream {stream!r}; it has {', '.join(trajectory.streams)}. "
                    "Record it, or take forecasters of another stream."
                )
            own = _cadence(trajectory, stream)
        if own is None:
            raise OptionError(
                f"{run.folder} is too short: it has fewer than two rows of {stream}. Record a longer run."
            )
        if asked is not None and asked % own:
            raise OptionError(
                f"{run.folder} was recorded every {own} steps, of which `spacing` {asked} is no multiple. "
                "Ask for another `spacing`, or leave the run out."
            )
        if first is None:
            first = run, own
        elif asked is None and own != first[1]:
            raise OptionError(
                f"{run.folder} was recorded every {own} steps and {first[0].folder} every {first[1]}. "
                "Ask for one `spacing`, a multiple of both, or leave one of them out."
            )
    if asked is not None:
        return asked
    if first is None:
        raise OptionError("`runs` must hold at least one run.")
    return first[1]


def _cadence(trajectory: Trajectory, stream: str) -> int | None:
    """The most frequent distance between rows; None where there are fewer than two."""
    steps = trajectory.stream(stream).steps
    return cadence(steps) if len(steps) > 1 else None


def read_cases(
    run: RecordedRun, request: CaseRequest, *, first_step: int | None = None, last_step: int | None = None
) -> RunCases:
    """The cases of a run, evenly chosen from its beginning to its end.

    Args:
        run: which run.
        request: which cases.
        first_step: rows before it are not used.
        last_step: rows after it are not used.

    Raises:
        OptionError: if there is none; it says why. Those left out because they are not finite count as there. Also if
            a forecaster needs the neural graph, and there is no way to it.
    """
    with open_run(run) as trajectory:
        if request.with_moments and not {"exp_avg", "exp_avg_sq"} <= set(trajectory.streams):
            raise OptionError(
                f"{run.folder} lacks the streams exp_avg and exp_avg_sq that a forecaster needs. "
                "Record them, or leave that forecaster out."
            )
        found = cases(
            trajectory,
            request.stream,
            request.history,
            request.horizons,
            spacing=request.spacing,
            first_step=first_step,
            last_step=last_step,
            with_moments=request.with_moments,
            graph=graph_of_run(run, trajectory.layout, request.data) if request.with_graph else None,
        )
        steps = trajectory.stream(request.stream).steps
        if not found:
            raise OptionError(_why_none(run, request, trajectory, first_step, last_step))
        digest = trajectory.digest
    chosen = [found[index] for index in evenly(len(found), request.per_run)]
    sound = [case for case in chosen if _is_finite(case)]
    if len(sound) * (request.history + len(request.horizons)) < len(steps):
        sound = [_owned(case) for case in sound]  # few cases should not keep all rows of a run in memory
    return RunCases(run, sound, len(chosen) - len(sound), digest, int(steps[-1]))


def evenly(available: int, wanted: int | None) -> list[int]:
    """Indices from 0 to `available - 1`, at most `wanted`, as evenly apart as they can be, both ends among them."""
    if wanted is None or available <= wanted:
        return list(range(available))
    if wanted == 1:
        return [available // 2]
    return [round(index * (available - 1) / (wanted - 1)) for index in range(wanted)]


def _is_finite(case: Case) -> bool:
    return all(bool(torch.isfinite(part.sum())) for part in (case.window.values, *case.targets.values()))


def _owned(case: Case) -> Case:
    own = replace(case.window, values=case.window.values.clone())
    return Case(own, {horizon: row.clone() for horizon, row in case.targets.items()})


def _why_none(
    run: RecordedRun, request: CaseRequest, trajectory: Trajectory, first_step: int | None, last_step: int | None
) -> str:
    """Why a run gives no case, and what to do about it."""
    steps = trajectory.stream(request.stream).steps
    own = _cadence(trajectory, request.stream)
    odd = [horizon for horizon in request.horizons if own and horizon % own]
    if odd:
        return (
            f"{run.folder} was recorded every {own} steps, so nothing is known {odd[0]} steps ahead. "
            f"Ask for `horizons` that are multiples of {own}."
        )
    low = max(int(steps[0]), first_step if first_step is not None else 0)
    high = min(int(steps[-1]), last_step if last_step is not None else int(steps[-1]))
    needed = (request.history - 1) * request.spacing + max(request.horizons)
    if high - low >= needed and request.with_moments:
        return f"{run.folder} has no moments at the rows of its {request.stream}. Record both equally often."
    return (
        f"{run.folder} is too short: {request.history} rows {request.spacing} steps apart and "
        f"{max(request.horizons)} steps ahead need {needed} steps, there are {max(0, high - low)} without a break. "
        "Record longer runs, or ask for shorter `horizons`."
    )
