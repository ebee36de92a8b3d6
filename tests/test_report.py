import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples as samples

from deadreckon.experiments import measures, results, verdicts
from deadreckon.experiments.errors import ResultError
from deadreckon.experiments.options import ReportOptions
from deadreckon.experiments.report import command as report
from deadreckon.experiments.report.html import embedded_json
from deadreckon.experiments.schema import KINDS
from deadreckon.experiments.spec import check
from deadreckon.forecast.jump import Outcome

MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "record": samples.record,
    "compare": samples.compare,
    "race": samples.race,
    "corpus": samples.corpus,
}


def checked(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return check(data, KINDS[kind], "data")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, ...]:
    """Folders with one result of each kind."""
    for kind, make in MAKERS.items():
        results.write_result(tmp_path / kind, kind, make())
    return tuple(str(tmp_path / kind) for kind in MAKERS)


# Results


@pytest.mark.parametrize("kind", MAKERS)
def test_results_come_back_as_written(kind: str, tmp_path: Path) -> None:
    """What is written is read again, from the file or its folder, with where it was made; no other file is left."""
    path = results.write_result(tmp_path / "run", kind, MAKERS[kind]())
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]
    for place in (path, path.parent):
        result = results.read_result(place)
        assert result.kind == kind
        for name, value in MAKERS[kind]().items():
            if kind != "race" and name not in ("final", "jumps", "skill", "online", "rows"):
                assert result.data[name] == value
        assert set(result.environment) >= {"python", "packages", "date", "num_threads"}


def test_numbers_of_numpy_and_beyond_all_bounds_are_stored(tmp_path: Path) -> None:
    """NumPy's scalars and tuples become plain; what is not finite becomes null."""
    data = samples.race()
    data["arms"][0] |= {"steps_to_target": np.int64(3), "cpu_seconds_to_target": np.float32(0.5)}
    data["arms"][0]["jumps"] = ({"step": 1, "horizon": 0, "outcome": "kept", "margin": float("-inf")},)
    data["arms"][1]["wall_seconds_to_target"] = float("nan")
    arms = results.read_result(results.write_result(tmp_path, "race", data)).data["arms"]
    assert (arms[0]["steps_to_target"], arms[0]["cpu_seconds_to_target"]) == (3, 0.5)
    assert arms[0]["jumps"][0]["margin"] is None
    assert arms[1]["wall_seconds_to_target"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, r"`data\.steps` must be int, got str"),
        ({"steps": True}, r"`data\.steps` must be int, got bool"),
        ({"steps": 2**64}, r"`data\.steps` must fit into 64 bits"),
        ({"task": "x" * 20_000}, r"`data\.task` must have at most 10000 characters, got 20000"),
        ({"loss_curve": [[1]]}, r"`data\.loss_curve\[0\]` must have 2 entries, got 1"),
        ({"loss_curve": {}}, r"`data\.loss_curve` must be a list, got dict"),
        ({"final": []}, r"`data\.final` must be a mapping, got list"),
        ({"streams": {"weights": {}}}, r"`data\.streams\.weights` must have an entry 'rows'"),
        ({"extra": object()}, r"`data\.extra` must be made of plain values, got object"),
        ({"extra": {1: 2}}, r"Names in `data\.extra` must be text, got 1"),
    ],
)
def test_wrong_data_are_refused_by_place(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A value of another type, shape or size is refused when written, naming where it lies; nothing is written."""
    with pytest.raises(ResultError, match=message):
        results.write_result(tmp_path, "record", samples.record() | change)
    assert list(tmp_path.iterdir()) == []


def test_wrong_kinds_and_bottomless_data_are_refused(tmp_path: Path) -> None:
    """Only the known kinds are written, and nothing nested without end."""
    with pytest.raises(ResultError, match="`kind` must be one of record, .* race, .*got 'dance'"):
        results.write_result(tmp_path, "dance", {})
    bottomless: list[Any] = []
    bottomless.append(bottomless)
    with pytest.raises(ResultError, match="is nested more than 32 deep"):
        results.write_result(tmp_path, "record", samples.record() | {"extra": bottomless})


def test_results_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither written nor read are more bytes than the limit."""
    path = results.write_result(tmp_path, "race", samples.race())
    monkeypatch.setattr(results, "MAX_BYTES", 1000)
    with pytest.raises(ResultError, match="larger than 1000 bytes"):
        results.read_result(path)
    with pytest.raises(ResultError, match="A result may have 1000 bytes"):
        results.write_result(tmp_path / "other", "race", samples.race())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"a": NaN}', "is not JSON: NaN is no JSON number"),
        ("[]", "is not a deadreckon-result file"),
        ('{"format": "other"}', "is not a deadreckon-result file"),
        ('{"format": "deadreckon-result", "version": 2}', "must have version 1, got 2"),
        ('{"format": "deadreckon-result", "version": 1, "kind": []}', "`kind` must be one of record, .* race, .*got"),
        ('{"format": "deadreckon-result", "version": 1, "kind": "race"}', "`data` must be a mapping, got NoneType"),
    ],
)
def test_foreign_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """What is no result of ours is refused with the file's name."""
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=rf"result\.json.*{message}"):
        results.read_result(path)


