"""Where images and their records lie, and which of what lies there counts."""

import pytest

from reprobuild import attest
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, DigestMismatch, RecordUnusable, RegistryFailed
from reprobuild.image.store import (
    STATEMENT,
    InLayout,
    InRegistry,
    add_record,
    artifact_of,
    find,
    images_of,
    records_of,
)
from reprobuild.oci.layout import REF_NAME, Layout, write_archive
from reprobuild.oci.model import (
    DOCUMENT_LIMIT,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from reprobuild.oci.registry import Registry

LAYER = b"the bytes of a layer"
PREDICATE = "in-toto.io/predicate-type"
AMD64 = Platform("linux", "amd64")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "image", create=True)


@pytest.fixture
def image(layout):
    """The descriptor of an image that is in the layout."""
    config = canonical_json({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}})
    kept = Descriptor.of(OCI_LAYER, LAYER)
    layout.put(kept.digest, [LAYER])
    manifest = Manifest.make(layout.put_document(OCI_CONFIG, config), [kept])
    descriptor = layout.put_document(manifest.descriptor.media_type, manifest.raw)
    layout.add(descriptor, "latest")
    return descriptor


def a_statement(subject, **external):
    return attest.provenance(
        attest.descriptor({"sha256": subject.digest.hex}, name="app"),
        build_type=attest.IMAGE_BUILD_TYPE,
        external=external,
        internal={},
        dependencies=[],
        builder_version={"reprobuild": "1"},
    )


def add_artifact(layout, subject, layers, artifact_type=STATEMENT, predicate=attest.PROVENANCE_TYPE):
    """Put something beside an image that says to be a record."""
    kept = [layout.put_document(STATEMENT, raw) for raw in layers]
    config = layout.put_document(OCI_EMPTY, b"{}")
    manifest = Manifest.make(
        config, kept, annotations={PREDICATE: predicate}, subject=subject, artifact_type=artifact_type
    )
    descriptor = layout.put_document(manifest.descriptor.media_type, manifest.raw)
    layout.add(Descriptor(OCI_MANIFEST, descriptor.digest, descriptor.size, artifact_type=artifact_type))


def records(layout):
    (found,) = images_of(InLayout(layout), layout.find(), "it")
    return records_of(InLayout(layout), found)


def test_a_record_is_found_beside_its_image(layout, image):
    add_record(layout, a_statement(image), image)
    add_record(layout, a_statement(image), image)
    assert [record.subject for record in records(layout)] == [image.digest]
    assert layout.find() == layout.find("latest")


def test_records_come_in_one_order(layout, image):
    for number in (2, 0, 1):
        add_record(layout, a_statement(image, number=number), image)
    assert [record.external["number"] for record in records(layout)] == [0, 1, 2]


def test_what_is_no_record_does_not_count(layout, image):
    raw = attest.encode(a_statement(image))
    other = Descriptor.of(OCI_MANIFEST, b"another image")
    add_artifact(layout, image, [raw], artifact_type="application/x")
    add_artifact(layout, image, [raw], predicate="https://own.example/other")
    add_artifact(layout, image, [raw, b"{}"])
    add_artifact(layout, image, [])
    add_artifact(layout, other, [raw])
    add_artifact(layout, image, [attest.encode(a_statement(other))])
    with pytest.raises(RecordUnusable, match="it has no record of how it was built"):
        records(layout)
    add_artifact(layout, image, [raw])
    assert len(records(layout)) == 1


def test_a_broken_record_is_told_and_hides_no_other(layout, image):
    add_artifact(layout, image, [b"no statement"])
    with pytest.raises(RecordUnusable, match="is not JSON"):
        records(layout)
    add_record(layout, a_statement(image), image)
    assert len(records(layout)) == 1


def test_a_layer_that_the_layout_lacks(layout, image):
    (found,) = images_of(InLayout(layout), image, "it")
    (layer,) = found.manifest.layers
    assert InLayout(layout).holds(layer)
    assert found.blob(layer).read_bytes() == LAYER
    layout.path_of(layer.digest).write_bytes(LAYER[::-1])
    with pytest.raises(DigestMismatch):
        InLayout(layout).holds(layer)
    layout.path_of(layer.digest).unlink()
    assert not InLayout(layout).holds(layer)
    with pytest.raises(BadInput, match="lacks the layer"):
        found.blob(layer)


