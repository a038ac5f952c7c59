"""A git checkout as a source: a commit, or the working tree as it is, exported.

It is exported through a second git directory that borrows the repository's objects but none
of its configuration, so neither hooks nor filters nor line-ending settings of the machine matter. That
second directory goes along with the export: tools that ask git for a version get the answer that a fresh
clone would give. docs/adr/0004-source-export.md has the reasons.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from reprobuild import process
from reprobuild.errors import SourceUnusable
from reprobuild.gitcmd import feed_git, git_environment, run_git, run_git_of_user
from reprobuild.source import Source, clamped

#: What lies in a folder of git objects (gitrepository-layout(5)).
_IN_OBJECTS = re.compile(r"[0-9a-f]{2}|pack|info|tmp_.*|incoming-.*|bulk-fsync-.*|maintenance\.lock|schedule\.lock")
_ATTRIBUTES = "* -export-ignore -export-subst -filter\n"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A git working tree."""

    top: Path
    git_dir: Path
    common_dir: Path


def find_checkout(project: Path) -> Checkout | None:
    """The working tree that a folder is in; None for none.

    Raises:
        SourceUnusable: git can't read it, or the folder is a git directory.
        ToolMissing: git isn't here.
    """
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
    return Checkout(top, git_dir, common)


def _asked_of_git(project: Path, *questions: str) -> list[str]:
    """git's answer to each question, absolute where it is a path."""
    arguments = ["rev-parse", "--path-format=absolute"]
    answers = run_git([*arguments, *questions], project).splitlines()
    if len(answers) == len(questions):
        return answers
    # A path holds what ends a line.
    return [run_git([*arguments, question], project).removesuffix("\n") for question in questions]


def export_checkout(
    checkout: Checkout, project: Path, scratch: Path, *, allow_dirty: bool, commit: str, epoch: int | None
) -> Source:
    """A commit of a checkout, or its working tree as it is.

    The arguments are those of :func:`reprobuild.export.open_source`.

    Raises:
        SourceUnusable: the tree is dirty, or a submodule isn't here.
    """
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
    return replace(source, submodules=_submodules(checkout, git, exported, scratch))


def has_commit(checkout: Checkout) -> bool:
    """Whether there is one yet."""
    with suppress(process.ToolFailed):
        return bool(run_git(["rev-parse", "--verify", "HEAD"], checkout.top))
    return False


def _commit_named(checkout: Checkout, commit: str) -> str:
    try:
        question = ["rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}"]
        return run_git(question, checkout.top).strip()
    except process.ToolFailed as error:
        if commit == "HEAD" and not has_commit(checkout):
            raise SourceUnusable(
                f"{checkout.top} has no commit yet.", "Commit, or build the files as they are with --allow-dirty."
            ) from error
        raise SourceUnusable(
            f"The commit {commit} is not in {checkout.top}.", "Fetch it: git fetch --tags, or git fetch --unshallow."
        ) from error


def _shadow(checkout: Checkout, commit: str, folder: Path) -> Path:
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


def _changes(checkout: Checkout, scratch: Path) -> tuple[list[str], int]:
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


def files_here(folder: Path, scratch: Path) -> list[bytes]:
    """What git tracks or would track in a folder, relative to it."""
    question = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", *_without(scratch, folder)]
    return run_git_of_user(question, folder).split(b"\0")


def _without(scratch: Path, folder: Path) -> list[str]:
    """Arguments that keep git from this export itself, where TMPDIR is in the project."""
    if not scratch.resolve().is_relative_to(folder.resolve()):
        return []
    return ["--", ".", f":(exclude,literal){scratch.resolve().relative_to(folder.resolve())}"]


def _snapshot(checkout: Checkout, git: Path, scratch: Path) -> str:
    """The working tree, without what is ignored, as a git tree in the second git directory."""
    extra = {"GIT_DIR": str(git), "GIT_WORK_TREE": str(checkout.top), "GIT_INDEX_FILE": str(git / "snapshot")}
    run_git(["read-tree", "HEAD"], checkout.top, **extra)
    here = files_here(checkout.top, scratch)
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
    checkout: Checkout, git: Path, commit: str, scratch: Path, prefix: str = ""
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
        inner = find_checkout(folder) if (folder / ".git").exists() else None
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
        found += _submodules(inner, shadow, wanted, scratch, f"{where}/")
    return tuple(found)


def _subdirectory(checkout: Checkout, project: Path) -> str:
    relative = project.resolve().relative_to(checkout.top.resolve())
    return "" if relative == Path() else relative.as_posix()


def _remote(checkout: Checkout) -> str:
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
