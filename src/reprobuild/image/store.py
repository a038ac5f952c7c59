"""Where a finished image lies, and the records that lie beside it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from reprobuild import attest
from reprobuild.attest import ImageRecord, Json
from reprobuild.errors import BadInput, RecordUnusable
from reprobuild.image.compare import Readable
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import INDEXES, OCI_EMPTY, Descriptor, ImageConfig, Index, Manifest

#: The artifact type of a record, and the media type of its one layer (in-toto attestation framework, "Media types").
STATEMENT = "application/vnd.in-toto+json"
_PREDICATE = "in-toto.io/predicate-type"
_EMPTY = b"{}"


class Place(Protocol):
    """Where an image lies: a layout or a repository in a registry."""

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest, config or statement, checked."""

    def path_of(self, descriptor: Descriptor) -> Path:
        """Where a layer lies on this machine, fetched if need be."""

    def referrers(self, subject: Descriptor) -> tuple[Manifest, ...]:
        """The artifacts that are about something."""


@dataclass(frozen=True, slots=True)
class InLayout:
    """An OCI image layout as a place."""

    layout: Layout

    def read(self, descriptor: Descriptor) -> bytes:
        return self.layout.read(descriptor)

    def path_of(self, descriptor: Descriptor) -> Path:
        if not self.layout.has(descriptor.digest):
            raise BadInput(
                f"{self.layout.folder} lacks the layer {descriptor.digest}.", "Build it with -o oci:DIR, or pull it."
            )
        return self.layout.path_of(descriptor.digest)

    def referrers(self, subject: Descriptor) -> tuple[Manifest, ...]:
        return self.layout.referrers(subject.digest)


def images_of(place: Place, top: Descriptor, where: str) -> tuple[Readable, ...]:
    """The images that a manifest or an index stands for, one a platform.

    Raises:
        BadInput, DigestMismatch: a part is missing, damaged, or no image.
    """
    if top.media_type in INDEXES:
        images = [each for each in Index.read(place.read(top), where).manifests if each.platform]
        return tuple(image for each in images for image in images_of(place, each, f"{where} ({each.platform})"))
    manifest = Manifest.read(place.read(top), where)
    config = ImageConfig.read(place.read(manifest.config), f"the config of {where}")
    return (Readable(where, manifest, config, place.path_of),)


def artifact_of(statement: Json, subject: Descriptor) -> tuple[Manifest, tuple[tuple[Descriptor, bytes], ...]]:
    """A statement as an artifact about an image (OCI manifest.md, "subject"), and the blobs that it consists of."""
    raw = attest.encode(statement)
    layer, config = Descriptor.of(STATEMENT, raw), Descriptor.of(OCI_EMPTY, _EMPTY)
    manifest = Manifest.make(
        config,
        [layer],
        annotations={_PREDICATE: str(statement["predicateType"])},
        subject=replace(subject, platform=None),
        artifact_type=STATEMENT,
    )
    return manifest, ((config, _EMPTY), (layer, raw))


def add_record(layout: Layout, statement: Json, subject: Descriptor) -> None:
    """Put a record beside its image."""
    manifest, blobs = artifact_of(statement, subject)
    for descriptor, raw in blobs:
        layout.put_document(descriptor.media_type, raw)
    kept = layout.put_document(manifest.descriptor.media_type, manifest.raw)
    layout.add(replace(kept, artifact_type=STATEMENT, annotations=dict(manifest.annotations)))


def record_of(place: Place, image: Readable) -> ImageRecord:
    """The record beside an image.

    Raises:
        RecordUnusable: there is none, several, or one that is about another image.
    """
    subject = image.manifest.descriptor
    found = []
    for each in place.referrers(subject):
        if each.artifact_type == STATEMENT and each.annotations.get(_PREDICATE) == attest.PROVENANCE_TYPE:
            (layer,) = each.layers if len(each.layers) == 1 else (None,)
            if layer is not None:
                found.append(ImageRecord(place.read(layer), f"the record of {image.where}"))
    about = [record for record in found if record.subject == subject.digest]
    if len(about) != 1:
        raise RecordUnusable(
            f"{image.where} has {len(about)} records of how it was built.",
            "`reprobuild image` writes one beside it; copy an image together with its referrers.",
        )
    return about[0]
