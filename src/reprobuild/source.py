"""The source of a build: an export that is a function of a commit (or of an sdist, or of a folder).

A git checkout is exported through a second git directory that borrows the repository's objects but none
of its configuration, so neither hooks nor filters nor line-ending settings of the machine matter. That
second directory goes along with the export: tools that ask git for a version get the answer that a fresh
clone would give. docs/adr/0004-source-export.md has the reasons.
"""

import itertools
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from reprobuild import process
from reprobuild.archive import HOSTILE, extract_tar, write_tar
from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import BadInput, SourceUnusable
from reprobuild.files import TEXT_LIMIT, scratch_folder, write_atomically
from reprobuild.gitcmd import clone_git, feed_git, git_environment, run_git, run_git_of_user

Order = Literal["sorted", "reversed"]

#: 1980-01-01, the first moment that a zip can hold.
EARLIEST_EPOCH = 315_532_800
_LATEST_EPOCH = 4_354_819_199  # 2107-12-31, the last
#: Where a commit of another repository is (pip's VCS support).
_ADDRESS = re.compile(
    r"git\+(?P<url>(?:https|http|ssh|git|file)://[^@\s]*(?:@[^@/\s]+/[^@\s]*)?)@(?P<ref>[^@#\s]+)"
    r"(?:#(?:egg=[^&]*&)?(?:subdirectory=(?P<subdirectory>[^&]+))?(?:&egg=.*)?)?"
)
_LFS_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*oid sha256:([0-9a-f]{64})\n")
_LFS_POINTER_LIMIT = 1024
#: What lies in a folder of git objects (gitrepository-layout(5)).
_IN_OBJECTS = re.compile(r"[0-9a-f]{2}|pack|info|tmp_.*|incoming-.*|bulk-fsync-.*|maintenance\.lock|schedule\.lock")
_ATTRIBUTES = "* -export-ignore -export-subst -filter\n"
#: What a folder without git holds that isn't source: at any depth, and at its top unless it is a package.
_NOT_SOURCE = frozenset(
    """.git .hg .svn .venv venv .tox .nox __pycache__ .mypy_cache .ruff_cache .pytest_cache .hypothesis
    node_modules .DS_Store""".split()
)
_NOT_SOURCE_AT_TOP = frozenset(("dist", "build"))


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

    @property
    def size(self) -> int:
        """The size of the export, in bytes."""
        return self.tar.stat().st_size + sum(tar.stat().st_size for _, tar in self.submodules)


def open_source(
    project: Path, scratch: Path, *, allow_dirty: bool = False, commit: str = "HEAD", epoch: int | None = None
) -> Source:
    """Export a project.

    Args:
        project: its folder, or an sdist (``.tar.gz``).
        scratch: a folder for the exported tar.
        allow_dirty: export the working tree as it is, if it has changes or if there is no commit yet.
        commit: what to export of a git checkout.
        epoch: SOURCE_DATE_EPOCH; none means the source's own time (see :func:`epoch_from_environment`).

    Raises:
        BadInput: there is no such project.
        SourceUnusable: the tree is dirty, or a submodule or LFS object isn't here.
        ToolMissing: it is a git checkout and git isn't here.
    """
    if project.is_file():
        return _open_sdist(project, epoch)
    if not project.is_dir():
        raise BadInput(f"There is no folder or sdist {project}.")
    checkout = _find_checkout(project)
    if checkout is None and commit != "HEAD":
        raise SourceUnusable(
            f"{project} is not a git checkout, and so hasn't the commit {commit}.", "Name the checkout with --project."
        )
    if checkout is None:
        return _open_folder(project, scratch, epoch)
    if allow_dirty and commit == "HEAD" and not _has_commit(checkout):
        return _open_folder(project, scratch, epoch, _files_here(project, scratch))
    return _open_git(checkout, project, scratch, allow_dirty=allow_dirty, commit=commit, epoch=epoch)


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


