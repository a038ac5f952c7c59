"""Layers: trees of nodes as canonical tar files, spliced from what is deflated already, or compressed.

The bytes of a layer are a function of its nodes and of what :meth:`Compression.decided_by` says, whatever order the
nodes come in and however their contents are cut. The tar is a ustar (POSIX.1-2017, pax), with PAX records only for what
ustar can't say, and ends with two blocks of zeros.
"""

import hashlib
import itertools
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol, Self, cast

from reprobuild.archive import Inflater, crc32, refusing, zstd
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, WriteFailed, shown
from reprobuild.oci.delta import Delta, Recorder
from reprobuild.oci.model import OCI_LAYER, Descriptor
from reprobuild.oci.splice import Splicer, even
from reprobuild.oci.tree import Content, Deflated, Node, Range, Recorded

#: Goes up whenever the same nodes give other bytes than before.
LAYOUT_VERSION = 1
GZIP_LEVEL = 6
ZSTD_LEVEL = 3
_BLOCK = 512
_NAMED = 32  # bytes that a record of a long name has besides that name
_END = bytes(2 * _BLOCK)
#: Bytes that a compressor gets at once, so that it can't matter how contents are cut.
_STEP = 1 << 16
#: Bytes that go to another thread at once, and how many such batches may wait.
_BATCH, _AHEAD = 1 << 20, 4
_KINDS = {"file": b"0", "symlink": b"2", "directory": b"5"}
_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_UNSAFE = "Leave it out of the layer; a runtime would write outside of the root, or remove a file of a lower layer."


