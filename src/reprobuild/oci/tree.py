"""What goes into a layer: files, folders and links, with all that a tar header says of them."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from reprobuild.archive import DEFLATED, Entry, zip_content, zip_raw, zip_start
from reprobuild.digest import chunks_of
from reprobuild.errors import BadInput, shown

#: The time of everything that comes out of a wheel, in seconds since 1970: the first moment that a zip can hold,
#: so that a layer of wheels is the same whenever it is made. What comes from elsewhere has the epoch.
WHEEL_TIME = 315_532_800


@dataclass(frozen=True, slots=True)
class Deflated:
    """Content that is compressed already (RFC 1951), as it lies in a zip.

    Attributes:
        crc: CRC-32 of the content.
        size: bytes of the content.
        raw_size: bytes of the deflate stream.
        raw: the stream's bytes, in pieces.
        record: what RECORD says of the content, if anything; whoever inflates the stream checks it.
    """

    crc: int
    size: int
    raw_size: int
    raw: Iterable[bytes]
    record: str = ""


class Range:
    """The stored bytes of a member of a zip, in pieces.

    Attributes:
        path: the zip.
        start: where in it they start; known once the first piece was asked for.
    """

    def __init__(self, path: Path, entry: Entry) -> None:
        self.path, self.start = path, -1
        self._entry = entry

    def __iter__(self) -> Iterator[bytes]:
        with _opened(self.path) as stream:
            self.start = zip_start(stream, str(self.path), self._entry)
            yield from zip_raw(stream, str(self.path), self._entry, self.start)


class Recorded:
    """A check of content against what RECORD says of it; of nothing, where that is nothing.

    Args:
        record: algorithm and digest, such as ``sha256=…`` (base64, URL-safe, without padding).
    """

    def __init__(self, record: str) -> None:
        self._algorithm, _, self._digest = record.partition("=")
        self._hasher = hashlib.new(self._algorithm) if record else None

    def update(self, piece: bytes) -> None:
        """The next piece of the content."""
        if self._hasher:
            self._hasher.update(piece)

    def end(self, path: str) -> None:
        """Raises BadInput where the pieces aren't what RECORD says."""
        if self._hasher and base64.urlsafe_b64encode(self._hasher.digest()).rstrip(b"=").decode() != self._digest:
            raise BadInput(
                f"{shown(path)!r} has another {self._algorithm} than RECORD says.",
                "Whoever made the wheel changed it by hand: ask them to build it again.",
            )


class Content(Protocol):
    """The bytes of one file; it can be read more than once, and by one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces of up to 1 MiB. Raises BadInput where they aren't what was declared."""

    def deflated(self) -> Deflated | None:
        """The same as a deflate stream, if it lies there as one."""


@dataclass(frozen=True, slots=True)
class Text:
    """Content that is at hand."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data

    def deflated(self) -> Deflated | None:
        return None


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The content of a file on disk."""

    path: Path
    size: int

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb") as stream:
            yield from chunks_of(stream)

    def deflated(self) -> Deflated | None:
        return None


@dataclass(frozen=True, slots=True)
class _InZip:
    path: Path
    entry: Entry
    record: str

    @property
    def size(self) -> int:
        return self.entry.size

    def chunks(self) -> Iterator[bytes]:
        recorded = Recorded(self.record)
        with _opened(self.path) as stream:
            for chunk in zip_content(stream, str(self.path), self.entry):
                recorded.update(chunk)
                yield chunk
        recorded.end(f"{self.path.name}: {self.entry.name}")

    def deflated(self) -> Deflated | None:
        entry = self.entry
        if entry.method != DEFLATED:
            return None
        return Deflated(entry.crc, entry.size, entry.compressed_size, Range(self.path, entry), self.record)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.") from error


def wheel_content(path: Path, entry: Entry, record: str = "") -> Content:
    """A file in a wheel, or another zip, as the content of a node.

    Each reading opens the file by itself: any number of threads may read from one wheel, and nothing stays open.

    Args:
        path: the wheel, which nobody changes meanwhile.
        entry: from :func:`reprobuild.archive.open_archive`, which checked the wheel's directory.
        record: what RECORD says of the file, to be checked when it is read.
    """
    return _InZip(path, entry, record)


@dataclass(frozen=True, slots=True)
class Node:
    """One thing in a layer.

    Attributes:
        path: relative to the root, with ``/`` between its parts and none at either end; never with ``..`` or ``.``.
        mode: permission bits.
        mtime: seconds since 1970.
        target: what a symbolic link says.
        content: of a file.
    """

    path: str
    kind: Literal["file", "directory", "symlink"]
    mode: int
    mtime: int
    uid: int = 0
    gid: int = 0
    target: str = ""
    content: Content | None = None


def has_long_name(path: str) -> bool:
    """Whether no file system that runs containers could hold a path: a name in it has more than 255 bytes."""
    return any(len(name) > 255 for name in path.encode().split(b"/"))
