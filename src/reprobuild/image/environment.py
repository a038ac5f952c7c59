"""Locked wheels and a target → the nodes of a virtual environment, nothing written anywhere but in the cache.

All but the content is read and checked before anything is handed out: each wheel's digest, that RECORD lists what is
there, what it installs, and that no two wheels install something else at the same place. There pip lets the last one
win, and uv warns; which was last would then decide what an image runs, so it is an error here. The same bytes twice are
nobody's loss, and usual in namespace packages. That a file has the hash that RECORD says is checked when it is read,
for that is what takes the time.
"""

import hashlib
import posixpath
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from packaging.specifiers import SpecifierSet

from reprobuild import process
from reprobuild.errors import BadInput, shown
from reprobuild.image.installed import InstalledFile, folder, install, nodes
from reprobuild.image.target import Target
from reprobuild.index import Index, LockedFile
from reprobuild.lockfile import Lockfile, unsatisfied
from reprobuild.oci.tree import WHEEL_TIME, Content, Node, Text
from reprobuild.project import requirement_of
from reprobuild.wheelfile import WheelFile, read_wheel

_Installed = tuple[LockedFile, WheelFile, Mapping[str, InstalledFile]]
#: What is at a place: a file of a wheel, a folder, or what no wheel may replace.
_Thing = InstalledFile | Literal["folder", "fixed"]
#: By path below the prefix: who put something there, and what.
_Holders = Mapping[str, tuple[str, _Thing]]
_PARALLEL = 4  # wheels that are fetched and read at once


