"""Zip files, by a parser of our own.

:mod:`zipfile` lets a member be longer or shorter than declared, cuts names at NUL and tolerates a
directory that disagrees with itself: two readers could then see two different wheels in one file.
The format is APPNOTE.TXT 6.3.10; the numbers in docstrings are its sections.
"""

import bz2
import dataclasses
import functools
import io
import itertools
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import BinaryIO, cast

from reprobuild.archive.model import (
    CHUNK,
    ENTRY_LIMIT,
    UNSAFE,
    Archive,
    Entry,
    Kind,
    bad,
    clean_name,
    refusing,
)

#: Deflate can't shrink by more than 1032; what claims more than this is a lie.
RATIO_LIMIT = 1100
STORED, DEFLATED, BZIP2 = 0, 8, 12
#: The extra field of sizes and an offset that have 64 bits (4.5.3).
ZIP64 = 1
_UNICODE_PATH = 0x7075
_DESCRIPTOR = 0x8

_LINK_LIMIT = 4096
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_NARROW = (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def open_zip(stream: BinaryIO, name: str) -> Archive:
    """Read the central directory of a seekable stream.

    Raises:
        BadInput: it is truncated, encrypted, inconsistent, or claims too much.
    """
    start, size, count, shift, comment = _find_directory(stream, name)
    if count > ENTRY_LIMIT:
        raise bad(name, f"has {count} members, more than {ENTRY_LIMIT}", UNSAFE)
    stream.seek(start)
    entries = tuple(_central_entry(stream, name, order, shift) for order in range(count))
    if stream.tell() != start + size:
        raise bad(name, "has a central directory of another length than it declares")
    spans = sorted((e.offset, e.offset + _LOCAL.size + e.compressed_size, e.name) for e in entries)
    spans.append((start, start, "the directory"))
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if end > begin:
            raise bad(name, f"has members that overlap: {first!r} and {second!r}", UNSAFE)

    def raw(entry: Entry) -> Iterator[bytes]:
        return zip_raw(stream, name, entry)

    def content(entry: Entry) -> Iterator[bytes]:
        return zip_content(stream, name, entry)

    def place(entry: Entry) -> tuple[BinaryIO, int] | None:
        return (stream, _start(stream, name, entry)) if entry.method == STORED else None

    header = {"comment": comment.decode("utf-8", "backslashreplace")} if comment else {}
    return Archive(
        "zip",
        name,
        tuple(_with_target(entry, stream, name) for entry in entries),
        header,
        raw,
        content,
        place,
    )


def _find_directory(stream: BinaryIO, name: str) -> tuple[int, int, int, int, bytes]:
    """Offset, size, count of the directory, bytes in front of the zip, its comment (4.3.16)."""
    total = stream.seek(0, io.SEEK_END)
    base = max(0, total - _END.size - 0xFFFF)
    stream.seek(base)
    tail = stream.read()
    signatures = [match.start() for match in re.finditer(b"PK\x05\x06", tail)]
    ends = [at for at in signatures if at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)]
    if signatures and not ends:
        raise bad(name, "is a zip file that goes on after its end", UNSAFE)
    if not ends:
        raise bad(name, "is a truncated zip file: its central directory is missing")
    if signatures[-1] != ends[0]:
        raise bad(name, "has a comment that other readers take for the end of a zip file", UNSAFE)
    at = ends[0]
    end = _END.unpack_from(tail, at)[1:7]
    finish = base + at
    stream.seek(max(0, finish - _LOCATOR64.size))
    locator = stream.read(_LOCATOR64.size)
    if is_wide := locator.startswith(b"PK\x06\x07"):
        finish -= _LOCATOR64.size + _END64.size
        stream.seek(max(0, finish))
        magic, *_, a, b, c, d, e, f = _END64.unpack(stream.read(_END64.size))
        wide = (a, b, c, d, e, f)
        if magic != b"PK\x06\x06" or any(
            narrow not in (value, limit) for narrow, value, limit in zip(end, wide, _NARROW, strict=True)
        ):
            raise bad(name, "has two zip directories that disagree", UNSAFE)
        end = wide
    disk, directory_disk, here, count, size, offset = end
    if disk or directory_disk or here != count:
        raise bad(name, "is one part of a zip file in several parts")
    shift = finish - size - offset
    if shift < 0:
        raise bad(name, "is a truncated zip file: its central directory lies outside")
    if is_wide and _LOCATOR64.unpack(locator)[2] + shift != finish:
        raise bad(name, "has two zip directories that disagree", UNSAFE)
    return finish - size, size, count, shift, tail[at + _END.size :]