# Sentences


def test_the_named_outcomes_are_those_of_the_library() -> None:
    """What counts as kept or not proposed agrees with `Outcome`."""
    for outcome in Outcome:
        tally = measures.tally([samples.jump(1, 5, outcome.name.lower())])
        assert (tally.proposed, tally.kept, tally.rejected) == (outcome.proposed, outcome.kept, outcome.rejected)


def test_recorded_sentence_holds_the_numbers() -> None:
    """The first sentences say what was learned, by what, and what was stored."""
    text = " ".join(verdicts.recorded(checked("record", samples.record())))
    for part in (
        "mlp with 6,570 parameters",
        "400 optimiser steps",
        "96.5 %",
        "41 rows of weights (1.1 MB)",
        "1.5 bits",
    ):
        assert part in text
    bare = checked("record", samples.record() | {"final": {}, "streams": {}, "compression": None})
    assert verdicts.recorded(bare)[1:] == ["Nothing was recorded."]


def test_skill_sentences_flip_with_the_numbers() -> None:
    """The best forecaster is named with its skill; none is named where all are worse than standing still."""
    rows = checked("compare", samples.compare())["skill"]
    near, _, far = verdicts.skill(rows)
    assert near.startswith("10 steps ahead: learned_linear has the most skill and takes away 41 % ")
    assert near.endswith("; linear and quadratic have some too.")
    assert far.startswith("100 steps ahead: learned_linear")
    for row in rows:
        row["skill"] = -1.0 if row["horizon"] == 100 else row["skill"]
    assert verdicts.skill(rows)[2] == (
        "100 steps ahead: none has skill; the best, linear, scores -1.00 (0 is standing still)."
    )
    only_hold = [row for row in rows if row["forecaster"] == "hold"]
    assert verdicts.skill(only_hold)[0] == "10 steps ahead: no forecaster other than hold could be scored."


def test_replacing_a_forecaster_by_hold_changes_the_sentences() -> None:
    """A forecaster that stands still has no skill, whatever it is called."""
    rows = checked("compare", samples.compare())["skill"]
    before = verdicts.skill(rows)
    for row in rows:
        row["skill"] = 0.0 if row["forecaster"] == "learned_linear" else row["skill"]
    assert verdicts.skill(rows)[0].startswith("10 steps ahead: linear has the most skill")
    assert verdicts.skill(rows)[0] != before[0]


def test_only_the_last_scores_of_a_run_count() -> None:
    """Of the scores taken online, the newest of each forecaster and horizon is kept."""
    last = measures.last_scores(checked("record", samples.record())["online"])
    assert {row["forecaster"]: row["skill"] for row in last} == {
        "hold": 0.0,
        "linear": pytest.approx(0.3),
        "neural_ode": None,
    }