def place(source: Source, folder: Path, order: Order) -> None:
    """Put a source's files into an empty folder: modes 644 and 755, all times the epoch, unless it keeps its own.

    Args:
        order: ``sorted`` or ``reversed``: the order in which the entries of each directory are made.

    Raises:
        SourceUnusable: an LFS object isn't on this machine.
    """
    with source.tar.open("rb") as stream:
        extract_tar(stream, folder, order=order, own_modes=source.own_modes)
    for path, tar in source.submodules:
        with tar.open("rb") as stream:
            extract_tar(stream, folder / path, order=order)
    if source.kind == "sdist":
        _lift_single_folder(folder)
    modules = [Path(path) for path, _ in source.submodules]
    filled: list[Path] = []
    for root in (Path(), *modules) if source.lfs else ():
        deeper = [folder / module for module in modules if module != root and module.is_relative_to(root)]
        found = _fill_in_lfs(folder / root, deeper, source)
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


# --- git -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Checkout:
    """A git working tree."""

    top: Path
    git_dir: Path
    common_dir: Path


def _find_checkout(project: Path) -> _Checkout | None:
    around: list[Path] = []
    for folder in (project.resolve(), *project.resolve().parents):
        around.append(folder)
        if (folder / ".git").exists():
            break
    else:
        return None
    # Plain files of a commit can be a git directory, with a configuration that makes git run programs.
    if hidden := [each for each in around if (each / "HEAD").is_file() and (each / "objects").is_dir()]:
        raise SourceUnusable(f"{hidden[0]} is a git directory, and not a source.", "Name a folder of the checkout.")
    try:
        top, git_dir, common = map(Path, _asked_of_git(project, "--show-toplevel", "--git-dir", "--git-common-dir"))
    except process.ToolFailed as error:
        raise SourceUnusable(f"git can't read the repository around {project}: {error.output}") from error
    if not project.resolve().is_relative_to(top.resolve()):
        raise SourceUnusable(f"git says that the files of {project} are in {top}.", "Unset core.worktree there.")
    return _Checkout(top, git_dir, common)


def _asked_of_git(project: Path, *questions: str) -> list[str]:
    """git's answer to each question, absolute where it is a path."""
    arguments = ["rev-parse", "--path-format=absolute"]
    answers = run_git([*arguments, *questions], project).splitlines()
    if len(answers) == len(questions):
        return answers
    # A path holds what ends a line.
    return [run_git([*arguments, question], project).removesuffix("\n") for question in questions]


def _open_git(
    checkout: _Checkout, project: Path, scratch: Path, *, allow_dirty: bool, commit: str, epoch: int | None
) -> Source:
    name = _commit_named(checkout, commit)
    try:
        git = _shadow(checkout, name, scratch / "git")
        tree, *seconds = run_git(["log", "-1", "--format=%T %ct", name], git, GIT_DIR=str(git)).split()
    except process.ToolFailed as error:
        raise _incomplete(name, error) from error
    if not seconds or len(seconds[0]) > 12:
        raise SourceUnusable(f"The commit {name} has no time that can be used.", "Set SOURCE_DATE_EPOCH.")
    own_time = epoch if epoch is not None else clamped(int(seconds[0]))
    source = Source(
        kind="git",
        tar=scratch / "source.tar",
        epoch=own_time,
        digests={"gitCommit": name, "gitTree": tree},
        uri=_remote(checkout),
        subdirectory=_subdirectory(checkout, project),
        git=git,
        objects=_object_folders(checkout.common_dir),
        lfs=(checkout.common_dir / "lfs/objects", *checkout.common_dir.glob("modules/**/lfs/objects")),
    )
    exported = name
    if commit == "HEAD":
        changed, untracked = _changes(checkout, scratch)
        source = replace(source, untracked=untracked)
        if changed and not allow_dirty:
            raise SourceUnusable(
                f"The working tree of {checkout.top} has changes that no commit holds: {_some(changed)}.",
                "Commit or stash them, or build the tree as it is with --allow-dirty.",
            )
        if changed or (untracked and allow_dirty):
            tree = _snapshot(checkout, git, scratch)
            exported = _commit_tree(git, tree, own_time)
            source = replace(source, kind="dirty", digests={"gitCommit": name, "gitTree": tree}, untracked=0)
    _archive(git, exported, source.tar)
    return replace(source, submodules=_submodules(checkout, git, exported, scratch, own_time))


