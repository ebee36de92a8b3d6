"""What a report answers first, and what it says of several runs: each sentence follows its number."""

import copy
from pathlib import Path
from typing import Any

import pytest
import result_samples as samples

from deadreckon.experiments.report.compared import compare_section
from deadreckon.experiments.report.comparison import compare_races, compare_rates, compare_records, comparison
from deadreckon.experiments.report.glance import Answer, glance, glance_cards
from deadreckon.experiments.report.naming import names_of
from deadreckon.experiments.report.page import make_page
from deadreckon.experiments.report.sentences import (
    arrows,
    bound,
    forecasts,
    layers,
    likeness,
    model,
    plane,
    regimes,
    spent,
)
from deadreckon.experiments.report.side_by_side import side_by_side
from deadreckon.experiments.results import Result
from deadreckon.experiments.schema import KINDS
from deadreckon.experiments.spec import check

COMPARE, RACE, RECORD = samples.compare(), samples.race(100, 0.002), samples.record()


def result(kind: str, data: dict[str, Any], folder: str = "runs/a") -> Result:
    return Result(kind, check(copy.deepcopy(data), KINDS[kind], "data"), {}, Path(folder) / "result.json")


def answer(answers: list[Answer], start: str) -> Answer:
    return next(item for item in answers if item.question.startswith(start))


def test_the_first_answers_follow_skill_and_bits() -> None:
    """Yes turns to no when the forecasts, the front-ends or the other coders' bits do."""
    found = glance([result("compare", COMPARE)])
    assert answer(found, "Can the").text == "5.0 % of the squared error gone, 100 steps ahead"
    assert (answer(found, "Does pred").verdict, answer(found, "Does pred").text) == ("yes", "8.0 % fewer")
    assert answer(found, "Fewer bits").text == "22 % fewer than the best of 2 others"
    worse = copy.deepcopy(COMPARE)
    for row in worse["skill"]:
        row["skill"] = 0.0 if row["forecaster"] == "hold" else -0.5
    for row in worse["rows"]:
        row["bits_per_coordinate"] *= 2 if row["predictor"] == "fitted" else 1
    for row in worse["references"]:
        row["bits_per_coordinate"] /= 2
    found = glance([result("compare", worse)])
    assert (answer(found, "Can the").verdict, answer(found, "Can the").text) == ("no", "Not 100 steps ahead")
    assert (answer(found, "Does pred").verdict, answer(found, "Does pred").text) == ("no", "No bits saved")
    assert answer(found, "Fewer bits").text == "71 % more than the best of 2 others"
    assert answer(found, "Fewer bits").verdict == "no"


def test_the_answer_about_jumps_follows_the_seconds() -> None:
    """Sooner, later, noise, weak evidence, no kept jump, a missed target and nothing known are told apart."""
    cases: list[tuple[dict[str, Any], str, str]] = [
        (samples.race(100, 0.002), "yes", "50 % sooner"),
        (samples.race(180, 0.003), "no", "35 % later"),
        (samples.race(100, 0.00402), "no", "No difference beyond noise"),
    ]
    weak = samples.race(100, 0.002)
    weak["arms"][3]["cpu_seconds_to_target"] = 0.41
    cases.append((weak, "open", "33 % sooner on average, in 2 of 3 seeds only"))
    none = samples.race(100, 0.002)
    for arm in none["arms"]:
        arm["jumps"] = []
    cases.append((none, "no", "No jump was kept before the target"))
    missed = samples.race(100, 0.002)
    missed["arms"][4] |= {"reached": False, "cpu_seconds_to_target": None, "steps_to_target": None}
    cases.append((missed, "no", "The target was missed"))
    unknown = copy.deepcopy(missed)
    for arm in unknown["arms"]:
        arm["reached"] = False
    cases.append((unknown, "open", "Not known"))
    for data, verdict, text in cases:
        (found,) = glance([result("race", data)])
        assert (found.verdict, found.text) == (verdict, text)