def test_codec_sentence_flips_with_the_bits() -> None:
    """The cheapest front-end is named with its saving; where prediction does not save, the sentence says so."""
    data = checked("compare", samples.compare()) | {"references": []}
    assert verdicts.codec(data) == [
        "fitted needs the fewest bits for coding gradients at NMSE 0.1: 1.49 a coordinate, 8.0 % less than without "
        "prediction (1.62)."
    ]
    worse = copy.deepcopy(data)
    for row in worse["rows"]:
        row["bits_per_coordinate"] *= 2 if row["predictor"] == "fitted" else 1
    assert verdicts.codec(worse)[0].startswith("No prediction pays in coding gradients at NMSE 0.1: without it 1.62")
    alone = data | {"rows": [row for row in data["rows"] if row["predictor"] == "fitted"]}
    assert verdicts.codec(alone) == [
        "fitted needs the fewest bits for coding gradients at NMSE 0.1: 1.49 a coordinate."
    ]
    assert verdicts.codec(data | {"rows": data["rows"][:1]}) == ["No front-end was measured."]


def test_other_coders_are_compared_at_their_error_and_at_their_best() -> None:
    """Bits asked at one error are compared as they are, others on our line; a coder beyond our errors is left out."""
    data = checked("compare", samples.compare())
    # At its own error of 0.098 = 0.0985^(1 - s) 0.00985^s, ours takes 1.49^(1 - s) 2.97^s bits: 0.73 of EDEN's 2.03.
    assert verdicts.codec(data)[1:] == [
        "At equal error, and the setting that suits the other coder best, fitted needs 0.78 times the bits of "
        "tensor_tables (NMSE 0.099) and 0.74 times the bits of eden with 2 bits (NMSE 0.098)."
    ]
    for row in data["references"]:
        row["bits_per_coordinate"] /= 2
    assert "1.6 times the bits of tensor_tables" in verdicts.codec(data)[1]
    for row in data["references"]:
        row["nmse"] = None
    assert len(verdicts.codec(data)) == 1


def test_a_line_is_read_between_its_points_only() -> None:
    """On the line through two points the bits are exact where it is a power law, and there are none beyond its ends."""
    rows = [
        {"predictor": "none", "nmse_target": nmse, "nmse": nmse, "bits_per_coordinate": nmse**-0.5}
        for nmse in (0.01, 0.1, 0.5)
    ]

    def against(
        nmse: float | None, bits: float | None = 1.0, target: float | None = None
    ) -> list[measures.AgainstReference]:
        reference = {"reference": "x", "setting": "", "nmse_target": target, "nmse": nmse, "bits_per_coordinate": bits}
        return measures.against_references(rows, [reference], "none")

    for nmse in (0.01, 0.04, 0.3, 0.5):
        assert against(nmse)[0].ratio == pytest.approx(nmse**-0.5)
    assert against(0.009, target=0.01)[0].ratio == pytest.approx(10)
    assert against(0.009) == against(0.51) == against(None) == against(0.1, None) == []


def test_jump_sentences_count_and_cost() -> None:
    """What became of jumps is counted; costs are all of the ledger's but the codec's, and their share."""
    record = checked("record", samples.record())
    first, second = verdicts.jumps(record["jumps"], [record["ledger"]], 8.0)
    assert first == (
        "2 jumps were proposed, 1 kept and 1 rejected (1 further opportunity went by without a proposal); the kept "
        "ones reached 10 steps ahead in all."
    )
    assert second.endswith("took 4 s by the clock, 50 % of the runs' 8 s.")
    more = {name: {"wall_seconds": 1.0, "cpu_seconds": 1.0, "count": 1} for name in ("re-estimating", "encoding")}
    assert verdicts.jumps(record["jumps"], [record["ledger"] | more], 8.0)[1].endswith(
        "took 5 s by the clock, 62 % of the runs' 8 s."
    )
    assert verdicts.jumps([], [], None) == ["No jump was tried."]
    assert verdicts.jumps(record["jumps"], [], None)[1].endswith("took 0 s by the clock.")


