"""Where two archives, or two streams of bytes, differ: one generator of differences for each kind."""

import io
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import islice, zip_longest
from typing import IO, BinaryIO, cast

from packaging.utils import canonicalize_name

from reprobuild.archive import (
    RATIO_LIMIT,
    ZIP64,
    Archive,
    Entry,
    as_stream,
    decompressed,
    extra_fields,
    open_archive,
    stream_kind,
)
from reprobuild.causes import Hint, cause_of, mode_cause, same_items, zone_apart
from reprobuild.difference import Difference, Level
from reprobuild.digest import chunks_of
from reprobuild.elf import Section, printable, read_sections, section_bytes
from reprobuild.errors import BadInput
from reprobuild.progress import SILENT, Observer, Paced, size_text

_CHUNK = 1 << 20
_DEPTH = 3
_TEXT_LIMIT = 1 << 20  # bytes of a member that is compared line by line
_LINES = 20  # differing lines that are quoted of one member
_MATCHED_LINES = 500  # differing lines that are aligned; the work grows with the square
_MEMORY = 16 << 20  # bytes of a member that are held in memory; a larger one goes to a file
_HELD_LIMIT = 4 << 30  # bytes of a compressed member that are held at all
_LARGE = 4 << 20  # bytes of a member from which on both sides are read at once
_SLOW = 256 << 20  # bytes of a member that takes seconds
_EXPLAINED = 200  # differing members that are looked into, those of nested archives included
_EXPLAINED_SECTIONS = 200  # differing sections of a file in which strings are looked for
_RECORD_LIMIT = 64 << 20  # bytes of a RECORD that is compared by its lines
_NESTED_LIMIT = 16 << 30  # bytes that all nested archives may claim
_WINDOW = 4 << 20  # bytes of a section in which strings are looked for
_PAIRS = 200
_QUOTED = 96  # characters

_Stream = IO[bytes]
_SINGLE = ("gz", "xz", "bz2")
_RECORD = re.compile(r"[^/]+\.dist-info/RECORD")
_DEBUG = re.compile(r"(\.rela?)?\.z?debug_|\.symtab$|\.strtab$|\.shstrtab$|\.gnu_debuglink$")
_DEVICE = re.compile(r"\.nv_fatbin$|\.nvFatBinSegment$|__nv_relfatbin$|\.nv\.")
_BUILD_ID = ".note.gnu.build-id"


@dataclass(slots=True)
class Effort:
    """What one comparison may still spend on explaining, however deep archives are nested."""

    members: int = _EXPLAINED
    nested: int = _NESTED_LIMIT


def archive_differences(
    left: Archive,
    right: Archive,
    hints: Sequence[Hint],
    depth: int = 0,
    effort: Effort | None = None,
    observer: Observer = SILENT,
) -> Iterator[Difference]:
    """Every difference between two archives of one kind, framing included.

    Args:
        depth: how many archives these two are in.
        effort: None for that of a new comparison.

    Raises:
        BadInput: a member's content isn't what the archive declares.
    """
    ours = {entry.name: entry for entry in left.entries}
    folders = _dist_infos(left, right)
    theirs = {_moved(entry.name, folders): entry for entry in right.entries}
    yield from _name_difference(folders, hints)
    changed: set[str] = set()
    record = None
    effort, paced, count = effort or Effort(), Paced(observer), len(ours)
    for number, (name, entry) in enumerate(ours.items(), 1):
        said = f"comparing member {number:,} of {count:,}: {name} ({size_text(entry.size)})"
        paced.part(said, big=entry.size >= _SLOW)
        other = theirs.get(name)
        if other is None:
            changed.add(name)
            yield Difference((name,), "missing", _present(entry), "absent", "missing-file")
            continue
        same, same_raw = _same_content(left, entry, right, other)
        if not same and _is_record(left, entry) and _is_record(right, other):
            record = (entry, other)  # read last: its lines follow from the other members
        elif not same:
            changed.add(name)
            yield from _member_differences(left, entry, right, other, hints, depth, effort)
        yield from _entry_differences(entry, other, hints)
        if same and not same_raw:
            yield _framing(name, "compression", _packed(entry), _packed(other), "compression")
    for name, entry in theirs.items():
        if name not in ours:
            changed.add(name)
            yield Difference((name,), "missing", "absent", _present(entry), "missing-file")
    if record:
        yield from _record_differences(left, record[0], right, record[1], changed, folders)
    yield from _order_differences(ours, theirs)
    yield from _header_differences(left.header, right.header, hints)
    if left.kind in _SINGLE and not changed and left.header == right.header:
        yield _compression(left.kind)


