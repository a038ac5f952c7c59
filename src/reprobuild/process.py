"""The only module that starts programs."""

import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from reprobuild.errors import BuildFailed, ToolMissing

#: Variables of the user's own environment that reach tools which work for the user (uv on the network,
#: git): where things are, how to reach the network, how to log in. A build gets none of them.
_PASSED_ON = frozenset(
    """PATH HOME USER LOGNAME TMPDIR NETRC SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
    DBUS_SESSION_BUS_ADDRESS PYENV_ROOT PYENV_VERSION""".split()
)
_PASSED_ON_PREFIXES = ("UV_", "XDG_", "PYTHON_KEYRING_")
#: uv settings that belong to the caller's own uv projects and would change what a lock or a build means.
_NEVER_PASSED_ON = frozenset(
    """UV_EXCLUDE_NEWER UV_REQUIRE_HASHES UV_CONSTRAINT UV_BUILD_CONSTRAINT UV_OVERRIDE UV_PRERELEASE
    UV_RESOLUTION UV_OUTPUT UV_PROJECT UV_WORKING_DIR UV_PROJECT_ENVIRONMENT UV_CUSTOM_COMPILE_COMMAND
    UV_NO_BUILD UV_NO_BINARY UV_NO_BUILD_ISOLATION UV_FORK_STRATEGY UV_NO_VERIFY_HASHES UV_PYTHON""".split()
)

_REMEDIES = {
    "uv": "Install it: pip install uv.",
    "git": "Install git, or build from a folder or an sdist that isn't a git checkout.",
    "docker": "Install Docker 26 or newer with buildx; an image without RUN needs neither.",
    "bwrap": "Install bubblewrap, or choose another kind with --sandbox.",
    "apt-get": "Lock on a machine with apt, such as Debian or Ubuntu. To fetch what is locked, name the archive's "
    "addresses in a file, and that in REPROBUILD_APT_SOURCES.",
    "unshare": "Install util-linux, or choose another kind with --sandbox.",
}
#: In each thread of :func:`workers`: the crews that it belongs to, outermost first.
_own = threading.local()
_asking_sysconfig = threading.Lock()
_KEPT_LINES = 400
_LONGEST_LINE = 64 << 10
#: Bytes of standard output that are kept: what git lists of a few million files.
_MOST_OUTPUT = 256 << 20
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.2
_ROOM_LEFT = 256 << 20
_HELD = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)


class ToolFailed(BuildFailed):
    """A program ended with an error.

    Attributes:
        argv: the command.
        returncode: its exit status; negative for a signal.
        output: the last lines that it printed, stdout and stderr together where they were not kept apart.
    """

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        what = f"signal {-returncode}" if returncode < 0 else f"status {returncode}"
        super().__init__(f"{Path(argv[0]).name} ended with {what}:\n{output.strip() or '(it printed nothing)'}")
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class ToolTimeout(BuildFailed):
    """A program ran longer than it was allowed to, and was ended."""


class ToolTooLarge(BuildFailed):
    """A program and what it started took more memory than they were allowed to, or printed too much, and were ended."""


class Stopped(BaseException):
    """Whoever wanted this thread's work has left. No error of the work's: who catches those lets it pass."""


