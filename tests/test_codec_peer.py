"""The decoder in a process of its own, which never sees the vectors."""

import json
import struct
import subprocess
import sys

import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream
from torch import Tensor

from deadreckon.codec import Codec, CodecConfig
from deadreckon.forecast import Layout

PEER = """
import json, struct, sys
from deadreckon.codec import Codec, CodecConfig
from deadreckon.forecast import Layout
from pathlib import Path

folder = Path(sys.argv[1])
for link in json.loads((folder / "links.json").read_text()):
    codec = Codec(Layout.from_dict(link["layout"]), CodecConfig.from_dict(link["config"]), key=b"shared")
    decoder = codec.decoder()
    packets = (folder / (link["name"] + ".packets")).read_bytes()
    with open(folder / (link["name"] + ".decoded"), "wb") as out:
        place = 0
        while place < len(packets):
            (length,) = struct.unpack_from("<I", packets, place)
            place += 4 + length
            out.write(decoder.decode(packets[place - length : place]).numpy().tobytes())
"""

LENGTH = 500


def _streams() -> list[tuple[str, list[Tensor], Layout, CodecConfig]]:
    mixed = LAYOUTS["large, small, empty and 0-d tensors"]
    correlated = ar1_stream(mixed, LENGTH)
    for place in (100, 101, 333):
        correlated[place] = correlated[place] / 0  # infinities, as a loss scaler makes them
    correlated[200] = torch.zeros(mixed.size)
    correlated[300:] = [row * 1e6 for row in correlated[300:]]
    gradients, layout = gradient_stream(LENGTH)
    return [
        ("correlated", correlated, mixed, CodecConfig("linear", nmse=1e-3)),
        ("gradients", gradients, layout, CodecConfig("fitted", nmse=0.1)),
    ]


@pytest.mark.slow
def test_a_separate_process_decodes_500_packets_to_the_same_bits(tmp_path):
    """Over 500 packets of each stream, the bits that another process decodes are the encoder's reconstructions."""
    links, expected = [], {}
    for name, rows, layout, config in _streams():
        encoder = Codec(layout, config, key=b"shared").encoder()
        links.append({"name": name, "layout": layout.to_dict(), "config": config.to_dict()})
        with open(tmp_path / f"{name}.packets", "wb") as packets:
            parts = []
            for step, row in enumerate(rows):
                packet = encoder.encode(row, step, key_frame=step == 400)
                packets.write(struct.pack("<I", len(packet)) + packet)
                parts.append(encoder.reconstruction.numpy().tobytes())
        expected[name] = b"".join(parts)
    (tmp_path / "links.json").write_text(json.dumps(links))
    subprocess.run([sys.executable, "-c", PEER, str(tmp_path)], check=True, timeout=300)
    for name, data in expected.items():
        assert (tmp_path / f"{name}.decoded").read_bytes() == data, name