def compression_difference(left: _Stream, right: _Stream, kind: str) -> Difference | None:
    """The difference of two compressed tars that are the same tar; None for others."""
    streams = [cast("BinaryIO", stream) for stream in (left, right)]
    for stream in streams:
        stream.seek(0)
    same = kind.startswith("tar.") and _same_stream(*(decompressed(stream, kind) for stream in streams))
    return _compression(kind) if same else None


def _compression(kind: str) -> Difference:
    what = f"{kind} of the same content"
    return Difference((), "compression", what, what, "compression", level=Level.CONTAINER)


def _dist_infos(left: Archive, right: Archive) -> tuple[str, str] | None:
    """The dist-info folders of two wheels of one project, where they are spelled in two ways."""
    found = []
    for archive in (left, right):
        tops = {entry.name.split("/")[0] for entry in archive.entries if archive.kind == "zip"}
        folders = [top for top in tops if top.endswith(".dist-info")]
        if len(folders) != 1:
            return None
        found.append(folders[0])
    projects = {canonicalize_name(folder.removesuffix(".dist-info").rpartition("-")[0]) for folder in found}
    return (found[0], found[1]) if len(projects) == 1 and found[0] != found[1] else None


def _name_difference(folders: tuple[str, str] | None, hints: Sequence[Hint]) -> Iterator[Difference]:
    if folders:
        yield Difference(folders[:1], "name", *folders, cause_of(*folders, hints))


def _moved(name: str, folders: tuple[str, str] | None) -> str:
    """A name on the right as the left would spell it."""
    top, slash, rest = name.partition("/")
    return f"{folders[0]}{slash}{rest}" if folders and top == folders[1] else name


def _is_record(archive: Archive, entry: Entry) -> bool:
    is_named = _RECORD.fullmatch(entry.name) is not None and archive.kind == "zip"
    if not is_named or entry.kind != "file" or entry.size > _RECORD_LIMIT:
        return False
    # An honest one has a line for each file: of very many lines that are none, each would cost memory.
    return sum(chunk.count(b"\n") for chunk in archive.chunks(entry)) <= 2 * len(archive.entries)


def _framing(name: str, field: str, left: object, right: object, cause: str | None) -> Difference:
    return Difference((name,), field, str(left), str(right), cause, level=Level.CONTAINER)


def _present(entry: Entry) -> str:
    return f"{entry.kind}, {entry.size} bytes" if entry.kind == "file" else entry.kind


def _packed(entry: Entry) -> str:
    return f"method {entry.method}, {entry.compressed_size} bytes"


def _same_content(left: Archive, a: Entry, right: Archive, b: Entry) -> tuple[bool, bool]:
    """Whether the content is the same, and whether its stored bytes are."""
    if a.kind != "file" or b.kind != "file" or a.size != b.size or a.crc != b.crc:
        return a.kind == b.kind != "file", True
    if a.digest and b.digest:
        return a.digest == b.digest, True
    stored_alike = (a.method, a.compressed_size) == (b.method, b.compressed_size)
    if stored_alike and _same_chunks(left.raw(a), right.raw(b)):
        return True, True
    if a.size < _LARGE:
        return _same_stream(left.open(a), right.open(b)), False
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = (as_stream(_ahead(pool, each.chunks(entry))) for each, entry in ((left, a), (right, b)))
        return _same_stream(ours, theirs), False


def _same_chunks(left: Iterable[bytes], right: Iterable[bytes]) -> bool:
    return all(a == b for a, b in zip_longest(left, right, fillvalue=b""))


def _same_stream(left: BinaryIO, right: BinaryIO) -> bool:
    return _same_chunks(chunks_of(left), chunks_of(right))