@dataclass(frozen=True, slots=True)
class InstalledWheel:
    """A wheel in an environment.

    Attributes:
        nodes: its files, and every folder above them from the prefix down, sorted by path.
        size: bytes of its files.
        own: whether it is the project's own.
    """

    file: LockedFile
    nodes: tuple[Node, ...]
    size: int
    own: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment.

    Attributes:
        skeleton: what it has without any wheel.
        wheels: by name; the project's own comes last.
        unmet: what `pip check` would complain about, each in a few words. A resolver that was told to override
            something leaves that on purpose.
        installed: what each wheel was read as, and what it becomes below the prefix.
        holders: who put what where.
    """

    target: Target
    skeleton: tuple[Node, ...]
    wheels: tuple[InstalledWheel, ...]
    unmet: tuple[str, ...]
    installed: tuple[_Installed, ...] = field(default=(), repr=False, compare=False)
    holders: _Holders = field(default_factory=dict, repr=False, compare=False)


def assemble(
    lock: Lockfile, target: Target, index: Index, own: Path | None = None, *, checked: bool = True
) -> Environment:
    """The environment that a lock describes.

    Args:
        own: the project's wheel, if it is to be in it.
        checked: whether each wheel's digest is checked; if not, who uses what is in a wheel calls
            :meth:`reprobuild.index.Index.require` before, or has another proof.

    Raises:
        IndexFailed: no place offers a suitable file of a pin.
        DigestMismatch: a place sent other bytes than the lock names.
        Damaged: a wheel that nobody has checked can't be read.
        BadInput: a pin has no wheel, or a wheel can't be installed, or two contradict one another.
    """
    files = index.choose(lock.selected(target.markers).values(), target)
    _require_wheels(files, target)
    with process.workers(_PARALLEL) as pool:
        deque(pool.map(index.kept if checked else index.placed, files), 0)
    installed = [_installed(file, target, index) for file in files]  # Python does that in one thread at a time
    environment = _with(Environment(target, _skeleton(target), (), ()), installed)
    return environment if own is None else with_own(environment, own)


def _installed(file: LockedFile, target: Target, index: Index) -> _Installed:
    def read(path: Path) -> _Installed:
        wheel = read_wheel(path, seen=file.digest)
        return file, wheel, install(wheel, target)

    with suppress(BadInput):  # it may be damaged, where nobody has checked it yet
        return read(index.placed(file))
    index.require(file)
    return read(index.placed(file))


def with_own(environment: Environment, path: Path) -> Environment:
    """The same environment with the project's own wheel.

    Raises:
        BadInput: it doesn't suit the target, or contradicts the locked wheels.
    """
    target = environment.target
    file, wheel = _own(path, target, (each.file for each in environment.wheels))
    # Of a lock's pins nobody knows which were asked for; of the project it is certain.
    return _with(environment, [(file, wheel, install(wheel, target, requested=True))], own=True)


def _with(environment: Environment, more: Sequence[_Installed], *, own: bool = False) -> Environment:
    target, skeleton, installed = environment.target, environment.skeleton, (*environment.installed, *more)
    before = environment.holders or _of_skeleton(skeleton, target.prefix.strip("/"))
    holders = _in_peace(before, ((file.filename, contents) for file, _, contents in more))
    new = (InstalledWheel(file, nodes(each, target.prefix), _size(each), own=own) for file, _, each in more)
    unmet = tuple(_unmet([wheel for _, wheel, _ in installed], target))
    return Environment(target, skeleton, (*environment.wheels, *new), unmet, installed, holders)


def _size(contents: Mapping[str, InstalledFile]) -> int:
    return sum(each.content.size for each in contents.values())


def _require_wheels(files: Iterable[LockedFile], target: Target) -> None:
    for file in files:
        if not file.is_wheel:
            raise BadInput(
                f"{file.name} {file.version} has no wheel for Python {target.short} on {target.platform} in the lock, "
                f"only the sdist {file.filename}.",
                "An image is put together from wheels alone: lock another version, or build a wheel of it and offer "
                "that in one of uv's find-links.",
            )


def _own(path: Path, target: Target, others: Iterable[LockedFile]) -> tuple[LockedFile, WheelFile]:
    wheel = read_wheel(path)
    if wheel.tags.isdisjoint(target.tag_ranks):
        raise BadInput(
            f"{path.name} doesn't run on Python {target.short} on {target.platform}.",
            "Build it for that Python and platform.",
        )
    if any(each.name == wheel.name for each in others):
        raise BadInput(f"The lock pins {wheel.name} too, which is the project itself.", "Run `reprobuild lock`.")
    return LockedFile(wheel.name, str(wheel.version), path.name, wheel.digest), wheel


def _skeleton(target: Target) -> tuple[Node, ...]:
    """What `python -m venv` makes, without its scripts for shells."""
    root = target.prefix.strip("/")
    library = f"lib/python{target.short}"
    settings = [
        f"home = {posixpath.dirname(target.executable)}",
        "include-system-site-packages = false",
        f"version = {target.version}",
        f"executable = {target.executable}",
    ]
    links = {
        "bin/python": target.executable,
        "bin/python3": "python",
        f"bin/python{target.short}": "python",
        "lib64": "lib",
    }
    found = [
        *(folder(f"{root}/{each}".rstrip("/")) for each in ("", "bin", "lib", library, f"{library}/site-packages")),
        *(Node(f"{root}/{path}", "symlink", 0o777, WHEEL_TIME, target=to) for path, to in links.items()),
        InstalledFile(Text("".join(f"{line}\n" for line in settings).encode()), executable=False, hash="").node(
            f"{root}/pyvenv.cfg"
        ),
    ]
    return tuple(sorted(found, key=lambda node: node.path))


def _of_skeleton(skeleton: Iterable[Node], root: str) -> _Holders:
    """What the environment has of itself."""
    return {
        node.path.removeprefix(root).lstrip("/"): (
            "the environment itself",
            "folder" if node.kind == "directory" else "fixed",
        )
        for node in skeleton
    }


def _in_peace(holders: _Holders, installed: Iterable[tuple[str, Mapping[str, InstalledFile]]]) -> _Holders:
    """Who has which place when some wheels are added.

    Two things at one place are refused, unless they are folders, or the same bytes with the same mode.
    """
    found = dict(holders)

    def claim(path: str, who: str, what: _Thing) -> bool:
        """Whether nobody had it yet."""
        known = found.get(path)
        if known is None:
            found[path] = who, what
        elif known[1] is not what and not _same(known[1], what):
            raise BadInput(
                f"{known[0]} and {who} both install {shown(path)!r}, and not the same.",
                "Lock only one of the two, or versions that get along.",
            )
        return known is None

    for who, contents in installed:
        for path, one in contents.items():
            claim(path, who, one)
            above = path.rpartition("/")[0]
            while above and claim(above, who, "folder"):
                above = above.rpartition("/")[0]
    return found


def _same(one: _Thing, other: _Thing) -> bool:
    if not isinstance(one, InstalledFile) or not isinstance(other, InstalledFile):
        return False
    if (one.executable, one.content.size) != (other.executable, other.content.size):
        return False
    algorithms = [each.hash.partition("=")[0] for each in (one, other)]
    if algorithms[0] == algorithms[1] != "":
        return one.hash == other.hash
    return _sha256(one.content) == _sha256(other.content)


def _sha256(content: Content) -> bytes:
    hasher = hashlib.sha256()
    for chunk in content.chunks():
        hasher.update(chunk)
    return hasher.digest()


def _unmet(wheels: Sequence[WheelFile], target: Target) -> Iterator[str]:
    """What the wheels require, without extras, and the environment hasn't."""
    versions = {str(wheel.name): wheel.version for wheel in wheels}
    markers = {**target.markers, "extra": ""}
    for wheel in wheels:
        who = f"{wheel.name} {wheel.version}"
        try:
            if not SpecifierSet(wheel.requires_python).contains(target.version, prereleases=True):
                yield f"{who}: it is for Python {wheel.requires_python}"
            requirements = [requirement_of(text) for text in wheel.requires]
            yield from (f"{who}: {problem}" for problem in unsatisfied(requirements, versions, markers))
        except (ValueError, BadInput) as error:
            yield f"{who}: its requirements can't be read ({shown(error)})"
