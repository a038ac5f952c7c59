"""Where a build's workspace lies: at a fixed path that nobody else holds, else anywhere, in memory if it fits."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reprobuild.files import remove_orphans, remove_tree, scratch_folder

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - used only for a new folder of mode 0700
_MEMORY_WANTED = 2 << 30
#: How many times their packed size sources and build requirements may grow in a build.
_GROWTH = 20


@dataclass(frozen=True, slots=True)
class Workspace:
    """Two folders that are gone at the end.

    Attributes:
        folder: what a build may write to.
        held: for what it must neither move nor replace; the same folder where that can't be kept from it.
        fixed: whether the build will see it at the path that it should have.
        ordered: whether ``held`` lies where the order of directory entries is the order of their making.
    """

    folder: Path
    held: Path
    fixed: bool
    ordered: bool


@contextmanager
def workspace(root: Path | None, source_size: int, environment_size: int | None) -> Iterator[Workspace]:
    """A fresh one, after what killed builds left behind is cleared away.

    Args:
        root: the path that it is to have; None where namespaces can show it at any.
        source_size, environment_size: as :func:`reprobuild.sandbox.open_box`.

    Raises:
        WriteFailed: no room for it.
    """
    for parent in {Path(tempfile.gettempdir()), _SHARED_MEMORY}:
        remove_orphans(parent)
    if root is not None:
        with _at(root) as (folder, fixed):
            yield Workspace(folder, folder, fixed, _is_in_memory(folder))
        return
    whole = None if environment_size is None else source_size + environment_size
    with (
        scratch_folder(_parent(whole), "reprobuild-work-") as folder,
        scratch_folder(_parent(source_size), "reprobuild-held-") as held,
    ):
        yield Workspace(folder, held, fixed=True, ordered=_is_in_memory(held))


@contextmanager
def _at(wanted: Path) -> Iterator[tuple[Path, bool]]:
    """The wanted folder, and True; where it can't be had another one, and False."""
    lock = _claim(wanted)
    if lock is None:
        with scratch_folder(Path(tempfile.gettempdir()), f"{wanted.name}-") as folder:
            yield folder, False
        return
    try:
        yield wanted, True
    finally:
        remove_tree(wanted)
        lock.truncate(0)
        lock.close()


def _claim(folder: Path) -> IO[bytes] | None:
    """Take a fixed folder for this process alone; None when that can't be done safely.

    The lock lies beside the folder and holds the identity of the folder that it is about. So what a killed
    build left behind is cleared away, and a folder that somebody else made there is not.
    """
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        name = folder.with_name(f".{folder.name}.{os.getuid()}.lock")
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        lock = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(folder) and lock.read() == _identity(folder):
                remove_tree(folder)
            folder.mkdir(mode=0o700)
            lock.seek(0)
            lock.truncate()
            lock.write(_identity(folder))
            lock.flush()
        except OSError:
            lock.close()
        else:
            return lock
    return None


def _identity(folder: Path) -> bytes:
    state = folder.lstat()
    return f"{state.st_dev}:{state.st_ino}".encode()


def _parent(size: int | None) -> Path:
    """Shared memory for what has some bytes packed, if it is roomy enough; None is as large as it likes."""
    in_memory = size is not None and _fits_in_memory(_GROWTH * size)
    return _SHARED_MEMORY if in_memory else Path(tempfile.gettempdir())


def _fits_in_memory(size: int) -> bool:
    """Whether shared memory can take a folder of some bytes: roomy, writable, and not mounted noexec."""
    if not _is_in_memory(_SHARED_MEMORY) or not os.access(_SHARED_MEMORY, os.W_OK):
        return False
    if os.statvfs(_SHARED_MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(_SHARED_MEMORY).free >= max(_MEMORY_WANTED, size)


def _is_in_memory(path: Path) -> bool:
    """Whether a path lies on a tmpfs, by the mount table (proc_pid_mounts(5))."""
    best, kind = "", ""
    with suppress(OSError):
        resolved = path.resolve()
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            _, where, fs_type, *_ = line.split(" ")
            if resolved.is_relative_to(where) and len(where) >= len(best):
                best, kind = where, fs_type
    return kind == "tmpfs"
