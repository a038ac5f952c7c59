"""Locked wheels and a target → the nodes of a virtual environment, nothing written anywhere but in the cache.

All but the content is read and checked before anything is handed out: that RECORD lists what is there, what it
installs, and that no two wheels install something else at the same place. There pip lets the last one win, and uv
warns; which was last would then decide what an image runs, so it is an error here. The same bytes twice are nobody's
loss, and usual in namespace packages. That a file has the hash that RECORD says is checked when it is read, for that is
what takes the time.

A wheel is read after its digest has been checked, and not before somebody needs more of it than what is remembered.
"""

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from reprobuild import process
from reprobuild.errors import BadInput, shown
from reprobuild.image import listing as listings
from reprobuild.image.installed import InstalledFile, folder, install, nodes
from reprobuild.image.listing import Listing
from reprobuild.image.target import Target
from reprobuild.index import Index, LockedFile
from reprobuild.lockfile import Lockfile, unsatisfied
from reprobuild.oci.tree import WHEEL_TIME, Node, Text
from reprobuild.project import requirement_of
from reprobuild.wheelfile import WheelFile, read_wheel

_PARALLEL = 4  # wheels that are fetched and checked at once
_ITSELF = "the environment itself"


@dataclass(frozen=True)
class InstalledWheel:
    """A wheel in an environment.

    Attributes:
        path: where it lies.
        own: whether it is the project's own.
    """

    file: LockedFile
    path: Path
    listing: Listing = field(repr=False, compare=False)
    _read: Callable[[], Iterable[Node]] = field(repr=False, compare=False)
    own: bool = False

    @cached_property
    def size(self) -> int:
        """Bytes of its files."""
        return self.listing.size

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Its files, and every folder above them from the prefix down, sorted by path.

        Raises:
            IndexFailed, DigestMismatch: it has to be read, was damaged meanwhile, and can't be fetched again.
            BadInput: it can't be read.
        """
        return tuple(self._read())


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment.

    Attributes:
        skeleton: what it has without any wheel.
        wheels: by name; the project's own comes last.
        unmet: what `pip check` would complain about, each in a few words. A resolver that was told to override
            something leaves that on purpose.
    """

    target: Target
    skeleton: tuple[Node, ...]
    wheels: tuple[InstalledWheel, ...]
    unmet: tuple[str, ...]


def assemble(
    lock: Lockfile, target: Target, index: Index, own: Path | None = None, *, remembering: bool = False
) -> Environment:
    """The environment that a lock describes.

    Args:
        own: the project's wheel, if it is to be in it.
        remembering: whether what is known of wheels that were read before counts. Then their digests are checked when
            somebody asks for their nodes, and whoever takes their content without asking has another proof.

    Raises:
        IndexFailed: no place offers a suitable file of a pin.
        DigestMismatch: a place sent other bytes than the lock names.
        BadInput: a pin has no wheel, or a wheel can't be installed, or two contradict one another.
    """
    files = index.choose(lock.selected(target.markers).values(), target)
    _require_wheels(files, target)

    def known(file: LockedFile) -> tuple[Path, Listing | None]:
        found = listings.recall(file, target) if remembering else None
        return (index.placed if found else index.kept)(file), found

    with process.workers(_PARALLEL) as pool:
        there = [*pool.map(known, files)]
    wheels = [  # Python reads in one thread at a time
        InstalledWheel(file, path, found, partial(_nodes, file, target, index))
        if found
        else _installed(file, path, target, remembering=remembering)
        for file, (path, found) in zip(files, there, strict=True)
    ]
    environment = _with(Environment(target, _skeleton(target), (), ()), wheels)
    return environment if own is None else with_own(environment, own)


def _installed(file: LockedFile, path: Path, target: Target, *, remembering: bool) -> InstalledWheel:
    """A locked wheel that was found to be sound."""
    wheel = _wheel(file, path, read_wheel(path, seen=file.digest), target)
    if remembering:
        listings.remember(file, target, wheel.listing)
    return wheel


def _wheel(file: LockedFile, path: Path, read: WheelFile, target: Target, *, own: bool = False) -> InstalledWheel:
    # Of a lock's pins nobody knows which were asked for; of the project it is certain.
    contents = install(read, target, requested=own)
    found = nodes(contents, target.prefix)
    return InstalledWheel(file, path, Listing.of(read, target, contents, found), lambda: found, own)


def _nodes(file: LockedFile, target: Target, index: Index) -> tuple[Node, ...]:
    return nodes(install(read_wheel(index.kept(file), seen=file.digest), target), target.prefix)


def with_own(environment: Environment, path: Path) -> Environment:
    """The same environment with the project's own wheel.

    Raises:
        BadInput: it doesn't suit the target, or contradicts the locked wheels.
    """
    target = environment.target
    file, read = _own(path, target, (each.file for each in environment.wheels))
    return _with(environment, [_wheel(file, path, read, target, own=True)])


def _with(environment: Environment, more: Sequence[InstalledWheel]) -> Environment:
    target, skeleton, wheels = environment.target, environment.skeleton, (*environment.wheels, *more)
    _require_peace(skeleton, wheels, target)
    return Environment(target, skeleton, wheels, tuple(_unmet([each.listing for each in wheels], target)))


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


def _require_peace(skeleton: Iterable[Node], wheels: Iterable[InstalledWheel], target: Target) -> None:
    """Two things at one place are refused, unless they are folders, or the same bytes with the same mode."""
    below = len(target.prefix)
    folders = dict.fromkeys((node.path[below:] for node in skeleton if node.kind == "directory"), _ITSELF)
    fixed = {node.path[below:] for node in skeleton if node.kind != "directory"}
    files: dict[str, InstalledWheel] = {}
    for wheel in wheels:
        here, who = wheel.listing, wheel.file.filename
        for path in here.folders - folders.keys():
            folders[path] = who
        clashes = dict.fromkeys(fixed & (here.files.keys() | here.folders), _ITSELF)
        clashes |= {path: folders[path] for path in folders.keys() & here.files.keys()}
        clashes |= {path: files[path].file.filename for path in files.keys() & here.folders}
        both = files.keys() & here.files.keys()
        clashes |= {path: files[path].file.filename for path in both if not _same(path, files[path], wheel, target)}
        for path in sorted(clashes):
            raise BadInput(
                f"{clashes[path]} and {who} both install {shown(path)!r}, and not the same.",
                "Lock only one of the two, or versions that get along.",
            )
        files |= dict.fromkeys(here.files, wheel)


def _same(path: str, one: InstalledWheel, other: InstalledWheel, target: Target) -> bool:
    (*first, first_hash), (*second, second_hash) = one.listing.files[path], other.listing.files[path]
    if first != second:
        return False
    if first_hash.partition("=")[0] == second_hash.partition("=")[0] != "":
        return first_hash == second_hash
    full = f"{target.prefix.strip('/')}/{path}"
    return _sha256(one, full) == _sha256(other, full)


def _sha256(wheel: InstalledWheel, path: str) -> bytes:
    hasher = hashlib.sha256()
    for content in (node.content for node in wheel.nodes if node.path == path):
        for chunk in content.chunks() if content else ():
            hasher.update(chunk)
    return hasher.digest()


def _unmet(wheels: Sequence[Listing], target: Target) -> Iterator[str]:
    """What the wheels require, without extras, and the environment hasn't."""
    versions = {wheel.name: Version(wheel.version) for wheel in wheels}
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
