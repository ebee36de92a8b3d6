"""What an encoder and a decoder have in common: the link, the rules and the shared state."""

import hashlib

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..forecast import Layout
from .coefficients import combine
from .config import CodecConfig
from .errors import ConfigError
from .groups import Groups
from .lattice import lattice_names
from .packet import Link
from .predictors import make_predictor
from .state import Keeping, SharedState

MAX_SIZE = 2**30  # coordinates of one packet; larger vectors are cut into shards with `Layout.slice`
MAX_KEY_BYTES = 64  # of blake2b


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
        self._groups = Groups(layout)
        self._predictor = make_predictor(config.predictor, layout, stream)
        self._link = Link(
            lattice_names().index(config.lattice),
            bytes.fromhex(config.digest)[:4],
            bytes.fromhex(layout.digest)[:8],
            hashlib.sha256(stream.encode()).digest()[:4],
        )
        coded = config.lattice != "raw"
        self._keeping = Keeping(
            layout.size,
            len(self._groups),
            self._predictor.num_rows if coded else 0,
            config.momentum if coded and self._predictor.uses_momentum else None,
            self._link.chain,
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

    def _prediction(
        self, coefficients: npt.NDArray[np.int16], basis: tuple[npt.NDArray[np.float32], ...]
    ) -> npt.NDArray[np.float32]:
        return combine(coefficients, basis, self._predictor.spans, self._layout.size)
