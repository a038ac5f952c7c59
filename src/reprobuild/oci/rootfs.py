"""Layers of images that others made, read without unpacking them, and the root file system that they make together.

Sources: OCI image specification 1.1, layer.md; where it is silent, what containerd's unpacker does.
"""

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from reprobuild.archive import ENTRY_LIMIT, Archive, Entry, open_archive
from reprobuild.errors import BadInput, shown

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
#: Links that a path may go through, as in Linux.
_LINKS = 40
#: Parts of paths that are looked at, over all entries: far more than any image has, and a matter of seconds.
_STEPS = 20_000_000
_MAGIC = {b"\x1f\x8b": "tar.gz", b"\x28\xb5\x2f\xfd": "tar.zst"}
_UNSAFE = "Don't run this image; ask whoever made it."


@contextmanager
def open_layer(source: Path | BinaryIO, *, name: str) -> Iterator[Archive]:
    """Open a layer: a tar file, plain or compressed with gzip or zstd, whatever its media type says.

    Every file is read once, for its digest. Whiteouts are entries like others.

    Args:
        source: a file, or a seekable stream.
        name: what messages call it.

    Raises:
        BadInput: it can't be read, is damaged, or holds what no honest layer has.
        ToolMissing: it is compressed with zstd, and there is no library for that.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            stream.seek(0)
            head = stream.read(4)
        except OSError as error:
            raise BadInput(f"{name} can't be read: {error.strerror}.") from error
        kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "tar")
        yield stack.enter_context(open_archive(stream, name=name, names="posix", kind=kind))


@dataclass(frozen=True, slots=True)
class Found:
    """An entry, and the number of the layer that it comes from, the lowest being 0.

    For a hard link it is the entry that it linked when its layer came, whatever became of that name later.
    """

    layer: int
    entry: Entry


def merged(layers: Sequence[Iterable[Entry]]) -> dict[str, Found]:
    """What is there when layers lie one on the other, lowest first: by path, in the order of a walk.

    A whiteout removes what lower layers have. A folder leaves what lies in a lower one in place, and anything else
    replaces it. What lies under a symbolic link goes where the link leads, never outside of the root. Folders that
    no layer mentions are left out.

    Raises:
        BadInput: links go in a circle, a path goes through a file, or a hard link leads to none.
    """
    tree = _Tree()
    for number, entries in enumerate(layers):
        plain: list[Entry] = []
        for entry in entries:  # whiteouts first: they are about lower layers, wherever they stand
            folder, _, name = entry.name.rpartition("/")
            if name.startswith(_WHITEOUT):
                tree.remove(folder, name)
            else:
                plain.append(entry)
        for entry in plain:
            tree.put(Found(number, entry))
    return dict(tree.walk())


@dataclass(slots=True)
class _Place:
    """A name in the tree. ``below`` is None unless it is a folder."""

    found: Found | None = None
    below: "dict[str, _Place] | None" = field(default_factory=dict)


class _Tree:
    def __init__(self) -> None:
        self._root = _Place()
        self._made = self._steps = 0

    def remove(self, folder: str, whiteout: str) -> None:
        if whiteout.removeprefix(_WHITEOUT) in ("", ".", ".."):
            raise BadInput(f"The layer has the whiteout {shown(whiteout)!r}, which names no file.", _UNSAFE)
        place = self._folder(folder)
        if place is None or place.below is None:
            return
        if whiteout == _OPAQUE:
            place.below.clear()
        else:
            place.below.pop(whiteout.removeprefix(_WHITEOUT), None)

    def put(self, found: Found) -> None:
        folder, _, name = found.entry.name.rpartition("/")
        if not name:
            self._root.found = found
            return
        parent = self._folder(folder, make=True)
        if parent is None or parent.below is None:
            raise BadInput(f"The layer puts {shown(found.entry.name)!r} under what is no folder.", _UNSAFE)
        before = parent.below.get(name)
        if found.entry.kind == "hardlink":
            found = self._linked(found.entry)
        if found.entry.kind != "directory":
            parent.below[name] = _Place(found, None)
        elif before and before.below is not None:
            before.found = found
        else:
            parent.below[name] = _Place(found)

    def _linked(self, link: Entry) -> Found:
        folder, _, name = posixpath.normpath(link.target).rpartition("/")
        parent = self._folder(folder)
        place = parent.below.get(name) if parent and parent.below else None
        if place is None or place.found is None or place.below is not None:
            what = f"{shown(link.name)!r} links to {shown(link.target)!r}, which is no file"
            raise BadInput(f"The layer's {what}.", _UNSAFE)
        return place.found

    def _folder(self, path: str, *, make: bool = False) -> _Place | None:
        """Where a path leads, through links as in a container; None when there is no such folder."""
        way = [self._root]
        parts = deque(path.split("/"))
        links = 0
        while parts:
            self._steps += 1
            if self._steps > _STEPS:
                raise BadInput("The layers have paths too long and too many to follow.", _UNSAFE)
            part = parts.popleft()
            if part == "..":
                del way[max(1, len(way) - 1) :]
            if part in ("", ".", ".."):
                continue
            place = self._below(way[-1], part, make=make)
            if place and place.found and place.found.entry.kind == "symlink":
                target = place.found.entry.target
                links += 1
                if links > _LINKS:
                    raise BadInput(f"The links on the way to {shown(path)!r} go in a circle.", _UNSAFE)
                self._steps += target.count("/")
                parts.extendleft(reversed(target.split("/")))
                if target.startswith("/"):
                    del way[1:]
            elif place is None or place.below is None:
                return None
            else:
                way.append(place)
        return way[-1]

    def _below(self, folder: _Place, part: str, *, make: bool) -> _Place | None:
        below = folder.below if folder.below is not None else {}
        place = below.get(part)
        if place is None and make:
            self._made += 1
            if self._made > ENTRY_LIMIT:
                raise BadInput(f"The layers need more than {ENTRY_LIMIT} folders.", _UNSAFE)
            place = below[part] = _Place()
        return place

    def walk(self) -> Iterator[tuple[str, Found]]:
        waiting = [("", self._root)]
        while waiting:
            path, place = waiting.pop()
            if place.found:
                yield path, place.found
            below = sorted((place.below or {}).items(), key=itemgetter(0), reverse=True)
            waiting += ((f"{path}/{name}" if path else name, each) for name, each in below)
