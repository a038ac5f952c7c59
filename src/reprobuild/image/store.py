"""Where a finished image lies, and the records that lie beside it."""

import glob
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from reprobuild import attest
from reprobuild.archive import extract_tar
from reprobuild.attest import ImageRecord, Json
from reprobuild.errors import BadInput, RecordUnusable
from reprobuild.image.compare import Readable
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import (
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    OCI_EMPTY,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
)
from reprobuild.oci.reference import Reference
from reprobuild.oci.registry import Registry

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


def add_record(layout: Layout, statement: Json, subject: Descriptor) -> Descriptor:
    """Put a record beside its image; what it is as an artifact."""
    manifest, blobs = artifact_of(statement, subject)
    for descriptor, raw in blobs:
        layout.put_document(descriptor.media_type, raw)
    kept = layout.put_document(manifest.descriptor.media_type, manifest.raw)
    described = replace(kept, artifact_type=STATEMENT, annotations=dict(manifest.annotations))
    layout.add(described)
    return described


def records_of(place: Place, image: Readable) -> tuple[ImageRecord, ...]:
    """The records beside an image: one for each source that it was built from, and each builder."""
    subject = image.manifest.descriptor
    found = []
    for each in place.referrers(subject):
        if each.artifact_type == STATEMENT and each.annotations.get(_PREDICATE) == attest.PROVENANCE_TYPE:
            (layer,) = each.layers if len(each.layers) == 1 else (None,)
            if layer is not None:
                found.append(ImageRecord(place.read(layer), f"the record of {image.where}"))
    return tuple(record for record in found if record.subject == subject.digest)


# --- found by name -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InRegistry:
    """A repository of a registry as a place; layers that are asked for go to a layout."""

    registry: Registry
    repository: str
    layout: Layout

    def read(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > DOCUMENT_LIMIT:
            raise BadInput(f"{descriptor.digest} has {descriptor.size} bytes: too many for a {descriptor.media_type}.")
        if descriptor.media_type in (*INDEXES, *MANIFESTS):
            return self.registry.manifest(self.repository, str(descriptor.digest))[1]
        return b"".join(self.registry.blob(self.repository, descriptor))

    def path_of(self, descriptor: Descriptor) -> Path:
        if not self.layout.has(descriptor.digest):
            self.layout.put(descriptor.digest, self.registry.blob(self.repository, descriptor))
        return self.layout.path_of(descriptor.digest)

    def referrers(self, subject: Descriptor) -> tuple[Manifest, ...]:
        listed = self.registry.referrers(self.repository, subject.digest)
        wanted = (each for each in listed if each.artifact_type in ("", STATEMENT) and each.media_type in MANIFESTS)
        found = (Manifest.read(self.read(each), f"the referrer {each.digest}") for each in wanted)
        return tuple(each for each in found if each.subject and each.subject.digest == subject.digest)


@dataclass(frozen=True, slots=True)
class Found:
    """An image that was found by what a user calls it.

    Attributes:
        beside: the archive that it was in, whose records lie beside it.
    """

    where: str
    place: Place
    top: Descriptor
    beside: Path | None = None

    @property
    def images(self) -> tuple[Readable, ...]:
        """One a platform."""
        return images_of(self.place, self.top, self.where)

    def records(self, image: Readable) -> tuple[ImageRecord, ...]:
        """The records of one of its images, at least one.

        Raises:
            RecordUnusable: there is none, or one that isn't in the form of a record.
        """
        if self.beside is None:
            about = records_of(self.place, image)
            remedy = "`reprobuild image` writes one beside it; copy an image together with its referrers."
        else:
            # Not by the platform: a config may say linux/arm64/v8 where linux/arm64 was asked for.
            paths = sorted(self.beside.parent.glob(f"{glob.escape(self.beside.name)}.*intoto.json"))
            found = (ImageRecord(path.read_bytes(), str(path)) for path in paths)
            about = tuple(record for record in found if record.subject == image.manifest.descriptor.digest)
            remedy = f"Keep it beside {self.beside}, as `reprobuild image` does."
        if not about:
            raise RecordUnusable(f"There is no record of how {image.where} was built.", remedy)
        return about


def find(text: str, registry_of: Callable[[Reference], Registry], scratch: Path) -> Found:
    """The image that a user means: ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, a folder, a .tar, or a name.

    Args:
        scratch: where an archive is unpacked, and layers of a registry go.

    Raises:
        BadInput: there is no such image.
        RegistryFailed: the registry can't be asked.
    """
    kind, colon, rest = text.partition(":")
    path, _, name = rest.partition(":") if colon and kind in ("oci", "oci-archive") else (text, "", "")
    if kind == "oci-archive" or Path(path).is_file():
        if not Path(path).is_file():
            raise BadInput(f"There is no archive {path}.", "Name the file that `-o oci-archive:FILE` wrote.")
        target = scratch / f"archive-{secrets.token_hex(4)}"
        target.mkdir()
        with Path(path).open("rb") as stream:
            extract_tar(stream, target)
        layout = Layout(target)
        return Found(text, InLayout(layout), layout.find(name), beside=Path(path))
    if kind == "oci" or Path(path).is_dir():
        layout = Layout(Path(path))
        return Found(text, InLayout(layout), layout.find(name))
    reference = Reference.parse(text.removeprefix("docker://"))
    registry = registry_of(reference)
    media_type, raw = registry.manifest(reference.repository, reference.target)
    place = InRegistry(registry, reference.repository, Layout(scratch / "fetched", create=True))
    return Found(str(reference), place, Descriptor.of(media_type, raw))