def test_without_a_kept_jump_none_is_said_to_reach() -> None:
    """How far kept jumps reached is told only where one was kept."""
    rejected = {"step": 1, "horizon": 10, "outcome": "not_better", "margin": None}
    assert verdicts.jumps([rejected], [], None)[0] == "1 jump was proposed, 0 kept and 1 rejected."


@pytest.mark.parametrize(
    ("jump_steps", "seconds_a_step", "verdict", "phrase"),
    [
        (180, 0.003, "It did not pay: 35 % more CPU seconds, 0.54 s against 0.4 s on average", "Did not pay: jumping"),
        (100, 0.002, "It paid: 50 % fewer CPU seconds, in each of 3 seeds", "and jumping ahead (50 % fewer CPU"),
        (100, 0.00402, "It made no difference beyond noise", "jumping ahead (no difference beyond noise)"),
    ],
)
def test_race_sentences_flip_with_the_seconds(
    jump_steps: int, seconds_a_step: float, verdict: str, phrase: str
) -> None:
    """Whether jumping paid follows from CPU seconds, not from steps, which fall in all three cases."""
    race = checked("race", samples.race(jump_steps, seconds_a_step))
    detail, said = verdicts.race(race)
    assert detail.startswith("CPU seconds to a test accuracy of at least 0.95, with jumps (and without): seed 0: ")
    assert said.startswith(verdict)
    assert f"{jump_steps} against 200" in said
    assert phrase in verdicts.conclusion([checked("compare", samples.compare())], [race])


def test_a_target_missed_never_counts_as_paid() -> None:
    """A seed that reached the target without jumps only is a loss; seeds that never reach it prove nothing."""
    race = checked("race", samples.race(100, 0.002))
    race["arms"][4] |= {"reached": False, "cpu_seconds_to_target": None, "steps_to_target": None}
    assert verdicts.race(race)[1] == (
        "It did not pay: with jumps, the target was missed with seed 1, and reached without."
    )
    assert verdicts.conclusion([], [race]) == "Nothing paid: not jumping ahead (the target was missed)."
    for arm in race["arms"]:
        arm["reached"] = False
    assert verdicts.race(race)[1].startswith("Nothing can be said about whether it pays")
    assert "not reached both ways" in verdicts.conclusion([], [race])
    alone = race | {"arms": race["arms"][:3]}
    assert verdicts.race(alone) == [
        "No seed was run both with and without jumps, so nothing can be said about whether they pay."
    ]
    assert verdicts.conclusion([], [alone]) == "Whether anything pays was not measured here."


def test_a_gain_in_some_seeds_only_is_called_weak() -> None:
    """A mean gain that one seed contradicts is reported as weak evidence."""
    race = checked("race", samples.race(100, 0.002))
    race["arms"][3]["cpu_seconds_to_target"] = 0.41
    assert verdicts.race(race)[1].startswith("It paid on average, but only in 2 of 3 seeds, which is weak evidence")


def test_without_a_kept_jump_nothing_paid() -> None:
    """Half the CPU seconds count for nothing where no jump was kept before the target: that is the clock."""
    race = checked("race", samples.race(100, 0.002))
    for change in ({"step": 100}, {"step": 50, "outcome": "not_better"}):  # at the target, and before it
        for arm in race["arms"]:
            for jump in arm["jumps"]:
                jump |= change
        assert verdicts.race(race)[1].startswith("It cannot have paid, as no jump was kept before the target")
        said = "Nothing paid: not jumping ahead (no jump was kept before the target)."
        assert verdicts.conclusion([], [race]) == said


def test_when_nothing_paid_it_is_said() -> None:
    """Without bits or seconds saved the conclusion is that nothing paid."""
    compare = checked("compare", samples.compare())
    compare["rows"] = [row for row in compare["rows"] if row["predictor"] in ("none", "previous")]
    assert verdicts.conclusion([compare], [checked("race", samples.race())]) == (
        "Nothing paid: not prediction in front of the codec (no bits saved) and not jumping ahead (35 % more CPU "
        "seconds to the target)."
    )


# The page