def _has_commit(checkout: _Checkout) -> bool:
    with suppress(process.ToolFailed):
        return bool(run_git(["rev-parse", "--verify", "HEAD"], checkout.top))
    return False


def _commit_named(checkout: _Checkout, commit: str) -> str:
    try:
        question = ["rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"]
        return run_git(question, checkout.top).strip()
    except process.ToolFailed as error:
        if commit == "HEAD" and not _has_commit(checkout):
            raise SourceUnusable(
                f"{checkout.top} has no commit yet.", "Commit, or build the files as they are with --allow-dirty."
            ) from error
        raise SourceUnusable(
            f"The commit {commit} is not in {checkout.top}.", "Fetch it: git fetch --tags, or git fetch --unshallow."
        ) from error


def _shadow(checkout: _Checkout, commit: str, folder: Path) -> Path:
    """A git directory with the repository's objects, tags and this commit as its detached HEAD; no more."""
    object_format = run_git(["rev-parse", "--show-object-format"], checkout.top).strip()
    version = "0" if object_format == "sha1" else "1\n[extensions]\n\tobjectformat = " + object_format
    tags = run_git(["for-each-ref", "--format=%(objectname) %(refname)", "refs/tags"], checkout.top)
    files = {
        "HEAD": f"{commit}\n",
        "config": f"[core]\n\tbare = false\n\tfilemode = true\n\trepositoryformatversion = {version}\n",
        "packed-refs": f"# pack-refs with: sorted \n{tags}",
        "objects/info/alternates": _quoted(checkout.common_dir / "objects"),
        "info/attributes": _ATTRIBUTES,
        "refs/keep": "",
    }
    with suppress(FileNotFoundError):
        files["shallow"] = (checkout.common_dir / "shallow").read_text(encoding="ascii")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    (folder / "refs/keep").unlink()
    run_git(["read-tree", commit], folder, GIT_DIR=str(folder))
    return folder


def _quoted(path: Path) -> str:
    """A line of objects/info/alternates: a path as it is, or in quotes where it would not stay one line."""
    text = str(path)
    if "\n" in text:
        text = '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
    return f"{text}\n"


def _archive(git: Path, commit: str, destination: Path) -> None:
    argv = ["git", "-c", "tar.umask=0022", "-c", "core.autocrlf=false", "archive", "--format=tar", commit]
    try:
        with destination.open("wb") as stream:
            process.run(argv, env=git_environment({"GIT_DIR": str(git)}), stdout=stream)
    except process.ToolFailed as error:
        raise _incomplete(commit, error) from error


def _incomplete(commit: str, error: process.ToolFailed) -> SourceUnusable:
    return SourceUnusable(
        f"git can't export {commit}: {error.output}",
        "A partial clone lacks the files: git fetch --refetch, or clone it whole.",
    )


def _object_folders(common_dir: Path) -> tuple[Path, ...]:
    """The object folder and every one that it borrows from (gitrepository-layout(5), alternates)."""
    found: list[Path] = []
    waiting = [common_dir / "objects"]
    while waiting:
        folder = waiting.pop().resolve()
        if folder in found or not folder.is_dir():
            continue
        if strange := [entry.name for entry in folder.iterdir() if not _IN_OBJECTS.fullmatch(entry.name)]:
            # A build is shown these folders, and what they are may be a stranger's word.
            raise SourceUnusable(f"{folder} is to hold git objects, and holds {strange[0]!r}.", "Clone the repository.")
        found.append(folder)
        with suppress(OSError):
            lines = (folder / "info" / "alternates").read_bytes().split(b"\n")
            waiting += [folder / os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]
    return tuple(found)


