"""Images that are found by what a user calls them, and the records beside them."""

from dataclasses import replace

import pytest

from reprobuild import attest
from reprobuild.digest import canonical_json
from reprobuild.errors import BadInput
from reprobuild.image.store import find
from reprobuild.oci.layout import Layout, write_archive
from reprobuild.oci.model import OCI_CONFIG, Index, Manifest, Platform


def no_registry(reference):
    raise AssertionError(f"{reference} was asked for")


def put_image(layout, config):
    """An image without layers."""
    document = {"os": "linux", **config, "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = Manifest.make(layout.put_document(OCI_CONFIG, canonical_json(document)), [])
    return layout.put_document(manifest.descriptor.media_type, manifest.raw)


def record_of(image):
    subject = attest.descriptor({"sha256": image.digest.hex}, name="app")
    statement = attest.provenance(
        subject,
        build_type=attest.IMAGE_BUILD_TYPE,
        external={},
        internal={},
        dependencies=[],
        builder_version={"reprobuild": "0"},
    )
    return attest.encode(statement)


def test_a_record_beside_an_archive_is_found_whatever_the_config_calls_the_platform(tmp_path):
    layout = Layout(tmp_path / "layout", create=True)
    images = [
        put_image(layout, {"architecture": "amd64"}),
        put_image(layout, {"architecture": "arm64", "variant": "v8"}),
    ]
    asked = [
        replace(images[0], platform=Platform("linux", "amd64")),
        replace(images[1], platform=Platform("linux", "arm64")),
    ]
    index = Index.make(asked)
    with (tmp_path / "app[1].tar").open("wb") as stream:
        write_archive(layout, layout.put_document(index.descriptor.media_type, index.raw), {}, stream)
    for image, name in zip(images, ("linux-amd64", "linux-arm64"), strict=True):
        (tmp_path / f"app[1].tar.{name}.intoto.json").write_bytes(record_of(image))
    found = find(f"oci-archive:{tmp_path / 'app[1].tar'}", no_registry, tmp_path)
    records = [found.records(image) for image in found.images]
    assert [[record.subject for record in each] for each in records] == [[image.digest] for image in images]


def test_an_archive_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(BadInput, match=r"There is no archive .*nope\.tar"):
        find(f"oci-archive:{tmp_path / 'nope.tar'}", no_registry, tmp_path)
