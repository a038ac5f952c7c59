"""Where a built image goes: layouts, archives, a Docker engine, registries. Tags come last, when all else is there."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from reprobuild import attest, process
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, ToolMissing, WriteFailed, redacted, words_of
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.image.archive import Registries
from reprobuild.image.base import Base
from reprobuild.image.built import Built
from reprobuild.image.store import add_record
from reprobuild.oci.layout import CONTAINERD_NAME, REF_NAME, Layout, write_archive
from reprobuild.oci.model import Descriptor
from reprobuild.oci.reference import Reference
from reprobuild.oci.transfer import Local, Remote, Source, copy_image
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


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of an image's blobs on the way to a registry, in bytes."""

    there: int
    mounted: int
    sent: int
    tags: tuple[str, ...]


def fetch_base(base: Base, store: Layout, registries: Registries, observer: Observer = SILENT) -> None:
    """Put the layers of a base into a store, for whoever needs the whole image.

    Raises:
        RegistryFailed, DigestMismatch: one can't be had.
    """
    origin = registries.origin(base.reference)
    layers = list({each.digest: each for each in base.layers}.values())
    with process.workers(_PARALLEL) as pool:
        sound = pool.map(store.is_sound, layers)
        missing = [layer for layer, is_sound in zip(layers, sound, strict=True) if not is_sound]
        if missing:
            what = f"{len(missing)} layers" if len(missing) > 1 else "the layer"
            observer.step(f"fetching {what} of the base ({size_text(sum(each.size for each in missing))})")
        list(pool.map(lambda layer: store.put(layer.digest, origin.holder(layer).blob(layer)), missing))


def _bases(built: Built) -> Iterator[Base]:
    return (image.base for image, _ in built.images if image.base)


def _origins(built: Built, registries: Registries) -> dict[Digest, Source]:
    """Where the layers of the bases are."""
    return {
        layer.digest: registries.origin(base.reference).holder(layer) for base in _bases(built) for layer in base.layers
    }


def name_in_layout(built: Built, store: Layout, name: str) -> None:
    """Give an image its name in the layout that it was written to, with its records beside it."""
    for image, statement in built.images:
        add_record(store, statement, image.descriptor)
    store.add(built.top, name)


def archive(built: Built, store: Layout, output: Output) -> None:
    """Write an image as one tar, and its records beside it.

    Raises:
        WriteFailed: there is no room, or no such place.
    """
    with scratch_folder(output.path.parent, "reprobuild-", output.path) as scratch:
        partial = scratch / "image.tar"
        _write_archive(partial, store, built.top, {REF_NAME: output.name}, output.path)
        for image, statement in built.images:
            platform = f".{str(image.platform).replace('/', '-')}" if len(built.images) > 1 else ""
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


def require_engine() -> None:
    """Raise ToolMissing unless the Docker engine that the environment names can be spoken with from here."""
    _engine().close()


def load(built: Built, store: Layout, name: str, observer: Observer = SILENT) -> None:
    """Give an image to the Docker engine that the environment names.

    Raises:
        ToolMissing: there is no engine, or no SDK to speak with it.
        BuildFailed: it doesn't take the image.
    """
    reference = Reference.parse(name)
    named = str(reference) if reference.tag else f"{reference}:latest"
    observer.step(f"loading {named} into the Docker engine")
    with scratch_folder(store.folder.parent, "reprobuild-load-") as scratch:
        path = scratch / "image.tar"
        _write_archive(path, store, built.top, {CONTAINERD_NAME: named, REF_NAME: reference.tag or "latest"}, path)
        with closing(_engine()) as client, path.open("rb") as stream:
            _give(client, stream)


def _give(client: Any, stream: BinaryIO) -> None:  # noqa: ANN401 - the SDK has no types
    from docker.errors import DockerException  # noqa: PLC0415 - an extra

    try:
        client.images.load(stream)
    except (DockerException, OSError) as error:  # what requests raises where the connection breaks is an OSError
        raise BuildFailed(
            f"The Docker engine didn't take the image: {_said(error)}.",
            "Is it 25 or newer, and has it room? `docker version` and `docker info` tell.",
        ) from error


def _engine() -> Any:  # noqa: ANN401 - the SDK has no types
    """The Docker engine that the environment names, which has answered.

    Raises:
        ToolMissing: there is none, or no SDK to speak with it.
    """
    from reprobuild.image.engine import require_sdk  # noqa: PLC0415 - few images go to an engine

    require_sdk()
    import docker  # noqa: PLC0415 - an extra
    from docker.constants import DEFAULT_UNIX_SOCKET  # noqa: PLC0415 - the same
    from docker.errors import DockerException  # noqa: PLC0415 - the same

    try:
        return docker.from_env(timeout=600)
    except (DockerException, OSError) as error:
        address = os.environ.get("DOCKER_HOST") or DEFAULT_UNIX_SOCKET.removeprefix("http+")
        raise ToolMissing(
            f"No Docker engine answers at {redacted(address)}: {_said(error)}.",
            "Start it, or set DOCKER_HOST to where one is; `docker version` tells.",
        ) from error


def _said(error: Exception) -> str:
    """The engine's own words, else the system's, else the SDK's."""
    import requests  # noqa: PLC0415 - slow to import

    broke = any(isinstance(each, requests.ConnectionError) for each in (error, error.__cause__))
    said = getattr(error, "explanation", None) or words_of(error, "the connection broke" if broke else str(error))
    return redacted(str(said)).rstrip(".")


def push(
    built: Built, store: Layout, targets: Sequence[Reference], registries: Registries, observer: Observer = SILENT
) -> Moved:
    """Put an image into a repository, its records beside it as referrers, and tag it.

    The layers of a base in the same registry are mounted, those of another streamed through.

    Args:
        targets: one repository, with a tag each.

    Raises:
        RegistryFailed: the registry refuses.
    """
    first = targets[0]
    target = Remote(registries.of(first), first.repository)
    observer.step(f"pushing to {first.registry}/{first.repository}")
    copied = copy_image(Local(store), target, built.top, elsewhere=_origins(built, registries), observer=observer)
    for image, statement in built.images:
        copy_image(Local(store), target, add_record(store, statement, image.descriptor))
    raw = store.read(built.top)
    for each in targets:
        if each.tag:
            target.put_document(built.top, raw, each.tag)
    names = tuple(str(replace(each, digest=None if each.tag else built.top.digest)) for each in targets)
    return Moved(copied.bytes_of("there"), copied.bytes_of("mounted"), copied.bytes_of("sent"), names)
