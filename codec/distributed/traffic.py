"""What a rank's exchanges cost in bytes, by what they were for."""

from dataclasses import dataclass, fields

from ..encode_report import EncodeReport


@dataclass(frozen=True)
class Traffic:
    """Counts of one step, or of all so far; they add and subtract.

    `sent_bytes` and `received_bytes` are all that this rank's links carried, both directions; the bits are of the
    packets that this rank made, each counted once however many ranks it goes to.

    Attributes:
        num_steps: averages taken.
        sent_bytes: packets, padding, lengths and checks.
        received_bytes: the same of the other ranks.
        header_bits: frames of packets: header, checksum, authentication.
        side_bits: cell widths or common scales, centroids, modes, coefficients of predictions.
        symbol_bits: the coded coordinates.
        raw_bits: coordinates sent as float32.
    """

    num_steps: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    header_bits: int = 0
    side_bits: int = 0
    symbol_bits: int = 0
    raw_bits: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(getattr(self, item.name) - getattr(other, item.name) for item in fields(self)))

    @property
    def packet_bits(self) -> int:
        """Of all packets that this rank made."""
        return self.header_bits + self.side_bits + self.symbol_bits + self.raw_bits

    def to_dict(self) -> dict[str, int]:
        """Plain data; `Traffic(**data)` is the way back."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def traffic_of(report: EncodeReport) -> Traffic:
    """The bits of one packet."""
    side = report.quantiser_bits + report.level_bits + report.coefficient_bits
    return Traffic(
        header_bits=report.header_bits, side_bits=side, symbol_bits=report.symbol_bits, raw_bits=report.raw_bits
    )
