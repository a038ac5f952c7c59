"""Where two archives differ, member by member, and what is in their members."""

import io
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest
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
from reprobuild.binary import bytes_difference, common_prefix, section_differences
from reprobuild.causes import Hint, cause_of, mode_cause, zone_apart
from reprobuild.difference import Difference, Level, quoted
from reprobuild.digest import chunks_of
from reprobuild.elf import read_sections
from reprobuild.errors import BadInput
from reprobuild.lines import text_differences
from reprobuild.progress import SILENT, Observer, Paced, size_text

_DEPTH = 3
_TEXT_LIMIT = 1 << 20  # bytes of a member that is compared line by line
_MEMORY = 16 << 20  # bytes of a member that are held in memory; a larger one goes to a file
_HELD_LIMIT = 4 << 30  # bytes of a compressed member that are held at all
_LARGE = 4 << 20  # bytes of a member from which on both sides are read at once
_SLOW = 256 << 20  # bytes of a member that takes seconds
_EXPLAINED = 200  # differing members that are looked into, those of nested archives included
_RECORD_LIMIT = 64 << 20  # bytes of a RECORD that is compared by its lines
_NESTED_LIMIT = 16 << 30  # bytes that all nested archives may claim

_ZEROS = bytes(1 << 20)  # as large as an archive's chunks
_Stream = IO[bytes]
_SINGLE = ("gz", "xz", "bz2")
_RECORD = re.compile(r"[^/]+\.dist-info/RECORD")


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
    """Every difference between two archives of one kind, framing included; of tars the compression may be another.

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
    yield from _header_differences(left, right, hints)
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
            yield _framing(name, word, quoted(ours), quoted(theirs), "operating-system" if systems else cause)
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


def _header_differences(left: Archive, right: Archive, hints: Sequence[Hint]) -> Iterator[Difference]:
    if left.kind != right.kind:  # then one has no such header, which says nothing of what the other's holds
        return
    ours, theirs = left.header, right.header
    for field in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(field, "absent"), theirs.get(field, "absent")
        if a != b:
            cause = "clock" if field == "gzip time" else cause_of(a, b, hints)
            cause = "compression" if field == "gzip level flag" else cause
            yield Difference((), field, quoted(a), quoted(b), cause, level=Level.CONTAINER)


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


def _streamed_difference(left: Archive, a: Entry, right: Archive, b: Entry) -> Difference:
    """Where two members start to differ that are too large to be looked into; both are checked to their ends."""
    at, found = 0, (0, "", "")
    for x, y in zip_longest(chunks_of(left.open(a)), chunks_of(right.open(b)), fillvalue=b""):
        if x != y and not found[1]:
            start = common_prefix(x, y)
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
        yield Difference(path, "order", quoted(x[at]), quoted(y[at]), "file-order")
    elif b"\n".join(x).replace(b"\r\n", b"\n") == b"\n".join(y).replace(b"\r\n", b"\n"):
        yield Difference(path, "line endings", f"{a.size} bytes", f"{b.size} bytes", "line-endings")
    else:
        ours_by_name = {_listed(line): quoted(line) for line in gone}
        theirs_by_name = {_moved(_listed(line), folders): quoted(line) for line in come}
        for name in dict.fromkeys([*ours_by_name, *theirs_by_name]):
            pair = (ours_by_name.get(name, "absent"), theirs_by_name.get(name, "absent"))
            moved = folders is not None and name.split("/")[0] == folders[0]
            yield Difference(path, "line", *pair, None, moved or name in changed)


def _listed(line: bytes) -> str:
    return line.decode("utf-8", "replace").rsplit(",", 2)[0].strip('"')


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
        yield bytes_difference(left, right, name, hints)


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
        yield from section_differences(left, sections[0], right, sections[1], hints)
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