def _ahead(pool: ThreadPoolExecutor, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces; each is made while the one before it is in use."""
    coming = pool.submit(next, chunks, None)
    while (chunk := coming.result()) is not None:
        coming = pool.submit(next, chunks, None)
        yield chunk


def _entry_differences(a: Entry, b: Entry, hints: Sequence[Hint]) -> Iterator[Difference]:
    name = a.name
    if a.kind != b.kind:
        yield Difference((name,), "kind", a.kind, b.kind)
    elif a.target != b.target:
        cause = cause_of(a.target, b.target, hints)
        yield Difference((name,), "target", a.target, b.target, cause)
    if a.mode != b.mode:
        yield Difference((name,), "mode", f"{a.mode:o}", f"{b.mode:o}", mode_cause(a.mode, b.mode))
    if a.attributes != b.attributes:
        yield Difference((name,), "attributes", str(a.attributes), str(b.attributes))
    if a.mtime != b.mtime:
        cause = "timezone" if zone_apart(a.mtime, b.mtime, hints) else "clock"
        yield _framing(name, "time", a.mtime, b.mtime, cause)
    for field, cause in _FRAMING.items():
        ours, theirs = getattr(a, field), getattr(b, field)
        if ours != theirs and (field != "stored_name" or a.name == b.name):
            word = field.replace("_", " ")
            systems = field == "create_system" and {ours, theirs} == _WINDOWS_AND_UNIX
            yield _framing(name, word, _quoted(ours), _quoted(theirs), "operating-system" if systems else cause)
    if a.extra != b.extra and _framed(a) != _framed(b):
        yield _framing(name, "extra field", a.extra.hex(), b.extra.hex(), _extra_cause(a, b))
    if a.external_attr & ~0xFFF0000 != b.external_attr & ~0xFFF0000:
        ours, theirs = f"{a.external_attr:#x}", f"{b.external_attr:#x}"
        yield _framing(name, "external attributes", ours, theirs, "zip-tool")


#: Fields of an entry that say nothing of its content, and the cause when one differs.
_FRAMING = {
    "stored_name": None,
    "owner": None,
    "create_system": "zip-tool",
    "create_version": "zip-tool",
    "extract_version": "zip-tool",
    "flags": "zip-tool",
    "comment": None,
}


#: What zipfile names as the creator of an entry on Windows, and elsewhere (APPNOTE 4.4.2).
_WINDOWS_AND_UNIX = {0, 3}


def _framed(entry: Entry) -> list[tuple[int, bytes]] | bytes:
    """The extra bytes, but of a Zip64 field that repeats the entry's own sizes and offset its length alone."""
    fields = list(extra_fields(entry.extra))
    if entry.owner or sum(4 + len(data) for _, data in fields) != len(entry.extra):
        return entry.extra  # of a tar, or malformed
    own = {value.to_bytes(8, "little") for value in (entry.size, entry.compressed_size, entry.offset)}
    return [(tag, bytes(len(data)) if tag == ZIP64 and own.issuperset(_eights(data)) else data) for tag, data in fields]


def _eights(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 8] for at in range(0, len(data), 8))


def _extra_cause(a: Entry, b: Entry) -> str | None:
    if a.owner or b.owner:
        return None  # PAX records of a tar
    ours, theirs = dict(extra_fields(a.extra)), dict(extra_fields(b.extra))
    differing = {tag for tag in ours.keys() | theirs.keys() if ours.get(tag) != theirs.get(tag)}
    times = 0x5455  # "UT": the extended timestamp of Info-ZIP
    return "clock" if differing == {times} and len(ours) == len(theirs) else "zip-tool"


def _order_differences(ours: dict[str, Entry], theirs: dict[str, Entry]) -> Iterator[Difference]:
    a = [name for name in ours if name in theirs]
    b = [name for name in theirs if name in ours]
    at = next((index for index, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1]), -1)
    if at >= 0:
        left, right = f"{at + 1}. {a[at]}", f"{at + 1}. {b[at]}"
        yield Difference((), "order", left, right, "file-order", level=Level.CONTAINER)


def _header_differences(ours: dict[str, str], theirs: dict[str, str], hints: Sequence[Hint]) -> Iterator[Difference]:
    for field in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(field, "absent"), theirs.get(field, "absent")
        if a != b:
            cause = "clock" if field == "gzip time" else cause_of(a, b, hints)
            cause = "compression" if field == "gzip level flag" else cause
            yield Difference((), field, _quoted(a), _quoted(b), cause, level=Level.CONTAINER)


