"""How far from the limit each coder of `compare` is, in hundredths of a bit, and where they go."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..codec import Codec, CodecConfig
from ..codec.limits import Component, fitted_components, scalar_rate, water_filling
from ..forecast import Layout
from .markdown import table

MODEL = "generalised Gaussian of each tensor"
MOST_VECTORS = 4  # of a stream, of which the bound is the mean
LARGEST = np.finfo(np.float32).max
MOST_PACKETS = 16  # of the sampled stream
LIMIT_COLUMNS = ("coder", "setting", "nmse", "bits", "bound", "gap", "headers", "lattice", "tables", "misfit")

OUR_CODER = "deadreckon"

Data = dict[str, Any]


class Model(NamedTuple):
    """What vectors are taken to be: independent coordinates, for each tensor a variance and a shape of its own.

    Attributes:
        layout: of the vectors.
        vectors: some of them, each as one component for each tensor that is not empty.
    """

    layout: Layout
    vectors: tuple[tuple[Component, ...], ...]

    def bound(self, nmse: float) -> float:
        """The fewest bits a coordinate for an error, with the model known to both ends; mean over the vectors."""
        return float(np.mean([water_filling(parts, nmse) for parts in self.vectors]))

    def scalar(self, nmse: float) -> float:
        """What ideal entropy-coded Z takes on it, with cells of one width."""
        return float(np.mean([scalar_rate(parts, nmse) for parts in self.vectors]))

    def sample(self, generator: np.random.Generator, number: int) -> list[NDArray[np.float32]]:
        """Vectors drawn from the model."""
        found = []
        for place in range(number):
            parts = iter(self.vectors[place * len(self.vectors) // number])
            vector = np.zeros(self.layout.size, np.float32)
            for spec in self.layout:
                if spec.numel:
                    part = next(parts)
                    values = np.sqrt(part.variance) * part.marginal.sample(generator, spec.numel)
                    vector[spec.span] = np.clip(values, -LARGEST, LARGEST)
            found.append(vector)
        return found


def model_of(vectors: Sequence[NDArray[np.float32]], layout: Layout) -> Model | None:
    """The model fitted to each of some vectors; `None` where none of them is finite and not all zeros."""
    usable = [vector for vector in vectors if np.isfinite(vector).all() and vector.any()]
    spans = [spec.span for spec in layout if spec.numel]
    found = tuple(fitted_components([vector[span] for span in spans]) for vector in usable)
    return Model(layout, found) if found else None


def limit_rows(
    model: Model, rows: Sequence[Data], references: Sequence[Data], entropy: str, num_packets: int, seed: int
) -> list[Data]:
    """The gap of each coder to the model's bound at the error that it made.

    For our codec it is divided. *headers* is everything but the entropy-coded residual. *lattice* is what ideal
    entropy-coded Z takes beyond the bound on the model. *tables* is what the codec, without prediction, takes beyond
    that on as many vectors drawn from the model: what it costs to learn tables and scales. *misfit* is the rest: what
    the model does not know, below 0 where the codec knows more than it, as by prediction.

    Args:
        model: of the vectors.
        rows: `compare`'s, with `header_bits` a coordinate.
        references: other coders.
        entropy: of our codec.
        num_packets: of the stream.
        seed: of the sampled vectors.
    """
    sampled = model.sample(np.random.default_rng(seed), min(num_packets, MOST_PACKETS))
    learned = {
        nmse: _table_bits(model, sampled, entropy, nmse) for nmse in {row["nmse_target"] for row in rows} if nmse
    }
    found = []
    for row in rows:
        if row["nmse_target"] and 0 < row["nmse"] < 1:
            entry = _gap(OUR_CODER, row["predictor"], row, model)
            lattice, tables = model.scalar(row["nmse"]) - entry["bound"], learned[row["nmse_target"]]
            parts = {"headers": row["header_bits"], "lattice": lattice, "tables": tables}
            found.append(entry | parts | {"misfit": entry["gap"] - sum(parts.values())})
    empty = dict.fromkeys(("headers", "lattice", "tables", "misfit"))
    found += [_gap(row["reference"], row["setting"], row, model) | empty for row in references if 0 < row["nmse"] < 1]
    return found


def _gap(coder: str, setting: str, row: Data, model: Model) -> Data:
    bits, bound = row["bits_per_coordinate"], model.bound(row["nmse"])
    return {"coder": coder, "setting": setting, "nmse": row["nmse"], "bits": bits, "bound": bound, "gap": bits - bound}


def _table_bits(model: Model, vectors: Sequence[NDArray[np.float32]], entropy: str, nmse: float) -> float:
    """Bits a coordinate of the entropy-coded residual of sampled vectors beyond ideal entropy-coded Z."""
    encoder = Codec(model.layout, CodecConfig("none", lattice="Z", nmse=nmse, entropy=entropy)).encoder()
    bits, errors = 0, []
    for step, vector in enumerate(vectors):
        encoder.encode(torch.from_numpy(vector), step)
        bits += encoder.last_report.symbol_bits
        errors.append(encoder.last_report.nmse)
    made = float(np.mean(errors))
    return bits / (len(vectors) * model.layout.size) - (model.scalar(made) if 0 < made < 1 else 0.0)


def limits_text(rows: Sequence[Data]) -> str:
    """A table of hundredths of a bit, in Markdown."""
    cells = []
    for row in rows:
        shares = [None if row[name] is None else f"{100 * row[name]:.1f}" for name in LIMIT_COLUMNS[5:]]
        figures = [f"{row['nmse']:.3g}", f"{row['bits']:.4f}", f"{row['bound']:.4f}"]
        cells.append([row["coder"], row["setting"], *figures, *(share or "" for share in shares)])
    return (
        f"Bits a coordinate above the bound of the model: {MODEL}, its variances and shapes known to both ends.\n"
        f"What follows the bound is in hundredths of a bit.\n\n{table(LIMIT_COLUMNS, cells, num_text=2)}"
    )