class _Crew:
    """The threads of one pool, with those of the pools that they open: what runs for them now."""

    def __init__(self) -> None:
        self.programs: set[subprocess.Popen[bytes]] = set()
        self.dismissed = False


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program that ended well printed."""

    stdout: bytes
    log: str


def find(name: str) -> Path:
    """The executable of that name: for uv the one that is installed beside reprobuild, else the one on PATH.

    Raises:
        ToolMissing: there is none.
    """
    if name == "uv":
        with suppress(ImportError, FileNotFoundError):
            from uv import find_uv_bin  # noqa: PLC0415 - optional: uv may come from elsewhere

            # It asks sysconfig, which answers a second thread before it knows the answer (python/cpython#92452).
            with _asking_sysconfig:
                return Path(find_uv_bin())
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(f"The program {name!r} is not on this machine's PATH.", _REMEDIES.get(name, ""))
    return Path(found)


def tool_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for tools that work for the user on the user's machine."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _NEVER_PASSED_ON and (name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES))
    }
    return {**kept, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", **(extra or {})}


def run(  # noqa: PLR0913 - each says one thing about a program, and nearly all have a default
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes | None = None,
    stdout: BinaryIO | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    room: Path | None = None,
    umask: int = 0o022,
) -> Completed:
    """Run a program to its end, in a process group of its own that dies with this call.

    Args:
        argv: the program (a name is looked up with :func:`find`) and its arguments.
        env: its whole environment.
        cwd: its working directory.
        stdin: bytes for its standard input; none means an empty one.
        stdout: a binary file that receives standard output instead of the result.
        on_line: called, from another thread, with each line of standard error (and of standard output
            unless that is wanted as bytes) as it comes.
        timeout: seconds after which the whole group is killed.
        memory: bytes that the program and all that it starts may hold together; beyond it they are killed. It is
            looked at a few times a second, and each process by itself can't get more in between.
        room: with ``memory``: a folder on whose file system they must leave some space.
        umask: the file mode creation mask of the program.

    Raises:
        ToolMissing, ToolFailed, ToolTimeout, ToolTooLarge: as named.
        Stopped: see :func:`go_on`.
    """
    go_on()
    command = [str(part) for part in argv]
    if not os.path.isabs(command[0]):  # noqa: PTH117 - a name, not a path
        command[0] = str(find(command[0]))
    with tempfile.TemporaryFile() as held:
        if stdin is not None:
            held.write(stdin)
            held.seek(0)
        process = _start(command, env=env, cwd=cwd, stdin=held, stdout=stdout, umask=umask)
        with _known_to_crews(process), _limited(process, Path(command[0]).name, timeout, memory, room) as exceeded:
            result = _collect(process, Path(command[0]).name, on_line, exceeded)
    go_on()
    if exceeded:
        raise exceeded[0]
    if process.returncode != 0:
        raise ToolFailed(command, process.returncode, result.log or result.stdout.decode(errors="replace"))
    return result


@contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for independent work; an error or Ctrl-C in the block ends the programs that they wait for.

    The programs of other pools go on, so that one of several works can fail alone; those of pools that these threads
    have opened end too.
    """
    crew = _Crew()
    pool = ThreadPoolExecutor(count, initializer=setattr, initargs=(_own, "crews", (*_crews(), crew)))
    try:
        yield pool
    except BaseException:
        crew.dismissed = True
        pool.shutdown(wait=False, cancel_futures=True)
        waiting = threading.Thread(target=pool.shutdown)
        waiting.start()
        while waiting.is_alive():  # a thread may just be starting a program, or go on to another
            for each in tuple(crew.programs):
                _end_group(each)
            waiting.join(0.05)
        raise
    finally:
        pool.shutdown()


def go_on() -> None:
    """Return, unless this is a thread of :func:`workers` whose block was left by an error or Ctrl-C.

    Raises:
        Stopped: it is. Work that takes long without starting programs asks this now and then.
    """
    if any(crew.dismissed for crew in _crews()):
        raise Stopped


def _crews() -> tuple[_Crew, ...]:
    crews: tuple[_Crew, ...] = getattr(_own, "crews", ())
    return crews


