"""The examples that people copy run as they are, in a small form."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deadreckon.experiments.cli import main
from deadreckon.experiments.results import read_result

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def _run(name: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_listed() -> None:
    """The table of examples names each file once, with the command that runs it."""
    listed = re.findall(r"^\| \[(\S+)\]\((\S+)\) .* `(.*)` \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml"))
    assert sorted(name for name, _, _ in listed) == names
    for name, target, command in listed:
        assert name == target
        assert command.endswith(f" examples/{name}")


@pytest.mark.slow
def test_the_example_with_all_callbacks_runs(tmp_path: Path) -> None:
    """It learns the digits, tells forecasts, jumps and bits, and leaves a trajectory."""
    text = _run("all_callbacks.py", tmp_path, "--steps", "250", "--out", "mine")
    assert float(re.findall(r"accuracy on the test set: ([\d.]+)", text)[0]) > 0.8
    assert re.search(r"learned_linear at step 250: skill [+-]", text)
    assert re.findall(r"^step (\d+): ", text, re.MULTILINE) == ["150"]
    assert 0.1 < float(re.findall(r"gradients took ([\d.]+) bits", text)[0]) < 3
    assert (tmp_path / "mine" / "trajectory" / "commit.log").is_file()
    assert (tmp_path / "mine" / "csv" / "metrics.csv").is_file()


@pytest.mark.slow
def test_the_example_of_hugging_face_runs(tmp_path: Path) -> None:
    """A GPT-2 learns (from 4.9 nats down), its weights recorded once though its first and last layer share a tensor."""
    pytest.importorskip("transformers", reason="needs the package transformers")
    text = _run("huggingface.py", tmp_path, "--steps", "60", "--out", "mine")
    assert float(re.findall(r"loss on held-out text: ([\d.]+)", text)[0]) < 4.0
    assert "30592 parameters" in text
    assert "outer_momentum, 5 steps ahead: skill" in text


@pytest.mark.slow
def test_the_example_of_two_processes_runs(tmp_path: Path) -> None:
    """Two processes learn the digits at about half a bit a coordinate, and end with equal weights."""
    text = _run("ddp.py", tmp_path, "--steps", "60")
    assert float(re.findall(r"accuracy on the test set: ([\d.]+)", text)[0]) > 0.7
    assert 0.3 < float(re.findall(r"([\d.]+) bits a coordinate", text)[0]) < 1
    assert "weights of both processes are equal: True" in text


@pytest.mark.slow
def test_the_example_of_a_sweep_runs(tmp_path: Path) -> None:
    """The sweep file, with shorter runs, gives as many complete runs as are asked for."""
    content = yaml.safe_load((EXAMPLES / "sweep.yaml").read_text())
    content["parameters"]["steps"] = {"value": 10}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    arguments = ["sweep", str(path), "--out", str(tmp_path / "out"), "--count", "2", "--progress", "false"]
    assert main(arguments) == 0
    data = read_result(tmp_path / "out").data
    assert len(data["cells"]) == 2
    assert data["parameters"] == ["nmse", "codec"]