def _member_differences(
    left: Archive, a: Entry, right: Archive, b: Entry, hints: Sequence[Hint], depth: int, effort: Effort
) -> Iterator[Difference]:
    if a.kind != "file" or b.kind != "file":
        return
    effort.members -= 1
    if effort.members < 0:
        yield Difference((a.name,), "content", f"{a.size} bytes", f"{b.size} bytes")
        return
    if not _can_hold(left, a) or not _can_hold(right, b):
        yield _streamed_difference(left, a, right, b)
        return
    with _room(left, a) as ours, _room(right, b) as theirs:
        if max(a.size, b.size) < _LARGE:
            _fill(left, a, ours)
            _fill(right, b, theirs)
        else:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(_fill, (left, right), (a, b), (ours, theirs)))
        for each in stream_differences(ours, theirs, a.name, hints, depth + 1, effort):
            # Whatever differs inside a member, the member's own bytes do.
            yield replace(each, path=(a.name, *each.path), level=Level.PAYLOAD)


def _can_hold(archive: Archive, entry: Entry) -> bool:
    return entry.size <= _HELD_LIMIT or archive.in_place(entry) is not None


def _room(archive: Archive, entry: Entry) -> _Stream:
    """Where a member is to be: in memory, or if it is large where it is, or if compressed in an unnamed file."""
    if entry.size <= _MEMORY:
        return io.BytesIO()
    return archive.in_place(entry) or tempfile.TemporaryFile()


def _fill(archive: Archive, entry: Entry, room: _Stream) -> None:
    """Put a member's content where it is to be, and check it; zeros take no room in a file."""
    chunks = archive.chunks(entry)
    if isinstance(room, io.BytesIO):
        room.writelines(chunks)
    elif room.writable():
        for chunk in chunks:
            if chunk == _ZEROS:
                room.seek(len(chunk), io.SEEK_CUR)
            else:
                room.write(chunk)
        room.truncate()
    elif entry.digest is None:  # it is there, and was not yet read
        deque(chunks, 0)
    room.seek(0)


_ZEROS = bytes(_CHUNK)


def _streamed_difference(left: Archive, a: Entry, right: Archive, b: Entry) -> Difference:
    """Where two members start to differ that are too large to be looked into; both are checked to their ends."""
    at, found = 0, (0, "", "")
    for x, y in zip_longest(chunks_of(left.open(a)), chunks_of(right.open(b)), fillvalue=b""):
        if x != y and not found[1]:
            start = _prefix(x, y)
            found = (at + start, x[start : start + 16].hex(" ") or "end of file", y[start : start + 16].hex(" "))
        at += len(x)
    return Difference((a.name,), f"bytes at {found[0]:#x}", found[1], found[2] or "end of file")


def _record_differences(
    left: Archive, a: Entry, right: Archive, b: Entry, changed: set[str], folders: tuple[str, str] | None
) -> Iterator[Difference]:
    """Differences of two RECORDs; a line about a member that differs, or has moved, is only a consequence."""
    x, y = (b"".join(each.chunks(entry)).split(b"\n") for each, entry in ((left, a), (right, b)))
    path = (a.name,)
    gone, come = Counter(x) - Counter(y), Counter(y) - Counter(x)
    if not gone and not come:
        at = next(i for i, pair in enumerate(zip(x, y, strict=True)) if pair[0] != pair[1])
        yield Difference(path, "order", _quoted(x[at]), _quoted(y[at]), "file-order")
    elif b"\n".join(x).replace(b"\r\n", b"\n") == b"\n".join(y).replace(b"\r\n", b"\n"):
        yield Difference(path, "line endings", f"{a.size} bytes", f"{b.size} bytes", "line-endings")
    else:
        ours_by_name = {_listed(line): _quoted(line) for line in gone}
        theirs_by_name = {_moved(_listed(line), folders): _quoted(line) for line in come}
        for name in dict.fromkeys([*ours_by_name, *theirs_by_name]):
            pair = (ours_by_name.get(name, "absent"), theirs_by_name.get(name, "absent"))
            moved = folders is not None and name.split("/")[0] == folders[0]
            yield Difference(path, "line", *pair, None, moved or name in changed)


