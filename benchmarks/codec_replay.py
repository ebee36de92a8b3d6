"""Sending recorded vectors through a codec whose decoder runs in another process.

The encoder runs here. The decoding process is given the layout, the name of a contestant and the packets, and never a
vector; what it decodes must be equal, bit for bit, to what the encoder believes.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from record_streams import RecordedWindow
from torch import Tensor

from deadreckon.forecast import Layout

SPACED_KINDS = ("pseudo_gradients", "weights")  # one vector every `local_steps`


class Sender(Protocol):
    """The encoder's side of a link."""

    def encode(self, vector: Tensor, step: int, /) -> bytes:
        """One vector as a packet."""
        ...

    @property
    def reconstruction(self) -> Tensor:
        """What the decoder makes of the last packet."""
        ...


class Receiver(Protocol):
    """The decoder's side of a link."""

    def decode(self, packet: bytes, /) -> Tensor:
        """The vector of a packet."""
        ...


class Link(Protocol):
    """Makes both sides."""

    def encoder(self) -> Sender:
        """A new one."""
        ...

    def decoder(self) -> Receiver:
        """A new one."""
        ...


Contestant = Callable[[Layout, float], Link]


class Packet(NamedTuple):
    """What one packet of a replay cost and gave."""

    num_bits: int
    nmse: float
    seconds: float


def digest_of(vector: Tensor) -> bytes:
    """Of a vector's float32 bytes."""
    return hashlib.sha256(vector.numpy().astype("<f4").tobytes()).digest()


def serve(pipe: Connection, lookup: Callable[[str], Contestant]) -> None:
    """The decoding process: for each replay the link's terms, then packets, then digests of what they decode to."""
    torch.set_num_threads(1)
    with contextlib.suppress(
        EOFError, ConnectionError
    ):  # the other process has ended, perhaps in the middle of a replay
        while True:
            layout, contestant, nmse = pipe.recv()
            decoder = lookup(contestant)(Layout.from_dict(layout), nmse).decoder()
            pipe.send([digest_of(decoder.decode(packet)) for packet in iter(pipe.recv_bytes, b"")])


@cache
def decoding_process(lookup: Callable[[str], Contestant]) -> Connection:
    """The pipe to this process's own decoding process, which ends with it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(there, lookup), daemon=True).start()
    there.close()
    return here


def replay(
    vectors: Iterable[NDArray[np.float32]],
    steps: Iterable[int],
    layout: Layout,
    contestant: str,
    nmse: float,
    lookup: Callable[[str], Contestant],
) -> Iterator[tuple[Packet, Tensor]]:
    """Send vectors to the decoding process; what each cost, and what was decoded.

    Raises:
        AssertionError: after the last one, if something was decoded to other bits than the encoder believes.
    """
    pipe = decoding_process(lookup)
    pipe.send((layout.to_dict(), contestant, nmse))
    encoder = lookup(contestant)(layout, nmse).encoder()
    digests: list[bytes] = []
    for vector, step in zip(vectors, steps, strict=False):
        given = torch.from_numpy(np.array(vector))
        began = time.perf_counter()
        packet = encoder.encode(given, step)
        seconds = time.perf_counter() - began
        pipe.send_bytes(packet)
        decoded = encoder.reconstruction
        digests.append(digest_of(decoded))
        energy = float(given.double().square().sum())
        error = float((decoded.double() - given.double()).square().sum())
        yield Packet(8 * len(packet), error / energy if energy else 0.0, seconds), decoded
    pipe.send_bytes(b"")
    if pipe.recv() != digests:
        raise AssertionError(f"{contestant} at NMSE {nmse}: the decoder's vectors are not the encoder's.")


def steps_of(window: RecordedWindow, kind: str) -> Iterator[int]:
    """The optimiser steps of a window's vectors."""
    return itertools.count(window.metadata.first_step, window.metadata.local_steps if kind in SPACED_KINDS else 1)


def spread(function: Callable[[Any], Any], cases: Sequence[Any], jobs: int) -> Iterator[Any]:
    """Results in order of cases, from this process or from several."""
    if jobs == 1:
        yield from map(function, cases)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(function, cases)
