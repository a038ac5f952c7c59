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
    return dict(_laid(layers).walk())


@dataclass(frozen=True, slots=True)
class Laid:
    """What some layers do to whatever lies below them, which isn't known.

    Attributes:
        found: what they put there, as :func:`merged` has it.
        hidden: where nothing of what lies below shows any more: what they remove, and folders that they begin anew.
            What else a file takes the place of isn't named.
        late: folders that are named behind something in them. A link in their place would lead that elsewhere first.
    """

    found: dict[str, Found]
    hidden: frozenset[str]
    late: frozenset[str]


def laid_over(layers: Sequence[Iterable[Entry]]) -> Laid:
    """What layers do that lie on others, lowest first.

    Raises:
        BadInput: as :func:`merged`; also where a hard link leads to a file of what lies below.
    """
    tree = _laid(layers, over_others=True)
    return Laid(dict(tree.walk()), frozenset(tree.hidden()), frozenset(tree.late))


def _laid(layers: Sequence[Iterable[Entry]], *, over_others: bool = False) -> "_Tree":
    tree = _Tree(over_others=over_others)
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
    return tree


@dataclass(slots=True)
class _Place:
    """A name in the tree. ``below`` is None unless it is a folder; without ``found`` either, it was removed."""

    found: Found | None = None
    below: "dict[str, _Place] | None" = field(default_factory=dict)
    hides: bool = False


class _Tree:
    """Layers one on the other, and where they hide something of others that lie below all of them."""

    def __init__(self, *, over_others: bool) -> None:
        self._root = _Place()
        self._over_others = over_others
        self.late: set[str] = set()
        self._made = self._steps = 0

    def remove(self, folder: str, whiteout: str) -> None:
        if whiteout.removeprefix(_WHITEOUT) in ("", ".", ".."):
            raise BadInput(f"The layer has the whiteout {shown(whiteout)!r}, which names no file.", _UNSAFE)
        place = self._folder(folder, make=self._over_others)
        if place is None or place.below is None:
            return
        if whiteout == _OPAQUE:
            place.below.clear()
            place.hides = True
        elif self._over_others:
            place.below[whiteout.removeprefix(_WHITEOUT)] = _Place(None, None, hides=True)
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
            if before.found is None and before.below:
                self.late.add(found.entry.name)
            before.found = found
        else:
            parent.below[name] = _Place(found, hides=before is not None)

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
        removed = place is not None and place.found is None and place.below is None
        if (place is None or removed) and make:
            self._made += 1
            if self._made > ENTRY_LIMIT:
                raise BadInput(f"The layers need more than {ENTRY_LIMIT} folders.", _UNSAFE)
            place = below[part] = _Place(hides=removed)
        return place

    def walk(self) -> Iterator[tuple[str, Found]]:
        waiting = [("", self._root)]
        while waiting:
            path, place = waiting.pop()
            if place.found:
                yield path, place.found
            below = sorted((place.below or {}).items(), key=itemgetter(0), reverse=True)
            waiting += ((f"{path}/{name}" if path else name, each) for name, each in below)

    def hidden(self) -> Iterator[str]:
        """Where what lies below is hidden, other than by a file in its place or by a folder further up."""
        waiting = [("", self._root)]
        while waiting:
            path, place = waiting.pop()
            if place.hides and (place.below is not None or place.found is None):
                yield path
            elif not place.hides:
                waiting += ((f"{path}/{name}" if path else name, each) for name, each in (place.below or {}).items())
