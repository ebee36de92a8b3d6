"""Python text: which byte comes next in the standard library of the interpreter that runs this."""

import hashlib
import platform
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from .shakespeare import CONTEXT, HELD_OUT_STRIDE
from .task import Split, TaskData

ATTRIBUTION = (
    "The standard library of Python {version} on the machine that this ran on, {count} files, SHA-256 {digest}: "
    "copyright Python Software Foundation and others, PSF licence. Other versions of Python have another text."
)
MAX_FILES = 200  # the largest ones: a text of some megabytes
MIN_FILES = 8  # fewer cannot be cut into four sets of whole files
NUM_SYMBOLS = 256  # bytes
# Of 20 files in the order of their digests the first 17 are learned from, and one goes to each of the other sets.
TURNS = (*("train",) * 17, "verify", "tune", "test")


def load_stdlib(data: str | None = None) -> TaskData:
    """Contexts of 32 bytes of Python's own modules and the byte that follows, one of 256. Needs no file of its own.

    The text is whatever interpreter runs this: compare results only where the digest in the attribution is the same.
    Whole files belong to a set, so that no line of a file that is learned from is tested on. Which file goes where
    follows from the digest of its bytes, not from the order in which the machine lists them.

    Args:
        data: another folder whose `.py` files, those of its subfolders left out, are the text.

    Raises:
        DataError: if the folder holds too few of them.
    """
    folder = Path(data) if data is not None else Path(sysconfig.get_paths()["stdlib"])
    texts = _texts(folder)
    digest = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).hexdigest()
    parts: dict[str, list[bytes]] = {name: [] for name in TURNS}
    for place, text in enumerate(texts):
        parts[TURNS[-1 - place % len(TURNS)]].append(text)  # from the end: few files too reach every set
    train, verify, tune, test = (_contexts(parts[name], 1 if name == "train" else HELD_OUT_STRIDE) for name in parts)
    attribution = ATTRIBUTION.format(version=platform.python_version(), count=len(texts), digest=digest)
    return TaskData("stdlib", train, verify, tune, test, NUM_SYMBOLS, (CONTEXT,), attribution, NUM_SYMBOLS)


def _texts(folder: Path) -> list[bytes]:
    """The largest modules of a folder, without repetitions, in the order of their digests."""
    try:
        files = sorted(path for path in folder.glob("*.py") if path.is_file())
        texts = {hashlib.sha256(text).digest(): text for text in (path.read_bytes() for path in files)}
    except OSError as error:
        raise DataError(f"The text of {folder} cannot be read: {error}.") from error
    long_enough = {digest: text for digest, text in texts.items() if len(text) > 10 * (CONTEXT + 1)}
    if len(long_enough) < MIN_FILES:
        raise DataError(f"{folder} must hold at least {MIN_FILES} different Python files, got {len(long_enough)}.")
    largest = sorted(long_enough, key=lambda digest: (-len(long_enough[digest]), digest))[:MAX_FILES]
    return [long_enough[digest] for digest in sorted(largest)]


def _contexts(texts: Sequence[bytes], stride: int) -> Split:
    """Contexts and next bytes of several texts put end to end; contexts are views."""
    symbols: Tensor = torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8).long()
    windows = symbols.unfold(0, CONTEXT + 1, stride)
    return Split(windows[:, :CONTEXT], windows[:, CONTEXT])