class Compression(Enum):
    """How a layer is compressed."""

    SPLICE = "splice"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def media_type(self) -> str:
        """Of a layer (OCI layer.md)."""
        return f"{OCI_LAYER}+{'zstd' if self is Compression.ZSTD else 'gzip'}"

    def decided_by(self) -> dict[str, str | int]:
        """All that decides a layer's bytes beside its nodes, for records and keys.

        Raises:
            ToolMissing: there is no zstd library.
        """
        known: dict[str, str | int] = {"compression": self.value, "layout": LAYOUT_VERSION}
        if self is Compression.GZIP:
            known |= {"level": GZIP_LEVEL, "zlib": zlib.ZLIB_RUNTIME_VERSION}
        if self is Compression.ZSTD:
            known |= {"level": ZSTD_LEVEL, "zstd": zstd().zstd_version}
        return known


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was written.

    Attributes:
        descriptor: media type, digest and size of its compressed bytes.
        diff_id: the digest of the tar.
        tar_size: bytes of the tar.
    """

    descriptor: Descriptor
    diff_id: Digest
    tar_size: int


def write_again(delta: Delta, sources: Sequence[Path], stream: BinaryIO, size: int) -> Digest:
    """Write a spliced layer that was recorded; the digest of what came out, to be compared.

    Args:
        sources: the wheels, as the recorder had them.
        size: bytes that it has to have.

    Raises:
        BadInput: it has another size; a wheel can't be read, or isn't the one it was.
        WriteFailed: the stream can't be written to.
    """
    if delta.size != size:
        raise BadInput(f"What is remembered of a layer gives {delta.size} bytes, and it has {size}.")
    hasher = hashlib.sha256()
    for piece in delta.pieces(sources):
        hasher.update(piece)
        _write(stream, piece)
    return Digest("sha256", hasher.hexdigest())


def write_layer(
    nodes: Iterable[Node],
    stream: BinaryIO,
    compression: Compression,
    *,
    diff_id: Digest | None = None,
    recorder: Recorder | None = None,
) -> Layer:
    """Write one layer, in one pass; no content is held whole.

    Content that is deflated already is inflated while it is written, to check it and for the diff ID.

    Args:
        nodes: in any order. Parents that aren't among them are the business of lower layers.
        stream: where the compressed bytes go.
        diff_id: what an earlier run found for the same nodes; then neither the tar is hashed nor, when splicing,
            anything inflated or checked.
        recorder: keeps a spliced layer as its difference from its wheels.

    Raises:
        BadInput: two nodes have one path, a path is unsafe, or a content isn't what it declares.
        ToolMissing: there is no zstd library.
        WriteFailed: the stream can't be written to.
    """
    ordered = _checked(nodes)
    out = _Out(stream, recorder)
    with _Tar(hashed=diff_id is None) as tar:
        if compression is Compression.SPLICE:
            _splice(ordered, out, tar)
        else:
            _compress(ordered, out, tar, _compressor(compression))
        found = diff_id or tar.digest()
    return Layer(out.descriptor(compression.media_type), found, tar.size)


# --- what may be in a layer ----------------------------------------------------------------------


def _checked(nodes: Iterable[Node]) -> list[Node]:
    """The nodes, each behind its parent and with what lies below it right behind it."""
    ordered = sorted(nodes, key=lambda node: node.path.replace("/", "\0"))
    for node in ordered:
        parts = node.path.split("/")
        if {"", ".", ".."} & {*parts} or "\0" in node.path + node.target:
            raise BadInput(f"{shown(node.path)!r} is not a path for a layer.", _UNSAFE)
        if any(part.startswith(".wh.") for part in parts):
            raise BadInput(f"{shown(node.path)!r} would be read as the removal of another file.", _UNSAFE)
        if (node.kind == "file") != (node.content is not None) or (node.kind == "symlink") != bool(node.target):
            raise BadInput(f"{shown(node.path)!r} is a {node.kind} without what makes it one.")
    for first, second in itertools.pairwise(ordered):
        if first.path == second.path:
            raise BadInput(
                f"{shown(first.path)!r} is twice in one layer.", "Two sources give the same path: rename one."
            )
        if first.kind != "directory" and second.path.startswith(f"{first.path}/"):
            raise BadInput(f"{shown(second.path)!r} lies under {shown(first.path)!r}, which is no folder.", _UNSAFE)
    return ordered


# --- tar headers ---------------------------------------------------------------------------------


def tar_header(node: Node) -> bytes:
    """The header of a node, with a PAX header in front where ustar can't say it.

    Raises:
        BadInput: a name isn't text.
    """
    records: dict[str, bytes] = {}
    try:
        path = (node.path + "/" * (node.kind == "directory")).encode()
        target = node.target.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{shown(node.path)!r} is not a name in UTF-8.", "Rename it.") from error
    prefix, name = _split(path)
    if not path.isascii() or not name:
        records["path"] = path
        prefix, name = b"", _plain(path)
    if not target.isascii() or len(target) > 100:
        records["linkpath"] = target
    size = node.content.size if node.content else 0
    numbers = {"uid": (node.uid, 8), "gid": (node.gid, 8), "size": (size, 12), "mtime": (node.mtime, 12)}
    fields = {key: _octal(value, width) for key, (value, width) in numbers.items()}
    records |= {key: str(numbers[key][0]).encode() for key, field in fields.items() if not field}
    header = _ustar(name, prefix, _KINDS[node.kind], node.mode, fields, _plain(target))
    if not records:
        return header
    pax = b"".join(_record(key, value) for key, value in sorted(records.items()))
    front = {"uid": _octal(0, 8), "gid": _octal(0, 8), "size": _octal(len(pax), 12), "mtime": _octal(0, 12)}
    return _ustar(b"PaxHeader", b"", b"x", 0o644, front, b"") + pax + bytes(-len(pax) % _BLOCK) + header


def packed_size(nodes: Iterable[Node]) -> int:
    """Bytes that some nodes take in a tar, at most: a header, the record of a long name with its own, the content."""
    return sum(
        2 * _BLOCK + _padded(len(node.path.encode()) + _NAMED) + _padded(node.content.size if node.content else 0)
        for node in nodes
    )


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _split(path: bytes) -> tuple[bytes, bytes]:
    """A path as ustar's prefix and name; both are empty where it is too long."""
    if len(path) <= 100:
        return b"", path
    at = path.find(b"/", len(path) - 101)
    return (path[:at], path[at + 1 :]) if 0 < at <= 155 and path[at + 1 :] else (b"", b"")


def _plain(text: bytes) -> bytes:
    """What readers see that know no PAX records."""
    return text.decode().encode("ascii", "replace")[:100]


def _octal(value: int, width: int) -> bytes:
    """A number in a field with a NUL at its end; empty where it doesn't fit."""
    return b"%0*o\0" % (width - 1, value) if 0 <= value < 8 ** (width - 1) else b""