def _changes(checkout: _Checkout, scratch: Path) -> tuple[list[str], int]:
    """Tracked files that differ from the commit, and how many files are neither tracked nor ignored.

    A file that went through a filter or a line-ending conversion is unchanged by the user's configuration.
    """
    question = ["status", "--porcelain", "-z", "--untracked-files=all", *_without(scratch, checkout.top)]
    answer = run_git_of_user(question, checkout.top)
    changed, untracked = [], 0
    for entry in answer.decode(errors="replace").split("\0"):
        if entry.startswith("?? "):
            untracked += 1
        elif len(entry) > 3 and entry[2] == " ":
            changed.append(entry[3:])
    return changed, untracked


def _files_here(folder: Path, scratch: Path) -> list[bytes]:
    """What git tracks or would track in a folder, relative to it."""
    question = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", *_without(scratch, folder)]
    return run_git_of_user(question, folder).split(b"\0")


def _without(scratch: Path, folder: Path) -> list[str]:
    """Arguments that keep git from this export itself, where TMPDIR is in the project."""
    if not scratch.resolve().is_relative_to(folder.resolve()):
        return []
    return ["--", ".", f":(exclude,literal){scratch.resolve().relative_to(folder.resolve())}"]


def _snapshot(checkout: _Checkout, git: Path, scratch: Path) -> str:
    """The working tree, without what is ignored, as a git tree in the second git directory."""
    extra = {"GIT_DIR": str(git), "GIT_WORK_TREE": str(checkout.top), "GIT_INDEX_FILE": str(git / "snapshot")}
    run_git(["read-tree", "HEAD"], checkout.top, **extra)
    here = _files_here(checkout.top, scratch)
    before = os.fsencode(run_git(["ls-tree", "-r", "-z", "--name-only", "HEAD"], git, GIT_DIR=str(git))).split(b"\0")
    names = b"\0".join(sorted({name.rstrip(b"/") for name in (*here, *before) if name}))
    # Line endings become what they would in a commit of the user's.
    endings = run_git_of_user(["config", "--default", "false", "--get", "core.autocrlf"], checkout.top).decode().strip()
    update = ["-c", f"core.autocrlf={endings}", "update-index", "--add", "--remove", "--replace", "-z", "--stdin"]
    feed_git(names, update, checkout.top, **extra)
    tree = run_git(["write-tree"], checkout.top, **extra).strip()
    (git / "snapshot").unlink()
    return tree