def test_the_page_is_self_contained_and_says_what_the_terminal_says(
    runs: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    """One file without any address to load from, holding the printed sentences, the numbers and the attribution."""
    report.run(ReportOptions(runs, str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    outside = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S)
    addresses = re.findall(r"""(?:\ssrc|\shref|url\()\s*=?\s*["']?([^"'>]{1,30})""", outside)
    assert all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    assert "default-src 'none'" in outside
    assert page.count("<img ") == 16
    assert page.count('src="data:image/svg+xml;base64,') == 16
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    printed = " ".join(capsys.readouterr().out.split())
    for sentence in (
        "fitted needs the fewest bits for coding gradients at NMSE 0.1",
        "fitted needs 0.78 times the bits of tensor_tables",
        "learned_linear has the most skill",
        "6 jumps were proposed, 3 kept and 3 rejected",
        "It did not pay: 35 % more CPU seconds",
    ):
        assert sentence in page
        assert sentence in printed
    assert "Kaynak" in page
    assert '<td class="text">eden</td><td class="text">2 bits</td>' in page
    assert "deadreckon race --seeds=" in page.replace("&#x27;", "")
    match = re.search(r'<script type="application/json" id="results">(.*?)</script>', page, re.S)
    assert match is not None
    embedded = {item["kind"]: item["data"] for item in json.loads(match[1])}
    assert embedded["compare"] == results.read_result(runs[1]).data
    assert len(list((tmp_path / "out" / "figures").rglob("*.png"))) == 16


def test_hostile_names_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None) -> None:
    """Mark-up in any text of a result reaches neither the page nor the terminal as mark-up."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&[bold]"

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: poisoned(item) for name, item in value.items()}
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        return value + evil if isinstance(value, str) else value

    race = poisoned(samples.race())
    for arm, clean in zip(race["arms"], samples.race()["arms"], strict=True):
        arm["name"] = clean["name"] if clean["name"] == "plain" else arm["name"]
    race["arms"][3]["ledger"] = {evil: samples.cost(1.0)}
    record = poisoned(samples.record())
    record["streams"] = {evil: {"rows": 1, "every": 1, "bytes": 1}}
    record["options"] = {evil: evil}
    folders = []
    for kind, data in (("record", record), ("compare", poisoned(samples.compare())), ("race", race)):
        folder = tmp_path / f"{kind}<b>"
        results.write_result(folder, kind, data)
        folders.append(str(folder))
    report.run(ReportOptions(tuple(folders), str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<script") == 1
    assert page.count("</script>") == 1
    assert "<img src=x" not in page
    assert "<b>" not in page
    assert "[bold]" in capsys.readouterr().out


def test_several_results_of_a_kind_are_told_apart(runs: tuple[str, ...], tmp_path: Path, undrawn: None) -> None:
    """With two recorded runs each section carries its folder's name."""
    results.write_result(tmp_path / "second", "record", samples.record() | {"online": [], "jumps": [], "pca": None})
    options = ReportOptions((*runs, str(tmp_path / "second")), str(tmp_path / "out"))
    report.run(options)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Recorded run (record)" in page
    assert "Recorded run (second)" in page


def test_reports_of_too_much_or_nothing_are_refused(runs: tuple[str, ...], tmp_path: Path) -> None:
    """A missing result is named; more results than a page can hold are refused."""
    with pytest.raises(FileNotFoundError, match="absent"):
        report.run(ReportOptions((str(tmp_path / "absent"),), str(tmp_path / "out")))
    many = tuple(f"{runs[0]}{'/' * number}" for number in range(report.MAX_RUNS + 1))
    with pytest.raises(ResultError, match="A report takes at most 50 results, got 51"):
        report.run(ReportOptions(many, str(tmp_path / "out")))


def test_embedded_data_cannot_end_their_element() -> None:
    """Embedded JSON holds no `<` and means the same."""
    text = embedded_json({"a": "</script><!--"})
    assert text.count("<") == 2
    assert json.loads(text.partition(">")[2].removesuffix("</script>")) == {"a": "</script><!--"}
