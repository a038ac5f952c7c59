"""Git LFS: the objects that pointers in an export stand for, put in their places."""

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import SourceUnusable
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.gitcmd import feed_git

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*oid sha256:([0-9a-f]{64})\n")
_POINTER_LIMIT = 1024


def fill_in(root: Path, deeper: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """Put LFS objects in their pointers' places, each checked against the digest that the pointer names.

    Args:
        root: the top of an exported repository.
        deeper: the submodules in it, which have attributes of their own.
        folders: where LFS keeps its objects.

    Returns:
        The files, relative to ``root``.

    Raises:
        SourceUnusable: an object isn't on this machine.
    """
    pointers: dict[Path, Digest] = {}
    for parent, inner, files in os.walk(root):
        inner[:] = [name for name in inner if Path(parent, name) not in deeper]
        for path in (Path(parent, name) for name in files):
            if path.is_symlink() or path.stat().st_size > _POINTER_LIMIT:
                continue
            if found := _POINTER.match(path.read_bytes()):
                pointers[path.relative_to(root)] = Digest("sha256", found.group(1).decode())
    kept_there = _kept_there(root, pointers)
    for path in kept_there:
        _replace(root / path, pointers[path], folders)
    return kept_there


def _kept_there(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Those of some files that the attributes give to LFS: a pointer may also be just that, such as a test's data."""
    names = [os.fsencode(path) for path in paths]
    if not names:
        return []
    # The git directory that goes along switches filters off.
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-attributes-") as git:
        for part in ("objects", "refs"):
            (git / part).mkdir()
        (git / "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
        question = ["check-attr", "-z", "--stdin", "filter"]
        answer = feed_git(b"\0".join(names), question, root, GIT_DIR=str(git), GIT_WORK_TREE=str(root))
    fields = answer.split("\0")
    return [Path(name) for name, value in zip(fields[::3], fields[2::3], strict=False) if value == "lfs"]


def _replace(path: Path, digest: Digest, folders: Iterable[Path]) -> None:
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
