"""Copies of images between registries and stores: blobs in parallel, manifests after what they name, tags last.

Nothing is held back: bytes stream from one side to the other, and what is there already is not sent again. A copy that
broke can be made again, and goes on with what is missing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from reprobuild import process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.oci.model import DOCUMENT_LIMIT, INDEXES, Descriptor, Index, Manifest, Platform
from reprobuild.oci.registry import Registry
from reprobuild.progress import SILENT, Observer, size_text

_PARALLEL = 4
#: Bytes of all manifests and indexes of one image together, which are held; and how deep indexes may lie in indexes.
_DOCUMENTS_LIMIT, _DEPTH = 64 << 20, 4
#: Bytes from which on a blob is worth a word.
_BIG = 8 << 20

How = Literal["there", "mounted", "sent"]


class Store(Protocol):
    """Content by digest on this machine, such as an OCI image layout; used by several threads at once."""

    def has(self, digest: Digest) -> bool:
        """Whether it is there, whole."""

    def put(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Add it, whole or not at all. Raises DigestMismatch unless the bytes have the digest."""

    def chunks(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """Its bytes from an offset on. Raises BadInput where it isn't there."""


class Source(Protocol):
    """Where an image comes from."""

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest or an index, checked."""

    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """A config's or a layer's bytes; from 0 on they are checked."""


class Target(Protocol):
    """Where an image goes to."""

    def take(self, descriptor: Descriptor, source: Source) -> How:
        """See to it that a blob is there."""

    def put_document(self, descriptor: Descriptor, raw: bytes, tag: str = "") -> None:
        """Add a manifest or an index, whose parts are there; under a tag if one is named."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository in a registry, as a source and as a target."""

    registry: Registry
    repository: str

    def describe(self, reference: str) -> Descriptor:
        """What a tag or a digest stands for.

        Raises:
            RegistryFailed, DigestMismatch, BadInput: as :meth:`Registry.manifest`.
        """
        media_type, raw = self.registry.manifest(self.repository, reference)
        described = Descriptor.of(media_type, raw)
        return replace(described, digest=Digest.parse(reference)) if ":" in reference else described

    def document(self, descriptor: Descriptor) -> bytes:
        return self.registry.manifest(self.repository, str(descriptor.digest))[1]

    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        return self.registry.blob(self.repository, descriptor, offset)

    def take(self, descriptor: Descriptor, source: Source) -> How:
        if isinstance(source, Remote) and source.registry.host == self.registry.host:
            if self.registry.has_blob(self.repository, descriptor):
                return "there"
            if self.registry.mount(self.repository, descriptor, source.repository):
                return "mounted"
        sent = self.registry.put_blob(self.repository, descriptor, lambda offset: source.blob(descriptor, offset))
        return "sent" if sent else "there"

    def put_document(self, descriptor: Descriptor, raw: bytes, tag: str = "") -> None:
        self.registry.put_manifest(self.repository, tag or str(descriptor.digest), descriptor.media_type, raw)


@dataclass(frozen=True, slots=True)
class Local:
    """A store on this machine, as a source and as a target; what its tags are is its owner's business."""

    store: Store

    def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > DOCUMENT_LIMIT:
            raise BadInput(f"The manifest {descriptor.digest} has {descriptor.size} bytes.", "It is no image's.")
        return b"".join(self.blob(descriptor))

    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        chunks = self.store.chunks(descriptor, offset)
        yield from chunks if offset else descriptor.digest.check(chunks, f"The store's blob {descriptor.digest}")

    def take(self, descriptor: Descriptor, source: Source) -> How:
        if self.store.has(descriptor.digest):
            return "there"
        self.store.put(descriptor.digest, source.blob(descriptor))
        return "sent"

    def put_document(self, descriptor: Descriptor, raw: bytes, tag: str = "") -> None:
        if tag:
            raise ValueError("a store's tags are set by its owner")
        self.store.put(descriptor.digest, [raw])


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did with each blob, in the image's order."""

    root: Descriptor
    blobs: Mapping[How, tuple[Descriptor, ...]]

    def bytes_of(self, how: How) -> int:
        """How many bytes of blobs went that way."""
        return sum(blob.size for blob in self.blobs[how])


@dataclass(slots=True)
class _Image:
    """The documents of an image, children before those that name them, and its blobs."""

    documents: dict[Digest, tuple[Descriptor, bytes]] = field(default_factory=dict)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    size: int = 0


def copy_image(
    source: Source,
    target: Target,
    root: Descriptor,
    *,
    tags: Sequence[str] = (),
    elsewhere: Mapping[Digest, Source] | None = None,
    workers: int = _PARALLEL,
    observer: Observer = SILENT,
) -> Copied:
    """Copy an image, or an index with all its images, as it is.

    Args:
        root: the manifest or the index.
        tags: what the copy is called in a registry, once all of it is there.
        elsewhere: where some blobs are instead of in the source, such as a base image's layers.

    Raises:
        BadInput: a manifest is malformed, or there are too many.
        DigestMismatch, RegistryFailed, WriteFailed: as its source and its target do.
    """
    image = _Image()
    _gather(source, root, image, 0)
    sources = elsewhere or {}
    with process.workers(workers) as pool:
        big = [blob for blob in image.blobs.values() if blob.size >= _BIG]
        if big:
            observer.step(f"copying {len(image.blobs)} blobs, {size_text(sum(b.size for b in image.blobs.values()))}")
        done = list(pool.map(lambda blob: target.take(blob, sources.get(blob.digest, source)), image.blobs.values()))
    for descriptor, raw in image.documents.values():
        target.put_document(descriptor, raw)
    for tag in tags:
        target.put_document(root, image.documents[root.digest][1], tag)
    ways: tuple[How, ...] = ("there", "mounted", "sent")
    pairs = list(zip(image.blobs.values(), done, strict=True))
    return Copied(root, {way: tuple(blob for blob, how in pairs if how == way) for way in ways})


def choose(source: Source, root: Descriptor, platform: Platform, where: str) -> Descriptor:
    """The image manifest for a platform that an index has, or the root itself if it is a manifest.

    Raises:
        BadInput: there is none for it.
    """
    for _ in range(_DEPTH):
        if root.media_type not in INDEXES:
            return root
        root = Index.read(source.document(root), where).choose(platform, where)
    raise BadInput(f"{where}: indexes lie more than {_DEPTH} deep in each other.")


def _gather(source: Source, descriptor: Descriptor, image: _Image, depth: int) -> None:
    """Read a document and, before it is added, all that it names."""
    where = f"the manifest {descriptor.digest}"
    if descriptor.digest in image.documents:
        return
    if depth > _DEPTH:
        raise BadInput(f"{where} lies more than {_DEPTH} indexes deep.")
    raw = source.document(descriptor)
    if len(raw) != descriptor.size:
        raise BadInput(f"{where} has {len(raw)} bytes, and {descriptor.size} were promised.")
    image.size += len(raw)
    if image.size > _DOCUMENTS_LIMIT:
        raise BadInput(f"The image has manifests of more than {_DOCUMENTS_LIMIT} bytes.")
    if descriptor.media_type in INDEXES:
        for child in Index.read(raw, where).manifests:
            _gather(source, child, image, depth + 1)
    else:
        manifest = Manifest.read(raw, where)
        image.blobs |= {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
    image.documents[descriptor.digest] = descriptor, raw
