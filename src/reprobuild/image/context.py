"""What COPY copies: the build context and other trees, by Docker's rules.

Sources: the Dockerfile reference and, where that is silent, BuildKit's copier (tonistiigi/fsutil, ``copy``).
One thing differs on purpose: a file of the context has mode 755 or 644, by its owner's execute bit, because the
other bits are the umask of whoever made the checkout. ``--chmod`` says otherwise.
"""

import os
import posixpath
import re
import stat
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

from e2b_dockerfile_utils import PatternMatcher

from reprobuild.errors import BadInput, shown
from reprobuild.files import read_text
from reprobuild.image.dockerfile import NeedsBuildKit
from reprobuild.image.stages import Copy
from reprobuild.oci.tree import Node, OnDisk, Text, has_long_name

_LINKS = 255  # as many in one path as BuildKit follows
_WILD = re.compile(r"(?:[^\\*?\[]|\\.)*[*?\[]")
#: How what ADD would unpack begins: gzip, bzip2, xz, zstd.
_COMPRESSED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


class Tree(Protocol):
    """Files and folders by path; a path is relative, and the root's is empty."""

    def find(self, path: str) -> Node | None:
        """What is at a path whose parents are folders, not links."""

    def names(self, path: str) -> Sequence[str]:
        """What is in a folder, sorted."""


