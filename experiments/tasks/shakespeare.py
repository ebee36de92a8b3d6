"""Tiny Shakespeare: which character comes next, found on this machine or fetched."""

import hashlib

import torch

from ..errors import DataError
from .fetch import RemoteFile, find_files
from .task import Split, TaskData

ATTRIBUTION = (
    "Tiny Shakespeare: plays of W. Shakespeare, text in the public domain, as put together by A. Karpathy for char-rnn "
    "(2015), https://github.com/karpathy/char-rnn."
)
# The commit's own address: what lies there cannot change.
BASE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/"
)
TEXT = RemoteFile(
    "tinyshakespeare.txt",
    1_115_394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    source="input.txt",
)
CONTEXT = 32  # characters that are seen
TRAIN_SHARE = 0.9  # of the text, from its beginning; the rest is cut into three equal stretches
ANY_BYTE = bytes(range(256))
HELD_OUT_STRIDE = 8  # characters between two contexts of the held-out sets; in training every one begins a context


def load_shakespeare(data: str | None = None) -> TaskData:
    """A million contexts of 32 characters and the character that follows, one of 65.

    The sets are stretches of the text: training its first nine tenths, then verify, tune and test; no character is in
    two of them.

    Args:
        data: a folder with `tinyshakespeare.txt`; see `find_files` for where it is looked for without it.

    Raises:
        DataError: if the file cannot be found or fetched, or is another text.
    """
    text = _text(data)
    train, verify, tune, test = split_text(text)
    num_symbols = len(set(text))
    return TaskData("shakespeare", train, verify, tune, test, num_symbols, (CONTEXT,), ATTRIBUTION, num_symbols)


def load_shakespeare_bytes(data: str | None = None) -> TaskData:
    """The same contexts, but of bytes, one of 256: for a network that reads other texts too.

    Args:
        data: as for `load_shakespeare`.

    Raises:
        DataError: likewise.
    """
    train, verify, tune, test = split_text(_text(data), ANY_BYTE)
    num_symbols = len(ANY_BYTE)
    return TaskData("shakespeare_bytes", train, verify, tune, test, num_symbols, (CONTEXT,), ATTRIBUTION, num_symbols)


def _text(data: str | None) -> bytes:
    path = find_files("tinyshakespeare", (TEXT,), data, BASE_URL) / TEXT.name
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != TEXT.sha256:
        raise DataError(f"{path} is another text than {TEXT.name} should be. Delete it and fetch it again.")
    return text


def split_text(text: bytes, symbols_of: bytes | None = None) -> list[Split]:
    """Contexts and next characters of four stretches of a text, symbols numbered in the order of their bytes.

    Contexts are views into the text, so that a million of them take no more memory than it does.

    Args:
        text: any.
        symbols_of: bytes that get a number, those of the text at least; those of the text when not given.
    """
    alphabet = torch.tensor(sorted(set(text if symbols_of is None else symbols_of)))
    symbols = torch.searchsorted(alphabet, torch.frombuffer(bytearray(text), dtype=torch.uint8).long())
    num_train = int(TRAIN_SHARE * len(symbols))
    stretches = [symbols[:num_train], *symbols[num_train:].tensor_split(3)]
    strides = (1, HELD_OUT_STRIDE, HELD_OUT_STRIDE, HELD_OUT_STRIDE)
    windows = [part.unfold(0, CONTEXT + 1, stride) for part, stride in zip(stretches, strides, strict=True)]
    return [Split(part[:, :CONTEXT], part[:, CONTEXT]) for part in windows]
