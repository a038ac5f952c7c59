"""What an archive is, and what is refused in every kind of archive."""

import io
import itertools
import lzma
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from reprobuild.digest import Digest
from reprobuild.errors import BadInput

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Kind = Literal["file", "directory", "symlink", "hardlink", "character-device", "block-device", "fifo"]
#: ``portable``: names and links that mean the same on every system, as wheels and sdists hold.
#: ``posix``: also what a root file system may hold: backslashes, absolute link targets.
Names = Literal["portable", "posix"]

#: Bytes that all members of one archive may claim together.
SIZE_LIMIT = 64 << 30
#: Entries that one archive may have.
ENTRY_LIMIT = 1_000_000
#: Characters of a member's name: PATH_MAX of Linux, less the NUL at its end.
_NAME_LIMIT = 4095
_DRIVE = re.compile(r"[A-Za-z]:")
CHUNK = 1 << 20

AGAIN = "Download or build it again; don't use this copy."
UNSAFE = "Don't unpack it. Ask whoever made it for an archive without such members."
#: What parsers raise on hostile bytes.
HOSTILE = (
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RecursionError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive.

    Attributes:
        name: the path, with no ``./`` in front and no ``/`` at the end.
        size: bytes of content, unpacked.
        mode: permission bits; 0 in a zip that records none.
        mtime: text as stored: UTC with a Z in a tar, local time without a zone in a zip.
        order: position in the archive, from 0.
        target: what a link points at; ``major:minor`` of a device.
        stored_name: the name as the archive spells it.
        offset: where its local header (zip) or its content (tar, unpacked) starts, in bytes.
        seconds: tar only, the time in whole seconds since 1970.
        owner: tar only, ``uid:gid user:group``.
        attributes: tar only, extended attributes.
        digest: SHA-256 of the content, where opening the archive gave it for free (not in a zip).
        extra: zip: the extra bytes of the central directory; tar: other PAX records, one a line.
        crc, compressed_size, method and what follows: zip only, from the central directory.
        directory_offset: where the member's record in the central directory starts, in bytes.
    """

    name: str
    kind: Kind
    size: int
    mode: int
    mtime: str
    order: int
    target: str = ""
    stored_name: str = ""
    offset: int = 0
    seconds: int = 0
    owner: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    digest: Digest | None = None
    extra: bytes = b""
    crc: int = 0
    compressed_size: int = 0
    method: int = 0
    create_system: int = 0
    create_version: int = 0
    extract_version: int = 0
    flags: int = 0
    external_attr: int = 0
    comment: bytes = b""
    directory_offset: int = 0


@dataclass(frozen=True)
class Archive:
    """An open archive. Its streams share one file position: read one at a time, to its end.

    Attributes:
        kind: ``zip``, ``tar``, ``tar.gz``, ``tar.xz``, ``tar.bz2``; ``gz``, ``xz``, ``bz2`` for one
            compressed file, which is the entry ``content``.
        name: what messages call the archive.
        entries: in the order of the archive.
        header: what the archive says of itself, such as the time in a gzip header.
        raw: an entry's content as it is stored (compressed in a zip), in pieces of 1 MiB but the
            last. Raises BadInput when it can't be found. A single compressed file has none.
    """

    kind: str
    name: str
    entries: tuple[Entry, ...]
    header: dict[str, str]
    raw: Callable[[Entry], Iterator[bytes]] = field(repr=False)
    _content: Callable[[Entry], Iterator[bytes]] = field(repr=False)
    _place: Callable[[Entry], tuple[BinaryIO, int] | None] = field(repr=False)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file in pieces of up to 1 MiB, checked against its declared size and CRC at the end.

        Raises:
            BadInput: while reading, when the content isn't what was declared.
        """
        return self._content(entry)

    def open(self, entry: Entry) -> BinaryIO:
        """The content of a file as a stream, checked in the same way."""
        return as_stream(self._content(entry))

    def in_place(self, entry: Entry) -> BinaryIO | None:
        """A file's content as a seekable part of the archive itself, unchecked; None where it is compressed.

        Raises:
            BadInput: it can't be found.
        """
        with refusing(self.name):
            place = self._place(entry)
        return None if place is None else cast("BinaryIO", io.BufferedReader(_Part(*place, entry.size), 1 << 16))


def bad(name: str, what: str, remedy: str = AGAIN) -> BadInput:
    """The refusal of an archive: ``name`` and ``what`` make one sentence."""
    return BadInput(f"{name} {what}.", remedy)


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """The one boundary where a parser's complaint becomes BadInput."""
    try:
        yield
    except HOSTILE as error:
        raise bad(name, f"is damaged ({error})") from error


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        into = memoryview(buffer).cast("B")
        length = min(len(into), len(self._rest))
        into[:length] = self._rest[:length]
        self._rest = self._rest[length:]
        return length


class _Part(io.RawIOBase):
    """Some bytes of a seekable stream, which others may move meanwhile."""

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self._stream, self._start, self._size = stream, start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        into = memoryview(buffer).cast("B")
        self._stream.seek(self._start + self._at)
        data = self._stream.read(max(0, min(len(into), CHUNK, self._size - self._at)))
        into[: len(data)] = data
        self._at += len(data)
        return len(data)


def as_stream(chunks: Iterator[bytes]) -> BinaryIO:
    """A binary stream of pieces that are made as they are read."""
    return cast("BinaryIO", io.BufferedReader(_Chunks(chunks), 1 << 16))


def clean_name(stored: str, names: Names = "portable") -> str | None:
    """A member's name without ``./`` and trailing ``/``; None when it isn't safe to create."""
    unsafe = stored.startswith("/") or "\0" in stored or not stored
    if names == "portable":
        unsafe = unsafe or "\\" in stored or _DRIVE.match(stored) is not None
    parts = [part for part in stored.split("/") if part not in ("", ".")]
    return None if unsafe or ".." in parts else "/".join(parts)


def parents(name: str) -> Iterator[str]:
    """The folders above a member, nearest first, without the root."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def check_claims(archive: Archive, names: Names, size_limit: int) -> None:
    """Refuse what no honest archive declares.

    Raises:
        BadInput: too much content, an unsafe or repeated name, a link or a folder that escapes.
    """
    total = sum(entry.size for entry in archive.entries)
    if total > size_limit:
        raise bad(archive.name, f"claims {total} bytes, more than {size_limit}", UNSAFE)
    seen: dict[str, Kind] = {}
    for entry in archive.entries:
        if len(entry.stored_name) > _NAME_LIMIT:
            raise bad(archive.name, f"has a member name of {len(entry.stored_name)} characters", UNSAFE)
        name = clean_name(entry.stored_name, names)
        if name is None or (not name and entry.kind != "directory"):
            raise bad(archive.name, f"has the unsafe member name {entry.stored_name!r}", UNSAFE)
        if name in seen:
            raise bad(archive.name, f"has two members with the name {name!r}", UNSAFE)
        seen[name] = entry.kind
        if _escapes(entry, names):
            what = f"has a link {name!r} that leads outside, to {entry.target!r}"
            raise bad(archive.name, what, UNSAFE)
    # With the lowest character between folders, what lies below a name comes right behind it.
    for parent, name in itertools.pairwise(sorted(seen, key=lambda name: name.replace("/", "\0"))):
        if seen[parent] != "directory" and name.startswith(f"{parent}/"):
            raise bad(archive.name, f"puts {name!r} under {parent!r}, not a folder", UNSAFE)


def _escapes(entry: Entry, names: Names) -> bool:
    target = entry.target
    if entry.kind == "hardlink":
        return clean_name(target, names) is None
    if entry.kind != "symlink":
        return False
    if names == "posix":
        return not target or "\0" in target
    if not target or "\0" in target or re.match(r"/|.*\\|[A-Za-z]:", target, re.DOTALL):
        return True
    depth = entry.name.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return False