def test_a_run_through_the_codec_is_set_beside_its_like() -> None:
    """The difference in accuracy is told where a run without codec is equal else, and only there."""
    plain = RECORD | {"compression": None}
    coded = copy.deepcopy(RECORD)
    coded["final"]["test_accuracy"] = 0.95
    (found,) = glance([result("record", plain), result("record", coded, "runs/codec")])
    assert found.question == "codec: Does training through the codec keep the accuracy?"
    assert (found.verdict, found.text) == ("open", "1.5 points lower, in one seed")
    assert "21 times fewer bits" in found.numbers
    coded["final"]["test_accuracy"] = 0.97
    assert glance([result("record", plain), result("record", coded, "b")])[0].verdict == "yes"
    assert glance([result("record", plain | {"seed": 1}), result("record", coded, "b")]) == []


def test_answers_become_cards_that_say_yes_or_no_in_words() -> None:
    """A card's verdict is a word before the text, not its colour alone; without answers there is no empty box."""
    cards = glance_cards([Answer("Why <b>?", "no", "No bits saved", "1 & 2")])
    assert '<p class="answer">No: no bits saved</p>' in cards
    assert "Why &lt;b&gt;?" in cards
    assert glance_cards([]) == ""


def test_names_tell_folders_apart() -> None:
    """A folder's own name will do where it is the only one, else as many above it as it takes."""
    folders = ("x/one/record", "x/two/record", "x/race")
    assert names_of([result("record", RECORD, folder) for folder in folders]) == ["one/record", "two/record", "race"]


def test_recorded_runs_are_ranked_by_test_loss() -> None:
    """The lowest loss is named first, the others with their distance; the ranking turns with the numbers."""
    other: dict[str, Any] = copy.deepcopy(RECORD) | {"wall_seconds": 20.0}
    other["final"]["test_loss"] = 0.182
    first, second = compare_records([("a", RECORD), ("b", other)])
    assert first == "On digits, a ended with the lowest test loss, 0.1456, before b with 0.182 (25 % more)."
    assert second == "The shortest of these runs by the clock was a with 14.2 s, the longest b with 20 s."
    other["final"]["test_loss"] = 0.1
    assert compare_records([("a", RECORD), ("b", other)])[0].startswith("On digits, b ended")
    other["final"]["test_loss"] = 0.1457
    assert compare_records([("a", RECORD), ("b", other)])[0].endswith("0.1456, b within 1.0 % of it.")
    assert compare_records([("a", RECORD), ("b", other | {"task": "teacher"})]) == []


def test_savings_of_several_runs_are_ranked() -> None:
    """Runs stand in the order of what prediction saves in bits, and jumping in seconds."""
    less = copy.deepcopy(COMPARE)
    for row in less["rows"]:
        row["bits_per_coordinate"] = 1.6 if row["predictor"] == "fitted" else row["bits_per_coordinate"]
    told = compare_rates([("a", less), ("b", COMPARE)])
    assert told == [
        "Of the bits that no prediction would take, the best front-end saves 8.0 % in b (fitted) and 1.2 % in a "
        "(fitted)."
    ]
    told = compare_races([("a", samples.race(180, 0.003)), ("b", RACE)])
    assert told == [
        "CPU seconds to the target with jumps, against without: 50 % less in b (3 jumps kept before the target) and "
        "35 % more in a (3 jumps kept before the target)."
    ]


def test_one_result_of_each_kind_is_not_compared(tmp_path: Path) -> None:
    """Without two results of a kind there is neither a sentence nor a table."""
    results = [result("record", RECORD, "a"), result("compare", COMPARE, "b"), result("race", RACE, "c")]
    assert comparison(results) == []
    assert side_by_side(results, tmp_path) == []


def test_runs_side_by_side_have_a_row_each(tmp_path: Path, undrawn: None) -> None:
    """Two results of each kind make a table with a row for each and one picture of both."""
    kinds = (("record", RECORD), ("compare", COMPARE), ("race", RACE))
    results = [result(kind, data, f"{letter}/{kind}") for kind, data in kinds for letter in "xy"]
    page = "".join(side_by_side(results, tmp_path))
    assert page.count("<img ") == 3
    for kind, _ in kinds:
        for letter in "xy":
            assert f'<td class="text">{letter}/{kind}</td>' in page
    assert "<td>8.0 %</td>" in page
    assert "<td>50 %</td>" in page
    assert len(comparison(results)) == 4