def _central_entry(stream: BinaryIO, archive: str, order: int, shift: int) -> Entry:
    directory_offset = stream.tell()
    fields = _CENTRAL.unpack(stream.read(_CENTRAL.size))
    magic, create_version, create_system, extract_version, _, flags, method, time, date = fields[:9]
    crc, compressed, size, name_length, extra_length, comment_length, disk, _, attr = fields[9:18]
    rest = stream.read(name_length + extra_length + comment_length)
    raw_name, rest = rest[:name_length], rest[name_length:]
    extra, comment = rest[:extra_length], rest[extra_length:]
    if magic != b"PK\x01\x02" or disk not in (0, 0xFFFF):
        raise bad(archive, "has a damaged central directory")
    stored = raw_name.decode("utf-8" if flags & 0x800 else "cp437")
    if _has_other_name(extra, stored):
        raise bad(archive, f"has two names for the member {stored!r}", UNSAFE)
    size, compressed, offset = _zip64(extra, [size, compressed, fields[18]])
    if flags & _ENCRYPTED:
        raise bad(archive, f"has the encrypted member {stored!r}", "Decrypt it first.")
    if method not in (STORED, DEFLATED, BZIP2):
        raise bad(archive, f"has {stored!r} in the unknown compression method {method}", UNSAFE)
    lies = size != compressed if method == STORED else size > RATIO_LIMIT * compressed
    if lies and method != BZIP2:
        raise bad(archive, f"has {stored!r}, which claims {size} bytes from {compressed}", UNSAFE)
    return Entry(
        name=clean_name(stored) or "",
        kind=_kind(stored, attr >> 16),
        size=size,
        mode=attr >> 16 & 0o7777,
        mtime=_dos_time(date, time),
        order=order,
        stored_name=stored,
        offset=offset + shift,
        extra=extra,
        crc=crc,
        compressed_size=compressed,
        method=method,
        create_system=create_system,
        create_version=create_version,
        extract_version=extract_version,
        flags=flags,
        external_attr=attr,
        comment=comment,
        directory_offset=directory_offset,
    )


def _kind(stored: str, mode: int) -> Kind:
    if stored.endswith("/"):
        return "directory"
    return "symlink" if mode & 0o170000 == 0o120000 else "file"


@functools.lru_cache(1024)
def _dos_time(date: int, time: int) -> str:
    day = f"{(date >> 9) + 1980:04}-{date >> 5 & 15:02}-{date & 31:02}"
    return f"{day} {time >> 11:02}:{time >> 5 & 63:02}:{(time & 31) * 2:02}"


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The (id, data) pairs in a zip member's extra bytes (4.5.1), as far as they make sense."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        yield tag, extra[at + 4 : at + 4 + length]
        at += 4 + length


def _zip64(extra: bytes, values: list[int]) -> list[int]:
    """Replace each 0xFFFFFFFF among size, compressed size and offset by its 64 bits (4.5.3)."""
    found = [data for tag, data in extra_fields(extra) if tag == ZIP64] if extra else ()
    if len(found) > 1:
        raise ValueError("two sizes of one member")
    wide = b"".join(found)
    for index, value in enumerate(values):
        if value == 0xFFFFFFFF and wide:
            (values[index],) = struct.unpack_from("<Q", wide)
            wide = wide[8:]
    return values


def _has_other_name(extra: bytes, stored: str) -> bool:
    """Whether a Unicode Path field (4.6.9), which some readers obey, says another name than the header."""
    return bool(extra) and any(
        tag == _UNICODE_PATH and data[5:] != stored.encode() for tag, data in extra_fields(extra)
    )


