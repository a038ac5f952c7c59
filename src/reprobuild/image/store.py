"""Where a finished image lies, and the records that lie beside it."""

import glob
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from reprobuild import attest, process
from reprobuild.archive import extract_tar
from reprobuild.attest import ImageRecord, Json
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, RecordUnusable, RegistryFailed, ReprobuildError, shown
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
from reprobuild.oci.transfer import Local, Remote, copy_image

#: The artifact type of a record, and the media type of its one layer (in-toto attestation framework, "Media types").
STATEMENT = "application/vnd.in-toto+json"
_PREDICATE = "in-toto.io/predicate-type"
_EMPTY = b"{}"
#: Manifests and indexes that one name may stand for.
_MOST_IMAGES = 256
#: What BuildKit puts behind each step; behind that mark the assembler has the names of wheels.
_BY_BUILDKIT = " # buildkit"
#: Characters of a step that name a layer.
_TITLE = 96


@dataclass(frozen=True, slots=True)
class Readable:
    """An image for one platform, wherever it lies.

    Attributes:
        where: what messages call it.
        blob: where a layer lies on this machine; it is fetched if need be.
    """

    where: str
    manifest: Manifest
    config: ImageConfig
    blob: Callable[[Descriptor], Path]

    @property
    def size(self) -> int:
        """Bytes of everything that it consists of."""
        return sum(each.size for each in (self.manifest.descriptor, self.manifest.config, *self.manifest.layers))

    @property
    def layers(self) -> tuple["NamedLayer", ...]:
        """Its layers, lowest first."""
        history = self.config.document.get("history")
        entries = [each for each in history if isinstance(each, dict)] if isinstance(history, list) else []
        told = [each for each in entries if not each.get("empty_layer")]
        steps = [str(each.get("created_by", "")).removesuffix(_BY_BUILDKIT) for each in told]
        texts = steps if len(told) == len(self.manifest.layers) else []
        pairs = zip_longest(self.manifest.layers, self.config.diff_ids)
        return tuple(
            NamedLayer(number, descriptor, str(diff_id), texts[number] if texts else "")
            for number, (descriptor, diff_id) in enumerate(pairs)
            if descriptor is not None
        )


@dataclass(frozen=True, slots=True)
class NamedLayer:
    """A layer, and what is told of it beside its bytes."""

    number: int
    descriptor: Descriptor
    diff_id: str
    text: str

    @property
    def title(self) -> str:
        """What to call it: its wheels, or its step."""
        what = self.text.partition(" # ")[2] or self.text
        return f"layer {self.number}" + (f" ({what[:_TITLE]})" if what else "")

    @property
    def subject(self) -> str:
        """The same of another version of it: its step, and the names of its wheels."""
        step, _, wheels = self.text.partition(" # ")
        return f"{step} {' '.join(each.split(' ')[0] for each in wheels.split(', '))}"


