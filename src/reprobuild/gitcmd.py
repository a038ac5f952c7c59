"""git, run so that it reads and does nothing else, whatever a repository's configuration says."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from reprobuild import process
from reprobuild.errors import SourceUnusable

#: What git must not do in any case: write, ask, fetch (older versions know but the last of the three ways to say
#: so; a repository's configuration can make a fetch run any program), and put other objects in a commit's place.
RESTRAINED = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_REPLACE_OBJECTS": "1",
}


def git_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for git without any configuration but the repository's own."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **RESTRAINED,
        **(extra or {}),
    }


#: No file system monitor, which is a program, and no git directory that a commit brought along as plain files.
_SAFE = ("-c", "core.fsmonitor=false", "-c", "safe.bareRepository=explicit")
#: Commands below only read; a repository that belongs to somebody else is as good a source.
_GIT = ("git", "-c", "safe.directory=*", *_SAFE)


def run_git(arguments: list[str], cwd: Path, **extra: str) -> str:
    """What git prints, without any configuration but the repository's own.

    Args:
        extra: further variables.

    Raises:
        ToolFailed: git says no.
    """
    return feed_git(b"", arguments, cwd, **extra)


def feed_git(stdin: bytes, arguments: list[str], cwd: Path, **extra: str) -> str:
    """The same with something on its standard input."""
    done = process.run([*_GIT, *arguments], env=git_environment(extra), cwd=cwd, stdin=stdin)
    return done.stdout.decode(errors="surrogateescape")


def run_git_of_user(arguments: list[str], cwd: Path) -> bytes:
    """git with the user's own configuration: only it tells what is changed and what is ignored.

    A repository of somebody else's is git's own to refuse here: its filters would run as this user.

    Raises:
        SourceUnusable: git says no.
    """
    environment = process.tool_environment(RESTRAINED)
    try:
        return process.run(["git", *_SAFE, *arguments], env=environment, cwd=cwd).stdout
    except process.ToolFailed as error:
        raise SourceUnusable(
            f"git can't read the working tree {cwd}: {error.output}",
            "Clone a repository that belongs to another user, or do what git says.",
        ) from error


_WANTED = "reprobuild-wanted"


def clone_git(url: str, ref: str, folder: Path) -> None:
    """Clone a repository whole, with its submodules, and check a commit out, as the user.

    Raises:
        SourceUnusable: git can't, or there is no such commit.
    """
    # A protocol of git's can also be a program of the address's choice; and a submodule may not name what is here.
    elsewhere = "https:http:ssh:git"
    whole = folder.with_name(f"{folder.name}-whole")

    def git(*arguments: str, where: Path | None = None, protocols: str = elsewhere) -> None:
        environment = process.tool_environment({"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": protocols})
        at = ["-C", str(where)] if where else []
        process.run(["git", *_SAFE, "-c", "advice.detachedHead=false", *at, *arguments], env=environment)

    try:
        git("clone", "--quiet", "--no-checkout", "--", url, str(whole), protocols=f"{elsewhere}:file")
        commit = _first_commit(whole, ref, f"origin/{ref}")
        git("update-ref", f"refs/heads/{_WANTED}", commit, where=whole)
        # What no tag and no commit before this one holds stays behind: a build could read it.
        only = ("--no-local", "--single-branch", "--branch", _WANTED, "--no-checkout")
        git("clone", "--quiet", *only, "--", str(whole), str(folder), protocols="file")
        git("remote", "set-url", "origin", url, where=folder)
        git("checkout", "--quiet", "--detach", commit, where=folder)
        git("submodule", "--quiet", "update", "--init", "--recursive", where=folder)
    except process.ToolFailed as error:
        raise SourceUnusable(
            f"git can't fetch {url} at {ref}: {error.output.strip()}",
            "Look whether the address and the name are right.",
        ) from error


def _first_commit(folder: Path, *names: str) -> str:
    for name in names:
        with suppress(process.ToolFailed):
            return run_git(["rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"], folder).strip()
    raise SourceUnusable(f"The repository has no commit {names[0]}.", "Name a tag, a branch or a commit of it.")
