"""The sections of an ELF file, read without trusting it (System V ABI, chapter 4)."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAGIC = b"\x7fELF"
NOBITS = 8
_COMPRESSED = 0x800
_SECTIONS_LIMIT = 100_000
_NAMES_LIMIT = 16 << 20
_INFLATED_LIMIT = 16 << 20
_PRINTABLE = re.compile(rb"[\x20-\x7e]{4,4096}")


@dataclass(frozen=True, slots=True)
class Section:
    """Where one section lies: offset and size in bytes. A NOBITS section has no bytes."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    wide: bool
    little: bool

    @property
    def stored(self) -> int:
        """Bytes in the file."""
        return 0 if self.kind == NOBITS else self.size


def read_sections(stream: IO[bytes], total: int) -> tuple[Section, ...] | None:
    """The sections of a seekable stream of ``total`` bytes; None when it isn't a sound ELF file."""
    try:
        return _read_sections(stream, total)
    except (struct.error, ValueError):
        return None


def _read_sections(stream: IO[bytes], total: int) -> tuple[Section, ...] | None:
    stream.seek(0)
    head = stream.read(64)
    if len(head) < 52 or not head.startswith(MAGIC) or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    wide, little = head[4] == 2, head[5] == 1
    order = "<" if little else ">"
    (table,) = struct.unpack_from(order + ("Q" if wide else "L"), head, 0x28 if wide else 0x20)
    step, count, names_at = struct.unpack_from(order + "3H", head, 0x3A if wide else 0x2E)
    layout = struct.Struct(order + ("2L4Q2L2Q" if wide else "10L"))
    if step != layout.size or not 0 < table <= total - step:
        return None
    stream.seek(table)
    first = layout.unpack(stream.read(step))
    # A file with 0xFF00 sections or more keeps their number in the first one.
    count, names_at = count or first[5], first[6] if names_at == 0xFFFF else names_at
    if count > _SECTIONS_LIMIT or table + count * step > total or names_at >= count:
        return None
    rows = [first, *(layout.unpack(stream.read(step)) for _ in range(count - 1))]
    if any(row[1] != NOBITS and row[4] + row[5] > total for row in rows):
        return None
    if sum(row[5] for row in rows if row[1] != NOBITS) > 2 * total:
        return None  # overlapping sections would make a small file cost as much as a huge one
    names = rows[names_at]
    stream.seek(names[4])
    text = stream.read(min(names[5], _NAMES_LIMIT))
    return tuple(
        Section(_text_at(text, row[0]), row[1], row[2], row[4], row[5], wide, little) for row in rows if row[1]
    )


def _text_at(text: bytes, at: int) -> str:
    end = text.find(b"\0", at)
    return text[at : end if end >= 0 else len(text)][:256].decode("ascii", "backslashreplace")


def section_bytes(stream: IO[bytes], section: Section, start: int, size: int) -> bytes:
    """Up to ``size`` bytes from ``start`` on; inflated if they are the start of compressed ones."""
    stream.seek(section.offset + start)
    data = stream.read(max(0, min(size, section.stored - start)))
    if section.flags & _COMPRESSED and not start:
        skip = 24 if section.wide else 12
        kind = int.from_bytes(data[:4], "little" if section.little else "big")
        try:
            return zlib.decompressobj().decompress(data[skip:], _INFLATED_LIMIT) if kind == 1 else data
        except zlib.error:
            return data
    return data


def printable(data: bytes) -> Iterator[str]:
    """The runs of at least four printable ASCII characters, as ``strings`` prints them."""
    return (match.group().decode("ascii") for match in _PRINTABLE.finditer(data))
