"""The source of a build: an export that is a function of a commit (or of an sdist, or of a folder), and its time."""

import itertools
import os
import re
import shutil
import tarfile
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reprobuild import lfs
from reprobuild.archive import HOSTILE, extract_tar
from reprobuild.errors import BadInput
from reprobuild.files import TEXT_LIMIT
from reprobuild.gitcmd import feed_git

Order = Literal["sorted", "reversed"]

#: 1980-01-01, the first moment that a zip can hold.
EARLIEST_EPOCH = 315_532_800
_LATEST_EPOCH = 4_354_819_199  # 2107-12-31, the last


@dataclass(frozen=True, slots=True)
class Source:
    """Where a build's files come from.

    Attributes:
        kind: ``git``, ``dirty`` (a checkout with changes), ``sdist`` or ``folder``.
        tar: the exported files.
        subdirectory: the project's folder inside the export; empty for its root.
        epoch: SOURCE_DATE_EPOCH, in seconds since 1970.
        digests: what identifies the source, by algorithm name of the in-toto DigestSet
            (``gitCommit``, ``gitTree``, ``sha256``).
        uri: where others find it; never with credentials.
        git: the second git directory that goes along, or None.
        objects: folders with the git objects that it borrows.
        lfs: folders with LFS objects.
        untracked: how many files of the working tree are neither tracked nor ignored.
        own_times: whether files keep their own times (an sdist's) or get the present one (a checkout's), and the
            build gets no SOURCE_DATE_EPOCH.
        own_modes: whether an sdist's files keep their own permissions.
    """

    kind: str
    tar: Path
    epoch: int
    digests: Mapping[str, str]
    uri: str = ""
    subdirectory: str = ""
    git: Path | None = None
    objects: tuple[Path, ...] = ()
    lfs: tuple[Path, ...] = ()
    submodules: tuple[tuple[str, Path], ...] = field(default=())
    untracked: int = 0
    own_times: bool = False
    own_modes: bool = False

    def left_out(self, what: str) -> str:
        """What to say of files that aren't in the export, and so not in an artifact; empty for nothing."""
        if not self.untracked:
            return ""
        files = "1 untracked file is" if self.untracked == 1 else f"{self.untracked} untracked files are"
        return f"{files} not in the commit, and so not in the {what}."

    @property
    def size(self) -> int:
        """The size of the export, in bytes."""
        return self.tar.stat().st_size + sum(tar.stat().st_size for _, tar in self.submodules)


def epoch_from_environment(environ: Mapping[str, str]) -> int | None:
    """The user's own SOURCE_DATE_EPOCH, or None (reproducible-builds.org, SOURCE_DATE_EPOCH spec).

    Raises:
        BadInput: it isn't a whole number of seconds that a zip can hold.
    """
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,11}", text) or int(text) > _LATEST_EPOCH:
        raise BadInput(
            f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds since 1970 up to {_LATEST_EPOCH}.",
            "Unset it to use the commit's own time.",
        )
    return max(int(text), EARLIEST_EPOCH)


def _unpack(source: Source, tar: Path, folder: Path, order: Order, *, own_modes: bool = False) -> None:
    try:
        with tar.open("rb") as stream:
            extract_tar(stream, folder, order=order, own_modes=own_modes, name="the source")
    except BadInput as error:
        if source.kind == "sdist":
            raise
        raise BadInput(error.reason, "Mend it in the project's files; a link may lead to these alone.") from error


def place(source: Source, folder: Path, order: Order) -> None:
    """Put a source's files into an empty folder: modes 644 and 755, all times the epoch, unless it keeps its own.

    Args:
        order: ``sorted`` or ``reversed``: the order in which the entries of each directory are made.

    Raises:
        BadInput: a file can't be taken over, such as a link that leads outside.
        SourceUnusable: an LFS object isn't on this machine.
    """
    _unpack(source, source.tar, folder, order, own_modes=source.own_modes)
    for path, tar in source.submodules:
        _unpack(source, tar, folder / path, order)
    if source.kind == "sdist":
        _lift_single_folder(folder)
    modules = [Path(path) for path, _ in source.submodules]
    filled: list[Path] = []
    for root in (Path(), *modules) if source.lfs else ():
        deeper = [folder / module for module in modules if module != root and module.is_relative_to(root)]
        found = lfs.fill_in(folder / root, deeper, source.lfs)
        filled += found if root == Path() else []
    if not source.own_times or source.git is not None:  # a checkout's times are those of the checking out
        when = None if source.own_times else (source.epoch, source.epoch)
        for parent, folders, files in os.walk(folder, topdown=False):
            for name in (*files, *folders):
                os.utime(Path(parent, name), when, follow_symlinks=False)
        os.utime(folder, when)
    if source.git is not None:
        shutil.copytree(source.git, folder / ".git")
        if filled:
            # git has pointers there: whoever asks it for a version shall not hear that the tree is dirty.
            names = b"\0".join(os.fsencode(path) for path in filled)
            feed_git(names, ["update-index", "--assume-unchanged", "-z", "--stdin"], folder)


def peek(source: Source, names: Container[str], folder: Path) -> None:
    """Copy the named files of the project's own folder out of an export, without unpacking the rest.

    Raises:
        BadInput: the export is a damaged sdist.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(source.tar) as tar:
            for member in tar:
                parent, _, name = member.name.removeprefix("./").rpartition("/")
                if source.kind == "sdist" and "/" not in parent:
                    parent = ""
                if parent == source.subdirectory and name in names and member.isfile():
                    if member.size > TEXT_LIMIT:
                        raise BadInput(f"{source.uri or source.tar} has a {name} of {member.size} bytes.")
                    content = tar.extractfile(member)
                    found[name] = content.read() if content else b""
    except HOSTILE as error:
        raise BadInput(f"{source.uri or source.tar} is not a sound tar file: {error}.") from error
    for name, data in found.items():
        (folder / name).write_bytes(data)


def clamped(epoch: float) -> int:
    """The nearest moment that a zip can hold; the first of them for what is no number (a tar may say NaN)."""
    return int(min(_LATEST_EPOCH, max(EARLIEST_EPOCH, epoch)))


def _lift_single_folder(folder: Path) -> None:
    """An sdist holds one folder, ``name-version``: make its content the folder's own."""
    entries = list(folder.iterdir())
    if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
        raise BadInput("The sdist doesn't hold exactly one top folder.", "See PEP 625 for what an sdist is.")
    names = (f".lift-{number}" for number in itertools.count())
    inner = entries[0].rename(folder / next(name for name in names if not os.path.lexists(entries[0] / name)))
    for path in list(inner.iterdir()):
        path.rename(folder / path.name)
    inner.rmdir()