def _listed(line: bytes) -> str:
    return line.decode("utf-8", "replace").rsplit(",", 2)[0].strip('"')


# --- bytes -------------------------------------------------------------------------------------


def stream_differences(
    left: _Stream, right: _Stream, name: str, hints: Sequence[Hint], depth: int = 0, effort: Effort | None = None
) -> Iterator[Difference]:
    """What differs between two seekable streams that do differ; at least one difference.

    The paths start below the streams themselves. ``name`` is that of the file, which may say what
    kind of file it is.
    """
    found = False
    for each in _structured(left, right, name, hints, depth, effort or Effort()):
        found = True
        yield each
    if not found:
        yield _bytes_difference(left, right, name, hints)


def _structured(
    left: _Stream, right: _Stream, name: str, hints: Sequence[Hint], depth: int, effort: Effort
) -> Iterator[Difference]:
    kinds = [stream_kind(cast("BinaryIO", stream)) for stream in (left, right)]
    if kinds[0] and kinds[0] == kinds[1] and 0 < depth <= _DEPTH:
        nested = _nested(left, right, hints, depth, effort)
        if nested:
            yield from nested
            return
    sizes = [stream.seek(0, io.SEEK_END) for stream in (left, right)]
    sections = [read_sections(s, size) for s, size in zip((left, right), sizes, strict=True)]
    if sections[0] and sections[1]:
        yield from _elf_differences(left, sections[0], right, sections[1], hints)
    elif max(sizes) <= _TEXT_LIMIT:
        texts = [_text(stream) for stream in (left, right)]
        if texts[0] is not None and texts[1] is not None:
            yield from text_differences(texts[0], texts[1], name, hints)


