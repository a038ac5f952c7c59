"""An OCI image layout: images as files in a folder, and the same as one tar.

Source: OCI image specification 1.1, image-layout.md. Every blob lies under its digest and is checked before it gets
there; index.json is replaced as a whole, and last. So processes that share a folder, or die in it, leave it right.
"""

import fcntl
import os
import secrets
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from reprobuild import process
from reprobuild.archive.model import as_stream
from reprobuild.digest import Digest, canonical_json, chunks_of
from reprobuild.errors import BadInput, DigestMismatch, ReprobuildError, WriteFailed, shown
from reprobuild.files import reserve, write_atomically
from reprobuild.oci.model import DOCUMENT_LIMIT, INDEXES, MANIFESTS, Descriptor, Index, Manifest

#: The annotation by which a layout names what is in it.
REF_NAME = "org.opencontainers.image.ref.name"
#: The one by which containerd and Docker do.
CONTAINERD_NAME = "io.containerd.image.name"
_MARK = canonical_json({"imageLayoutVersion": "1.0.0"})
_INDEX_LIMIT = DOCUMENT_LIMIT


class Layout:
    """A folder that is, or becomes, an OCI image layout.

    Args:
        archive: what it was unpacked from, which messages name instead.

    Raises:
        BadInput: there is a folder with other things in it.
        WriteFailed: it can't be made.
    """

    def __init__(self, folder: Path, *, create: bool = False, archive: str = "") -> None:
        self.folder = folder
        self.name = archive or str(folder)
        self._kind = "oci-archive" if archive else "oci"
        if create and not (folder / "oci-layout").exists():
            self._create()
        elif not (folder / "oci-layout").is_file():
            raise BadInput(f"{self.name} is not an OCI image layout: it has no oci-layout file.", "Name another one.")

    def _create(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            others = [path.name for path in self.folder.iterdir() if path.name not in ("blobs", "index.json")]
        except OSError as error:
            raise WriteFailed(f"{self.folder} can't be made: {error.strerror}.", "Name another folder.") from error
        if others and "oci-layout" not in others:
            raise BadInput(
                f"{self.folder} holds other things than an image: {others[0]!r} is in it.", "Name a new folder."
            )
        with self._locked():
            if not (self.folder / "index.json").exists():
                write_atomically(self.folder / "index.json", [Index.make(()).raw])
            write_atomically(self.folder / "oci-layout", [_MARK])

    def path_of(self, digest: Digest) -> Path:
        """Where a blob lies, or would."""
        return self.folder / "blobs" / digest.algorithm / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether a blob is here."""
        return self.path_of(digest).is_file()

    def holds(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here with all its bytes; after a loss of power files may lack their ends."""
        path = self.path_of(descriptor.digest)
        return path.is_file() and path.stat().st_size == descriptor.size

    def is_sound(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here and, read again, has its digest; what is built into a layout mends what isn't."""
        try:
            for _ in self.chunks(descriptor):
                process.go_on()
        except (BadInput, DigestMismatch):
            return False
        return True

    def put(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Keep a blob, once it has turned out to have its digest.

        Raises:
            DigestMismatch: it has another.
            WriteFailed: there is no room, or no right to write.
        """
        write_atomically(self.path_of(digest), digest.check(chunks, f"the blob {digest}"))

    def put_document(self, media_type: str, raw: bytes) -> Descriptor:
        """Keep a manifest, an index or a config."""
        descriptor = Descriptor.of(media_type, raw)
        self.put(descriptor.digest, [raw])
        return descriptor

    @contextmanager
    def new_blob(self, size: int = 0) -> Iterator[tuple[BinaryIO, "Placer"]]:
        """A stream for a blob whose digest is known when all of it is written; then call the second with it.

        Args:
            size: its bytes, if they are known; it takes less to write where the file system has set room aside.
        """
        partial = self.folder / "blobs" / f".{secrets.token_hex(8)}.partial"
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as stream:
                reserve(stream.fileno(), size)
                yield stream, Placer(self, partial, stream)
        except OSError as error:
            raise WriteFailed(
                f"A blob can't be written to {self.folder}: {error.strerror or error}.",
                "Free some space, or name another folder; what was there before is untouched.",
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def chunks(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """A blob's bytes from some place on; checked against its digest when they are all of it.

        Raises:
            BadInput: it isn't here, or is of another size.
            DigestMismatch: it was damaged.
        """
        path = self.path_of(descriptor.digest)
        try:
            with self.open(descriptor.digest) as stream:
                if os.fstat(stream.fileno()).st_size != descriptor.size:
                    raise BadInput(f"{self._told(path)} does not have its {descriptor.size} bytes.", "Build it again.")
                stream.seek(offset)
                pieces = chunks_of(stream)
                yield from pieces if offset else descriptor.digest.check(pieces, self._told(path))
        except OSError as error:
            raise BadInput(f"{self.name} lacks the blob {descriptor.digest}.", "Fetch or build it again.") from error

    def open(self, digest: Digest) -> BinaryIO:
        """A blob as it lies here, unchecked.

        Raises:
            BadInput: something else than a file has its place.
            OSError: it isn't here, or can't be read.
        """
        return self._regular(self.path_of(digest)).open("rb")

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest, index, config or statement, checked.

        Raises:
            BadInput, DigestMismatch: as :meth:`chunks`; or it is too large to be one.
        """
        if descriptor.size > DOCUMENT_LIMIT:
            raise BadInput(f"{descriptor.digest} has {descriptor.size} bytes: too many for a {descriptor.media_type}.")
        return b"".join(self.chunks(descriptor))

    def index(self) -> Index:
        """What the layout holds.

        Raises:
            BadInput: its index.json can't be read.
        """
        path = self.folder / "index.json"
        try:
            with self._regular(path).open("rb") as stream:
                return Index.read(stream.read(_INDEX_LIMIT + 1), self._told(path))
        except OSError as error:
            raise BadInput(f"{self._told(path)} can't be read: {error.strerror}.") from error

    def add(self, descriptor: Descriptor, name: str = "") -> None:
        """Say that something is in the layout, under a name or none; a name moves from what had it before."""
        annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
        named = replace(descriptor, annotations={**annotations, REF_NAME: name} if name else annotations)
        with self._locked():
            index = self.index()
            kept = [each for each in index.manifests if not _replaces(named, each)]
            write_atomically(self.folder / "index.json", [Index.make([*kept, named]).raw])

    def find(self, name: str = "") -> Descriptor:
        """What has a name or a digest; without either the one image that is in the layout.

        Raises:
            BadInput: nothing or several.
        """
        images = [each for each in self.index().manifests if _is_image(each)]
        found = [each for each in images if not name or name in (each.annotations.get(REF_NAME), str(each.digest))]
        if len({each.digest for each in found}) == 1:
            return found[0]
        if not images:
            raise BadInput(f"{self.name} holds no image.", "A build that failed leaves such a folder: build it again.")
        names = ", ".join(sorted({each.annotations.get(REF_NAME) or str(each.digest) for each in images}))
        what = f"no image {name!r}" if name else f"{len(found)} images"
        raise BadInput(f"{self.name} has {what}; it has {names}.", f"Name one: {self._kind}:{self.name}:NAME.")

    def referrers(self, digest: Digest, damaged: list[str] | None = None) -> tuple[Manifest, ...]:
        """The artifacts here that are about something: provenance, signatures and the like.

        Args:
            damaged: as :meth:`artifacts`.
        """
        return tuple(each for each in self.artifacts(damaged) if each.subject and each.subject.digest == digest)

    def artifacts(self, damaged: list[str] | None = None) -> Iterator[Manifest]:
        """All that is here about other things.

        Args:
            damaged: gets which of them can't be read, and why, whatever they were about.

        Raises:
            BadInput, DigestMismatch: one can't be read, and nobody takes that down.
        """
        for each in self.index().manifests:
            if each.media_type in MANIFESTS and each.artifact_type:
                try:
                    found = Manifest.read(self.read(each), str(each.digest))
                except ReprobuildError as error:
                    if damaged is None:
                        raise
                    damaged.append(f"the referrer {each.digest} ({shown(error.reason)})")
                else:
                    yield found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def _told(self, path: Path) -> str:
        """What messages call a file of the layout."""
        return f"{self.name}/{path.relative_to(self.folder)}"

    def _regular(self, path: Path) -> Path:
        """To open a pipe is to wait for whoever may write to it."""
        if path.exists() and not path.is_file():
            raise BadInput(f"{self._told(path)} is not a file.", "Don't trust this layout.")
        return path


class Placer:
    """Puts a blob that has been written where its digest says."""

    def __init__(self, layout: Layout, partial: Path, stream: BinaryIO) -> None:
        self._layout = layout
        self._partial = partial
        self._stream = stream

    def __call__(self, digest: Digest) -> None:
        """The digest must be of what was written to the stream."""
        target = self._layout.path_of(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._stream.flush()
        self._partial.replace(target)


def write_archive(layout: Layout, image: Descriptor, annotations: Mapping[str, str], stream: BinaryIO) -> None:
    """One image of a layout as a tar (``oci-archive``), whose bytes are a function of the arguments.

    Args:
        annotations: of the image's entry in index.json, such as its name.

    Raises:
        BadInput, DigestMismatch: the layout lacks a blob, or one was damaged.
    """
    named = replace(image, annotations=annotations)
    blobs = sorted(reachable(layout, image), key=lambda each: str(each.digest))
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("blobs", *sorted({f"blobs/{each.digest.algorithm}" for each in blobs})):
            tar.addfile(_member(folder, tarfile.DIRTYPE, 0o755))
        for each in blobs:
            path = f"blobs/{each.digest.algorithm}/{each.digest.hex}"
            chunks = layout.chunks(each)
            tar.addfile(_member(path, tarfile.REGTYPE, 0o644, each.size), as_stream(chunks))
            next(chunks, None)  # past the last one, where the digest is checked
        for path, raw in (("index.json", Index.make([named]).raw), ("oci-layout", _MARK)):
            tar.addfile(_member(path, tarfile.REGTYPE, 0o644, len(raw)), BytesIO(raw))


def reachable(layout: Layout, top: Descriptor, depth: int = 3) -> Sequence[Descriptor]:
    """All that an image consists of: its manifests, configs and layers, each once.

    Raises:
        BadInput, DigestMismatch: a manifest is missing or damaged.
    """
    found = {top.digest: top}
    raw = layout.read(top)
    if top.media_type in INDEXES:
        if not depth:
            raise BadInput(f"{top.digest} is an index in an index in an index.", "Name the image that is meant.")
        for each in Index.read(raw, str(top.digest)).manifests:
            found |= {inner.digest: inner for inner in reachable(layout, each, depth - 1)}
    elif top.media_type in MANIFESTS:
        manifest = Manifest.read(raw, str(top.digest))
        found |= {each.digest: each for each in (manifest.config, *manifest.layers)}
    return tuple(found.values())


def _member(path: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size = kind, mode, size
    return info


def _is_image(descriptor: Descriptor) -> bool:
    return descriptor.media_type in (*MANIFESTS, *INDEXES) and not descriptor.artifact_type


def _replaces(new: Descriptor, old: Descriptor) -> bool:
    names = new.annotations.get(REF_NAME, ""), old.annotations.get(REF_NAME, "")
    return new.digest == old.digest if names == ("", "") else names[0] == names[1]
