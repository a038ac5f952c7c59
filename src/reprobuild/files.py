"""Files that appear whole or not at all, and folders that go away again."""

import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from reprobuild.errors import BadInput, WriteFailed

#: Bytes of a text that is read whole, such as a pyproject.toml or METADATA.
TEXT_LIMIT = 16 << 20
#: Bytes of what is remembered in the cache of one thing.
KEPT_LIMIT = 256 << 20
_RETRY_MODE = stat.S_IRWXU
#: What scratch folders outside of others are called, and how many seconds a new one has to be locked by its owner.
_SCRATCH, _NEW = re.compile(r"reprobuild-([a-z]+-)?[0-9a-f]{12}"), 60


def cache_root() -> Path:
    """Where downloaded files are kept: ``REPROBUILD_CACHE_DIR``, else the platform's cache folder.

    Raises:
        BadInput: neither is known.
    """
    if named := os.environ.get("REPROBUILD_CACHE_DIR"):
        return Path(named)
    with suppress(RuntimeError):  # newer versions of platformdirs refuse what older ones leave as it is
        path = platformdirs.user_cache_path("reprobuild")
        if path.parts[:1] != ("~",):
            return path
    raise BadInput("This account has no home folder to keep a cache in.", "Set HOME or REPROBUILD_CACHE_DIR.")


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file so that at any moment either the old content or the whole new one is there.

    The temporary file lies beside ``path``; it is gone again when the writing fails or is interrupted.

    Raises:
        WriteFailed: the disk is full, or the place can't be written to.
    """
    write_together([(path, chunks)])


def write_together(files: Sequence[tuple[Path, Iterable[bytes]]]) -> None:
    """Write files of which one says nothing without the other: none takes its place before all are written.

    Raises:
        WriteFailed: as :func:`write_atomically`; what was there before is untouched.
    """
    written: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, chunks in files:
            partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.partial")
            written.append((partial, path))
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
        for partial, path in written:
            partial.replace(path)
    except OSError as error:
        raise WriteFailed(
            f"{path} can't be written: {error.strerror or error}.",
            "Remove that folder: a file is kept there."
            if isinstance(error, IsADirectoryError)
            else "Free some space, or choose another place; what was there before is untouched.",
        ) from error
    finally:
        for partial, _ in written:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def reserve(file: int, size: int) -> None:
    """Have the file system set room aside for a file (fallocate(2)); nothing where it can't.

    Python's ``os.posix_fallocate`` wouldn't do: where a file system can't, libc writes to each block instead.

    Args:
        file: its descriptor.
        size: bytes that are going to be written, all of them.
    """
    if size:
        import ctypes  # noqa: PLC0415 - few commands need it

        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).fallocate(file, 0, ctypes.c_longlong(0), ctypes.c_longlong(size))


def read_kept(path: Path) -> bytes | None:
    """What a file of the cache holds; None where there is none, or it is nothing that was kept there.

    A pipe isn't waited for, and what is larger than anything that is kept isn't read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as stream:  # noqa: PTH123 - a descriptor
            state = os.fstat(file)
            return stream.read() if stat.S_ISREG(state.st_mode) and state.st_size <= KEPT_LIMIT else None
    except OSError:
        return None


def read_text(path: Path, called: str = "") -> str:
    """A text file in UTF-8.

    Args:
        called: what messages call it, where its path would tell the reader nothing.

    Raises:
        BadInput: it can't be read or isn't UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{called or path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from error
    except OSError as error:
        raise BadInput(f"{called or path} can't be read: {error.strerror}.") from error


def remove_tree(path: Path) -> None:
    """Remove a folder whatever modes a build left on what is inside."""

    def make_writable(function: object, name: str, error: object) -> None:  # noqa: ARG001
        with suppress(OSError):
            os.chmod(os.path.dirname(name), _RETRY_MODE)  # noqa: PTH101, PTH120
            if os.path.isdir(name) and not os.path.islink(name):  # noqa: PTH112, PTH114
                os.chmod(name, _RETRY_MODE)  # noqa: PTH101 - never through a link, to a file of somebody else's
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)  # noqa: PTH108

    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, onerror=make_writable)
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path, prefix: str, target: Path | None = None) -> Iterator[Path]:
    """A new folder, mode 0700, that is removed at the end whatever happens; its path is absolute.

    Args:
        target: the user's file that is made in it and lies beside it then; None where the folder is a temporary one.

    Raises:
        WriteFailed: it can't be made.
    """
    path = parent.absolute() / f"{prefix}{secrets.token_hex(6)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except OSError as error:
        if target is not None:
            raise WriteFailed(f"{target} can't be written: {error.strerror}.", "Name another place.") from error
        raise WriteFailed(f"{path} can't be made: {error.strerror}.", "Set TMPDIR to a place with room.") from error
    owned = _open_folder(path)
    with suppress(OSError):  # a file system without locks: then nobody will take the folder for an orphan
        fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield path
    finally:
        remove_tree(path)
        os.close(owned)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def remove_orphans(parent: Path) -> None:
    """Remove this user's scratch folders whose process was killed before it could."""
    for path in parent.glob("reprobuild-*"):
        with suppress(OSError):
            state = path.lstat()
            private = stat.S_ISDIR(state.st_mode) and stat.S_IMODE(state.st_mode) == stat.S_IRWXU
            new = time.time() - state.st_ctime < _NEW
            if _SCRATCH.fullmatch(path.name) and private and state.st_uid == os.getuid() and not new:
                owned = _open_folder(path)
                try:
                    fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(path)
                finally:
                    os.close(owned)
