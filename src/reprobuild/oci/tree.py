"""What goes into a layer: files, folders and links, with all that a tar header says of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from reprobuild.archive import DEFLATED, Entry, zip_content, zip_raw
from reprobuild.digest import chunks_of
from reprobuild.errors import BadInput

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
    """

    crc: int
    size: int
    raw_size: int
    raw: Iterable[bytes]


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

    @property
    def size(self) -> int:
        return self.entry.size

    def chunks(self) -> Iterator[bytes]:
        return self._read(zip_content)

    def deflated(self) -> Deflated | None:
        entry = self.entry
        if entry.method != DEFLATED:
            return None
        return Deflated(entry.crc, entry.size, entry.compressed_size, self._read(zip_raw))

    def _read(self, how: Callable[[BinaryIO, str, Entry], Iterator[bytes]]) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as stream:
                yield from how(stream, str(self.path), self.entry)
        except OSError as error:
            raise BadInput(f"{self.path} can't be read: {error.strerror}.") from error


def wheel_content(path: Path, entry: Entry) -> Content:
    """A file in a wheel, or another zip, as the content of a node.

    Each reading opens the file by itself: any number of threads may read from one wheel, and nothing stays open.

    Args:
        path: the wheel, which nobody changes meanwhile.
        entry: from :func:`reprobuild.archive.open_archive`, which checked the wheel's directory.
    """
    return _InZip(path, entry)


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
