"""A spliced layer as its difference from the wheels that most of its bytes lie in.

What a layer has beside them, headers of tar and gzip and what an installer writes, is little. Kept together with where
the rest lies, it gives the same layer again without a look at any single file. Nothing is checked here: that the layer
has the digest which it had is the proof that the wheels, and what was kept, are what they were.
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reprobuild.errors import BadInput
from reprobuild.files import read_kept

#: Bytes of its own that a layer may have; one with more holds content that isn't compressed, and is written anew.
LIMIT = 32 << 20
_MAGIC = b"reprobuild delta 1\n"
_COUNTS = struct.Struct("<QQ")
_STEP = 4  # numbers for each range: bytes of the layer's own before it, which source, where in it, how many bytes
#: Bytes that are read, hashed and written at a time: whole pages of the file, and what a processor keeps at hand.
_BUFFER = 1 << 20
_DAMAGED = "What is remembered of a layer doesn't fit its wheels."


@dataclass(frozen=True, slots=True)
class Delta:
    """How to put a layer together.

    Attributes:
        steps: four numbers for each range of a source, as :data:`_STEP` says; they come in the layer's order.
        own: the bytes of the layer that lie in no source.
    """

    steps: "array[int]"
    own: bytes | memoryview

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was kept in a file; None where there is none, or it is damaged."""
        data = memoryview(read_kept(path) or b"")
        try:
            steps, own = _COUNTS.unpack_from(data, len(_MAGIC))
        except struct.error:
            return None
        start = len(_MAGIC) + _COUNTS.size
        end = start + 8 * _STEP * steps
        if data[: len(_MAGIC)] != _MAGIC or len(data) != end + own:
            return None
        return cls(_little(array("Q", data[start:end].tobytes())), data[end:])

    def encoded(self) -> Iterator[bytes]:
        """For :meth:`read`, in pieces."""
        yield _MAGIC + _COUNTS.pack(len(self.steps) // _STEP, len(self.own))
        yield _little(self.steps).tobytes()
        yield bytes(self.own)

    @property
    def size(self) -> int:
        """Bytes of the layer."""
        return len(self.own) + sum(self.steps[3::_STEP])

    def pieces(self, sources: Sequence[Path]) -> Iterator[memoryview]:
        """The layer, in pieces of :data:`_BUFFER` bytes but for the last; each is overwritten by the next.

        Args:
            sources: the wheels, in the order of when it was recorded.

        Raises:
            BadInput: a source can't be read, or isn't the one it was.
        """
        buffer, filled = memoryview(bytearray(_BUFFER)), 0
        with ExitStack() as stack:
            for source, start, size in self._ranges([_open(path, stack) for path in sources]):
                at, end = start, start + size
                while at < end:
                    count = _fill(buffer[filled : filled + end - at], source, at)
                    at += count
                    filled += count
                    if filled == len(buffer):
                        yield buffer
                        filled = 0
        yield buffer[:filled]

    def _ranges(self, files: Sequence[int]) -> Iterator[tuple[int | memoryview, int, int]]:
        """What comes after what: a file or the layer's own bytes, where in it, and how many bytes."""
        own, at = memoryview(self.own), 0
        numbers = iter(self.steps)
        for before, number, start, size in zip(numbers, numbers, numbers, numbers, strict=True):
            yield own, at, before
            at += before
            if number >= len(files):
                raise BadInput(_DAMAGED)
            yield files[number], start, size
        yield own, at, len(own) - at


def _little(numbers: "array[int]") -> "array[int]":
    """The same with the bytes of each in the order of a file, or back."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def _open(path: Path, stack: ExitStack) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.") from error
    stack.callback(os.close, file)
    return file


def _fill(room: memoryview, source: int | memoryview, at: int) -> int:
    """Read as much as there is room for, or less; how many bytes that were."""
    if isinstance(source, int):
        try:
            count = os.preadv(source, [room], at)
        except (OSError, OverflowError) as error:
            raise BadInput(f"A wheel can't be read: {error}.") from error
    else:
        there = source[at : at + len(room)]
        count = len(there)
        room[:count] = there
    if not count:
        raise BadInput(_DAMAGED)
    return count


class Recorder:
    """Keeps what is written to a layer as a delta.

    Args:
        sources: the wheels that ranges may come from.
    """

    def __init__(self, sources: Iterable[Path]) -> None:
        self._numbers = {path: number for number, path in enumerate(sources)}
        self._own, self._since = bytearray(), 0
        self._steps = array("Q")

    def wrote(self, data: bytes) -> None:
        """Bytes of the layer's own."""
        if len(self._own) <= LIMIT:
            self._own += data
        self._since += len(data)

    def copied(self, path: Path, start: int, size: int) -> None:
        """A range of a wheel."""
        self._steps.extend((self._since, self._numbers[path], start, size))
        self._since = 0

    @property
    def delta(self) -> Delta | None:
        """What was kept; None where it is too much."""
        return Delta(self._steps, bytes(self._own)) if len(self._own) <= LIMIT else None