def test_the_page_says_when_only_the_newest_rows_were_coded(tmp_path: Path, undrawn: None) -> None:
    """A comparison of part of a stream does not read as one of all of it."""
    for packets, said in ((None, "The stream gradients coded as"), (300, "gradients, its newest rows, coded as")):
        part = COMPARE | {"options": COMPARE["options"] | {"packets": packets}}
        assert said in "".join(compare_section(result("compare", part), [], tmp_path))


def test_what_a_run_took_is_told_from_its_last_point() -> None:
    """Steps, samples, seconds and the share that was not training; what was not recorded is left out."""
    first, second = spent(check(RECORD, KINDS["record"], "data"))
    assert first == "The run took 400 optimiser steps, 25,600 samples, 12 s by the clock and 20 s of CPU time."
    assert second == (
        "28 % of the time by the clock was not training; the largest part of that was fitting with 3.1 s."
    )
    bare = check(RECORD | {"cost_curve": [], "options": {}, "ledger": {}}, KINDS["record"], "data")
    assert spent(bare) == ["The run took 400 optimiser steps."]


def test_the_plane_says_what_it_shows_and_what_it_cost() -> None:
    """Variance, evaluations and samples are told; whether the end is shown fairly turns with the loss on the plane."""
    pca = check(RECORD, KINDS["record"], "data")["pca"]
    assert plane(pca) == [
        "The plane holds 90 % of the variance of the weights' path.",
        "Its contours are from 51 evaluations on 128 held-out samples each in 0.4 s, after the run and not counted in "
        "its time.",
        "At the end the held-out loss is 0.146, and 0.15 at the nearest point of the plane: so the plane shows the end "
        "fairly.",
    ]
    far = {**pca, "losses": {**pca["losses"], "end_on_plane": 0.3}}
    assert plane(far)[2].endswith("and 0.3 at the nearest point of the plane: so read the end's contours with care.")
    assert plane({**pca, "losses": None}) == plane(pca)[:1]
    assert plane(None) == []


def test_the_forecast_nearest_to_the_truth_is_named() -> None:
    """The miss is the distance from the end of the way; where all miss by more than the way, that is said."""
    found = check(RECORD, KINDS["record"], "data")["forecasts"]
    assert forecasts(found) == [
        "50 steps on from step 350, linear came closest to where training went and missed by 0.50 of the way; standing "
        "still misses by 1."
    ]
    for row in found["by"]:
        row["off"][-1] += 0.0 if row["forecaster"] == "hold" else 1.0
    assert forecasts(found) == [
        "50 steps on from step 350, no forecast was nearer to the truth than standing still: the best, linear, missed "
        "by 1.36 of the way that training went."
    ]
    assert forecasts(None) == forecasts({**found, "by": found["by"][:1]}) == []


def test_layers_are_named_by_their_bits() -> None:
    """The tensor with most bits and the dearest one are named with their numbers, and change with them."""
    found = check(RECORD, KINDS["record"], "data")["anatomy"]
    assert layers(found) == [
        "Of the bits of the gradients at NMSE 0.1, network.1.weight takes 74 % with 91 % of the coordinates.",
        "network.1.bias costs most a coordinate, 3 bits against 0.99 over all; in the first third of the run it is "
        "0.932 over all, in the last 1.05.",
    ]
    for row in found["bits"]:
        row[0], row[1] = 24_000.0, 570.0
    told = layers(found)
    assert "network.1.weight takes 98 %" in told[0]
    assert told[1].startswith("network.1.weight costs most a coordinate, 4 bits")
    assert layers(None) == []


