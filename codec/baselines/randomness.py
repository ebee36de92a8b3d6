"""Random numbers that a seed and a step fix, the same on every machine.

Philox is used for its raw 64-bit words alone, whose sequence numpy guarantees; what is made of them is exact.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def uniform(seed: int, step: int, purpose: str, count: int) -> npt.NDArray[np.float64]:
    """Multiples of 2^-53 from 0 to below 1, `[count]`.

    Args:
        seed: of the link. Workers whose errors should average out need different ones.
        step: of the packet.
        purpose: keeps the draws of different methods apart.
        count: how many.
    """
    return (_words(seed, step, purpose, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def signs(seed: int, step: int, purpose: str, count: int) -> npt.NDArray[np.float64]:
    """Values -1 and 1 with equal chance, `[count]`; arguments as for `uniform`."""
    words = _words(seed, step, purpose, (count + 63) // 64)
    bits = np.unpackbits(np.frombuffer(words.astype("<u8").tobytes(), np.uint8))[:count]
    return 1.0 - 2.0 * bits.astype(np.float64)


def _words(seed: int, step: int, purpose: str, count: int) -> npt.NDArray[np.uint64]:
    text = f"{purpose} {seed} {step}"
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Philox(key=key).random_raw(count)