def _with_target(entry: Entry, stream: BinaryIO, name: str) -> Entry:
    if entry.kind != "symlink":
        return entry
    if entry.size > _LINK_LIMIT:
        raise bad(name, f"has a link {entry.name!r} with {entry.size} bytes of target", UNSAFE)
    target = b"".join(zip_content(stream, name, entry)).decode("utf-8", "backslashreplace")
    return dataclasses.replace(entry, target=target)


def _start(stream: BinaryIO, archive: str, entry: Entry) -> int:
    """Where a member's stored bytes start, behind its local header (4.3.7)."""
    stream.seek(entry.offset)
    fields = _LOCAL.unpack(stream.read(_LOCAL.size))
    magic, _, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = fields
    name = stream.read(name_length).decode("utf-8" if flags & 0x800 else "cp437")
    said = [crc, *reversed(_zip64(stream.read(extra_length), [size, compressed]))]
    true = [entry.crc, entry.compressed_size, entry.size]
    if flags & _DESCRIPTOR:  # they may be zero here, and follow the content
        said = [value or known for value, known in zip(said, true, strict=True)]
    if (magic, name, method, said) != (b"PK\x03\x04", entry.stored_name, entry.method, true):
        raise bad(archive, f"has two headers of {entry.name!r} that disagree", UNSAFE)
    return entry.offset + _LOCAL.size + int(name_length) + int(extra_length)


def zip_start(stream: BinaryIO, archive: str, entry: Entry) -> int:
    """Where a member's stored bytes start; ``archive`` is what messages call the zip.

    Raises:
        BadInput: the member isn't where and what the checked entry says.
    """
    with refusing(f"{archive}, at {entry.name!r},"):
        return _start(stream, archive, entry)


def zip_raw(stream: BinaryIO, archive: str, entry: Entry, start: int | None = None) -> Iterator[bytes]:
    """A member as it is stored, in pieces of 1 MiB but the last.

    Args:
        start: what :func:`zip_start` says, if it was asked already.

    Raises:
        BadInput: while reading, as :func:`zip_start`, or when the archive ends too early.
    """
    with refusing(f"{archive}, at {entry.name!r},"):
        start = _start(stream, archive, entry) if start is None else start
        left = entry.compressed_size
        while left:
            stream.seek(start)
            chunk = stream.read(min(CHUNK, left))
            if not chunk:
                raise bad(archive, f"ends inside {entry.name!r}")
            start += len(chunk)
            left -= len(chunk)
            yield chunk


def zip_content(stream: BinaryIO, archive: str, entry: Entry) -> Iterator[bytes]:
    """A member's content in pieces of up to 1 MiB, checked as :meth:`Archive.chunks` does."""
    crc = size = 0
    with refusing(f"{archive}, in {entry.name!r},"):
        for chunk in _decompressed(zip_raw(stream, archive, entry), entry.method):
            size += len(chunk)
            if size > entry.size:
                break
            crc = crc32(chunk, crc)
            yield chunk
    if size != entry.size:
        word = "longer" if size > entry.size else "shorter"
        raise bad(archive, f"holds {entry.name!r}, {word} than the {entry.size} bytes it declares")
    if crc != entry.crc:
        raise bad(archive, f"holds {entry.name!r} with another CRC than it declares")


def _decompressed(chunks: Iterator[bytes], method: int) -> Iterator[bytes]:
    if method == STORED:
        yield from chunks
    elif method == BZIP2:
        yield from _bunzipped(chunks)
    else:
        yield from _inflated(chunks)


def _bunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    bunzip = bz2.BZ2Decompressor()
    for chunk in chunks:
        yield bunzip.decompress(chunk, CHUNK)
        while not bunzip.needs_input and not bunzip.eof:
            yield bunzip.decompress(b"", CHUNK)
    if not bunzip.eof or bunzip.unused_data:
        raise ValueError("its compressed data has no proper end")


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = Inflater()
    for chunk in chunks:
        yield from inflater.feed(chunk)
    yield from inflater.end()