def test_images_of_an_index(layout, image):
    index = Index.make([Descriptor(OCI_MANIFEST, image.digest, image.size, platform=AMD64), image])
    top = layout.put_document(index.descriptor.media_type, index.raw)
    (found,) = images_of(InLayout(layout), top, "it")
    assert (found.where, found.manifest.descriptor.digest) == ("it (linux/amd64)", image.digest)


def never(reference):
    raise AssertionError(f"{reference} isn't in a registry")


def test_what_a_user_may_call_an_image(layout, image, tmp_path):
    path = tmp_path / "image.tar"
    with path.open("wb") as stream:
        write_archive(layout, image, {REF_NAME: "latest"}, stream)
    for text in (f"oci:{layout.folder}", f"oci:{layout.folder}:latest", str(layout.folder)):
        found = find(text, never, tmp_path)
        assert (found.top.digest, found.beside) == (image.digest, None)
    for text in (f"oci-archive:{path}", f"oci-archive:{path}:latest", str(path)):
        found = find(text, never, tmp_path)
        assert (found.top.digest, found.beside) == (image.digest, path)
    for text in (f"oci:{layout.folder}:other", f"oci-archive:{path}:other", f"oci:{tmp_path / 'nowhere'}"):
        with pytest.raises(BadInput):
            find(text, never, tmp_path)


