"""What an encoder and a decoder have in common: the link, the rules and the shared state."""

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..forecast import Layout
from .activity import matrices
from .body import Context
from .coding import Coding, ScalarCoding
from .coefficients import combine
from .compiled import COMPILED
from .config import CodecConfig
from .errors import ConfigError
from .lattice import lattice_names
from .lattice_coding import LatticeCoding
from .lattice_hexagonal_coding import HexagonalCoding
from .lattice_leech_coding import LeechCoding
from .lattice_points import vector_lattice_names
from .metric import power
from .packet import Due, Link
from .predictor_choice import make_predictor
from .run_coding import RunCoding
from .scale_classes import ScaleClasses
from .state import Keeping, SharedState
from .symbol_coder import SymbolCoder
from .tensor_tables import TensorTables
from .trellis import trellis_names
from .trellis_coding import TrellisCoding

ENTROPY_CODERS: dict[str, Callable[[Layout], SymbolCoder]] = {
    "scale_classes": ScaleClasses,
    "tensor_tables": TensorTables,
}
MAX_SIZE = 2**30  # coordinates of one packet; larger vectors are cut into shards with `Layout.slice`
MAX_KEY_BYTES = 64  # of blake2b


def make_codings(layout: Layout, config: CodecConfig) -> tuple[Coding, ...]:
    """The codings that packets may be in: one for each lattice that a configuration names or leaves open."""
    return tuple(_make_coding(layout, config, name) for name in config.lattices)


def coder_number(config: CodecConfig) -> int:
    """What packets say their lattices are: the place in `lattice_names()`, that of `auto` where several are open."""
    return lattice_names().index(config.lattices[0] if len(config.lattices) == 1 else config.lattice)


def _make_coding(layout: Layout, config: CodecConfig, lattice: str) -> Coding:
    if lattice in vector_lattice_names():
        return LatticeCoding(layout, lattice, config.dead_zone)
    if lattice == "A2":
        return HexagonalCoding(layout, config.dead_zone)
    if lattice == "Leech":
        return LeechCoding(layout, config.dead_zone)
    if lattice in trellis_names():
        return TrellisCoding(layout, lattice, config.dead_zone)
    if config.entropy == "runs":
        if not COMPILED:
            return RunCoding(layout, config.dead_zone)
        from .run_coding_compiled import CompiledRunCoding

        return CompiledRunCoding(layout, config.dead_zone)
    return ScalarCoding(ENTROPY_CODERS[config.entropy](layout), matrices(layout), config.dead_zone)


class Endpoint:
    """One end of a link; `Encoder` and `Decoder` are the two kinds.

    Args:
        layout: what is coded.
        config: how.
        stream: the name of the coded stream.
        key: secret of the message authentication code, at most 64 bytes; `None` for none.

    Raises:
        ConfigError: if the layout is too large, the key too long, or the predictor does not fit the stream.
    """

    def __init__(self, layout: Layout, config: CodecConfig, stream: str, key: bytes | None) -> None:
        if layout.size > MAX_SIZE:
            raise ConfigError(
                f"A packet holds at most {MAX_SIZE} coordinates, the layout has {layout.size}. "
                "Cut it with `Layout.slice`."
            )
        if key is not None and not 0 < len(key) <= MAX_KEY_BYTES:
            raise ConfigError(f"`key` must have 1 to {MAX_KEY_BYTES} bytes, got {len(key)}.")
        self._layout = layout
        self._config = config
        self._key = key
        self._matrices = matrices(layout)
        self._lattices = config.lattices
        self._codings = make_codings(layout, config)
        self._predictor = make_predictor(config.predictor, layout, stream)
        self._link = Link(
            coder_number(config),
            bytes.fromhex(config.digest)[:4],
            bytes.fromhex(layout.digest)[:8],
            hashlib.sha256(stream.encode()).digest()[:4],
        )
        coded = config.lattice != "raw"
        self._keeping = Keeping(
            layout.size,
            max(coding.num_offsets for coding in self._codings) if coded else 0,
            max(coding.num_tables for coding in self._codings) if coded else 0,
            self._codings[0].keeps_activity and coded,
            self._predictor.num_rows if coded else 0,
            config.momentum if coded and self._predictor.uses_momentum else None,
            config.metric_decay if coded and config.metric == "adam" else None,
            self._link.chain,
            self._predictor.memory,
        )
        self._state = self._keeping.initial()

    @property
    def layout(self) -> Layout:
        """What is coded."""
        return self._layout

    @property
    def config(self) -> CodecConfig:
        """How it is coded."""
        return self._config

    @property
    def identity(self) -> bytes:
        """Digest of what both ends must share: coder, configuration, layout and stream."""
        return self._link.identity

    @property
    def last_step(self) -> int:
        """The step of the last packet, -1 before any."""
        return self._state.last_step

    def reset(self) -> None:
        """Forget everything, as if newly made: for a peer that was restarted at an earlier step."""
        self._state = self._keeping.initial()

    def state_dict(self) -> dict[str, Tensor]:
        """The shared state as plain tensors, for checkpoints. The key is not in it."""
        return self._keeping.to_dict(self._state, self._link.identity)

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave; coding goes on as if it had never stopped.

        Raises:
            StateError: if it belongs to another layout, configuration or stream, or is damaged. Nothing changes then.
        """
        self._state = self._keeping.from_dict(saved, self._link.identity)

    def _key_frame_base(self, sequence: int) -> SharedState:
        """The state that a key frame is coded against: the initial one, with the key frame's number due."""
        return self._keeping.initial()._replace(sequence=sequence)

    def _context(self, base: SharedState) -> Context:
        """What a body is written or read against."""
        weighted = base.moment.numel() > 0 and base.num_updates > 0
        return Context(self._codings, base.coder, base.offsets, len(self._matrices), weighted)

    def _lacking(self, base: SharedState) -> float:
        """What the running mean of squares lacks for having begun at zero."""
        return 1 - power(self._config.metric_decay, base.num_updates)

    def _due(self) -> Due:
        """What is known of the packet that comes next."""
        return Due(self._state.sequence, self._state.last_step, self._state.chain)

    def _prediction(
        self, coefficients: npt.NDArray[np.int16], basis: tuple[npt.NDArray[np.float32], ...]
    ) -> npt.NDArray[np.float32] | None:
        """The prediction, `[param]`, or `None` where all coefficients are 0."""
        if not coefficients.any():
            return None
        return combine(coefficients, basis, self._predictor.spans, self._layout.size)
