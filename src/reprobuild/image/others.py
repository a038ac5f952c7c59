"""The files of other images, for ``COPY --from=IMAGE``: their layers are fetched, and read where they lie."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from reprobuild import process
from reprobuild.archive import Archive, Entry
from reprobuild.image import base as bases
from reprobuild.image.context import Nodes, Tree
from reprobuild.image.dockerfile import NeedsBuildKit
from reprobuild.image.stages import BaseImage
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import Descriptor, Platform
from reprobuild.oci.reference import Reference
from reprobuild.oci.rootfs import merged, open_layer
from reprobuild.oci.tree import Deflated, Node
from reprobuild.progress import SILENT, Observer

_PARALLEL = 4


class _Blobs(Protocol):
    """A registry, as far as whole images are concerned."""

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes]: ...

    def blob(self, repository: str, descriptor: Descriptor) -> Iterable[bytes]: ...


@dataclass(frozen=True, slots=True)
class _Opened:
    """A layer; its streams share one position."""

    archive: Archive
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class _InLayer:
    """The content of a file in a layer."""

    opened: _Opened
    entry: Entry

    @property
    def size(self) -> int:
        return self.entry.size

    def chunks(self) -> Iterator[bytes]:
        if self.entry.attributes:
            names = ", ".join(name for name, _ in self.entry.attributes)
            raise NeedsBuildKit(
                f"/{self.entry.name} of {self.opened.archive.name} would lose its extended attributes ({names}).",
                "Copy another file, or build with `--engine buildkit`.",
            )
        with self.opened.lock:
            yield from self.opened.archive.chunks(self.entry)

    def deflated(self) -> Deflated | None:
        return None


class Others:
    """Other images, opened when something is copied from them and closed together.

    Args:
        registry_of: opens the registry that a reference names.
        scratch: where their layers go.
    """

    def __init__(self, registry_of: Callable[[Reference], _Blobs], scratch: Path, observer: Observer = SILENT) -> None:
        self._registry_of = registry_of
        self._store = Layout(scratch / "others", create=True)
        self._observer = observer
        self._stack = ExitStack()
        self._trees: dict[tuple[str, Platform], Tree] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tree(self, image: BaseImage) -> Tree:
        """The files of an image.

        Raises:
            RegistryFailed, DigestMismatch: a layer can't be had.
            BadInput: one is damaged.
        """
        key = image.reference, image.platform
        if key not in self._trees:
            self._trees[key] = Nodes(dict(self._nodes(image)))
        return self._trees[key]

    def _nodes(self, image: BaseImage) -> Iterator[tuple[str, Node]]:
        reference = Reference.parse(image.reference)
        registry = self._registry_of(reference)
        layers = bases.fetch(reference, image.platform, self._registry_of).layers
        self._observer.step(f"fetching {len(layers)} layers of {reference}")

        def fetch(layer: Descriptor) -> None:
            if not self._store.has(layer.digest):
                self._store.put(layer.digest, registry.blob(reference.repository, layer))

        with process.workers(_PARALLEL) as pool:
            list(pool.map(fetch, layers))
        opened = [
            _Opened(self._stack.enter_context(open_layer(self._store.path_of(each.digest), name=str(reference))))
            for each in layers
        ]
        found = merged([each.archive.entries for each in opened])
        for path, one in found.items():
            if one.entry.kind in ("file", "directory", "symlink"):
                yield path, _node(path, one.entry, opened[one.layer])


def _node(path: str, entry: Entry, opened: _Opened) -> Node:
    uid, gid = (int(each) for each in entry.owner.partition(" ")[0].split(":"))
    if entry.kind == "file":
        return Node(path, "file", entry.mode, entry.seconds, uid, gid, content=_InLayer(opened, entry))
    if entry.kind == "symlink":
        return Node(path, "symlink", entry.mode, entry.seconds, uid, gid, target=entry.target)
    return Node(path, "directory", entry.mode, entry.seconds, uid, gid)
