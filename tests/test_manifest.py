"""The manifests of what was made from what."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from deadreckon.experiments.closing import close_run
from deadreckon.experiments.errors import ResultError
from deadreckon.experiments.manifest import FILE_NAME, ancestors, changes, read_manifest, write_manifest
from deadreckon.experiments.result_metrics import may_have, result_metrics
from deadreckon.experiments.results import write_result
from deadreckon.forecast import Trajectory, pack


def _trajectory(folder: Path, factor: float = 0.9) -> str:
    vector, layout = pack(torch.nn.Linear(2, 2))
    with Trajectory.create(folder, layout, streams=["weights"]) as trajectory:
        for step in range(3):
            trajectory.append(step, streams={"weights": torch.ones_like(vector) * factor**step}, scalars={"loss": 1.0})
        return trajectory.digest


def _tree(root: Path) -> str:
    """A recorded run, a forecaster made from it, and a score made from both; the trajectory's digest."""
    digest = _trajectory(root / "record" / "trajectory")
    write_manifest(root / "record", "record", [], [root / "record" / "trajectory"], {"steps": 2})
    (root / "fit").mkdir()
    (root / "fit" / "forecaster.safetensors").write_bytes(b"numbers")
    write_manifest(root / "fit", "fit", [root / "record"], [root / "fit" / "forecaster.safetensors"], {})
    (root / "score").mkdir()
    (root / "score" / "result.json").write_text("{}")
    made_from = [root / "record", root / "fit" / "forecaster.safetensors"]
    write_manifest(root / "score", "score", made_from, [root / "score" / "result.json"], {})
    return digest


def test_a_manifest_names_what_was_read_and_written_by_digest(tmp_path: Path) -> None:
    """Written and read back, it has the trajectory's own digest, the SHA-256 of files, and paths that can be moved."""
    digest = _tree(tmp_path / "runs")
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    manifest = read_manifest(tmp_path / "elsewhere" / "fit")
    (source,), (made,) = manifest.inputs, manifest.outputs
    assert (source.kind, source.path, source.digest) == ("trajectory", "../record/trajectory", digest)
    assert (made.kind, made.path, made.num_bytes) == ("forecaster", "forecaster.safetensors", 7)
    assert made.digest == hashlib.sha256(b"numbers").hexdigest()
    assert manifest.path_of(source) == tmp_path / "elsewhere" / "record" / "trajectory"
    assert changes(manifest) == []


def test_changes_are_told(tmp_path: Path) -> None:
    """What was made anew or removed since is named, and nothing else."""
    _tree(tmp_path)
    (tmp_path / "fit" / "forecaster.safetensors").write_bytes(b"others!")
    shutil.rmtree(tmp_path / "record" / "trajectory")
    gone, changed = changes(read_manifest(tmp_path / "score"))
    assert gone.endswith("record/trajectory is gone or cannot be read.")
    assert "forecaster.safetensors has changed since score was run" in changed
    _trajectory(tmp_path / "record" / "trajectory", factor=0.8)
    assert "has changed since record was run" in changes(read_manifest(tmp_path / "record"))[0]


def test_ancestors_are_found_by_digest(tmp_path: Path) -> None:
    """What a run was made from is found through all generations, nearest first, wherever the runs were moved."""
    _tree(tmp_path / "runs")
    shutil.move(tmp_path / "runs" / "record", tmp_path / "moved")
    _tree(tmp_path / "others")  # the same numbers, so the same digests: either will do
    found = ancestors(tmp_path / "runs" / "score", [tmp_path / "moved", tmp_path / "runs" / "fit"])
    assert sorted(item.command for item in found) == ["fit", "record"]
    assert ancestors(tmp_path / "moved", [tmp_path / "runs" / "fit"]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ("{}", "it is not a deadreckon-lineage file"),
        ('{"format": "deadreckon-lineage", "version": 9}', "it must have version 1, got 9"),
        ('{"format": "deadreckon-lineage", "version": 1, "data": {"command": 1}}', "`data.command` must be str"),
    ],
)
def test_damaged_manifests_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """A file that is no manifest, or a damaged one, is named with what is wrong."""
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ResultError, match=message):
        read_manifest(tmp_path)


def _fit_result(folder: Path) -> None:
    content = {
        "forecaster": "hold",
        "file": "forecaster.safetensors",
        "stopped": "solved",
        "iterations": 1,
        "training_error": 0.5,
        "validation_error": 0.25,
        "wall_seconds": 1.0,
        "cpu_seconds": float("nan"),
        "num_numbers": 1,
        "spacing": 1,
        "runs": [],
        "skill": [],
        "options": {"seed": 3},
    }
    write_result(folder, "fit", content)


def test_closing_a_run_writes_its_lineage(tmp_path: Path) -> None:
    """What lies in the run's folder is its output, what it is said to be made from its input, its options are kept."""
    _trajectory(tmp_path / "record" / "trajectory")
    _fit_result(tmp_path / "fit")
    (tmp_path / "fit" / "forecaster.safetensors").write_bytes(b"numbers")
    close_run(False, tmp_path / "fit", [tmp_path / "record", tmp_path / "record"])
    manifest = read_manifest(tmp_path / "fit")
    assert [item.kind for item in manifest.inputs] == ["trajectory"]
    assert [item.kind for item in manifest.outputs] == ["forecaster", "result"]
    assert manifest.options == {"seed": 3}
    assert "environment" in json.loads((tmp_path / "fit" / FILE_NAME).read_text())


def test_numbers_of_results_have_the_names_that_sweeps_may_ask_for() -> None:
    """Every number's name is one that its command may have; what is not known or not finite is left out."""
    arms: list[dict[str, object]] = [
        {"name": "plain", "reached": True, "cpu_seconds_to_target": seconds, "steps_to_target": 10}
        for seconds in (1.0, 3.0)
    ]
    arms.append({"name": "jumps", "reached": False, "cpu_seconds_to_target": None, "steps_to_target": None})
    found = result_metrics("race", {"arms": arms})
    assert found == {
        "result/reached/plain": 1.0,
        "result/cpu_seconds/plain": 2.0,
        "result/steps/plain": 10.0,
        "result/reached/jumps": 0.0,
    }
    rows = [
        {"predictor": "raw", "nmse_target": None, "bits_per_coordinate": 32.0, "nmse": 0.0},
        {"predictor": "none", "nmse_target": 0.1, "bits_per_coordinate": 0.6, "nmse": 0.099},
    ]
    skill = [
        {"forecaster": "linear", "horizon": 10, "skill": 0.2},
        {"forecaster": "hold", "horizon": 10, "skill": None},
    ]
    compared = result_metrics("compare", {"rows": rows, "skill": skill})
    assert compared == {"result/bits/none/0.1": 0.6, "result/nmse/none/0.1": 0.099, "result/skill/linear/10": 0.2}
    everywhere = {"task": "all", "kind": "all", "phase": "all"}
    scored = [{**row, **everywhere} for row in skill] + [{**skill[0], **everywhere, "task": "digits", "skill": 0.9}]
    assert result_metrics("score", {"skill": scored}) == {"result/skill/linear/10": 0.2}
    assert result_metrics("record", {"final": {"test_loss": 0.5}, "compression": None}) == {
        "result/final/test_loss": 0.5
    }
    assert all(may_have("race", name) for name in found)
    assert all(may_have("compare", name) for name in compared)
    assert not may_have("fit", "result/final/test_loss")
    assert not may_have("report", "result/wall_seconds")
