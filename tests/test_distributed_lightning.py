"""GradientCompression and CompressedDDP in two processes, and their configuration from YAML."""

import csv
import re
import socket
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from two_ranks import run_ranks

from deadreckon.callbacks import CompressedDDP, GradientCompression, ResumeError
from deadreckon.callbacks.rank_states import gather_states, state_of_rank
from deadreckon.codec import CodecConfig
from deadreckon.codec.distributed import ExchangeConfig
from deadreckon.codec.distributed.wire import Alone

YAML = """
trainer:
  accelerator: cpu
  devices: 2
  logger: false
  strategy:
    class_path: deadreckon.callbacks.CompressedDDP
    init_args:
      codec:
        predictor: none
        nmse: 0.5
        feedback: classic
      exchange:
        aggregation: sharded
        on_difference: heal
      find_unused_parameters: true
  callbacks:
    - class_path: deadreckon.callbacks.GradientCompression
      init_args:
        config:
          entropy: runs
        exchange:
          aggregation: lattice_sum
          levels: 3
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> tuple[Path, list[dict]]:
    """What two processes found; see `distributed_peer_lightning.py`."""
    folder = tmp_path_factory.mktemp("lightning_ranks")
    return folder, run_ranks("distributed_peer_lightning.py", folder, "all", str(free_port()), seconds=280)


@pytest.mark.slow
def test_ranks_are_equal_after_every_step(ranks):
    """Under Lightning, the parameters of both ranks are bit-equal after every step, and they move."""
    first, second = ranks[1]
    assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) == 12


@pytest.mark.slow
def test_resumed_equals_uninterrupted(ranks):
    """A run resumed from Lightning's checkpoint equals the one that went on, on both ranks, byte counts included."""
    for rank in ranks[1]:
        assert rank["resumed"] == rank["digests"][5:]
        assert rank["bytes"][0] == rank["bytes"][1] > 0
        assert rank["packets"] == [12, 12]


@pytest.mark.slow
def test_another_way_to_aggregate_goes_on_and_says_so(ranks):
    """A checkpoint of another aggregation is taken over with one warning on rank 0 that says what becomes of it."""
    first, second = ranks[1]
    assert len(first["warned"]) == 1
    assert "saved by 2 ranks by sharded, and goes on with 2 by all_gather" in first["warned"][0]
    assert second["warned"] == []


@pytest.mark.slow
def test_break_even_and_figures_are_told(ranks):
    """At the start the break-even speed is told; bytes are logged and the progress bar has their ratio."""
    folder, (first, _) = ranks
    assert re.search(r"Gradients by sharded over 2 ranks: .* It pays below .*; the link measures", first["told"])
    rows = list(csv.DictReader(next((folder / "log0").rglob("metrics.csv")).read_text().splitlines()))
    assert [int(float(row["codec/step"])) for row in rows] == [4, 8, 12]
    assert [float(row["codec/bytes_sent"]) for row in rows][-1] == first["bytes"][0]
    assert float(rows[-1]["codec/step_symbol_bits"]) > 0
    assert first["in_progress_bar"] == pytest.approx(32 / first["bits"], rel=0.02)
    assert 0 < first["nmse"] <= 0.5
    assert first["activities"] == ["comparing", "exchanging"]


@pytest.mark.slow
def test_the_strategy_with_the_raw_codec_equals_ddp(ranks):
    """With accumulation and clipping, CompressedDDP with float32 packets equals DDP; one exchange for three batches."""
    for rank in ranks[1]:
        assert rank["raw_equals_plain"]
        assert rank["steps_of_12_batches"] == 4


@pytest.mark.slow
def test_half_precision_stays_equal(ranks):
    """In bf16-mixed and bf16-true, both ranks stay bit-equal."""
    first, second = ranks[1]
    assert first["half"] == second["half"]
    assert all(len(set(digests)) == 3 for digests in first["half"])


@pytest.mark.slow
def test_local_steps_agree_at_the_end_of_rounds(ranks):
    """Ranks differ within a round of four steps and are bit-equal at its end; one exchange a round, resumed exactly."""
    first, second = ranks[1]
    equal = [one == other for one, other in zip(first["local"], second["local"], strict=True)]
    assert equal == [False, False, False, True] * 2 + [False, False]
    assert first["local_end"] == second["local_end"]
    assert first["local_rounds"] == second["local_rounds"] == 3
    for rank in (first, second):
        assert rank["local_resumed"] == rank["local"][6:]
        assert rank["local_resumed_end"] == first["local_end"]


@pytest.mark.slow
def test_unsupported_trainers_are_refused(ranks):
    """64-bit training and a second hook are refused by name."""
    for rank in ranks[1]:
        wide, hooked = rank["refused"]
        assert "got '64-true'" in wide
        assert "leave `ddp_comm_hook`" in hooked


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_yaml_configures_strategy_and_callback(tmp_path, monkeypatch):
    """Strategy and callback are made from YAML with the settings it says."""
    file = tmp_path / "config.yaml"
    file.write_text(YAML)
    monkeypatch.setattr(sys, "argv", ["train"])
    cli = LightningCLI(
        BoringModel, run=False, args=["--config", str(file)], save_config_callback=None, seed_everything_default=False
    )
    strategy = cli.trainer.strategy
    assert isinstance(strategy, CompressedDDP)
    assert strategy._compression.config == CodecConfig("none", nmse=0.5, feedback="classic")
    assert strategy._compression.exchange == ExchangeConfig("sharded", on_difference="heal")
    assert strategy._ddp_kwargs["find_unused_parameters"] is True
    assert not {"module", "device_ids"} & set(strategy._ddp_kwargs)
    (callback,) = [one for one in cli.trainer.callbacks if isinstance(one, GradientCompression)]  # pyright: ignore
    assert callback.config == CodecConfig(entropy="runs")
    assert callback.exchange == ExchangeConfig("lattice_sum", levels=3)


def test_damaged_rank_states_are_refused():
    """States of ranks survive gathering; missing, cut and foreign bytes are refused by name."""
    saved = gather_states(Alone(), {"values": torch.arange(5), "number": 3})
    again = state_of_rank(saved, 0)
    assert again["number"] == 3
    assert torch.equal(again["values"], torch.arange(5))
    with pytest.raises(ResumeError, match="no codec state of rank 1"):
        state_of_rank(saved, 1)
    with pytest.raises(ResumeError, match="rank 0 in the checkpoint is damaged"):
        state_of_rank({"0": saved["0"][:-9]}, 0)
    with pytest.raises(ResumeError, match="rank 0 in the checkpoint is damaged: it is no dictionary"):
        state_of_rank({"0": gather_states(Alone(), [1])["0"]}, 0)  # pyright: ignore[reportArgumentType]


def test_a_strategy_adds_one_callback_only():
    """The strategy's callback is added to a Trainer without one, and to no other."""
    from deadreckon.callbacks.strategy import add_callback

    mine, other = GradientCompression(), GradientCompression()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    add_callback(trainer, mine)
    add_callback(trainer, other)
    assert [one for one in trainer.callbacks if isinstance(one, GradientCompression)] == [mine]  # pyright: ignore
