"""What goes into a layer: files, folders and links, with all that a tar header says of them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from reprobuild.digest import chunks_of

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
