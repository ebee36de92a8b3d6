"""What `compare` says of the limit: bounds of a named model, and where the bits above it go."""

import numpy as np
import pytest
import torch
from codec_streams import layout_from

from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.limits import Component, GeneralisedGaussian
from deadreckon.experiments.compare_limits import (
    LIMIT_COLUMNS,
    Model,
    limit_rows,
    limits_text,
    model_of,
)

LAYOUT = layout_from({"w": (80, 100), "empty": (0, 3), "v": (50, 80)})
PARTS = (Component(8000, 4.0, GeneralisedGaussian(2.0)), Component(4000, 0.25, GeneralisedGaussian(1.0)))
NMSE = 0.1
NUM_PACKETS = 6


def replayed(vectors):
    """`compare`'s row of some vectors."""
    encoder = Codec(LAYOUT, CodecConfig("none", "Z", nmse=NMSE)).encoder()
    bits = headers = 0
    for step, vector in enumerate(vectors):
        encoder.encode(torch.from_numpy(vector), step)
        report = encoder.last_report
        bits += report.num_bits
        headers += report.num_bits - report.symbol_bits - report.raw_bits
    number = len(vectors) * LAYOUT.size
    cost = {"bits_per_coordinate": bits / number, "header_bits": headers / number}
    return {"predictor": "none", "nmse_target": NMSE, "nmse": encoder.last_report.nmse} | cost


@pytest.fixture(scope="module")
def rows():
    vectors = Model(LAYOUT, (PARTS,)).sample(np.random.default_rng(1), NUM_PACKETS)
    model = model_of(vectors, LAYOUT)
    assert model is not None
    raw = {"predictor": "raw", "nmse_target": None, "nmse": 0.0, "bits_per_coordinate": 32.1, "header_bits": 0.1}
    other = {"reference": "eden", "setting": "1 bit", "nmse": 0.36, "bits_per_coordinate": 1.03}
    found = limit_rows(model, [raw, replayed(vectors)], [other], "scale_classes", NUM_PACKETS, seed=0)
    return model, found


def test_the_model_is_fitted_to_each_tensor(rows):
    """Vectors drawn from a model give its variances and shapes back; tensors without coordinates are left out."""
    model, _ = rows
    assert len(model.vectors) == NUM_PACKETS
    for parts in model.vectors:
        assert [part.number for part in parts] == [8000, 4000]
        assert [part.variance for part in parts] == pytest.approx([4.0, 0.25], rel=0.15)
        assert [part.marginal.shape for part in parts] == pytest.approx([2.0, 1.0], abs=0.21)


def test_vectors_without_energy_have_no_model():
    """Zeros and vectors that are not finite say nothing of a distribution."""
    zeros = np.zeros(LAYOUT.size, np.float32)
    assert model_of([zeros, zeros + np.float32(np.nan)], LAYOUT) is None


def test_parts_add_up_and_a_true_model_leaves_no_misfit(rows):
    """The parts of our gap sum to it; on the model's own vectors misfit is within 3 hundredths of a bit, as headers."""
    ours, other = rows[1]
    assert (ours["coder"], ours["setting"], other["coder"]) == ("deadreckon", "none", "eden")
    parts = [ours[name] for name in ("headers", "lattice", "tables", "misfit")]
    assert sum(parts) == pytest.approx(ours["gap"]) == ours["bits"] - ours["bound"]
    assert abs(ours["misfit"]) < 0.03
    assert 0 < ours["headers"] < 0.03
    assert 0.1 < ours["lattice"] < 0.26
    assert 0 < ours["tables"] < 0.3
    assert other["gap"] > ours["gap"]
    assert other["headers"] is None


def test_they_are_told_in_a_table(rows):
    """The table has the model's name and hundredths of a bit."""
    found = rows[1]
    text = limits_text(found)
    assert "generalised Gaussian of each tensor" in text
    assert f"{100 * found[0]['gap']:.1f}" in text
    assert all(name in text for name in LIMIT_COLUMNS)