class Place(Protocol):
    """Where an image lies: a layout or a repository in a registry."""

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest, config or statement, checked."""

    def path_of(self, descriptor: Descriptor) -> Path:
        """Where a layer lies on this machine, fetched if need be."""

    def holds(self, layer: Descriptor) -> bool:
        """Whether a layer is there; where nobody else checks its bytes, they are checked."""

    def referrers(
        self, subject: Descriptor, artifact_type: str = STATEMENT, damaged: list[str] | None = None
    ) -> tuple[Manifest, ...]:
        """The artifacts of a type that are about something.

        Args:
            damaged: gets which of them can't be read, and why; without it, one is an error.
        """

    def keep(self, artifact: Descriptor, blobs: Sequence[tuple[Descriptor, bytes]]) -> str:
        """Add an artifact, of which the last of the blobs is the manifest; where it is now."""


@dataclass(frozen=True, slots=True)
class InLayout:
    """An OCI image layout as a place."""

    layout: Layout

    def read(self, descriptor: Descriptor) -> bytes:
        return self.layout.read(descriptor)

    def path_of(self, descriptor: Descriptor) -> Path:
        if not self.layout.has(descriptor.digest):
            raise BadInput(
                f"{self.layout.name} lacks the layer {descriptor.digest}.", "Build it with -o oci:DIR, or pull it."
            )
        return self.layout.path_of(descriptor.digest)

    def holds(self, layer: Descriptor) -> bool:
        if not self.layout.has(layer.digest):
            return False
        for _ in self.layout.chunks(layer):
            process.go_on()
        return True

    def referrers(
        self, subject: Descriptor, artifact_type: str = STATEMENT, damaged: list[str] | None = None
    ) -> tuple[Manifest, ...]:
        found = self.layout.referrers(subject.digest, damaged)
        return tuple(each for each in found if each.artifact_type == artifact_type)

    def keep(self, artifact: Descriptor, blobs: Sequence[tuple[Descriptor, bytes]]) -> str:
        for descriptor, raw in blobs:
            self.layout.put(descriptor.digest, [raw])
        self.layout.add(artifact)
        return f"oci:{self.layout.folder}@{artifact.digest}"


def images_of(place: Place, top: Descriptor, where: str, *, every: bool = False) -> tuple[Readable, ...]:
    """The images that a manifest or an index stands for, one a platform.

    Args:
        every: also those of an index for which it names no platform: container runtimes run them, too.

    Raises:
        BadInput, DigestMismatch: a part is missing, damaged, or no image.
    """
    found = tuple(_images_of(place, top, where, set(), every=every))
    if not found:
        raise BadInput(f"{where} is an index that names no image for any platform.", "Name the image that is meant.")
    return found


def _images_of(place: Place, top: Descriptor, where: str, seen: set[Digest], *, every: bool) -> Iterator[Readable]:
    if top.digest in seen or len(seen) == _MOST_IMAGES:
        raise BadInput(f"{where} names {top.digest} twice, or more than {_MOST_IMAGES} images.", "Don't trust it.")
    seen.add(top.digest)
    if top.media_type in INDEXES:
        for each in sorted(Index.read(place.read(top), where).manifests, key=lambda each: not each.platform):
            if each.platform:
                yield from _images_of(place, each, f"{where} ({each.platform})", seen, every=every)
            elif every and each.digest not in seen and _may_run(place, each, where):
                yield from _images_of(place, each, f"{where} ({each.digest})", seen, every=every)
        return
    manifest = Manifest.read(place.read(top), where)
    config = ImageConfig.read(place.read(manifest.config), f"the config of {where}")
    yield Readable(where, manifest, config, place.path_of)


def _may_run(place: Place, entry: Descriptor, where: str) -> bool:
    """Whether a container runtime may take an index's entry without a platform for an image: it asks the config."""
    if entry.media_type not in MANIFESTS:
        return entry.media_type in INDEXES
    return Manifest.read(place.read(entry), where).config.digest != Digest.of_bytes(_EMPTY)


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
    """The records beside an image that are about it: usually one, several where it was built from several places.

    Raises:
        RecordUnusable: there is none that can be used.
    """
    subject = image.manifest.descriptor
    found: dict[bytes, ImageRecord] = {}
    damaged: list[str] = []
    wrong = ""
    for each in place.referrers(subject, damaged=damaged):
        (layer,) = each.layers if len(each.layers) == 1 else (None,)
        if layer is None or each.annotations.get(_PREDICATE) != attest.PROVENANCE_TYPE:
            continue
        try:
            record = ImageRecord(raw := place.read(layer), f"the record of {image.where}")
        except (BadInput, DigestMismatch, RecordUnusable) as error:  # anybody may put one beside it
            wrong = error.reason
            continue
        if record.subject == subject.digest:
            found[raw] = record
    if not found:
        wrong = wrong or next((f"{image.where} has no record but {each}." for each in damaged), "")
        raise RecordUnusable(
            wrong or f"{image.where} has no record of how it was built.",
            "`reprobuild image` writes one beside it; copy an image together with its referrers.",
        )
    return tuple(record for _, record in sorted(found.items(), key=itemgetter(0)))


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

    def holds(self, layer: Descriptor) -> bool:
        return self.registry.has_blob(self.repository, layer)  # whoever pulls it checks its digest

    def referrers(
        self, subject: Descriptor, artifact_type: str = STATEMENT, damaged: list[str] | None = None
    ) -> tuple[Manifest, ...]:
        listed = self.registry.referrers(self.repository, subject.digest)
        wanted = (each for each in listed if each.artifact_type in ("", artifact_type) and each.media_type in MANIFESTS)
        found = []
        for each in wanted:
            where = f"the referrer {each.digest}"
            try:
                manifest = Manifest.read(self.read(each), where)
            except ReprobuildError as error:
                if damaged is None:
                    raise
                damaged.append(f"{where} ({shown(error.reason)})")
                continue
            if manifest.subject and manifest.subject.digest == subject.digest:
                found.append(manifest)
        return tuple(each for each in found if each.artifact_type == artifact_type)

    def keep(self, artifact: Descriptor, blobs: Sequence[tuple[Descriptor, bytes]]) -> str:
        for descriptor, raw in blobs:
            self.layout.put(descriptor.digest, [raw])
        copy_image(Local(self.layout), Remote(self.registry, self.repository), artifact)
        return f"{self.registry.host}/{self.repository}@{artifact.digest}"


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
        """The records of one of its images.

        Raises:
            RecordUnusable: there is none.
        """
        if self.beside is None:
            return records_of(self.place, image)
        # Not by the platform: a config may say linux/arm64/v8 where linux/arm64 was asked for.
        paths = sorted(self.beside.parent.glob(f"{glob.escape(self.beside.name)}.*intoto.json"))
        found = (ImageRecord(path.read_bytes(), str(path)) for path in paths)
        about = tuple(record for record in found if record.subject == image.manifest.descriptor.digest)
        if about:
            return about
        raise RecordUnusable(f"There is no record of {image.where} beside {self.beside}.", "Keep the two together.")


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
    if kind == "oci-archive" or os.path.isfile(path):  # noqa: PTH113 - a name too long for a file is none
        if not os.path.isfile(path):  # noqa: PTH113
            raise BadInput(f"There is no archive {path}.", "Name the file that `-o oci-archive:FILE` wrote.")
        if path.endswith(".whl"):
            raise BadInput(f"{path} is no image.", "Name a folder or an archive that holds one.")
        target = scratch / f"archive-{secrets.token_hex(4)}"
        target.mkdir()
        try:
            with Path(path).open("rb") as stream:
                extract_tar(stream, target, name=path)
        except OSError as error:
            raise BadInput(f"{path} can't be read: {error.strerror}.", "Name an archive of an image.") from error
        layout = Layout(target, archive=path)
        return Found(text, InLayout(layout), layout.find(name), beside=Path(path))
    if kind == "oci" or os.path.isdir(path):  # noqa: PTH112
        layout = Layout(Path(path))
        return Found(text, InLayout(layout), layout.find(name))
    if not text.startswith("docker://") and _is_path(text):
        raise BadInput(f"There is no image {text}.", "Name a folder that holds one, or docker://NAME in a registry.")
    try:
        return _named(text.removeprefix("docker://"), registry_of, scratch)
    except (BadInput, RegistryFailed) as error:
        if text.startswith("docker://") or not (taken := _taken_for(text)):
            raise
        raised = RegistryFailed if isinstance(error, RegistryFailed) else BadInput
        raise raised(
            f"There is no folder or archive {shown(text)}: it was taken for {taken}. {error.reason}",
            f"Check the path. If a registry is meant: {error.remedy or 'Check the name.'}",
        ) from error


def _named(name: str, registry_of: Callable[[Reference], Registry], scratch: Path) -> Found:
    reference = Reference.parse(name)
    registry = registry_of(reference)
    media_type, raw = registry.manifest(reference.repository, reference.target)
    place = InRegistry(registry, reference.repository, Layout(scratch / "fetched", create=True))
    return Found(str(reference), place, Descriptor.of(media_type, raw))


def _taken_for(text: str) -> str:
    """What a text that is no path was taken for; empty where it can't have been meant as one."""
    try:
        name = str(Reference.parse(text))
    except BadInput:
        return "an image's name"
    return "" if text == name and ":" in name else f"the name {name}"  # its registry, and a tag, digest or port


def _is_path(text: str) -> bool:
    """Whether a name that leads nowhere was meant as a path: its folder is there, or it looks like nothing else."""
    parent = Path(text).parent
    return text.startswith((".", "/", "~")) or text.endswith(".tar") or (parent != Path() and parent.is_dir())
