"""An OCI image layout, as a folder and as one tar."""

import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from reprobuild.archive import extract_tar
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, WriteFailed
from reprobuild.image.archive import Archive
from reprobuild.oci.layout import REF_NAME, Layout, reachable, write_archive
from reprobuild.oci.model import DOCUMENT_LIMIT, OCI_CONFIG, OCI_EMPTY, OCI_LAYER, Descriptor, Index, Manifest, Platform

LAYER = b"the bytes of a layer"
CONFIG = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}).encode()


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "image", create=True)


def an_image(layout, layer=LAYER):
    kept = Descriptor.of(OCI_LAYER, layer)
    layout.put(kept.digest, [layer])
    manifest = Manifest.make(layout.put_document(OCI_CONFIG, CONFIG), [kept])
    return layout.put_document(manifest.descriptor.media_type, manifest.raw)


def about(layout, subject):
    layout.put_document(OCI_EMPTY, b"{}")
    manifest = Manifest.make(Descriptor.of(OCI_EMPTY, b"{}"), [], subject=subject, artifact_type="application/x")
    return layout.put_document(manifest.descriptor.media_type, manifest.raw)


def test_a_layout_is_what_the_specification_says(layout):
    image = an_image(layout)
    layout.add(image, "latest")
    assert json.loads((layout.folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout.folder / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == [{**image.json(), "annotations": {REF_NAME: "latest"}}]
    blob = layout.folder / "blobs" / "sha256" / Digest.of_bytes(LAYER).hex
    assert blob.read_bytes() == LAYER
    assert Layout(layout.folder).find() == layout.find("latest") == layout.find(str(image.digest))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_an_archive_waits_for_no_pipe(layout, make):
    image = an_image(layout)
    assert Archive(layout).manifest(image.digest) == (image.media_type, layout.read(image))
    layout.path_of(image.digest).unlink()
    with pytest.raises(BadInput, match="doesn't hold"):
        Archive(layout).manifest(image.digest)
    make(layout.path_of(image.digest))
    with pytest.raises(BadInput, match="is not a file"):
        Archive(layout).manifest(image.digest)


def test_a_name_moves(layout):
    first, second = an_image(layout), an_image(layout, b"another")
    layout.add(first, "a")
    layout.add(first, "b")
    layout.add(second, "a")
    assert layout.find("a").digest == second.digest
    assert layout.find("b").digest == first.digest
    layout.add(first)
    layout.add(first)
    assert len(layout.index().manifests) == 3


def test_an_image_may_have_several_names(layout):
    image = an_image(layout)
    layout.add(image, "a")
    layout.add(layout.find("a"), "b")
    assert layout.find().digest == image.digest
    layout.add(layout.find("a"))
    assert [each.annotations.get(REF_NAME) for each in layout.index().manifests] == ["a", "b", None]


def test_a_folder_that_lost_its_mark_keeps_its_images(layout):
    image = an_image(layout)
    layout.add(image, "a")
    (layout.folder / "oci-layout").unlink()
    assert Layout(layout.folder, create=True).find("a").digest == image.digest


@pytest.mark.parametrize("name", ["", "c"])
def test_which_image_is_meant_must_be_said(layout, name):
    layout.add(an_image(layout), "a")
    layout.add(an_image(layout, b"another"), "b")
    with pytest.raises(BadInput, match="it has a, b"):
        layout.find(name)


def test_a_folder_with_other_things_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(BadInput, match=r"thesis\.txt"):
        Layout(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(BadInput, match="no oci-layout file"):
        Layout(tmp_path)


def test_wrong_bytes_are_not_kept(layout):
    digest = Digest.of_bytes(LAYER)
    with pytest.raises(DigestMismatch):
        layout.put(digest, [LAYER, b"!"])
    assert not layout.has(digest)
    assert [path for path in (layout.folder / "blobs").rglob("*") if path.is_file()] == []


def write(layout, finish):
    with layout.new_blob() as (stream, place):
        stream.write(LAYER)
        finish(place)


def test_a_new_blob_appears_whole_or_not_at_all(layout):
    digest = Digest.of_bytes(LAYER)
    with pytest.raises(KeyError):
        write(layout, lambda _: dict[int, str]()[0])
    assert [path for path in (layout.folder / "blobs").rglob("*") if path.is_file()] == []
    write(layout, lambda place: place(digest))
    assert b"".join(layout.chunks(Descriptor.of(OCI_LAYER, LAYER))) == LAYER


def test_a_new_blob_is_whole_as_soon_as_it_has_its_place(layout):
    seen = []

    def finish(place):
        place(Digest.of_bytes(LAYER))
        seen.append(layout.path_of(Digest.of_bytes(LAYER)).read_bytes())

    write(layout, finish)
    assert seen == [LAYER]


def test_a_blob_that_lost_its_end_is_not_held(layout):
    kept = Descriptor.of(OCI_LAYER, LAYER)
    assert not layout.holds(kept)
    layout.put(kept.digest, [LAYER])
    assert layout.holds(kept)
    layout.path_of(kept.digest).write_bytes(LAYER[:-1])
    assert layout.has(kept.digest)
    assert not layout.holds(kept)


def test_what_is_no_file_is_not_opened(layout):
    kept = Descriptor.of(OCI_LAYER, LAYER)
    layout.path_of(kept.digest).mkdir(parents=True)
    with pytest.raises(BadInput, match=f"{kept.digest.hex} is not a file"):
        list(layout.chunks(kept))
    (layout.folder / "index.json").unlink()
    (layout.folder / "index.json").mkdir()
    with pytest.raises(BadInput, match=r"index\.json is not a file"):
        layout.index()


def test_what_is_too_large_for_a_document_is_not_read(layout):
    layout.put(Digest.of_bytes(LAYER), [LAYER])
    with pytest.raises(BadInput, match="too many for a"):
        layout.read(Descriptor(OCI_CONFIG, Digest.of_bytes(LAYER), DOCUMENT_LIMIT + 1))


def test_damage_is_found_when_it_is_read(layout):
    image = an_image(layout)
    kept = Descriptor.of(OCI_LAYER, LAYER)
    layout.path_of(kept.digest).write_bytes(LAYER[::-1])
    with pytest.raises(DigestMismatch):
        list(layout.chunks(kept))
    with pytest.raises(DigestMismatch):
        write_archive(layout, image, {}, io.BytesIO())
    layout.path_of(kept.digest).write_bytes(b"short")
    with pytest.raises(BadInput, match="does not have its 20 bytes"):
        list(layout.chunks(kept))
    layout.path_of(kept.digest).unlink()
    with pytest.raises(BadInput, match="lacks the blob"):
        list(layout.chunks(kept))


def test_a_blob_can_be_read_from_the_middle(layout):
    an_image(layout)
    assert b"".join(layout.chunks(Descriptor.of(OCI_LAYER, LAYER), 4)) == LAYER[4:]


def test_what_has_no_room_is_told(layout, monkeypatch):
    (layout.folder / "blobs" / "sha256").mkdir(parents=True)
    (layout.folder / "blobs" / "sha256" / Digest.of_bytes(LAYER).hex).mkdir()  # root may write anywhere
    with pytest.raises(WriteFailed):
        write(layout, lambda place: place(Digest.of_bytes(LAYER)))
    assert list((layout.folder / "blobs").glob(".*")) == []


def test_many_at_once_lose_nothing(layout):
    images = [an_image(layout, str(number).encode()) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: Layout(layout.folder).add(pair[1], str(pair[0])), enumerate(images)))
    assert [layout.find(str(number)).digest for number in range(24)] == [each.digest for each in images]


def test_an_archive_is_the_same_whenever_and_wherever_it_is_made(tmp_path):
    archives = []
    for folder, order in (("one", (LAYER, b"other")), ("two", (b"other", LAYER))):
        layout = Layout(tmp_path / folder, create=True)
        for layer in order:
            layout.add(an_image(layout, layer), "latest" if layer == LAYER else "other")
        stream = io.BytesIO()
        write_archive(layout, layout.find("latest"), {REF_NAME: "latest"}, stream)
        archives.append(stream.getvalue())
    assert archives[0] == archives[1]
    with tarfile.open(fileobj=io.BytesIO(archives[0])) as tar:
        assert {(each.mtime, each.uid, each.uname) for each in tar} == {(0, 0, "")}
    (tmp_path / "out").mkdir()
    extract_tar(io.BytesIO(archives[0]), tmp_path / "out")
    assert Layout(tmp_path / "out").find("latest").digest == Layout(tmp_path / "one").find("latest").digest
    assert len(reachable(Layout(tmp_path / "out"), Layout(tmp_path / "out").find())) == 3


def test_blobs_of_an_archive_stand_in_the_order_of_their_digests(layout):
    image = an_image(layout)
    out = io.BytesIO()
    write_archive(layout, image, {}, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        names = [each.name for each in tar if each.isfile() and each.name.startswith("blobs/")]
    assert len(names) == 3
    assert names == sorted(names)


def test_all_platforms_of_an_index_are_reached(layout):
    images = [an_image(layout, layer) for layer in (LAYER, b"arm")]
    index = Index.make(images)
    top = layout.put_document(index.descriptor.media_type, index.raw)
    assert len(reachable(layout, top)) == 1 + 2 + 1 + 2
    for _ in range(4):
        top = layout.put_document(index.descriptor.media_type, (index := Index.make([top])).raw)
    with pytest.raises(BadInput, match="an index in an index"):
        reachable(layout, top)


def test_what_is_about_an_image_is_no_image(layout):
    image = an_image(layout)
    layout.add(image, "latest")
    statement = about(layout, image)
    layout.add(Descriptor(statement.media_type, statement.digest, statement.size, artifact_type="application/x"))
    assert layout.find().digest == image.digest
    assert [each.descriptor.digest for each in layout.referrers(image.digest)] == [statement.digest]
    assert layout.referrers(statement.digest) == ()


# --- the values ----------------------------------------------------------------------------------------


def test_the_manifest_for_a_platform():
    made = [Descriptor.of(Manifest.make(Descriptor.of(OCI_CONFIG, b""), []).descriptor.media_type, b"x")] * 3
    platforms = [Platform("linux", "arm64", "v8"), Platform("unknown", "unknown"), Platform("linux", "amd64")]
    index = Index.make(
        [
            Descriptor(each.media_type, Digest.of_bytes(bytes([n])), 1, platform=platforms[n])
            for n, each in enumerate(made)
        ]
    )
    assert index.choose(Platform.parse("linux/arm64"), "it").digest == Digest.of_bytes(b"\0")
    assert index.choose(Platform.parse("linux/amd64"), "it").digest == Digest.of_bytes(b"\2")
    with pytest.raises(BadInput, match="it has no image for linux/s390x; it has linux/amd64, linux/arm64/v8"):
        index.choose(Platform.parse("linux/s390x"), "it")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json"}',
        b'{"config":{"mediaType":"a","size":-1,"digest":"sha256:0"},"layers":[]}',
        b'{"config":{"mediaType":"a","size":true,"digest":"sha256:0"},"layers":[]}',
        b'{"config":{"mediaType":3,"size":1,"digest":"sha256:0"},"layers":[]}',
        b'{"config":{"mediaType":"a","size":1,"digest":"sha256:0"},"layers":{}}',
        b'{"schemaVersion":1,"fsLayers":[]}',
        b"{" + b" " * (4 << 20) + b"}",
    ],
)
def test_what_is_no_manifest_is_refused(raw):
    with pytest.raises(BadInput):
        Manifest.read(raw, "the manifest")
