"""Whatever the tree: tarfile reads from a layer what was written, and only the nodes decide the bytes."""

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild.archive import zstd as zstd_library
from reprobuild.digest import Digest
from reprobuild.oci.layer import Compression, write_layer
from reprobuild.oci.rootfs import open_layer
from reprobuild.oci.splice import even
from reprobuild.oci.tree import Deflated, Node

zstd = zstd_library()


@dataclass(frozen=True)
class Cut:
    """Content that comes in pieces of some length, as it is or deflated."""

    data: bytes = field(repr=False)
    length: int
    level: int | None

    @property
    def size(self):
        return len(self.data)

    def chunks(self):
        return self._cut(self.data)

    def deflated(self):
        if self.level is None:
            return None
        deflater = zlib.compressobj(self.level, zlib.DEFLATED, -15)
        raw = deflater.compress(self.data) + deflater.flush()
        return Deflated(zlib.crc32(self.data), len(self.data), len(raw), self._cut(raw))

    def _cut(self, data):
        length = max(self.length, len(data) // 200)
        return iter([data[at : at + length] for at in range(0, len(data), length)])


parts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda part: part not in (".", "..") and not part.startswith(".wh.")
)
paths = st.lists(parts, min_size=1, max_size=5).map("/".join)
runs = st.tuples(st.sampled_from([b"\0", b"0", b"a", b"\xff\x90"]), st.integers(0, 1200)).map(
    lambda run: run[0] * run[1]
)
data = st.one_of(st.binary(max_size=600), st.lists(runs, max_size=6).map(b"".join), st.just(bytes(range(256)) * 300))
contents = st.tuples(data, st.integers(1, 5000), st.one_of(st.none(), st.integers(0, 9))).map(lambda each: Cut(*each))
numbers = st.integers(0, 1 << 32)


@st.composite
def trees(draw):
    found: dict[str, Node] = {}
    for path in draw(st.lists(paths, max_size=8, unique=True)):
        above = {path[:at] for at, char in enumerate(path) if char == "/"}
        if any(other.startswith(f"{path}/") for other in found) or any(
            found[other].kind != "directory" for other in above & {*found}
        ):
            continue
        kind = draw(st.sampled_from(["file", "directory", "symlink"]))
        found[path] = Node(
            path,
            kind,
            draw(st.integers(0, 0o7777)),
            draw(st.integers(-(1 << 31), 253_402_300_799)),
            draw(numbers),
            draw(numbers),
            target=draw(paths) if kind == "symlink" else "",
            content=draw(contents) if kind == "file" else None,
        )
    return list(found.values())


def written(nodes, compression):
    out = io.BytesIO()
    return write_layer(nodes, out, compression), out.getvalue()


def unpacked(data, compression):
    return zstd.decompress(data) if compression is Compression.ZSTD else gzip.decompress(data)


def held(tar, info):
    return tar.extractfile(info).read()


def seen(node):
    return node.kind, node.mode, node.mtime, node.uid, node.gid, node.target, node.content and node.content.data


KINDS = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink"}


@settings(deadline=None)
@given(trees())
def test_tarfile_reads_what_was_written(nodes):
    _, data = written(nodes, Compression.SPLICE)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        found = {
            info.name: (
                KINDS[info.type],
                info.mode,
                int(info.mtime),
                info.uid,
                info.gid,
                info.linkname,
                held(tar, info) if info.isreg() else None,
            )
            for info in tar
        }
    assert found == {node.path: seen(node) for node in nodes}


@settings(deadline=None)
@given(trees())
def test_every_compression_holds_the_same_tar(nodes):
    made = {compression: written(nodes, compression) for compression in Compression}
    tars = {unpacked(data, compression) for compression, (_, data) in made.items()}
    (tar,) = tars
    for layer, _ in made.values():
        assert (layer.diff_id, layer.tar_size) == (Digest.of_bytes(tar), len(tar))


@settings(deadline=None)
@given(trees().flatmap(lambda nodes: st.tuples(st.just(nodes), st.permutations(nodes))), st.sampled_from(Compression))
def test_the_order_of_nodes_does_not_matter(both, compression):
    first, second = both
    assert written(first, compression) == written(second, compression)


@settings(deadline=None)
@given(trees(), st.integers(1, 5000), st.sampled_from(Compression))
def test_how_contents_are_cut_does_not_matter(nodes, length, compression):
    def cut(node):
        content = node.content and Cut(node.content.data, length, node.content.level)
        return Node(node.path, node.kind, node.mode, node.mtime, node.uid, node.gid, node.target, content)

    assert written(nodes, compression) == written(map(cut, nodes), compression)


@settings(deadline=None)
@given(trees().filter(bool), st.sampled_from(Compression))
def test_our_own_reader_finds_the_same(nodes, compression):
    _, data = written(nodes, compression)
    with open_layer(io.BytesIO(data), name="the layer") as layer:
        found = {entry.name: (entry.kind, entry.mode, entry.seconds, entry.target) for entry in layer.entries}
        assert found == {node.path: (node.kind, node.mode, node.mtime, node.target) for node in nodes}
        for entry in layer.entries:
            if entry.kind == "file":
                content = next(node.content.data for node in nodes if node.path == entry.name)
                assert (entry.digest, b"".join(layer.chunks(entry))) == (Digest.of_bytes(content), content)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 40))
def test_even_pieces_are_the_same_bytes(pieces, size):
    found = list(even(pieces, size))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(piece) == size for piece in found[:-1])
    assert all(0 < len(piece) <= size for piece in found[-1:])
