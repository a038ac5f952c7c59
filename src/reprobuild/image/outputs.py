"""Where a built image goes: layouts, archives, a Docker engine, registries. Tags come last, when all else is there."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reprobuild import attest, process
from reprobuild.errors import BadInput, BuildFailed, ToolMissing, WriteFailed
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.image.base import Base
from reprobuild.image.build import Built
from reprobuild.image.store import add_record, artifact_of
from reprobuild.oci.layout import CONTAINERD_NAME, REF_NAME, Layout, write_archive
from reprobuild.oci.model import Descriptor
from reprobuild.oci.reference import Reference
from reprobuild.oci.registry import Registry
from reprobuild.progress import SILENT, Observer, size_text

#: What a layout calls an image that the user gives no name.
DEFAULT_NAME = "latest"
_PARALLEL = 4
_NEEDS_PATH = "Write it like oci:DIR, oci:DIR:NAME or oci-archive:FILE.tar."


@dataclass(frozen=True, slots=True)
class Output:
    """A layout's folder or an archive's file, and the name of the image in it."""

    path: Path
    name: str
    archived: bool

    @classmethod
    def parse(cls, text: str) -> "Output":
        """Read ``oci:DIR[:NAME]`` or ``oci-archive:FILE[:NAME]``, as skopeo and podman write them.

        Raises:
            BadInput: it is something else.
        """
        kind, colon, rest = text.partition(":")
        path, _, name = rest.partition(":")
        if kind not in ("oci", "oci-archive") or not colon or not path:
            raise BadInput(f"{text!r} is not a place for an image.", _NEEDS_PATH)
        return cls(Path(path), name or DEFAULT_NAME, kind == "oci-archive")


class Registries:
    """The registries that a run speaks with, each opened once.

    Args:
        plain_http: hosts that are spoken with without encryption.
    """

    def __init__(self, plain_http: Iterable[str] = ()) -> None:
        self._plain = frozenset(plain_http)
        self._open: dict[str, Registry] = {}

    def of(self, reference: Reference) -> Registry:
        """The registry that a reference names."""
        host = reference.registry
        if host not in self._open:
            self._open[host] = Registry(host, plain_http=True if host in self._plain else None)
        return self._open[host]


@dataclass(slots=True)
class Moved:
    """What became of an image's blobs on the way to a registry, in bytes."""

    sent: int = 0
    mounted: int = 0
    there: int = 0
    tags: list[str] = field(default_factory=list)


def fetch_bases(built: Built, store: Layout, registries: Registries, observer: Observer = SILENT) -> None:
    """Put the layers of the bases into a store, for whoever needs the whole image.

    Raises:
        RegistryFailed, DigestMismatch: one can't be had.
    """
    wanted = {layer.digest: (base, layer) for base in _bases(built) for layer in base.layers}
    missing = [each for each in wanted.values() if not store.holds(each[1])]
    if missing:
        observer.step(f"fetching {len(missing)} layers of the base ({size_text(sum(d.size for _, d in missing))})")

    def fetch(base: Base, layer: Descriptor) -> None:
        pieces = registries.of(base.reference).blob(base.reference.repository, layer)
        store.put(layer.digest, _going_on(pieces))

    with process.workers(_PARALLEL) as pool:
        list(pool.map(lambda each: fetch(*each), missing))


def _bases(built: Built) -> Iterator[Base]:
    return (image.assembly.base for image, _ in built.images if image.assembly.base)