class Nodes:
    """A tree that is at hand. Folders that nobody names, but that others are in, are there too."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = {"": _folder("", 0)}
        self._names: dict[str, set[str]] = {"": set()}
        for path, node in nodes.items():
            for parent in _parents(path):
                self._add(parent, self._nodes.get(parent, _folder(parent, node.mtime)))
            self._add(path, node)

    def _add(self, path: str, node: Node) -> None:
        self._nodes[path] = node
        folder, _, name = path.rpartition("/")
        if path:
            self._names.setdefault(folder, set()).add(name)

    def find(self, path: str) -> Node | None:
        return self._nodes.get(path)

    def names(self, path: str) -> Sequence[str]:
        return sorted(self._names.get(path, ()))


class Context:
    """The build context: a folder without what its .dockerignore names. It is read where something asks for it.

    Args:
        root: the folder.
        epoch: the time of everything in it, in seconds since 1970.
        ignore: lines of a .dockerignore; ``where`` names the file in messages.

    Raises:
        BadInput: a pattern is malformed.
    """

    def __init__(self, root: Path, epoch: int, ignore: Iterable[str] = (), where: str = ".dockerignore") -> None:
        self._root = root
        self._epoch = epoch
        try:
            with warnings.catch_warnings():  # re wonders whether [[] is meant to be a set in a set, as Go doesn't
                warnings.simplefilter("ignore", FutureWarning)
                self._ignored = PatternMatcher(list(ignore))
        except ValueError as error:
            raise BadInput(f"{where}: {shown(error)}.", "Mend that line.") from error

    @classmethod
    def open(cls, root: Path, dockerfile: Path, epoch: int) -> "Context":
        """A context with ``<Dockerfile>.dockerignore``, else with its own ``.dockerignore``.

        Raises:
            BadInput: that file can't be read, or a pattern in it is malformed.
        """
        for path in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), root / ".dockerignore"):
            if path.is_file():
                where = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
                lines = read_text(path, where).removeprefix("\ufeff").split("\n")
                return cls(root, epoch, [line.removesuffix("\r") for line in lines], where)
        return cls(root, epoch)

    def find(self, path: str) -> Node | None:
        """What is there; None also where it is ignored. Raises BadInput for what no image can hold."""
        if not path:
            return _folder("", self._epoch)
        where = self._root / path
        try:
            state = where.lstat()
            if not self._seen(path, is_folder=stat.S_ISDIR(state.st_mode)):
                return None
            if stat.S_ISLNK(state.st_mode):
                return Node(path, "symlink", 0o777, self._epoch, target=_utf8(str(where.readlink()), where))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise _unreadable(where, error) from error
        if stat.S_ISDIR(state.st_mode):
            return _folder(path, self._epoch)
        if not stat.S_ISREG(state.st_mode):
            raise BadInput(
                f"{where} is a socket, a device or a pipe, which no image can hold.", "Name it in .dockerignore."
            )
        if not os.access(where, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            raise _unreadable(where, "permission denied")
        mode = 0o755 if state.st_mode & stat.S_IXUSR else 0o644
        return Node(path, "file", mode, self._epoch, content=OnDisk(where, state.st_size))

    def names(self, path: str) -> Sequence[str]:
        try:
            with os.scandir(self._root / path) as entries:
                found = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
        except OSError as error:
            raise _unreadable(self._root / path, error) from error
        start = f"{path}/" if path else ""
        seen = (name for name, is_folder in found if self._seen(start + name, is_folder=is_folder))
        return sorted(_utf8(name, self._root / path) for name in seen)

    def _seen(self, path: str, *, is_folder: bool) -> bool:
        """Whether a path isn't ignored, or is a folder of something that isn't."""
        if not self._ignored.matches(path):
            return True
        return is_folder and self._ignored.may_match_under(path) and bool(self.names(path))


@dataclass(frozen=True, slots=True)
class Placed:
    """What a COPY adds, each in the order of its paths.

    Attributes:
        parents: the folders above the nodes, each in the one before it, as they are made where they aren't there yet.
            One that is there, or a link to one, keeps its mode and its owner.
        nodes: what is copied, over whatever is there. A folder keeps what is in it.
    """

    parents: tuple[Node, ...]
    nodes: tuple[Node, ...]


def place(
    step: Copy,
    tree: Tree,
    *,
    epoch: int,
    where: str,
    follow: Callable[[str], tuple[str, bool]],
    read: Callable[[str], bytes | None],
) -> Placed:
    """Carry out a COPY or ADD.

    Args:
        tree: where it copies from.
        epoch: nothing is younger, in seconds since 1970.
        where: the Dockerfile, for messages.
        follow: where a path leads in the image so far, each link followed, and whether a folder is there. It is asked
            only where that matters: for one file whose destination doesn't end with a slash.
        read: a file of the image so far, for the user and group that ``--chown`` names; None if it isn't there.

    Raises:
        BadInput: a source is missing, or can't be what the destination is.
    """
    placing = _Placing(step, tree, epoch, where, owner_of(step.owner, read, f"{where}:{step.line}"))
    placing.run(follow)
    placing.check_names()
    target = step.destination.strip("/")
    folders = placing.folders - placing.found.keys() - {""}
    made = [
        _folder(path, placing.landed.get(path, epoch), placing.owner or (0, 0)) for path in sorted(folders, key=_order)
    ]
    nodes = sorted(placing.found.values(), key=lambda node: _order(node.path))
    inside = [each for each in made if target and each.path.startswith(f"{target}/")]
    outside = [each for each in made if each not in inside]
    return Placed(tuple(outside), tuple(sorted([*inside, *nodes], key=lambda node: _order(node.path))))


def owner_of(text: str, read: Callable[[str], bytes | None], where: str) -> tuple[int, int] | None:
    """The numbers for ``USER[:GROUP]``; None for an empty text.

    A user's number alone is the group's too; of a user's name the group is the one in etc/passwd.

    Args:
        read: a file of the image by its path, or None.

    Raises:
        BadInput: a name isn't in the image's etc/passwd or etc/group.
    """
    if not text:
        return None
    user, colon, group = text.partition(":")
    if number := _number(user):
        uid = gid = int(number)
    else:
        fields = _account(read, "etc/passwd", user, 4, where)
        uid, gid = int(fields[2]), int(fields[3])
    if colon:
        gid = int(_number(group) or _account(read, "etc/group", group, 3, where)[2])
    return uid, gid


def _number(text: str) -> str:
    return text if re.fullmatch(r"[0-9]{1,10}", text) and int(text) < 1 << 32 else ""


def _account(read: Callable[[str], bytes | None], path: str, name: str, fields: int, where: str) -> list[str]:
    # Only "\n" ends a line: at what else splitlines() does, a comment in a field would become an account.
    for line in (read(path) or b"").decode("utf-8", "replace").split("\n"):
        found = line.strip().split(":")
        if found[0] == name and len(found) >= fields and all(map(_number, found[2:fields])):
            return found
    raise BadInput(f"{where}: {shown(name)!r} is not in the image's /{path}.", "Name a number instead.")


class _Placing:
    """One COPY while it is carried out."""

    def __init__(self, step: Copy, tree: Tree, epoch: int, where: str, owner: tuple[int, int] | None) -> None:
        self.step = step
        self.tree = tree
        self.epoch = epoch
        self.where = where
        self.owner = owner
        self.found: dict[str, Node] = {}
        self.folders: set[str] = set()
        self.landed: dict[str, int] = {}  # when the folder that all goes into was last changed

    def fail(self, reason: str, remedy: str = "") -> NoReturn:
        raise BadInput(f"{self.where}:{self.step.line}: {reason}", remedy)

    def check_names(self) -> None:
        """Refuse what no file system could hold."""
        for path in (*self.found, *self.folders):
            if has_long_name(path):
                self.fail(f"{shown(path)!r} has a name in it that is too long for a file system.", "Shorten it.")

    def run(self, follow: Callable[[str], tuple[str, bool]]) -> None:
        sources = [each for pattern in self.step.sources for each in self._matching(pattern)]
        files = [each for each in sources if each[1].kind != "directory"]
        target = self.step.destination.strip("/")
        into = self.step.destination.endswith("/") or len(files) < len(sources)
        if not into and (files or self.step.inline):
            target, into = follow(target)
        if not into and len(files) + len(self.step.inline) > 1:
            self.fail(f"Several files can't become {self.step.destination}.", "End the destination with a slash.")
        if sources or self.step.inline:
            self.folders.update([*_parents(target), target] if into else _parents(target))
        for name, node in sources:
            if node.kind == "directory":
                self._copy_folder(node.path, target)
                self.landed[target] = min(node.mtime, self.epoch) if node.path else self.epoch
            else:
                self._copy_file(node, posixpath.join(target, posixpath.basename(name)) if into else target)
        for name, data in self.step.inline:
            node = Node(name, "file", 0o644, self.epoch, content=Text(data))
            self._copy_file(node, posixpath.join(target, name) if into else target)

    def _matching(self, pattern: str) -> Iterator[tuple[str, Node]]:
        """What a source names: the path that it was found at, and what is there once links are followed."""
        paths = self._globbed(pattern) if _WILD.match(pattern) else [pattern]
        for path in paths:
            node = self._followed(path)
            if node is None:
                self.fail(
                    f"There is no {shown(path)!r} to copy.",
                    "Look for a typo, and for a line of .dockerignore too much.",
                )
            yield path, node

    def _globbed(self, pattern: str) -> list[str]:
        """The paths that match; none is no error."""
        parts = pattern.split("/")
        fixed = next(number for number, part in enumerate(parts) if _WILD.match(part))
        start = self._followed("/".join(parts[:fixed]))
        if start is None or start.kind != "directory":
            return []
        paths = [start.path]
        for number, part in enumerate(parts[fixed:], fixed + 1):
            expression = self._expression(part)
            within = [path for path in paths if number == fixed + 1 or self._is_folder(path)]
            names = ((path, name) for path in within for name in self.tree.names(path))
            paths = [f"{path}/{name}".lstrip("/") for path, name in names if expression.fullmatch(name)]
        return paths

    def _is_folder(self, path: str) -> bool:
        node = self.tree.find(path)
        return node is not None and node.kind == "directory"

    def _expression(self, pattern: str) -> re.Pattern[str]:
        """Go's filepath.Match for one name.

        What stands between two stars has one length, so the first place where it is found is as good as any later one:
        without going back from there (``(?>…)``) no pattern takes longer than its length times that of the name.
        """
        between, rest = [""], pattern
        while rest:
            if match := re.match(r"\[(\^?)((?:\\.|[^\\\]])+)\]", rest):
                between[-1] += f"[{match[1]}{self._ranges(match[2], pattern)}]"
            elif match := re.match(r"\\(.)", rest):
                between[-1] += re.escape(match[1])
            elif match := re.match(r"\*+", rest):
                between.append("")
            elif match := re.match(r"[^\[\\]", rest):
                between[-1] += "." if match[0] == "?" else re.escape(match[0])
            else:
                self.fail(
                    f"{shown(pattern)!r} is no pattern.", "Close each [ and let each \\ stand before a character."
                )
            rest = rest[match.end() :]
        first, *middle = between
        found = "".join(f"(?>.*?{each})" for each in middle[:-1]) + "".join(f".*{each}" for each in middle[-1:])
        return re.compile(first + found, re.DOTALL)

    def _ranges(self, text: str, pattern: str) -> str:
        found = ""
        while text:
            match = re.match(r"(\\.|[^\\-])(?:-(\\.|[^\\-]))?", text)
            if not match:
                self.fail(f"{shown(pattern)!r} is no pattern.", "Write a hyphen in brackets as \\-.")
            low, high = (each and each[-1] for each in match.groups())
            if high and low > high:
                self.fail(
                    f"{shown(pattern)!r} is no pattern: {low}-{high} is empty.", "Write the range from low to high."
                )
            found += re.escape(low) + (f"-{re.escape(high)}" if high else "")
            text = text[match.end() :]
        return found

    def _followed(self, path: str) -> Node | None:
        """What is at a path once every link in it is followed, as if the tree were the whole file system."""
        waiting, place, links = path.split("/"), "", 0
        node = self.tree.find("")
        while waiting:
            part = waiting.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                place = place.rpartition("/")[0]
                node = self.tree.find(place)
                continue
            if node is None or node.kind != "directory":
                return None
            node = self.tree.find(f"{place}/{part}".lstrip("/"))
            if node and node.kind == "symlink":
                links += 1
                if links > _LINKS:
                    self.fail(f"{shown(path)!r} is a link to itself, or to too many others.")
                waiting = node.target.split("/") + waiting
                place = "" if node.target.startswith("/") else place
                node = self.tree.find(place)
            else:
                place = f"{place}/{part}".lstrip("/")
        return node

    def _copy_folder(self, source: str, target: str) -> None:
        waiting = [(source, target)]
        while waiting:
            path, to = waiting.pop()
            for name in self.tree.names(path):
                node = self.tree.find(f"{path}/{name}".lstrip("/"))
                if node is None:
                    continue  # it is gone since its folder was read
                place = f"{to}/{name}".lstrip("/")
                if node.kind != "directory":
                    self._copy_file(node, place)
                    continue
                self._check(place, wants_folder=True)
                if place not in self.folders:
                    self.found[place] = self._as_copied(node, place)
                waiting.append((node.path, place))

    def _copy_file(self, node: Node, place: str) -> None:
        if not place:
            self.fail("A file can't become the root folder.", "End the destination with a slash.")
        self._check(place, wants_folder=False)
        self.landed.pop(posixpath.dirname(place), None)
        if self.step.unpacks and node.content and _is_archive(next(node.content.chunks(), b"")):
            reason = f"{self.where}:{self.step.line}: ADD would unpack {shown(node.path)!r}, or try to."
            raise NeedsBuildKit(reason, "Use COPY, or `--engine buildkit`.")
        self.found[place] = self._as_copied(node, place)

    def _as_copied(self, node: Node, place: str) -> Node:
        mode = node.mode if self.step.mode is None or node.kind == "symlink" else self.step.mode
        uid, gid = self.owner or (node.uid, node.gid)
        return replace(node, path=place, mode=mode, mtime=min(node.mtime, self.epoch), uid=uid, gid=gid)

    def _check(self, place: str, *, wants_folder: bool) -> None:
        if any(part.startswith(".wh.") for part in place.split("/")):
            self.fail(f"{shown(place)!r} would be read as the removal of a file.", "Rename what begins with .wh.")
        node = self.found.get(place)
        is_folder = place in self.folders or (node is not None and node.kind == "directory")
        if (wants_folder and node is not None and not is_folder) or (not wants_folder and is_folder):
            self.fail(f"/{shown(place)} would be a file and a folder.", "Copy one of the two to another place.")


def _is_archive(head: bytes) -> bool:
    if head.startswith(_COMPRESSED):
        return True
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _folder(path: str, mtime: int, owner: tuple[int, int] = (0, 0)) -> Node:
    return Node(path, "directory", 0o755, mtime, *owner)


def _parents(path: str) -> list[str]:
    """The folders above a path, the root left out."""
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def _order(path: str) -> list[str]:
    return path.split("/")


def _utf8(text: str, where: Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"A name or a link in {shown(ascii(str(where)))} is not UTF-8: {text!a}.") from error
    return text


def _unreadable(where: Path, error: object) -> BadInput:
    reason = getattr(error, "strerror", None) or error
    return BadInput(
        f"{shown(ascii(str(where)))} can't be read: {reason}.", "Name it in .dockerignore, or let us read it."
    )
