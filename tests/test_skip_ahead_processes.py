"""SkipAhead in two processes that train together."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PEER = Path(__file__).parent / "skip_ahead_peer.py"


def _run(folder: Path, kind: str) -> list[subprocess.CompletedProcess[str]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    peers = [
        subprocess.Popen(
            [sys.executable, str(PEER), str(rank), port, str(folder), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    done: list[subprocess.CompletedProcess[str]] = []
    try:
        for peer in peers:
            out, error = peer.communicate(timeout=240)
            done.append(subprocess.CompletedProcess(peer.args, peer.returncode, out, error))
    finally:
        for peer in peers:
            peer.kill()
    return done


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["steps", "clock"])
def test_two_processes_come_to_the_same_decisions(tmp_path: Path, kind: str) -> None:
    """With held-out data and clocks of their own, both processes jump together and end with the same weights."""
    for peer in _run(tmp_path, kind):
        assert peer.returncode == 0, peer.stderr[-3000:]
    # As text, in which NaN equals NaN.
    stories = [(tmp_path / f"{rank}.json").read_text() for rank in range(2)]
    assert stories[0] == stories[1]
    jumps = json.loads(stories[0])
    assert "KEPT" in [jump["outcome"] for jump in jumps]
    # Both processes' samples are in the decision: each has batches of 32.
    assert all(jump["num_samples"] % 64 == 0 for jump in jumps)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    parameters = {name for name in states[0] if "running" not in name and "tracked" not in name}
    for name in parameters:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=0)


@pytest.mark.slow
def test_uneven_held_out_data_are_refused_in_every_process(tmp_path: Path) -> None:
    """A different number of held-out batches would leave one process waiting: both say so instead."""
    for peer in _run(tmp_path, "uneven"):
        assert peer.returncode != 0
        assert "All processes must have the same number of held-out batches, got [3, 4]" in peer.stderr
