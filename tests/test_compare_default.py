"""The codec's default among what `compare` measures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples as samples
import torch
from matplotlib.figure import Figure

from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments import figures
from deadreckon.experiments.measures import OUR_DEFAULT, against_references
from deadreckon.experiments.options import CompareOptions
from deadreckon.experiments.references import references
from deadreckon.forecast import pack

COMPARE = samples.compare()
ROWS = [
    {"reference": OUR_DEFAULT, "setting": "fitted, auto", "nmse_target": at, "nmse": 0.99 * at} for at in (0.5, 0.1)
]
ROWS = [row | {"bits_per_coordinate": bits} for row, bits in zip(ROWS, (0.3, 1.0), strict=True)]


def test_the_default_reference_is_the_default_configuration() -> None:
    """Its packets are those of a codec that was told an error and nothing else; the command measures it unasked."""
    assert OUR_DEFAULT in CompareOptions().references
    vector, layout = pack(torch.nn.Linear(30, 40))
    (item,) = references(OUR_DEFAULT, (0.2,))
    plain = CodecConfig()
    assert (item.nmse_target, item.setting) == (0.2, f"{plain.predictor}, {plain.lattice}")
    sender, receiver = item.ends(layout, "gradients")
    packet = sender.encode(vector, 3)
    assert packet == Codec(layout, CodecConfig(nmse=0.2), stream="gradients").encoder().encode(vector, 3)
    assert receiver.decode(packet).shape == vector.shape


def test_the_default_is_no_rival_of_the_front_ends() -> None:
    """What other coders need beside a front-end is said without it, however few bits it takes."""
    without = against_references(COMPARE["rows"], COMPARE["references"], "fitted")
    assert without
    assert against_references(COMPARE["rows"], [*ROWS, *COMPARE["references"]], "fitted") == without


def test_the_default_is_drawn_in_both_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a full line with stars among the curves, and below over no prediction; other coders stay dotted."""
    drawn: list[Figure] = []

    def save(figure: Figure, path: Any) -> Path:
        drawn.append(figure)
        return Path(path)

    monkeypatch.setattr(figures, "save", save)
    figures.rate_distortion(COMPARE["rows"], tmp_path / "rates", [*ROWS, *COMPARE["references"]])
    top, bottom = drawn[0].axes
    (line,) = [line for line in top.get_lines() if line.get_label() == OUR_DEFAULT]
    assert (line.get_linestyle(), line.get_marker()) == ("-", "*")
    assert np.asarray(line.get_xydata()).tolist() == [[pytest.approx(0.099), 1.0], [pytest.approx(0.495), 0.3]]
    (below,) = [line for line in bottom.get_lines() if line.get_marker() == "*"]
    none = {row["nmse_target"]: row["bits_per_coordinate"] for row in COMPARE["rows"] if row["predictor"] == "none"}
    assert np.asarray(below.get_ydata()).tolist() == pytest.approx([1.0 / none[0.1] - 1, 0.3 / none[0.5] - 1])
    dotted = [str(line.get_label()) for line in top.get_lines() if line.get_linestyle() == ":"]
    assert dotted == ["tensor_tables", "eden", "topk"]
