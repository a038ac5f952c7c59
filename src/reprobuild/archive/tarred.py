"""Tar files, plain or compressed, and single compressed files: read, written, unpacked."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import shutil
import struct
import sys
import tarfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Literal, cast

from reprobuild.archive.model import (
    CHUNK,
    ENTRY_LIMIT,
    HOSTILE,
    SIZE_LIMIT,
    UNSAFE,
    Archive,
    Entry,
    Kind,
    as_stream,
    bad,
    check_claims,
    clean_name,
    parents,
    refusing,
)
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, ToolMissing, WriteFailed

_HEADER_LIMIT = 16 << 20  # bytes of one header extension: tarfile reads each in one piece
_COMPRESSED = {b"\x1f\x8b": "gz", b"\xfd7zXZ\0": "xz", b"BZh": "bz2"}


def stream_kind(stream: BinaryIO) -> str | None:
    """The kind of archive that a seekable stream is, from its bytes; left at its start."""
    stream.seek(0)
    head = stream.read(512)
    stream.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    for magic, kind in _COMPRESSED.items():
        if head.startswith(magic):
            try:
                inner = decompressed(stream, kind).read(512)
            except HOSTILE:
                return kind
            finally:
                stream.seek(0)
            return f"tar.{kind}" if inner[257:262] == b"ustar" else kind
    return None


def decompressed(stream: BinaryIO, kind: str) -> BinaryIO:
    """What a tar or a single file of some kind is before its compression, from the stream's position on."""
    if kind.endswith("gz"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if kind.endswith("xz"):
        return cast("BinaryIO", lzma.LZMAFile(stream))
    if kind.endswith("bz2"):
        return cast("BinaryIO", bz2.BZ2File(stream))
    if kind.endswith("zst"):
        return cast("BinaryIO", _Unzstd(stream))
    return stream


def zstd() -> ModuleType:
    """The zstd library: Python's own from 3.14 on, before that its backport.

    Raises:
        ToolMissing: it isn't installed.
    """
    try:
        return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError as error:
        raise ToolMissing(
            "There is no zstd library here.", "Install reprobuild[zstd] instead of reprobuild."
        ) from error


class _Unzstd:
    """What zstd compressed; its complaints are those of other formats."""

    def __init__(self, stream: BinaryIO) -> None:
        self._library = zstd()
        self._file = self._library.ZstdFile(stream)

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._file.read(size))
        except self._library.ZstdError as error:
            raise ValueError(str(error)) from error

    def seek(self, position: int) -> int:
        try:
            return int(self._file.seek(position))
        except self._library.ZstdError as error:
            raise ValueError(str(error)) from error

    def tell(self) -> int:
        return int(self._file.tell())