def test_a_damaged_archive_is_called_what_the_user_calls_it(layout, image, tmp_path):
    path, scratch = tmp_path / "image.tar", tmp_path / "scratch"
    scratch.mkdir()
    with path.open("wb") as stream:
        write_archive(layout, image, {REF_NAME: "latest"}, stream)
    whole = path.read_bytes()
    config = Manifest.read(layout.read(image), "it").config
    for damaged, says in (
        (whole[:-20_000], f"{path} is damaged"),
        (whole.replace(b'"manifests"', b'"Manifests"'), f"{path}/index.json"),
        (whole.replace(layout.read(config), b" " * config.size), f"{path}/blobs/sha256/{config.digest.hex} has "),
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises((BadInput, DigestMismatch)) as caught:
            find(str(path), never, scratch).images  # noqa: B018 - it is read then
        assert caught.value.reason.startswith(says)
    path.write_bytes(whole)
    with pytest.raises(BadInput) as caught:
        find(f"oci-archive:{path}:other", never, scratch)
    assert caught.value.remedy == f"Name one: oci-archive:{path}:NAME."


def test_the_record_beside_an_archive_is_about_it(layout, image, tmp_path):
    path = tmp_path / "image.tar"
    with path.open("wb") as stream:
        write_archive(layout, image, {REF_NAME: "latest"}, stream)
    found = find(str(path), never, tmp_path)
    other = Descriptor.of(OCI_MANIFEST, b"another image")
    (tmp_path / "image.tar.linux-amd64.intoto.json").write_bytes(attest.encode(a_statement(other)))
    with pytest.raises(RecordUnusable, match="no record of"):
        found.records(found.images[0])
    (tmp_path / "image.tar.intoto.json").write_bytes(attest.encode(a_statement(image)))
    assert [record.subject for record in found.records(found.images[0])] == [image.digest]


# --- in a registry -------------------------------------------------------------------------------------


@pytest.fixture
def place(served, layout, image, tmp_path):
    """The image in a registry."""
    blobs = served.blobs.setdefault("app", {})
    for path in (layout.folder / "blobs" / "sha256").iterdir():
        blobs[f"sha256:{path.name}"] = path.read_bytes()
    served.manifests["app", str(image.digest)] = (OCI_MANIFEST, layout.read(image))
    served.manifests["app", "1"] = (OCI_MANIFEST, layout.read(image))
    return InRegistry(Registry(f"127.0.0.1:{served.port}"), "app", Layout(tmp_path / "fetched", create=True))


def push_record(served, subject, statement):
    artifact, blobs = artifact_of(statement, subject)
    for descriptor, raw in blobs:
        served.blobs["app"][str(descriptor.digest)] = raw
    served.manifests["app", str(artifact.descriptor.digest)] = (OCI_MANIFEST, artifact.raw)


def listed(served, *digests):
    """The index of referrers, as a registry without its API has it."""
    raws = [served.manifests["app", str(digest)][1] for digest in digests]
    return Index.make([Descriptor.of(OCI_MANIFEST, raw, artifact_type=STATEMENT) for raw in raws])


def test_a_layer_is_fetched_once(place, served, image):
    (found,) = images_of(place, image, "it")
    (layer,) = found.manifest.layers
    assert place.holds(layer)
    assert place.path_of(layer).read_bytes() == place.path_of(layer).read_bytes() == LAYER
    assert len(served.asked_for("GET", layer.digest.hex)) == 1


def test_a_document_that_is_too_large_is_not_asked_for(place):
    with pytest.raises(BadInput, match="too many"):
        place.read(Descriptor(OCI_CONFIG, Digest.of_bytes(b""), DOCUMENT_LIMIT + 1))


def test_an_image_is_found_by_its_name(place, served, image, tmp_path):
    found = find(f"docker://127.0.0.1:{served.port}/app:1", lambda _: place.registry, tmp_path)
    assert (found.top.digest, found.beside) == (image.digest, None)
    assert found.images[0].manifest.descriptor.digest == image.digest


def test_what_lists_itself_as_a_referrer_must_be_about_the_image(place, served, image):
    """A list of referrers is what a registry, or whoever may push, says."""
    other = Descriptor.of(OCI_MANIFEST, b"another image")
    push_record(served, image, a_statement(image))
    push_record(served, other, a_statement(image, other=1))
    artifacts = [digest for (_, digest) in served.manifests if digest not in ("1", str(image.digest))]
    index = listed(served, *artifacts)
    served.manifests["app", f"sha256-{image.digest.hex}"] = (index.descriptor.media_type, index.raw)
    assert [each.subject.digest for each in place.referrers(image)] == [image.digest]
    (found,) = images_of(place, image, "it")
    assert len(records_of(place, found)) == 1


def test_a_damaged_referrer_hides_no_record(place, served, image):
    push_record(served, image, a_statement(image))
    (sound,) = [digest for (_, digest) in served.manifests if digest not in ("1", str(image.digest))]
    broken = Descriptor(OCI_MANIFEST, Digest.of_bytes(b"gone"), 4, artifact_type=STATEMENT)
    (found,) = images_of(place, image, "it")

    def list_only(*entries):
        index = Index.make(entries)
        served.manifests["app", f"sha256-{image.digest.hex}"] = (index.descriptor.media_type, index.raw)

    list_only(broken, *listed(served, sound).manifests)
    assert len(records_of(place, found)) == 1
    list_only(broken)
    with pytest.raises(RecordUnusable, match=f"no record but the referrer {broken.digest}"):
        records_of(place, found)
    with pytest.raises(RegistryFailed):
        place.referrers(image)


@pytest.mark.parametrize("name", ["dist/nothing", "./nothing", "nothing.tar", "/nothing"])
def test_a_path_that_leads_nowhere_is_no_name_in_a_registry(tmp_path, monkeypatch, name):
    (tmp_path / "dist").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="There is no image"):
        find(name, lambda _: pytest.fail("a registry was asked"), tmp_path)


@pytest.mark.parametrize(
    ("name", "taken"),
    [("dist/multi", "the name docker.io/dist/multi"), ("training", "the name docker.io/library/training")],
)
def test_a_path_that_is_not_there_is_said_before_what_the_registry_says(served, tmp_path, monkeypatch, name, taken):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryFailed) as caught:
        find(name, lambda _: Registry(f"127.0.0.1:{served.port}"), tmp_path)
    assert caught.value.reason.startswith(f"There is no folder or archive {name}: it was taken for {taken}. 127.0.0.1")
    assert caught.value.remedy.startswith("Check the path. If a registry is meant: ")


def test_a_path_that_can_be_no_name_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"^There is no folder or archive Dist: .* an image's name\. 'Dist'"):
        find("Dist", never, tmp_path)


@pytest.mark.parametrize("name", ["docker://dist/multi", "127.0.0.1:{port}/multi"])
def test_a_name_that_says_its_registry_is_no_missing_path(served, tmp_path, name):
    with pytest.raises(RegistryFailed, match=r"^127\.0\.0\.1:"):
        find(name.format(port=served.port), lambda _: Registry(f"127.0.0.1:{served.port}"), tmp_path)
