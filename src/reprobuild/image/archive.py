"""Bases kept where nobody else can delete them: `reprobuild lock --archive`, and reading them from there."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, RegistryFailed
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import DOCUMENT_LIMIT, Descriptor, document_of, media_type_of
from reprobuild.oci.reference import Reference
from reprobuild.oci.registry import Registry
from reprobuild.oci.transfer import Local, Remote, Source, copy_image
from reprobuild.progress import SILENT, Observer

_TAG_LIMIT = 128


class Registries:
    """The registries that a run speaks with, each opened once, and the archive for what they don't have any more.

    Args:
        plain_http: hosts that are spoken with without encryption.
    """

    def __init__(self, plain_http: Iterable[str] = ()) -> None:
        self._plain = frozenset(plain_http)
        self._open: dict[str, Registry] = {}
        self._archive: Archive | None = None

    def use_archive(self, text: str, root: Path) -> None:
        """Take from an archive what an origin can't give.

        Args:
            text: ``oci:DIR`` or a repository; empty for none.
            root: what a relative folder is relative to.
        """
        self._archive = Archive.open(text, root, self) if text else None

    def of(self, reference: Reference) -> Registry:
        """The registry that a reference names."""
        host = reference.registry
        if host not in self._open:
            self._open[host] = Registry(host, plain_http=True if host in self._plain else None)
        return self._open[host]

    def origin(self, reference: Reference) -> "Origin":
        """Where an image comes from."""
        return Origin(Remote(self.of(reference), reference.repository), self._archive)


@dataclass(frozen=True, slots=True)
class Origin:
    """A repository, with an archive behind it; whatever comes from either is checked by its digest.

    The methods have the shape of a registry's, for whoever knows only one repository.
    """

    remote: Remote
    archive: "Archive | None"

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """The media type and the bytes of a manifest or an index, by digest."""
        try:
            return self.remote.registry.manifest(repository, reference)
        except RegistryFailed:
            if self.archive is None:
                raise
            return self.archive.manifest(Digest.parse(reference))

    def blob(self, repository: str, descriptor: Descriptor) -> Iterator[bytes]:  # noqa: ARG002 - there is only one
        """A blob's bytes."""
        return self.holder(descriptor).blob(descriptor)

    def holder(self, descriptor: Descriptor) -> Source:
        """Which of the two has a blob; the repository where nobody keeps an archive."""
        if self.archive is None:
            return self.remote
        try:
            there = self.remote.registry.has_blob(self.remote.repository, descriptor)
        except RegistryFailed:
            there = False
        return self.remote if there else self.archive.source


@dataclass(frozen=True, slots=True)
class Archive:
    """A layout or a repository that holds bases."""

    place: Layout | Remote

    @classmethod
    def open(cls, text: str, root: Path, registries: Registries, *, create: bool = False) -> "Archive":
        """The archive that a user names.

        Raises:
            BadInput: it isn't ``oci:DIR`` or a repository's name, or there is no such layout.
        """
        if text.startswith("oci:"):
            return cls(Layout(root / text.removeprefix("oci:"), create=create))
        reference = Reference.parse(text)
        if reference.tag or reference.digest:
            raise BadInput(f"An archive is a whole repository, and {text} names an image.", "Leave out tag and digest.")
        return cls(Remote(registries.of(reference), reference.repository))

    @property
    def source(self) -> Source:
        """Where blobs are read."""
        return self.place if isinstance(self.place, Remote) else Local(self.place)

    def manifest(self, digest: Digest) -> tuple[str, bytes]:
        """A manifest or an index that is kept here.

        Raises:
            BadInput, RegistryFailed, DigestMismatch: it isn't, is no file, or was damaged.
        """
        if isinstance(self.place, Remote):
            return self.place.registry.manifest(self.place.repository, str(digest))
        path = self.place.path_of(digest)
        try:
            with self.place.open(digest) as stream:
                raw = b"".join(digest.check([stream.read(DOCUMENT_LIMIT + 1)], str(path)))
        except OSError as error:
            raise BadInput(
                f"{self.place.folder} doesn't hold {digest} either.", "Archive it while it exists."
            ) from error
        return media_type_of(document_of(raw, str(path))), raw

    def keep(self, name: str, digest: Digest, origin: Remote, observer: Observer = SILENT) -> None:
        """Copy an image with all its platforms, under its name.

        Raises:
            RegistryFailed, DigestMismatch, WriteFailed: it can't be had, or kept.
        """
        root = origin.describe(str(digest))
        observer.step(f"archiving {name}")
        target = self.place if isinstance(self.place, Remote) else Local(self.place)
        tags = (_tag_of(name),) if isinstance(self.place, Remote) else ()
        copy_image(origin, target, root, tags=tags, observer=observer)
        if isinstance(self.place, Layout):
            self.place.add(root, name)


def _tag_of(name: str) -> str:
    """A tag that says which image it is."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII).lstrip(".-")[-_TAG_LIMIT:].lstrip(".-")
