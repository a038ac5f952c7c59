"""A project, wherever it is, to a source: a git checkout, a commit elsewhere, an sdist or a plain folder."""

import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from reprobuild.archive import HOSTILE, write_tar
from reprobuild.checkout import export_checkout, files_here, find_checkout, has_commit
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, SourceUnusable
from reprobuild.gitcmd import clone_git
from reprobuild.source import Source, clamped

#: Where a commit of another repository is (pip's VCS support).
_ADDRESS = re.compile(
    r"git\+(?P<url>(?:https|http|ssh|git|file)://[^@\s]*(?:@[^@/\s]+/[^@\s]*)?)@(?P<ref>[^@#\s]+)"
    r"(?:#(?:egg=[^&]*&)?(?:subdirectory=(?P<subdirectory>[^&]+))?(?:&egg=.*)?)?"
)
#: What a folder without git holds that isn't source: at any depth, and at its top unless it is a package.
_NOT_SOURCE = frozenset(
    """.git .hg .svn .venv venv .tox .nox __pycache__ .mypy_cache .ruff_cache .pytest_cache .hypothesis
    node_modules .DS_Store""".split()
)
_NOT_SOURCE_AT_TOP = frozenset(("dist", "build"))


def open_source(
    project: Path, scratch: Path, *, allow_dirty: bool = False, commit: str = "HEAD", epoch: int | None = None
) -> Source:
    """Export a project.

    Args:
        project: its folder, or an sdist (``.tar.gz``).
        scratch: a folder for the exported tar.
        allow_dirty: export the working tree as it is, if it has changes or if there is no commit yet.
        commit: what to export of a git checkout.
        epoch: SOURCE_DATE_EPOCH; none means the source's own time.

    Raises:
        BadInput: there is no such project.
        SourceUnusable: the tree is dirty, or a submodule or LFS object isn't here.
        ToolMissing: it is a git checkout and git isn't here.
    """
    if project.is_file():
        return _open_sdist(project, epoch)
    if not project.is_dir():
        raise BadInput(f"There is no folder or sdist {project}.")
    checkout = find_checkout(project)
    if checkout is None:
        if commit == "HEAD":
            return _open_folder(project, scratch, epoch)
        raise SourceUnusable(
            f"{project} is not a git checkout, and so hasn't the commit {commit}.", "Name the checkout with --project."
        )
    if allow_dirty and commit == "HEAD" and not has_commit(checkout):
        return _open_folder(project, scratch, epoch, files_here(project, scratch))
    return export_checkout(checkout, project, scratch, allow_dirty=allow_dirty, commit=commit, epoch=epoch)


def clone(address: str, scratch: Path) -> Source:
    """Export a commit of a repository elsewhere.

    Args:
        address: ``git+URL@REF``, optionally with ``#subdirectory=FOLDER``, as pip has it.
        scratch: a folder for the clone and the exported tar.

    Raises:
        BadInput: it is another kind of address.
        SourceUnusable: it can't be cloned, or has no such commit.
    """
    found = _ADDRESS.fullmatch(address)
    if not found or found["url"].startswith("-"):
        raise BadInput(f"{address!r} is not git+URL@REF.", "Write it like git+https://example.org/demo.git@v1.0.")
    parts = urlsplit(found["url"])
    if parts.password or (parts.username and parts.scheme.startswith("http")):
        raise BadInput("The address of a repository holds a credential.", "Give it to git's credential helper.")
    folder = scratch / "clone"
    clone_git(found["url"], found["ref"], folder)
    project = folder / (found["subdirectory"] or "")
    if not project.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{found['subdirectory']!r} is not a folder in the repository.")
    return open_source(project, scratch)


def _open_sdist(path: Path, epoch: int | None) -> Source:
    if not path.name.endswith(".tar.gz"):
        raise BadInput(f"{path} is neither a folder nor an sdist (.tar.gz).")
    own_time = clamped(_newest(path)) if epoch is None else epoch
    return Source("sdist", path, own_time, {"sha256": Digest.of_file(path).hex}, uri=path.name)


def _newest(path: Path) -> float:
    try:
        with tarfile.open(path) as tar:
            return max((member.mtime for member in tar), default=0)
    except HOSTILE as error:
        raise BadInput(f"{path} is not an sdist: {error}.") from error


def _open_folder(project: Path, scratch: Path, epoch: int | None, known: Iterable[bytes] | None = None) -> Source:
    """A folder without git, or without a commit: everything in it that is source, and among ``known``."""
    only = None if known is None else {project / os.fsdecode(name) for name in known if name}
    own = project / os.path.relpath(scratch.resolve(), project.resolve())  # TMPDIR may be in the project
    files = [path for path in _walk(project) if own not in path.parents and (only is None or path in only)]
    newest = max((path.lstat().st_mtime for path in files), default=time.time())
    tar = scratch / "source.tar"
    with tar.open("wb") as stream:
        write_tar(stream, _members(project, files), mtime=0)
    return Source("folder", tar, clamped(newest) if epoch is None else epoch, {"sha256": Digest.of_file(tar).hex})


def _walk(folder: Path, left_behind: tuple[str, ...] | None = None) -> Iterator[Path]:
    """The source files in a folder; ``left_behind`` are suffixes of what isn't, None for the project's own folder."""
    top = left_behind is None
    if left_behind is None:
        # An sdist's own egg-info says which files belong to it; elsewhere it is an earlier build's.
        left_behind = (".pyc",) if (folder / "PKG-INFO").is_file() else (".pyc", ".egg-info")
    for entry in sorted(folder.iterdir()):
        is_package = (entry / "__init__.py").is_file()
        if entry.name in _NOT_SOURCE or (top and entry.name in _NOT_SOURCE_AT_TOP and not is_package):
            continue
        if entry.suffix in left_behind:
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry, left_behind)
        else:
            yield entry


def _members(project: Path, files: Iterable[Path]) -> Iterator[tuple[str, int, bytes | str]]:
    for path in files:
        name = path.relative_to(project).as_posix()
        if path.is_symlink():
            yield name, 0o777, str(path.readlink())
        elif path.is_file():
            yield name, path.stat().st_mode, path.read_bytes()
