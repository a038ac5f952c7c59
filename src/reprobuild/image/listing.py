"""What a wheel becomes in an environment, by name and hash: enough to plan an image without a look into the wheel.

It follows from the wheel's bytes and the target alone, so it is remembered by these, once the bytes have been checked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Self

from reprobuild import __version__, memory
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput
from reprobuild.image.installed import InstalledFile
from reprobuild.image.target import Target
from reprobuild.index import LockedFile
from reprobuild.lockfile import holds
from reprobuild.oci.layer import packed_size
from reprobuild.oci.tree import Node
from reprobuild.project import requirement_of
from reprobuild.wheelfile import WheelFile

#: Goes up whenever the same wheel becomes other files or folders for the same target than before.
INSTALL_VERSION = 1
_KIND = "wheels"


@dataclass(frozen=True, slots=True)
class Listing:
    """What a wheel becomes.

    Attributes:
        name: normalised.
        requires_python: as its metadata says.
        requires: what it requires without extras for the target, and what can't be read of that.
        files: by path below the prefix: whether it is executable, its bytes, and its hash as RECORD has it.
        folders: the paths of those that the files are in, but for the prefix.
        packed: bytes that all of it takes in a tar, at most.
    """

    name: str
    version: str
    requires_python: str
    requires: tuple[str, ...]
    files: Mapping[str, tuple[bool, int, str]]
    folders: frozenset[str]
    packed: int

    @classmethod
    def of(cls, wheel: WheelFile, target: Target, files: Mapping[str, InstalledFile], nodes: Iterable[Node]) -> Self:
        """The listing of a wheel that was read.

        Args:
            files: what it becomes for the target.
            nodes: the files and all folders.
        """
        return cls(
            wheel.name,
            str(wheel.version),
            wheel.requires_python,
            tuple(each for each in wheel.requires if _may_apply(each, target)),
            {path: (each.executable, each.content.size, each.hash) for path, each in files.items()},
            frozenset(_above(files)),
            packed_size(nodes),
        )

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(size for _, size, _ in self.files.values())


def _may_apply(requirement: str, target: Target) -> bool:
    try:
        marker = requirement_of(requirement).marker
        return marker is None or holds(marker, {**target.markers, "extra": ""})
    except (ValueError, BadInput):
        return True


def _above(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def wheel_key(target: Target, files: Iterable[LockedFile]) -> Digest:
    """The key of what some wheels become; none of them is the project's own."""
    decided = {"reprobuild": __version__, "install": INSTALL_VERSION, "target": asdict(target)}
    return Digest.of_bytes(canonical_json({**decided, "wheels": [[each.filename, str(each.digest)] for each in files]}))


def remember(file: LockedFile, target: Target, listing: Listing) -> None:
    """Keep the listing of a wheel whose digest has been checked.

    Raises:
        WriteFailed: the cache can't be written to.
    """
    known = [
        *(listing.name, listing.version, listing.requires_python, listing.requires),
        *([*listing.files], [*zip(*listing.files.values(), strict=True)]),
        *(sorted(listing.folders), listing.packed),
    ]
    memory.remember(_KIND, wheel_key(target, [file]), known)


def recall(file: LockedFile, target: Target) -> Listing | None:
    """What was kept; None where nothing was, or it is damaged.

    Raises:
        BadInput: this account has no place for a cache.
    """
    known = memory.recall(_KIND, wheel_key(target, [file]))
    try:
        name, version, python, requires, paths, columns, folders, packed = known
        files = dict(zip(paths, zip(*columns, strict=True), strict=True))
        return Listing(name, version, python, tuple(requires), files, frozenset(folders), packed)
    except (TypeError, ValueError):  # nothing was kept, or a version that isn't this one kept it
        return None
