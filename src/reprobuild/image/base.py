"""The image that another one begins with: its manifest and its config, as the registry has them, and no layer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch
from reprobuild.files import cache_root, read_kept, write_atomically
from reprobuild.oci.model import (
    DOCKER_LAYER,
    DOCUMENT_LIMIT,
    INDEXES,
    OCI_LAYER,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    document_of,
    media_type_of,
)
from reprobuild.oci.reference import Reference

#: What Docker's names for layers are in OCI manifests; the bytes are the same.
_OCI_NAMES = {DOCKER_LAYER: f"{OCI_LAYER}+gzip"}


class Documents(Protocol):
    """A registry, as far as a base is concerned."""

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type and the bytes of a manifest or an index."""

    def blob(self, repository: str, descriptor: Descriptor) -> Iterable[bytes]:
        """A blob's bytes."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a FROM names, for one platform.

    Attributes:
        reference: as the Dockerfile has it, with its digest, which may be of an index.
        manifest: of the platform's own image.
    """

    reference: Reference
    manifest: Manifest
    config: ImageConfig

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Its layers with OCI media types, so that they can be in an OCI manifest."""
        found = []
        for each in self.manifest.layers:
            media_type = _OCI_NAMES.get(each.media_type, each.media_type)
            if not media_type.startswith(OCI_LAYER):
                raise BadInput(
                    f"{self.reference} has a layer of type {each.media_type}, which may not be passed on.",
                    "Choose another image.",
                )
            found.append(Descriptor(media_type, each.digest, each.size))
        return tuple(found)


def fetch(reference: Reference, platform: Platform, registry_of: Callable[[Reference], Documents]) -> Base:
    """A base's manifest and config, from the cache if they were fetched before.

    Args:
        reference: with a digest.
        registry_of: opens the registry that a reference names; only called if something has to be fetched.

    Raises:
        BadInput: what is there is no image, or none for the platform.
        RegistryFailed, DigestMismatch: it can't be fetched.
    """
    if reference.digest is None:
        raise BadInput(f"{reference} has no digest.", "`reprobuild lock` pins it.")
    where = str(reference)

    def document(digest: Digest) -> bytes:
        def ask() -> bytes:
            return registry_of(reference).manifest(reference.repository, str(digest))[1]

        return _kept(digest, ask, where)

    raw = document(reference.digest)
    for _ in range(2):  # BuildKit makes indexes in indexes
        index = _as_index(raw, where)
        if index is None:
            break
        raw = document(index.choose(platform, where).digest)
    manifest = Manifest.read(raw, where)
    size = manifest.config.size
    if size > DOCUMENT_LIMIT:
        raise BadInput(f"{where} has a config of {size} bytes.", "Choose another image.")

    def ask_config() -> bytes:
        return b"".join(registry_of(reference).blob(reference.repository, manifest.config))

    config = ImageConfig.read(_kept(manifest.config.digest, ask_config, where), f"the config of {where}")
    if not config.platform.suits(platform):
        raise BadInput(f"{where} is for {config.platform}, not for {platform}.", "Name an image for that platform.")
    if len(config.diff_ids) != len(manifest.layers):
        raise BadInput(f"{where} has {len(manifest.layers)} layers and {len(config.diff_ids)} diff IDs.")
    return Base(reference, manifest, config)


def _as_index(raw: bytes, where: str) -> Index | None:
    return Index.read(raw, where) if media_type_of(document_of(raw, where)) in INDEXES else None


def _kept(digest: Digest, ask: Callable[[], bytes], where: str) -> bytes:
    """A document from the cache, else from where it is asked for; checked in both cases."""
    path = cache_root() / "documents" / digest.algorithm / digest.hex
    if (kept := _read(path, digest)) is not None:
        return kept
    raw = b"".join(digest.check([ask()], where))
    write_atomically(path, [raw])
    return raw


def _read(path: Path, digest: Digest) -> bytes | None:
    try:
        return b"".join(digest.check([kept], str(path))) if (kept := read_kept(path)) is not None else None
    except DigestMismatch:  # it is fetched again
        return None