def _ustar(name: bytes, prefix: bytes, kind: bytes, mode: int, fields: dict[str, bytes], target: bytes) -> bytes:
    uid, gid, size, mtime = (
        fields[key] or _octal(0, 12 if key in ("size", "mtime") else 8) for key in ("uid", "gid", "size", "mtime")
    )
    mode_field = _octal(mode & 0o7777, 8)
    zero = _octal(0, 8)
    before = (name, mode_field, uid, gid, size, mtime)
    behind = (kind, target, b"ustar\0", b"00", b"", b"", zero, zero, prefix)
    total = sum(_USTAR.pack(*before, b" " * 8, *behind))
    return _USTAR.pack(*before, b"%06o\0 " % total, *behind)


def _record(key: str, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE``, where the length counts its own digits."""
    rest = b" %s=%s\n" % (key.encode(), value)
    length = len(rest) + 1
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%s" % (length, rest)


# --- where the bytes go --------------------------------------------------------------------------


class _Out:
    """The compressed bytes: gathered, hashed, counted and written."""

    def __init__(self, stream: BinaryIO, recorder: Recorder | None = None) -> None:
        self.recorder = recorder
        self._stream = stream
        self._hasher = hashlib.sha256()
        self._gathered = bytearray()
        self._size = 0

    def write(self, data: bytes) -> None:
        if self.recorder:
            self.recorder.wrote(data)
        self.copy(data)

    def copy(self, data: bytes) -> None:
        """What the recorder knows already."""
        self._gathered += data
        if len(self._gathered) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._hasher.update(self._gathered)
        self._size += len(self._gathered)
        _write(self._stream, self._gathered)
        self._gathered = bytearray()

    def descriptor(self, media_type: str) -> Descriptor:
        """Of all that was written."""
        self._flush()
        return Descriptor(media_type, Digest("sha256", self._hasher.hexdigest()), self._size)


def _write(stream: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    try:
        stream.write(data)
    except OSError as error:
        raise WriteFailed(f"The layer can't be written: {error.strerror or error}.", "Free some space.") from error


class _Tar:
    """The uncompressed bytes: counted, and hashed by another thread, which also inflates what comes deflated."""

    def __init__(self, *, hashed: bool) -> None:
        self.hashed = hashed
        self._pool = ThreadPoolExecutor(1) if hashed else None
        self._running: deque[Future[None]] = deque()
        self._steps: list[tuple[Callable[..., Iterable[bytes]], tuple[object, ...]]] = []
        self._waiting = 0
        self._hasher = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def add(self, data: bytes) -> bytes:
        """Bytes of the tar as they are; they are passed on."""
        self.size += len(data)
        self.later(len(data), _same, data)
        return data

    def later(self, cost: int, step: Callable[..., Iterable[bytes]], *arguments: object) -> None:
        """Bytes of the tar that the other thread makes, from as many bytes as ``cost`` says."""
        if self._pool is None:
            return
        self._steps.append((step, arguments))
        self._waiting += cost
        if self._waiting >= _BATCH:
            self._hand_over(self._pool)

    def _hand_over(self, pool: ThreadPoolExecutor) -> None:
        self._running.append(pool.submit(self._hash, self._steps))
        self._steps, self._waiting = [], 0
        if len(self._running) > _AHEAD:
            self._running.popleft().result()

    def _hash(self, steps: list[tuple[Callable[..., Iterable[bytes]], tuple[object, ...]]]) -> None:
        steps.reverse()
        while steps:  # what is done goes at once: a batch may have thousands of small streams
            step, arguments = steps.pop()
            for piece in step(*arguments):
                self._hasher.update(piece)

    def digest(self) -> Digest:
        """The diff ID, when all of it was added."""
        if self._pool:
            self._hand_over(self._pool)
        for each in self._running:
            each.result()
        return Digest("sha256", self._hasher.hexdigest())


def _same(data: bytes) -> Iterable[bytes]:
    return (data,)


class _Inflating:
    """A deflate stream as it is inflated: what comes out must be what was declared."""

    def __init__(self, deflated: Deflated, path: str) -> None:
        self._declared, self._path = deflated, path
        self._recorded = Recorded(deflated.record)
        self._crc = self._size = self._raw_size = 0

    @cached_property
    def _inflater(self) -> Inflater:
        """Made when its turn comes: it takes 40 kB, and thousands may wait."""
        return Inflater(fast=bool(self._declared.record))

    def feed(self, piece: bytes) -> Iterator[bytes]:
        self._raw_size += len(piece)
        return self._counted(self._inflater.feed(piece))

    def end(self) -> Iterator[bytes]:
        yield from self._counted(self._inflater.end())
        declared = (self._declared.crc, self._declared.size, self._declared.raw_size)
        if (self._crc, self._size, self._raw_size) != declared:
            raise _other_content(self._path)
        self._recorded.end(self._path)

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        with refusing(f"The content of {shown(self._path)!r}"):
            for piece in pieces:
                self._size += len(piece)
                if self._size > self._declared.size:
                    raise _other_content(self._path)
                self._crc = crc32(piece, self._crc)
                self._recorded.update(piece)
                yield piece


def _other_content(path: str) -> BadInput:
    return BadInput(
        f"{shown(path)!r} has other content than its size and check sum say.",
        "Its source changed, or was damaged on the way: fetch it again.",
    )


def _exactly(content: Content, path: str) -> Iterator[bytes]:
    left = content.size
    for piece in content.chunks():
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise _other_content(path)


# --- compressions --------------------------------------------------------------------------------


def _splice(nodes: Iterable[Node], out: _Out, tar: _Tar) -> None:
    splicer = Splicer(out.write, out.copy)
    padding = b""
    for node in nodes:
        splicer.text(tar.add(padding + tar_header(node)))
        padding = b""
        if node.content is None:
            continue
        content, path = node.content, node.path
        deflated = content.deflated()
        if not content.size:
            deque(_exactly(content, path), 0)
        elif deflated is None:
            splicer.stored(map(tar.add, _exactly(content, path)))
        elif deflated.size != content.size:
            raise _other_content(path)
        else:
            if out.recorder:
                deflated = replace(deflated, raw=_recording(deflated, out.recorder))
            splicer.deflated(_inflated(deflated, path, tar), deflated.crc, deflated.size)
        padding = bytes(-content.size % _BLOCK)
    splicer.text(tar.add(padding + _END))
    splicer.end()


def _recording(deflated: Deflated, recorder: Recorder) -> Iterator[bytes]:
    """A deflate stream whose place is kept when it is read, or itself if it has none."""
    raw = deflated.raw
    for number, piece in enumerate(raw):
        if not isinstance(raw, Range):
            recorder.wrote(piece)
        elif not number:
            recorder.copied(raw.path, raw.start, deflated.raw_size)
        yield piece


def _inflated(deflated: Deflated, path: str, tar: _Tar) -> Iterator[bytes]:
    """Pass a deflate stream on, and have it inflated meanwhile."""
    tar.size += deflated.size
    if not tar.hashed:
        yield from deflated.raw
        return
    inflating = _Inflating(deflated, path)
    for piece in deflated.raw:
        tar.later(len(piece), inflating.feed, piece)
        yield piece
    tar.later(0, inflating.end)


def _compress(nodes: Iterable[Node], out: _Out, tar: _Tar, compressor: "_Compressor") -> None:
    for block in even(map(tar.add, _tar_of(nodes)), _STEP):
        out.write(compressor.compress(block))
    out.write(compressor.flush())


def _tar_of(nodes: Iterable[Node]) -> Iterator[bytes]:
    for node in nodes:
        yield tar_header(node)
        if node.content:
            yield from _exactly(node.content, node.path)
            yield bytes(-node.content.size % _BLOCK)
    yield _END


class _Compressor(Protocol):
    """What zlib's and zstd's objects have in common."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor(compression: Compression) -> _Compressor:
    if compression is Compression.GZIP:
        return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # as gzip, without a time
    library = zstd()
    key = library.CompressionParameter
    options = {key.compression_level: ZSTD_LEVEL, key.nb_workers: 0, key.checksum_flag: 1}
    return cast("_Compressor", library.ZstdCompressor(options=options))