class Inflater:
    """A deflate stream (RFC 1951) that comes in pieces and leaves in pieces of up to 1 MiB.

    Both methods raise ValueError or zlib.error where the stream is damaged, cut, or followed by something else.

    Args:
        fast: use ISA-L where it is installed. It takes half the time, and gives the same for every sound stream; of a
            damaged one it may make something where zlib refuses, so only for content whose hash is known.
    """

    def __init__(self, *, fast: bool = False) -> None:
        library = _fast_library() if fast else zlib
        self._inflate, self._error = library.decompressobj(-zlib.MAX_WBITS), library.error

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What the next piece of the stream gives."""
        if self._inflate.eof:
            raise ValueError("its compressed data goes on after its end")
        yield self._some(piece)
        while self._inflate.unconsumed_tail:
            yield self._some(self._inflate.unconsumed_tail)

    def end(self) -> Iterator[bytes]:
        """What is left when all pieces were fed."""
        while not self._inflate.eof and (rest := self._some(b"")):
            yield rest
        if not self._inflate.eof or self._inflate.unused_data:
            raise ValueError("its compressed data has no proper end")

    def _some(self, piece: bytes) -> bytes:
        try:
            return cast("bytes", self._inflate.decompress(piece, CHUNK))
        except self._error as error:
            raise zlib.error(str(error)) from error


def crc32(data: bytes, before: int = 0) -> int:
    """CRC-32 of some bytes behind others; by ISA-L, where it is installed, in a fraction of zlib's time."""
    return cast("int", _fast_library().crc32(data, before))


@functools.cache
def _fast_library() -> ModuleType:
    try:
        return import_module("isal.isal_zlib")
    except ImportError:  # it has no wheels for some platforms
        return zlib


# --- with other members ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class NewMember:
    """A member to be put into a zip, stored without compression: its bytes then depend on no library.

    Attributes:
        mode: of the file, with its type, such as 0o100644.
        time: year, month, day, hour, minute and second; a zip has them from 1980 on, and every second second.
    """

    name: str
    content: bytes
    mode: int
    time: tuple[int, int, int, int, int, int]


def replaced_zip(
    stream: BinaryIO, name: str, replaced: Mapping[str, bytes], *, before: str, new: NewMember
) -> Iterator[bytes]:
    """A zip with one member more, and others' contents changed; all other members' bytes and headers are taken over.

    Args:
        name: what messages call the zip.
        replaced: contents, by the name of a member; they are stored, and keep their time and mode.
        before: the member in front of which the new one is put, in the file and in the directory.

    Raises:
        BadInput: it isn't a sound zip, or something stands in front of it.
    """
    start, _, _, _, comment = _find_directory(stream, name)
    entries = open_zip(stream, name).entries
    if not entries or min(each.offset for each in entries):
        raise bad(name, "has something in front of its first member")
    in_file = sorted(entries, key=lambda each: each.offset)
    ends = [*(each.offset for each in in_file[1:]), start]
    written, places = 0, dict[str, int]()
    for entry, end in zip(in_file, ends, strict=True):
        pieces: list[bytes] = []
        if entry.name == before:
            places[new.name] = written
            pieces = [_local_header(_header_of(new), new.name, new.content), new.content]
        places[entry.name] = written + sum(map(len, pieces))
        if entry.name in replaced:
            content = replaced[entry.name]
            pieces += [_local_header(_header_like(stream, entry), entry.stored_name, content), content]
            yield from pieces
            written += sum(map(len, pieces))
        else:
            yield from pieces
            yield from _span(stream, entry.offset, end)
            written += sum(map(len, pieces)) + end - entry.offset
    directory = []
    for entry in sorted(entries, key=lambda each: each.order):
        if entry.name == before:
            directory.append(_record(_header_of(new), new.name, new.content, new.mode << 16, places[new.name]))
        if entry.name in replaced:
            header = _header_like(stream, entry)
            content, place = replaced[entry.name], places[entry.name]
            directory.append(_record(header, entry.stored_name, content, entry.external_attr, place))
        else:
            directory.append(_moved(stream, entry, places[entry.name]))
    yield from directory
    yield _end(len(directory), sum(map(len, directory)), written) + struct.pack("<H", len(comment)) + comment


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
    """What a member's two headers say beside its name and content."""

    create_version: int
    create_system: int
    time: int
    date: int


