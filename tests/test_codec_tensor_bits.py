"""How many bits each tensor takes of packets."""

import csv

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from small_runs import fit
from thread_wires import on_ranks
from torch import nn

from deadreckon.callbacks import GradientCompression
from deadreckon.codec import Codec, CodecConfig, EncodeError
from deadreckon.codec.distributed import LatticeSum, PacketExchange, ShardedExchange, Wire
from deadreckon.forecast import layout_of

LAYOUT = layout_of(nn.Sequential(nn.Linear(80, 70), nn.Linear(70, 30), nn.Linear(30, 3, bias=False)))
FAST = CodecConfig("none", entropy="runs", hold="mean_rate", bits=0.6, feedback="classic")
CONFIGS = {
    "runs": FAST,
    "scale classes": CodecConfig(lattice="Z", nmse=0.3),
    "tables": CodecConfig(entropy="tensor_tables"),
    "E8": CodecConfig(lattice="E8", nmse=0.2),
    "raw": CodecConfig(lattice="raw"),
}


def vectors(number: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(LAYOUT.size, generator=generator) for _ in range(number)]
    for row in rows:
        row[LAYOUT["0.weight"].span] *= 0.05
    return rows


@pytest.mark.parametrize("name", CONFIGS)
def test_the_tensors_and_the_rest_sum_to_the_packet(name):
    """Each tensor takes at least 0 bits, the rest more than a header's checksum, and the sum is the packet's length."""
    encoder = Codec(LAYOUT, CONFIGS[name]).encoder()
    for step, row in enumerate(vectors()):
        packet = encoder.encode(row, step)
        found = encoder.tensor_bits()
        assert set(found.tensors) == set(LAYOUT.names)
        assert min(found.tensors.values()) >= 0
        assert found.rest >= 32
        assert found.total == 8 * len(packet) == sum(found.to_dict().values())


@pytest.mark.parametrize("name", ["runs", "scale classes", "tables", "E8"])
def test_the_split_follows_size_and_scale(name):
    """Of tensors of one scale the one twice as large takes twice the bits, within a tenth; a zero one next to none."""
    layout = layout_of(nn.ModuleList([nn.Linear(size, 60, bias=False) for size in (100, 50, 50)]))
    generator = torch.Generator().manual_seed(0)
    encoder = Codec(layout, CONFIGS[name]).encoder()
    for step in range(6):
        row = torch.randn(layout.size, generator=generator)
        row[layout["2.weight"].span] = 0
        encoder.encode(row, step)
    large, small, none = encoder.tensor_bits().tensors.values()
    assert large == pytest.approx(2 * small, rel=0.1)
    assert none < small / 20


@pytest.mark.parametrize("name", ["runs", "scale classes"])
def test_the_ideal_length_is_what_the_coder_takes(name):
    """For coders that know their tables, the tensors take all but a few bytes of the symbols, no more and no less."""
    encoder = Codec(LAYOUT, CONFIGS[name]).encoder()
    for step, row in enumerate(vectors(6)):
        encoder.encode(row, step)
    last = encoder._last
    assert last is not None
    assert last.coded is not None
    report, body = encoder.last_report, last.coded.body
    quantised = body.quantised
    ideal = encoder._codings[0].ideal_bits(quantised.points, last.before, quantised.cell_index, body.levels)
    assert ideal is not None
    symbols = sum(encoder.tensor_bits().tensors.values())
    # A count of values for each of three groups, and the stack's last word.
    assert 0 <= report.symbol_bits - symbols <= 3 * 32 + 64
    assert -64 <= report.symbol_bits - ideal.sum() <= 3 * 32 + 64


def test_there_is_nothing_before_the_first_packet():
    """Before a packet, and after `reset`, asking is an error."""
    encoder = Codec(LAYOUT, FAST).encoder()
    with pytest.raises(EncodeError, match="Nothing has been encoded"):
        encoder.tensor_bits()
    encoder.encode(vectors()[0], 0)
    encoder.tensor_bits()
    encoder.reset()
    with pytest.raises(EncodeError, match="Nothing has been encoded"):
        encoder.tensor_bits()


@pytest.mark.parametrize("aggregation", [PacketExchange, ShardedExchange, LatticeSum])
def test_every_aggregation_splits_what_it_sent(aggregation):
    """Bits by tensor, of both ways, sum to the bits of the last step's packets; pieces of a tensor count as one."""

    def work(wire: Wire) -> tuple[int, int, set[str]]:
        exchange = aggregation(Codec(LAYOUT, FAST), wire)
        for row in vectors(3, wire.rank):
            exchange.average(row)
        ways = exchange.tensor_bits()
        names = {name for found in ways.values() for name in found.tensors}
        return sum(found.total for found in ways.values()), exchange.last_traffic.packet_bits, names

    for said, sent, names in on_ranks(3, work):
        assert said == sent
        assert names <= set(LAYOUT.names)
        assert "0.weight" in names


@pytest.mark.parametrize("wanted", [True, False])
def test_the_callback_logs_them(tmp_path, wanted):
    """With `log_tensors` a logged step has the bits of every tensor, which sum to its packet's, and without it none."""
    logger = CSVLogger(tmp_path, name="", version="csv")
    callback = GradientCompression({"nmse": 0.3}, log_tensors=wanted)
    module = fit([callback], num_steps=1, logger=logger, log_every_n_steps=1)
    logger.save()
    (row,) = csv.DictReader((tmp_path / "csv" / "metrics.csv").read_text().splitlines())
    bits = {name: float(value) for name, value in row.items() if name.startswith("codec/bits/")}
    assert sum(bits.values()) == (8 * callback.num_bytes if wanted else 0)
    assert ("codec/bits/up/headers and tables" in bits) == wanted
    assert module.trainer.callback_metrics["compression"] > 1  # what the progress bar shows