def _nested(left: _Stream, right: _Stream, hints: Sequence[Hint], depth: int, effort: Effort) -> list[Difference]:
    """The differences of two nested archives; none where they only look like archives, or claim too much."""
    limit = min(effort.nested, _NESTED_LIMIT // 4)
    try:
        with (
            open_archive(cast("BinaryIO", left), names="posix", size_limit=limit) as a,
            open_archive(cast("BinaryIO", right), names="posix", size_limit=limit) as b,
        ):
            effort.nested -= max(sum(entry.size for entry in each.entries) for each in (a, b))
            found = list(archive_differences(a, b, hints, depth, effort))
        compression = None if found else compression_difference(left, right, a.kind)
    except BadInput:
        # How much of it was unpacked isn't known.
        effort.nested -= min(limit // 4, RATIO_LIMIT * max(stream.seek(0, io.SEEK_END) for stream in (left, right)))
        return []
    return [compression] if compression else found


def _text(stream: _Stream) -> str | None:
    stream.seek(0)
    data = stream.read()
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def first_difference(left: _Stream, right: _Stream) -> tuple[int, str, str]:
    """Offset of the first byte that differs, and 16 bytes from there of each stream, in hex."""
    left.seek(0)
    right.seek(0)
    at = 0
    while True:
        a, b = left.read(_CHUNK), right.read(_CHUNK)
        if a != b or not a:
            break
        at += len(a)
    at += _prefix(a, b)
    return at, _hex_at(left, at), _hex_at(right, at)


def _prefix(a: bytes, b: bytes) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def _hex_at(stream: _Stream, at: int) -> str:
    stream.seek(at)
    return stream.read(16).hex(" ") or "end of file"


def _bytes_difference(left: _Stream, right: _Stream, name: str, hints: Sequence[Hint]) -> Difference:
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
            return _quoted_pair(x, y), cause
    return (_quoted_pair(*pairs[0]) if pairs else None), None


def _strings_only_in(data: bytes, other: bytes) -> list[str]:
    theirs = set(printable(other))
    return list(islice((text for text in printable(data) if text not in theirs), _PAIRS))


# --- ELF ---------------------------------------------------------------------------------------


def _elf_differences(
    left: _Stream,
    ours: Sequence[Section],
    right: _Stream,
    theirs: Sequence[Section],
    hints: Sequence[Hint],
) -> Iterator[Difference]:
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
    at = _first_in_section(left, a, right, b)
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
        start = max(0, _prefix(x, y) - 4096)
        x, y = x[start : start + _WINDOW], y[start : start + _WINDOW]
    return _strings(x, y, hints)


def _section_hex(stream: _Stream, section: Section, at: int) -> str:
    stream.seek(section.offset + at)
    data = stream.read(max(0, min(16, section.stored - at)))
    return f"{at:#x}: {data.hex(' ') or f'end of {section.size} bytes'}"


def _holds_text(section: str) -> bool:
    return section.startswith((".rodata", ".comment", ".debug_str", ".debug_line_str", ".data"))


def _first_in_section(left: _Stream, a: Section, right: _Stream, b: Section) -> int | None:
    at = 0
    while at < max(a.stored, b.stored):
        left.seek(a.offset + at)
        right.seek(b.offset + at)
        x = left.read(max(0, min(_CHUNK, a.stored - at)))
        y = right.read(max(0, min(_CHUNK, b.stored - at)))
        if x != y:
            return at + _prefix(x, y)
        at += _CHUNK
    return None


# --- text --------------------------------------------------------------------------------------


def text_differences(left: str, right: str, name: str, hints: Sequence[Hint]) -> Iterator[Difference]:
    """The first lines that differ between two texts."""
    if left.replace("\r\n", "\n") == right.replace("\r\n", "\n"):
        counts = [f"{text.count(chr(13) + chr(10))} lines end in CRLF" for text in (left, right)]
        yield Difference((), "line endings", counts[0], counts[1], "line-endings")
        return
    pairs = _line_pairs(left.split("\n"), right.split("\n"))
    whole = _block_cause([a for _, a, _ in pairs if a is not None], [b for _, _, b in pairs if b is not None], name)

    def cause(a: str | None, b: str | None) -> str | None:
        if whole or a is None or b is None:
            return whole
        return _line_cause(a, b, name) or cause_of(a, b, hints)

    for number, a, b in pairs[:_LINES]:
        x, y = _quoted_pair("absent" if a is None else a, "absent" if b is None else b)
        yield Difference((), f"line {number}", x, y, cause(a, b))
    if len(pairs) > _LINES:
        more = f"{len(pairs) - _LINES} more lines differ"
        causes = (cause(a, b) for _, a, b in pairs[_LINES:_MATCHED_LINES])
        yield Difference((), "more lines", more, more, next((c for c in causes if c), None))


def _line_pairs(a: list[str], b: list[str]) -> list[tuple[int, str | None, str | None]]:
    """(line number on the left, or on the right if it is only there; left line; right line)."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    ours, theirs = a[start : len(a) - end], b[start : len(b) - end]
    if len(ours) == len(theirs) or max(len(ours), len(theirs)) > _MATCHED_LINES:
        blocks = [("replace", 0, len(ours), 0, len(theirs))]
    else:
        matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
        blocks = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    return [
        (start + 1 + (i if x is not None else j) + offset, x, y)
        for _, i, i_end, j, j_end in blocks
        for offset, (x, y) in enumerate(zip_longest(ours[i:i_end], theirs[j:j_end]))
        if x != y
    ]


def _block_cause(ours: list[str], theirs: list[str], name: str) -> str | None:
    """The cause that a block of lines shows only as a whole: its order."""
    if len(ours) > 1 and Counter(ours) == Counter(theirs):
        return "set-order" if name.endswith(".dist-info/METADATA") else "file-order"
    return "set-order" if same_items("\n".join(ours), "\n".join(theirs)) else None


def _line_cause(a: str, b: str, name: str) -> str | None:
    for member, field, cause in (
        (".dist-info/WHEEL", "Generator:", "backend-version"),
        (".dist-info/METADATA", "Metadata-Version:", "metadata-version"),
    ):
        if name.endswith(member) and a.startswith(field) and b.startswith(field):
            return cause
    return None


def _quoted_pair(a: str, b: str) -> tuple[str, str]:
    """Both texts from a little before their first difference on."""
    at = next((i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1]), min(len(a), len(b)))  # noqa: B905 - the shorter one decides
    start = max(0, at - _QUOTED // 2) if max(len(a), len(b)) > _QUOTED else 0
    mark = "..." if start else ""
    return mark + _quoted(a[start:]), mark + _quoted(b[start:])


def _quoted(value: object) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