def _going_on(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        process.go_on()
        yield piece


def name_in_layout(built: Built, store: Layout, name: str) -> None:
    """Give an image its name in the layout that it was written to, with its records beside it."""
    for image, statement in built.images:
        add_record(store, statement, image.descriptor)
    store.add(built.top, name)


def archive(built: Built, store: Layout, output: Output) -> None:
    """Write an image as one tar, and its records beside it.

    Raises:
        WriteFailed: there is no room.
    """
    with scratch_folder(output.path.parent, "reprobuild-") as scratch:
        partial = scratch / "image.tar"
        _write_archive(partial, store, built.top, {REF_NAME: output.name}, output.path)
        for image, statement in built.images:
            platform = f".{str(image.assembly.platform).replace('/', '-')}" if len(built.images) > 1 else ""
            beside = output.path.with_name(f"{output.path.name}{platform}.intoto.json")
            write_atomically(beside, [attest.encode(statement)])
        partial.replace(output.path)


def _write_archive(path: Path, store: Layout, top: Descriptor, annotations: Mapping[str, str], target: Path) -> None:
    try:
        with path.open("wb") as stream:
            write_archive(store, top, annotations, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise WriteFailed(
            f"{target} can't be written: {error.strerror or error}.", "Free some space, or choose another place."
        ) from error


def load(built: Built, store: Layout, name: str, observer: Observer = SILENT) -> None:
    """Give an image to the Docker engine that the environment names.

    Raises:
        ToolMissing: there is no engine, or no SDK to speak with it.
        BuildFailed: it doesn't take the image.
    """
    try:
        import docker  # noqa: PLC0415 - an extra
        from docker.errors import DockerException  # noqa: PLC0415
    except ImportError as error:
        raise ToolMissing(
            "There is no Docker SDK here.", "Install reprobuild[docker] instead of reprobuild."
        ) from error
    reference = Reference.parse(name)
    named = str(reference) if reference.tag else f"{reference}:latest"
    observer.step(f"loading {named} into the Docker engine")
    with scratch_folder(store.folder.parent, "reprobuild-load-") as scratch:
        path = scratch / "image.tar"
        _write_archive(path, store, built.top, {CONTAINERD_NAME: named, REF_NAME: reference.tag or "latest"}, path)
        try:
            client: Any = docker.from_env(timeout=600)
            with path.open("rb") as stream:
                client.images.load(stream)
        except DockerException as error:
            raise BuildFailed(
                f"The Docker engine didn't take the image: {error}.", "It must be 25 or newer; see `docker version`."
            ) from error


def push(
    built: Built, store: Layout, targets: Iterable[Reference], registries: Registries, observer: Observer = SILENT
) -> Moved:
    """Put an image into a repository, its records beside it as referrers, and tag it.

    Args:
        targets: one repository, with a tag each.

    Raises:
        BadInput: the targets aren't of one repository.
        RegistryFailed: the registry refuses.
    """
    targets = tuple(targets)
    first = targets[0]
    if any((each.registry, each.repository) != (first.registry, first.repository) for each in targets):
        raise BadInput("The names to push to aren't of one repository.", "Push to one after the other.")
    registry, moved = registries.of(first), Moved()
    observer.step(f"pushing to {first.registry}/{first.repository}")

    def own(descriptor: Descriptor) -> tuple[str, int]:
        sent = registry.put_blob(
            first.repository, descriptor, lambda offset: _going_on(store.chunks(descriptor, offset))
        )
        return "sent" if sent else "there", descriptor.size

    images = [image for image, _ in built.images]
    with process.workers(_PARALLEL) as pool:
        waiting = [pool.submit(own, layer.descriptor) for image in images for layer in image.layers]
        waiting += [pool.submit(own, image.config) for image in images]
        waiting += [
            pool.submit(_pass_on, base, layer, first, registries) for base in _bases(built) for layer in base.layers
        ]
        for each in waiting:
            what, size = each.result()
            setattr(moved, what, getattr(moved, what) + size)
    for image, statement in built.images:
        manifest = image.manifest
        registry.put_manifest(
            first.repository, str(manifest.descriptor.digest), manifest.descriptor.media_type, manifest.raw
        )
        artifact, blobs = artifact_of(statement, image.descriptor)
        for descriptor, raw in blobs:
            registry.put_blob(first.repository, descriptor, lambda offset, raw=raw: iter([raw[offset:]]))  # type: ignore[misc]
        registry.put_manifest(
            first.repository, str(artifact.descriptor.digest), artifact.descriptor.media_type, artifact.raw
        )
    raw = store.read(built.top)
    for target in targets:
        registry.put_manifest(first.repository, target.tag or str(built.top.digest), built.top.media_type, raw)
        moved.tags.append(str(target))
    return moved


def _pass_on(base: Base, layer: Descriptor, target: Reference, registries: Registries) -> tuple[str, int]:
    """Bring a base's layer into a repository: by mounting it, or by streaming it through."""
    registry, origin = registries.of(target), base.reference
    if registry.has_blob(target.repository, layer):
        return "there", layer.size
    if origin.registry == target.registry and registry.mount(target.repository, layer, origin.repository):
        return "mounted", layer.size
    source = registries.of(origin)
    registry.put_blob(target.repository, layer, lambda offset: _going_on(source.blob(origin.repository, layer, offset)))
    return "sent", layer.size
