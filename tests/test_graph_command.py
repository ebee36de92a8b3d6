"""`deadreckon graph`: what it writes, what it refuses."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest
from graph_networks import GPT2, NETWORKS, build, tokens

from deadreckon.experiments import cli
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.graph import command as graph
from deadreckon.experiments.graph.figure import COLOURS, draw_graph, find_fold
from deadreckon.experiments.graph.options import GraphOptions
from deadreckon.forecast.graph import NeuralGraph, check_graph, trace_graph


def test_the_command_writes_a_picture_and_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network by name is traced, proved and drawn; the stored graph can be read back."""
    assert cli.main(["graph", "transformer", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "Proof: passed" in told
    stored = NeuralGraph.from_dict(json.loads((tmp_path / "graph.json").read_text()))
    assert {block.kind for block in stored.blocks} >= {"query", "key", "value", "residual", "head", "norm"}
    assert ElementTree.parse(tmp_path / "graph.svg").getroot().tag.endswith("svg")


def test_code_is_only_run_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`package.module:function` needs `--allow_code`, must exist, and must return a module and inputs."""
    made = ModuleType("made_for_this_test")
    vars(made).update(network=lambda: build("lenet"), wrong=lambda: 3)
    monkeypatch.setitem(sys.modules, "made_for_this_test", made)
    with pytest.raises(OptionError, match="allow_code"):
        GraphOptions("made_for_this_test:network")
    options = GraphOptions("made_for_this_test:network", out=str(tmp_path), allow_code=True)
    assert graph.run(options) == 0
    assert (tmp_path / "graph.svg").exists()
    for module, message in (
        ("made_for_this_test:wrong", "must return"),
        ("made_for_this_test:none", "cannot be found"),
    ):
        with pytest.raises(OptionError, match=message):
            graph.run(GraphOptions(module, out=str(tmp_path), allow_code=True))


def test_a_graph_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command returns 1 when the proof fails."""
    module, inputs = build("mlp")
    traced = trace_graph(module, inputs)
    failed = check_graph(module, traced, inputs, tolerance=-1.0)
    monkeypatch.setattr(graph, "check_graph", lambda *_: failed)
    assert graph.run(GraphOptions("mlp", out=str(tmp_path))) == 1
    assert any("FAILED" in line for line in graph.summary(traced, failed))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_graph_can_be_drawn(name: str) -> None:
    """The picture is well-formed and names every kind of edge of the graph."""
    traced = trace_graph(*build(name))
    text = draw_graph(traced, "a <b> & c")
    ElementTree.fromstring(text)
    for kind in {block.kind for block in traced.blocks}:
        assert kind in COLOURS
        assert f">{kind} " in text


def test_repeating_blocks_are_drawn_once() -> None:
    """Five equal blocks are folded into one; without folding the picture has more columns."""
    traced = trace_graph(GPT2(num_layers=5), tokens())
    columns = [n for n, group in enumerate(traced.nodes) if group.kind not in ("constant", "heads")]
    fold = find_fold(traced, columns)
    assert fold is not None
    assert fold.count == 5
    folded, whole = draw_graph(traced, "folded"), draw_graph(traced, "whole", fold=False)
    assert "5 times" in folded
    assert whole.count("<rect") > folded.count("<rect") + 10
