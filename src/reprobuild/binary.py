"""Where two streams of bytes differ: the first byte, the sections of an ELF file, and the strings in them."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import IO

from reprobuild.causes import Hint, cause_of
from reprobuild.difference import Difference, quoted_pair
from reprobuild.elf import Section, printable, section_bytes

_CHUNK = 1 << 20
_EXPLAINED_SECTIONS = 200  # differing sections of a file in which strings are looked for
_WINDOW = 4 << 20  # bytes of a section in which strings are looked for
_PAIRS = 200
_Stream = IO[bytes]
_DEBUG = re.compile(r"(\.rela?)?\.z?debug_|\.symtab$|\.strtab$|\.shstrtab$|\.gnu_debuglink$")
_DEVICE = re.compile(r"\.nv_fatbin$|\.nvFatBinSegment$|__nv_relfatbin$|\.nv\.")
_BUILD_ID = ".note.gnu.build-id"


def first_difference(left: _Stream, right: _Stream) -> tuple[int, str, str]:
    """Offset of the first byte that differs, and 16 bytes from there of each stream, in hex."""
    sizes = [stream.seek(0, io.SEEK_END) for stream in (left, right)]
    at = _first_byte(left, (0, sizes[0]), right, (0, sizes[1]))
    at = sizes[0] if at is None else at
    return at, _hex_at(left, at), _hex_at(right, at)


def _first_byte(left: _Stream, a: tuple[int, int], right: _Stream, b: tuple[int, int]) -> int | None:
    """How far from their starts two parts of streams, each a start and a size, first differ; None where they don't."""
    for at in range(0, max(a[1], b[1]), _CHUNK):
        pieces = []
        for stream, (start, size) in ((left, a), (right, b)):
            stream.seek(start + at)
            pieces.append(stream.read(max(0, min(_CHUNK, size - at))))
        if pieces[0] != pieces[1]:
            return at + common_prefix(*pieces)
    return None


def common_prefix(a: bytes, b: bytes) -> int:
    """How many bytes two pieces start with that are the same."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def _hex_at(stream: _Stream, at: int) -> str:
    stream.seek(at)
    return stream.read(16).hex(" ") or "end of file"


def bytes_difference(left: _Stream, right: _Stream, name: str, hints: Sequence[Hint]) -> Difference:
    """The first byte that differs, or what strings around it show. ``name`` is the file's."""
    at, a, b = first_difference(left, right)
    if name.endswith(".pyc") and 8 <= at < 12:
        return Difference((), f"bytes at {at:#x}", a, b, "clock")  # the source's mtime (PEP 552)
    windows = []
    for stream in (left, right):
        stream.seek(max(0, at - 4096))
        windows.append(stream.read(_WINDOW))
    pair, cause = _strings(windows[0], windows[1], hints)
    return Difference((), f"bytes at {at:#x}", *(pair if pair and cause else (a, b)), cause)


def _strings(a: bytes, b: bytes, hints: Sequence[Hint]) -> tuple[tuple[str, str] | None, str | None]:
    """The most telling pair of differing strings, and its cause."""
    pairs = list(zip(_strings_only_in(a, b), _strings_only_in(b, a)))  # noqa: B905 - one may have more
    for x, y in pairs:
        if cause := cause_of(x, y, hints):
            return quoted_pair(x, y), cause
    return (quoted_pair(*pairs[0]) if pairs else None), None


def _strings_only_in(data: bytes, other: bytes) -> list[str]:
    theirs = set(printable(other))
    return list(islice((text for text in printable(data) if text not in theirs), _PAIRS))


def section_differences(
    left: _Stream,
    ours: Sequence[Section],
    right: _Stream,
    theirs: Sequence[Section],
    hints: Sequence[Hint],
) -> Iterator[Difference]:
    """Each section that differs of two ELF files; none where only what lies between sections does."""
    a, b = _keyed(ours), _keyed(theirs)
    found: list[Difference] = []
    for key in dict.fromkeys([*a, *b]):
        explain = len(found) < _EXPLAINED_SECTIONS
        if difference := _section_difference(left, a.get(key), right, b.get(key), hints, explain=explain):
            found.append(difference)
    names = {difference.path[0] for difference in found}
    debug_only = all(_DEBUG.match(name) or name == _BUILD_ID for name in names)
    named = any(difference.cause for difference in found)
    for each in found:
        section = each.path[0]
        if section == _BUILD_ID:
            yield replace(each, cause="build-id", follows=len(names) > 1)
        elif each.cause:
            yield each
        elif debug_only:
            # Offsets into a string table shift with the strings.
            yield replace(each, cause="debug-info", follows=named)
        elif _DEBUG.match(section):
            yield replace(each, follows=True)
        elif _DEVICE.search(section) and ".text" not in names:
            yield replace(each, cause="cuda")
        else:
            yield each


def _keyed(sections: Sequence[Section]) -> dict[tuple[str, int], Section]:
    seen: Counter[str] = Counter()
    keyed = {}
    for section in sections:
        keyed[(section.name, seen[section.name])] = section
        seen[section.name] += 1
    return keyed


def _section_difference(
    left: _Stream, a: Section | None, right: _Stream, b: Section | None, hints: Sequence[Hint], *, explain: bool
) -> Difference | None:
    if a is None or b is None:
        name = a.name if a else b.name if b else ""
        sizes = [f"{section.size} bytes" if section else "absent" for section in (a, b)]
        return Difference((name,), "section", sizes[0], sizes[1])
    at = _first_byte(left, (a.offset, a.stored), right, (b.offset, b.stored))
    if at is None and a.size == b.size:
        return None
    at = at or 0
    pair, cause = _section_strings(left, a, right, b, at, hints) if explain else (None, None)
    if pair is None or (cause is None and not _holds_text(a.name)):
        pair = (_section_hex(left, a, at), _section_hex(right, b, at))
    return Difference((a.name,), "section", pair[0], pair[1], cause)


def _section_strings(
    left: _Stream, a: Section, right: _Stream, b: Section, at: int, hints: Sequence[Hint]
) -> tuple[tuple[str, str] | None, str | None]:
    start = 0 if at < _WINDOW // 2 else at - 4096
    x, y = section_bytes(left, a, start, _WINDOW), section_bytes(right, b, start, _WINDOW)
    if max(len(x), len(y)) > _WINDOW:  # inflated
        start = max(0, common_prefix(x, y) - 4096)
        x, y = x[start : start + _WINDOW], y[start : start + _WINDOW]
    return _strings(x, y, hints)


def _section_hex(stream: _Stream, section: Section, at: int) -> str:
    stream.seek(section.offset + at)
    data = stream.read(max(0, min(16, section.stored - at)))
    return f"{at:#x}: {data.hex(' ') or f'end of {section.size} bytes'}"


def _holds_text(section: str) -> bool:
    return section.startswith((".rodata", ".comment", ".debug_str", ".debug_line_str", ".data"))