def _start(
    command: list[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    stdin: IO[bytes],
    stdout: BinaryIO | None,
    umask: int,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - argv is a list; nothing passes through a shell
            command,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout if stdout is not None else subprocess.PIPE,
            stderr=subprocess.PIPE,
            umask=umask,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolMissing(f"{command[0]} can't be started: {error.filename}: {error.strerror}.") from error


def _collect(
    process: subprocess.Popen[bytes], name: str, on_line: Callable[[str], None] | None, exceeded: list[BuildFailed]
) -> Completed:
    """Read both streams until the program ends: stdout whole up to a limit, of stderr the last lines."""
    log: deque[str] = deque(maxlen=_KEPT_LINES)
    output = bytearray()
    one_at_a_time = threading.Lock()

    def drain(stream: IO[bytes]) -> None:
        if stream.closed:  # an interruption came while this thread was being started
            return
        with stream:
            for text in _lines(stream):
                with one_at_a_time:
                    log.append(text)
                    if on_line:
                        on_line(text)

    def keep(stream: IO[bytes]) -> None:
        if stream.closed:
            return
        with stream:
            if not _read_into(output, stream):
                exceeded.append(ToolTooLarge(f"{name} printed more than {_MOST_OUTPUT >> 20} MiB and was ended."))
                if process.returncode is None:  # the number of one that is reaped may be another's
                    _kill_group(process)

    streams = ((process.stderr, drain), (process.stdout, drain if on_line else keep))
    readers = {
        threading.Thread(target=read, args=(stream,), daemon=True): stream
        for stream, read in streams
        if stream is not None
    }
    _start_readers(readers)
    with suppress(ChildProcessError):  # the timer has reaped it
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _kill_group(process)  # while the program isn't reaped, its group's number is nobody else's
    process.wait()
    deadline = time.monotonic() + _GRACE_SECONDS
    for reader in readers:
        reader.join(max(0, deadline - time.monotonic()))  # a daemon that left the group may never close its end
    return Completed(bytes(output), "\n".join(log))


def _start_readers(readers: Mapping[threading.Thread, IO[bytes]]) -> None:
    try:
        for reader in readers:
            reader.start()
    except BaseException:
        for reader, stream in readers.items():
            if reader.ident is None:  # it was never started, and will not close its stream
                stream.close()
        raise


def _read_into(output: bytearray, stream: IO[bytes]) -> bool:
    """Read to the end; False where that is too much to keep."""
    while piece := stream.read1(1 << 16):  # type: ignore[attr-defined]  # it is buffered
        output.extend(piece)
        if len(output) > _MOST_OUTPUT:
            output.clear()
            return False
    return True


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """The lines of a stream; of one that is very long its start."""
    while raw := stream.readline(_LONGEST_LINE):
        text = raw.decode(errors="replace").rstrip("\r\n")
        if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
            text += f" … (cut after {_LONGEST_LINE:,} bytes)"
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(_LONGEST_LINE)
        yield text


@contextmanager
def _known_to_crews(process: subprocess.Popen[bytes]) -> Iterator[None]:
    crews = _crews()
    for crew in crews:
        crew.programs.add(process)
    try:
        yield
    finally:
        for crew in crews:
            crew.programs.discard(process)


@contextmanager
def _limited(
    process: subprocess.Popen[bytes], name: str, timeout: float | None, memory: int | None, room: Path | None
) -> Iterator[list[BuildFailed]]:
    """End a program that goes beyond a limit; the list is then not empty."""
    exceeded: list[BuildFailed] = []
    over = threading.Event()

    def expire() -> None:
        exceeded.append(ToolTimeout(f"{name} ran longer than {timeout:g} s and was ended."))
        _end_group(process)

    def watch() -> None:
        while memory and not over.wait(_POLL_SECONDS):
            if what := _too_much(process.pid, memory, room):
                exceeded.append(ToolTooLarge(f"{name} and what it started {what} and were ended."))
                _kill_group(process)
                return

    timer = threading.Timer(timeout, expire) if timeout else None
    watcher = threading.Thread(target=watch) if memory else None
    with suppress(OSError, ValueError):  # it has ended, or has less already
        if memory:
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
    try:
        for helper in (timer, watcher):
            if helper:
                helper.start()
        yield exceeded
    except BaseException:
        _end_group(process)
        raise
    finally:
        over.set()
        if timer:
            timer.cancel()


def _too_much(pid: int, memory: int, room: Path | None) -> str:
    """What a program and all that it started do beyond their limits; empty for nothing."""
    if _held_by(pid) > memory:
        return f"took more than {memory >> 20:,} MiB of memory"
    if room and shutil.disk_usage(room).free < _ROOM_LEFT:
        return f"left less than {_ROOM_LEFT >> 20} MiB for others on the file system of their source"
    return ""


def _held_by(pid: int) -> int:
    """Bytes that a process and all its descendants hold, other than what files are mapped from (proc_pid_status(5))."""
    total, waiting = 0, [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        with suppress(OSError):
            status = (folder / "status").read_text(encoding="ascii", errors="replace")
            total += sum(int(size) << 10 for size in _HELD.findall(status))
            for task in (folder / "task").iterdir():
                waiting += map(int, (task / "children").read_text(encoding="ascii").split())
    return total


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the program's whole process group to end, then make it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    _kill_group(process)
    process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