def _header_of(new: NewMember) -> _Header:
    year, month, day, hour, minute, second = new.time
    return _Header(20, 3, hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)


def _header_like(stream: BinaryIO, entry: Entry) -> _Header:
    stream.seek(entry.directory_offset)
    fields = _CENTRAL.unpack(stream.read(_CENTRAL.size))
    return _Header(entry.create_version, entry.create_system, fields[7], fields[8])


def _spelled(name: str) -> tuple[int, bytes]:
    """The flag for names in UTF-8, where it is needed, and the name."""
    return (0, name.encode()) if name.isascii() else (0x800, name.encode())


def _local_header(header: _Header, name: str, content: bytes) -> bytes:
    flags, raw = _spelled(name)
    sizes = zlib.crc32(content), len(content), len(content)
    packed = _LOCAL.pack(b"PK\x03\x04", 20, 0, flags, STORED, header.time, header.date, *sizes, len(raw), 0)
    return packed + raw


def _record(header: _Header, name: str, content: bytes, attributes: int, offset: int) -> bytes:
    flags, raw = _spelled(name)
    made_by = header.create_version, header.create_system, 20, 0
    sizes = zlib.crc32(content), len(content), len(content)
    fields = [b"PK\x01\x02", *made_by, flags, STORED, header.time, header.date, *sizes]
    fields += [len(raw), 0, 0, 0, 0, attributes, 0]
    return _at(_CENTRAL.pack(*fields) + raw, offset)


def _moved(stream: BinaryIO, entry: Entry, offset: int) -> bytes:
    """A member's record in the directory, as it is but for where the member begins."""
    stream.seek(entry.directory_offset)
    raw = stream.read(_CENTRAL.size)
    raw += stream.read(sum(_CENTRAL.unpack(raw)[12:15]))
    return raw if offset == entry.offset else _at(raw, offset)


def _at(raw: bytes, offset: int) -> bytes:
    """A record of the directory with another offset, which takes 64 bits in an extra field if need be (4.5.3)."""
    fields = list(_CENTRAL.unpack_from(raw))
    name_length, extra_length = fields[12:14]
    head, tail = raw[_CENTRAL.size :][:name_length], raw[_CENTRAL.size + name_length :]
    extra, comment = tail[:extra_length], tail[extra_length:]
    wide = b"".join(data for tag, data in extra_fields(extra) if tag == ZIP64)
    sizes = wide[: 8 * sum(each == 0xFFFFFFFF for each in fields[10:12])]
    others = b"".join(struct.pack("<HH", tag, len(data)) + data for tag, data in extra_fields(extra) if tag != ZIP64)
    fits = offset < 0xFFFFFFFF
    data = sizes if fits else sizes + struct.pack("<Q", offset)
    if data:
        others = struct.pack("<HH", ZIP64, len(data)) + data + others
        fields[3] = max(fields[3], 45)
    fields[13], fields[18] = len(others), offset if fits else 0xFFFFFFFF
    return _CENTRAL.pack(*fields) + head + others + comment


def _end(count: int, size: int, offset: int) -> bytes:
    """The end of a zip but for its comment (4.3.14 to 4.3.16)."""
    narrow = [count, count, size, offset]
    limits = _NARROW[2:]
    if all(value < limit for value, limit in zip(narrow, limits, strict=True)):
        return _END.pack(b"PK\x05\x06", 0, 0, *narrow, 0)[:-2]
    wide = _END64.pack(b"PK\x06\x06", _END64.size - 12, 45, 45, 0, 0, count, count, size, offset)
    locator = _LOCATOR64.pack(b"PK\x06\x07", 0, offset + size, 1)
    cut = [min(value, limit) for value, limit in zip(narrow, limits, strict=True)]
    return wide + locator + _END.pack(b"PK\x05\x06", 0, 0, *cut, 0)[:-2]


def _span(stream: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        stream.seek(start)
        chunk = stream.read(min(CHUNK, end - start))
        if not chunk:
            raise ValueError("it ends too soon")
        start += len(chunk)
        yield chunk