def _commit_tree(git: Path, tree: str, epoch: int) -> str:
    who = {f"GIT_{role}_{key}": "x" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    when = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{epoch} +0000")
    return run_git(["commit-tree", "-m", "working tree", tree], git, GIT_DIR=str(git), **who, **when).strip()


def _submodules(
    checkout: _Checkout, git: Path, commit: str, scratch: Path, epoch: int, prefix: str = ""
) -> tuple[tuple[str, Path], ...]:
    """The export of each submodule at the commit that the parent names, taken from the local clone."""
    found: list[tuple[str, Path]] = []
    for line in run_git(["ls-tree", "-r", "-z", commit], git, GIT_DIR=str(git)).split("\0"):
        meta, _, path = line.partition("\t")
        if not meta.startswith("160000"):
            continue
        wanted = meta.split()[2]
        folder = checkout.top / path
        where = f"{prefix}{path}"
        inner = _find_checkout(folder) if (folder / ".git").exists() else None
        remedy = "Fetch it: git submodule update --init --recursive."
        if inner is None or inner.top.resolve() != folder.resolve():
            raise SourceUnusable(f"The submodule {where} is not checked out.", remedy)
        name = scratch / f"submodule-{len(list(scratch.iterdir()))}"
        try:
            shadow = _shadow(inner, wanted, name)
        except process.ToolFailed as error:
            raise SourceUnusable(f"The submodule {where} lacks the commit {wanted}.", remedy) from error
        tar = name.with_suffix(".tar")
        _archive(shadow, wanted, tar)
        found.append((where, tar))
        found += _submodules(inner, shadow, wanted, scratch, epoch, f"{where}/")
    return tuple(found)


def _fill_in_lfs(root: Path, deeper: list[Path], source: Source) -> list[Path]:
    """Put LFS objects in their pointers' places, each checked against the digest that the pointer names.

    Args:
        root: the top of an exported repository.
        deeper: the submodules in it, which have attributes of their own.

    Returns:
        The files, relative to ``root``.
    """
    pointers: dict[Path, Digest] = {}
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(parent, name) not in deeper]
        for path in (Path(parent, name) for name in files):
            if path.is_symlink() or path.stat().st_size > _LFS_POINTER_LIMIT:
                continue
            if found := _LFS_POINTER.match(path.read_bytes()):
                pointers[path.relative_to(root)] = Digest("sha256", found.group(1).decode())
    kept_there = _kept_in_lfs(root, pointers)
    for path in kept_there:
        _fill_in(root / path, pointers[path], source.lfs)
    return kept_there


def _kept_in_lfs(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Those of some files that the attributes give to LFS: a pointer may also be just that, such as a test's data."""
    names = [os.fsencode(path) for path in paths]
    if not names:
        return []
    with scratch_folder(
        Path(tempfile.gettempdir()), "reprobuild-attributes-"
    ) as git:  # the one that goes along switches filters off
        for part in ("objects", "refs"):
            (git / part).mkdir()
        (git / "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
        question = ["check-attr", "-z", "--stdin", "filter"]
        answer = feed_git(b"\0".join(names), question, root, GIT_DIR=str(git), GIT_WORK_TREE=str(root))
    fields = answer.split("\0")
    return [Path(name) for name, value in zip(fields[::3], fields[2::3], strict=False) if value == "lfs"]


def _fill_in(path: Path, digest: Digest, folders: Iterable[Path]) -> None:
    for folder in folders:
        kept = folder / digest.hex[:2] / digest.hex[2:4] / digest.hex
        if kept.is_file():
            mode = path.stat().st_mode
            with kept.open("rb") as stream:
                write_atomically(path, digest.check(chunks_of(stream), f"LFS object of {path.name}"))
            path.chmod(mode & 0o777)
            return
    raise SourceUnusable(
        f"{path.name} is kept in Git LFS, and its object {digest} is not on this machine.", "Fetch it: git lfs pull."
    )


def _subdirectory(checkout: _Checkout, project: Path) -> str:
    relative = project.resolve().relative_to(checkout.top.resolve())
    return "" if relative == Path() else relative.as_posix()


def _remote(checkout: _Checkout) -> str:
    """The URL of ``origin`` without credentials; empty when there is none, or it is a path of this machine."""
    with suppress(process.ToolFailed):
        url = run_git(["config", "--get", "remote.origin.url"], checkout.top).strip()
        if not url.isprintable():
            return ""
        scp = re.fullmatch(r"(?:[^@/]+@)?([^:/]+):(?!//)(.+)", url)
        if scp:
            return f"git+ssh://{scp.group(1)}/{scp.group(2)}"
        with suppress(ValueError):  # what is no URL isn't told either
            parts = urlsplit(url)
            if parts.scheme and parts.scheme != "file":
                # A token may be in the query or the fragment too.
                netloc = parts.netloc.rpartition("@")[2]
                return "git+" + urlunsplit(parts._replace(netloc=netloc, query="", fragment=""))
    return ""


def _some(names: list[str], limit: int = 5) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


# --- without git -----------------------------------------------------------------------------------


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