class _Guard:
    """What tarfile reads through: no huge read, no position past the limit, and no rewinding.

    tarfile looks at the last byte before each header; on a gzip stream that step back would inflate
    everything before it again, so that one byte is remembered.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._position = self._end = stream.tell()
        self._last = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or not 0 <= position <= self._limit:
            raise ValueError(f"a header points at byte {position}")
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT:
            raise ValueError(f"a header claims {size} bytes")
        if size == 1 and self._last and self._position == self._end - 1:
            self._position = self._end
            return self._last
        if self._position != self._end:
            self._stream.seek(self._position)
        data = self._stream.read(size)
        self._position += len(data)
        self._end = self._position
        self._last = data[-1:]
        return data


def open_tar(stream: BinaryIO, name: str, kind: str, size_limit: int) -> Archive:
    """Read every header, and every file once for its digest.

    Raises:
        BadInput: it is truncated, has members of unknown types, or claims too much.
    """
    header = _gzip_header(stream) if kind.endswith("gz") else {}
    # Headers and padding come on top of the content that the limit is about.
    guard = cast("BinaryIO", _Guard(decompressed(stream, kind), 2 * size_limit + (1 << 30)))

    def raw(entry: Entry) -> Iterator[bytes]:
        with refusing(name):
            guard.seek(entry.offset)
            yield from _read_exactly(guard, entry.size)

    def place(entry: Entry) -> tuple[BinaryIO, int] | None:
        return (guard, entry.offset) if kind == "tar" else None

    if not kind.startswith("tar"):
        return Archive(kind, name, (_single(guard, size_limit),), header, raw, raw, place)
    entries: list[Entry] = []
    total = 0
    with tarfile.open(fileobj=guard, mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header
            total += max(info.size, 0)
            if len(entries) >= ENTRY_LIMIT or total > size_limit:
                raise bad(name, f"has too much in it, from {info.name!r} on", UNSAFE)
            entries.append(_entry(guard, info, len(entries)))
        _check_end(guard, tar, name)
        header |= {f"pax {key}": value for key, value in tar.pax_headers.items()}
    return Archive(kind, name, tuple(entries), header, raw, raw, place)


def _check_end(guard: BinaryIO, tar: tarfile.TarFile, name: str) -> None:
    # tarfile stops at the first header it can't read, as if the archive ended there.
    guard.seek(tar.offset)
    block = guard.read(512)
    if len(block) != 512 or any(block):
        raise bad(name, "is a truncated or damaged tar file")
    while block := guard.read(CHUNK):
        if any(block):
            raise bad(name, "holds more bytes after the end of the tar file", UNSAFE)


_TAR_KINDS: dict[bytes, Kind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "character-device",
    tarfile.BLKTYPE: "block-device",
    tarfile.FIFOTYPE: "fifo",
}
_KNOWN_PAX = {"path", "linkpath", "size", "mtime", "uid", "gid", "uname", "gname"}
_XATTR = ("SCHILY.xattr.", "LIBARCHIVE.xattr.")


def _entry(guard: BinaryIO, info: tarfile.TarInfo, order: int) -> Entry:
    kind = _TAR_KINDS.get(info.type)
    if kind is None or info.sparse is not None or info.size < 0:
        raise ValueError(f"{info.name!r} is of a type that isn't known here")
    size = info.size if kind == "file" else 0
    device = f"{info.devmajor}:{info.devminor}" if kind.endswith("device") else ""
    others = sorted(i for i in info.pax_headers.items() if i[0] not in _KNOWN_PAX)
    return Entry(
        name=clean_name(info.name, "posix") or "",
        kind=kind,
        size=size,
        mode=info.mode & 0o7777,
        mtime=_utc(info.pax_headers.get("mtime", str(info.mtime))),
        seconds=int(info.mtime),
        order=order,
        target=info.linkname if kind.endswith("link") else device,
        stored_name=info.name,
        offset=info.offset_data,
        owner=f"{info.uid}:{info.gid} {info.uname}:{info.gname}",
        attributes=tuple(item for item in others if item[0].startswith(_XATTR)),
        digest=_digest_at(guard, info.offset_data, size) if kind == "file" else None,
        extra="".join(f"{k}={v}\n" for k, v in others if not k.startswith(_XATTR)).encode("utf-8", "backslashreplace"),
    )


def _utc(seconds: str) -> str:
    whole, dot, fraction = seconds.partition(".")
    text = datetime.fromtimestamp(int(whole), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}{dot}{fraction}Z"


def _digest_at(guard: BinaryIO, offset: int, size: int) -> Digest:
    guard.seek(offset)
    return Digest.of_stream(as_stream(_read_exactly(guard, size)))


def _read_exactly(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(CHUNK, size))
        if not chunk:
            raise EOFError("it ends inside a member")
        size -= len(chunk)
        yield chunk


def _single(guard: BinaryIO, limit: int) -> Entry:
    size = 0

    def chunks() -> Iterator[bytes]:
        nonlocal size
        while chunk := guard.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise ValueError(f"it unpacks to more than {limit} bytes")
            yield chunk

    digest = Digest.of_stream(as_stream(chunks()))
    return Entry("content", "file", size, 0, "", 0, stored_name="content", digest=digest)


def _gzip_header(stream: BinaryIO) -> dict[str, str]:
    """Time, name, comment, level and system of the first gzip member (RFC 1952, section 2.3)."""
    stream.seek(0)
    head = stream.read(1 << 16)
    stream.seek(0)
    _, _, flags, time, level, system = struct.unpack_from("<2sBBLBB", head)
    at = 10
    found = {
        "gzip time": _utc(str(time)) if time else "0",
        "gzip level flag": str(level),
        "gzip system": str(system),
    }
    if flags & 4:
        length = int.from_bytes(head[at : at + 2], "little")
        found["gzip extra field"] = head[at + 2 : at + 2 + length].hex()
        at += 2 + length
    for bit, what in ((8, "gzip name"), (16, "gzip comment")):
        if flags & bit:
            text, _, _ = head[at:].partition(b"\0")
            found[what] = text.decode("latin-1")
            at += len(text) + 1
    return found


# --- writing and unpacking -----------------------------------------------------------------------

#: (name, mode, content): bytes are a file, a str is a symlink's target; a name that ends in ``/``
#: is a folder. Of the mode only the owner's execute bit counts.
Member = tuple[str, int, bytes | str]


def write_tar(stream: BinaryIO, members: Iterable[Member], *, mtime: int) -> None:
    """Write a tar whose bytes are a function of the arguments: owner 0, modes 644 and 755.

    USTAR where that can hold the name, PAX records (POSIX.1-2001) where it can't; in the given order.

    Args:
        mtime: of every member, in whole seconds since 1970.

    Raises:
        BadInput: a name is unsafe or comes twice.
    """
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for stored, mode, content in members:
            name = clean_name(stored)
            if not name or name in seen:
                raise BadInput(f"{stored!r} can't be in an archive: unsafe, or there already.")
            seen.add(name)
            info = tarfile.TarInfo(name)
            info.mtime = mtime
            info.mode = 0o755 if mode & 0o100 else 0o644
            if isinstance(content, str):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, content, 0o777
            elif stored.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header


def extract_tar(
    stream: BinaryIO,
    destination: Path,
    *,
    order: Literal["sorted", "reversed"] = "sorted",
    own_modes: bool = False,
    size_limit: int = SIZE_LIMIT,
    name: str = "the tar file",
) -> None:
    """Unpack a seekable tar, plain or compressed, into an empty folder.

    On tmpfs and some others the order of creation decides the order of readdir, so the names of one
    folder are created in sorted or in reverse order. Modes of files become exactly 644 or 755, unless they
    are to be the tar's own permissions. Times are those of the tar; a folder that the tar only implies
    gets the newest time in it.

    Args:
        name: what messages call it.

    Raises:
        BadInput: the tar is damaged, or a member would land outside; also by way of a link.
        WriteFailed: the folder isn't empty, or can't be written to.
    """
    kind = stream_kind(stream) or "tar"  # a tar with no members is all zeros
    with refusing(name):
        archive = open_tar(stream, name, kind, size_limit)
        check_claims(archive, "portable", size_limit)
    if not kind.startswith("tar"):
        raise bad(name, "holds no tar", UNSAFE)
    unpack(archive, destination, order=order, own_modes=own_modes)


def unpack(
    archive: Archive,
    destination: Path,
    *,
    order: Literal["sorted", "reversed"] = "sorted",
    own_modes: bool = False,
) -> None:
    """Unpack a zip or tar that has been opened, as :func:`extract_tar` does; times are only set from a tar.

    Raises:
        BadInput, WriteFailed: as :func:`extract_tar`.
    """
    unsupported = [e for e in archive.entries if e.kind.endswith("device") or e.kind == "fifo"]
    if unsupported:
        raise bad(archive.name, f"holds the {unsupported[0].kind} {unsupported[0].name!r}", UNSAFE)
    try:
        if any(destination.iterdir()):
            raise WriteFailed(f"{destination} is not empty.", "Name an empty folder.")
        _create(archive, destination, reverse=order == "reversed")
        _fill(archive, destination, own_modes=own_modes)
        if archive.kind != "zip":
            _set_times(archive, destination)
    except OSError as error:
        raise WriteFailed(f"{destination} can't be written to: {error}.") from error


def _create(archive: Archive, destination: Path, *, reverse: bool) -> None:
    # Nothing exists but what is made here, and no member lies under a link, so none is followed.
    entries = {entry.name: entry for entry in archive.entries}
    names = {*entries, *itertools.chain(*map(parents, entries))} - {""}
    if len(names) > ENTRY_LIMIT:
        raise bad(archive.name, f"needs {len(names)} files and folders, more than {ENTRY_LIMIT}", UNSAFE)
    in_folders = sorted(sorted(names, reverse=reverse), key=lambda name: name.count("/"))
    for name in in_folders:
        entry = entries.get(name)
        path = destination / name
        if entry is None or entry.kind == "directory":
            path.mkdir()
            path.chmod(0o755)
        elif entry.kind == "symlink":
            path.symlink_to(entry.target)
        else:
            path.touch(exist_ok=False)


def _fill(archive: Archive, destination: Path, *, own_modes: bool) -> None:
    modes: dict[str, int] = {}
    for entry in archive.entries:
        path = destination / entry.name
        if entry.kind == "hardlink":
            source = clean_name(entry.target) or ""
            if source not in modes:
                what = f"links {entry.name!r} to {source!r}, no earlier file"
                raise bad(archive.name, what, UNSAFE)
            # A copy: whether two names share an inode is nothing a build should depend on.
            shutil.copyfile(destination / source, path)
            modes[entry.name] = modes[source]
        elif entry.kind == "file":
            with archive.open(entry) as content, path.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
            usual = 0o755 if entry.mode & 0o100 else 0o644
            modes[entry.name] = entry.mode & 0o777 | 0o600 if own_modes else usual
        else:
            continue
        path.chmod(modes[entry.name])


def _set_times(archive: Archive, destination: Path) -> None:
    times = {entry.name: entry.seconds for entry in archive.entries}
    newest = max(times.values(), default=0)
    for name in list(times):
        for parent in parents(name):
            times.setdefault(parent, newest)
    times.setdefault("", newest)
    for name in sorted(times, key=lambda name: (name != "", name.count("/")), reverse=True):
        os.utime(destination / name, (times[name], times[name]), follow_symlinks=False)