def test_the_gap_to_the_bound_is_told_with_its_parts() -> None:
    """The best front-end's gap at the summary's error is told in hundredths; its side turns with its sign."""
    data = check(COMPARE, KINDS["compare"], "data")
    assert bound(data) == [
        "At NMSE 0.099, fitted is 60.5 hundredths of a bit above the bound of the model, 0.885 bits a coordinate: +2.0 "
        "headers, +3.0 lattice, +1.0 tables and +54.5 misfit."
    ]
    for row in data["limits"]:
        row |= {"gap": -0.02, "misfit": None, "headers": None, "lattice": None, "tables": None}
    assert bound(data) == [
        "At NMSE 0.099, fitted is 2.0 hundredths of a bit below the bound of the model, 0.885 bits a coordinate."
    ]
    assert bound(data | {"limits": []}) == bound(data | {"rows": []}) == []


def test_the_fit_of_the_model_is_told_from_bits_and_tails() -> None:
    """Spent and expected bits are compared; a tail that comes too often or too rarely is called so."""
    found = check(RECORD, KINDS["record"], "data")["anatomy"]
    assert model(found) == [
        "The entropy coder's tables expected 1 bits a coordinate and 0.989 were spent, 1.1 % fewer.",
        "Magnitudes that the model holds for the largest tenth came up in 10 % of the cases, about as often as it "
        "says.",
    ]
    found["expected_bits"] = 0.9
    found["histogram"][-1] = 0.08
    assert model(found)[0].endswith("and 0.989 were spent, 9.9 % more.")
    assert model(found)[1].endswith("came up in 12 % of the cases, more often than it says.")
    found["histogram"][-1] = 0.02
    assert model(found)[1].endswith("came up in 6.5 % of the cases, less often than it says.")
    assert model(None) == []


def test_likeness_is_judged_by_the_cosines() -> None:
    """Both thirds are told; what follows for a prediction turns with the larger of them."""
    found = check(RECORD, KINDS["record"], "data")["likeness"]
    assert likeness(found) == [
        "The gradients of rows 1 step apart have a mean cosine of 0.31 in the first third of the run and 0.04 in the "
        "last, so the last one says something of the next."
    ]
    assert likeness({**found, "early": 0.05})[0].endswith("so the last one says almost nothing of the next.")
    assert likeness({**found, "early": None}) == likeness(None) == []


def test_the_picture_of_a_race_is_said_to_be_none_of_it() -> None:
    """Jumps of the watched run are counted apart."""
    picture = check(RACE, KINDS["race"], "data")["picture"]
    assert arrows(picture)[0].endswith("not part of the race: 2 jumps verified, 1 kept.")
    picture["arrows"][1]["outcome"] = "kept"
    assert arrows(picture)[0].endswith("2 jumps verified, 2 kept.")
    assert arrows(None) == []


def test_jumps_are_counted_by_regime() -> None:
    """Kept and proposed jumps are counted in each regime that had any."""
    jumps = [
        {**samples.jump(step, 5, outcome), "regime": regime}
        for step, outcome, regime in (
            (10, "not_better", ""),
            (20, "kept", "stable"),
            (30, "not_better", "stable"),
            (40, "cooling_down", "chaotic"),
        )
    ]
    assert regimes(jumps) == [
        "Kept of the jumps proposed: 1 of 2 in the stable regime and 0 of 1 before any regime was known."
    ]
    assert regimes(jumps[3:]) == []


@pytest.mark.parametrize("kind", ["record", "race"])
def test_old_results_without_the_new_numbers_still_make_a_page(kind: str, tmp_path: Path, undrawn: None) -> None:
    """Costs that an older release did not record are left out of figures and sentences."""
    data = {"record": RECORD, "race": RACE}[kind]
    new = ("cost_curve", "forecasts", "picture", "anatomy", "likeness")
    old = {name: value for name, value in data.items() if name not in new}
    if kind == "race":
        old["arms"] = [{name: value for name, value in arm.items() if name != "losses"} for arm in data["arms"]]
    made = result(kind, old)
    page = make_page(
        [
            Result(
                kind,
                made.data,
                {"date": None, "packages": {}, "python": None, "platform": None, "num_cpus": None, "num_threads": None},
                made.path,
            )
        ],
        tmp_path,
    )
    assert "<img " in page
