"""Where a build runs: a fixed path, no network, a fixed host name, user, umask and locale.

Three kinds, best first. ``bubblewrap`` shows the build only the system's own folders (read-only), the
interpreter and its workspace. ``unshare`` gives the same fixed path, host name and absence of network
through namespaces alone, but leaves the rest of the file system in view. ``plain`` needs nothing of the
machine; it takes the fixed path when nobody else holds it, and can only ask programs to stay offline.
What a kind could not give is in :class:`Guarantees`, goes into the record, and is said to the user.
"""

import functools
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from reprobuild import process
from reprobuild.clock import Clock, preload
from reprobuild.errors import SandboxUnavailable, ToolMissing
from reprobuild.files import scratch_folder
from reprobuild.workspace import Workspace, workspace

#: Folders of a workspace; each lies at ``<root>/<name>`` inside.
FOLDERS = ("src", "asked", "env", "wheels", "out", "tmp", "cache")
#: Those that this process fills or mounts again after code has run in the box. They lie outside of what is mounted as
#: the workspace, and are mounted into it: what runs inside can neither move them nor put a link in their place.
_HELD = ("src", "asked", "home")
#: Where uv and one command's exchange folder are seen, made anew for each command.
_TOOLS, _HOOKS = "/tmp/reprobuild-tools", "/tmp/reprobuild-hooks"  # noqa: S108 - inside namespaces only

_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What a wrapper says of itself, when it is all that was said.
_SANDBOX_FAILED = re.compile(r"((bwrap|unshare|mount|hostname|sh): .*(\n\s.*)*\n?)+")
#: Where programs look how many processors there are; nothing else of /sys is shown.
_PROCESSORS = "/sys/devices/system/cpu/online"
#: What a user's shell has in its environment and a build's has not: settings of programs that no build should start,
#: traces of a session and of a CI system, something long, something that isn't ASCII.
_NOISE = {
    "CI": "true",
    "COLUMNS": "43",
    "DISPLAY": ":99",
    "EDITOR": "/usr/bin/a-second-editor",
    "GPG_TTY": "/dev/pts/7",
    "LESSOPEN": "| /usr/bin/lesspipe %s",
    "LINES": "17",
    "LS_COLORS": ":".join(f"*.{number:03}=01;{number % 40}" for number in range(400)),
    "MAIL": "/var/mail/somebody",
    "OLDPWD": "/",
    "PAGER": "cat",
    "SHLVL": "3",
    "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22",
    "WINDOWID": "12345678",
    "XDG_SESSION_TYPE": "x11",
}
_LIMITS = "Give it more with --timeout or --memory, or in [tool.reprobuild.wheel] of your own project."
#: A closed port: what programs get as their proxy where the network can't be taken away.
_NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a build can see of the machine that it runs on; the defaults are what ``reprobuild wheel`` uses."""

    root: str = "/tmp/reprobuild"  # noqa: S108 - inside the sandbox, or held by a lock
    home: str = "/tmp/reprobuild-home"  # noqa: S108 - as root; no part of it, so that one can be varied alone
    hostname: str = "reprobuild"
    user: str = "builder"
    uid: int = 1000
    umask: int = 0o022
    timezone: str = "UTC"
    locale: str = "C.UTF-8"
    hash_seed: str = "0"
    jobs: int = 0
    directory_order: Literal["sorted", "reversed"] = "sorted"
    clock: Clock = "real"
    noise: str = ""

    @property
    def job_count(self) -> int:
        """How many processors a build sees, and jobs it may run at once; 0 in ``jobs`` means all that are here."""
        return self.jobs or os.cpu_count() or 1


#: The surroundings of every build that isn't varied on purpose.
USUAL = Surroundings()


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a sandbox really holds fixed on this machine."""

    kind: str
    fixed_path: bool
    network_off: bool
    confined: bool
    fixed_hostname: bool
    fixed_user: bool
    fixed_directory_order: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not held fixed, in words."""
        words = {
            "a fixed path": self.fixed_path,
            "no network": self.network_off,
            "a confined file system": self.confined,
            "a fixed host name": self.fixed_hostname,
            "a fixed user": self.fixed_user,
            "a fixed directory order": self.fixed_directory_order,
        }
        return tuple(word for word, held in words.items() if not held)


class _Kind(Protocol):
    """How one kind of sandbox wraps a command."""

    name: str

    def why_not(self) -> str:
        """Why this kind doesn't work on this machine; empty when it does."""

    def wrap(self, box: "Box", argv: Sequence[str], cwd: str, exchange: Path | None) -> list[str]:
        """The command that runs ``argv`` inside, with an exchange folder if there is one."""


class Box:
    """One workspace and the way to run commands in it.

    Attributes:
        root: the workspace's path as the build sees it.
        private: a folder for what is no business of the build's; with namespaces it can't be reached from inside.
        guarantees: what is really held fixed.
        memory: bytes that the programs of one command may hold together, and the files in its /tmp; None for any.
        timeout: seconds that a command may take where nothing else is said; None for any.
    """

    def __init__(
        self,
        kind: _Kind,
        surroundings: Surroundings,
        place: Workspace,
        private: Path,
        guarantees: Guarantees,
        readable: Sequence[Path],
        memory: int | None,
    ) -> None:
        self.surroundings = surroundings
        self.memory = memory << 20 if memory else None
        self.timeout: float | None = None
        self.guarantees = guarantees
        self.root = surroundings.root if guarantees.fixed_path or kind.name != "plain" else str(place.folder)
        self.readable = tuple(readable)
        self.uv = process.find("uv")
        self._kind = kind
        self._host, self._held = place.folder, place.held
        self.private = private

    def inside(self, *parts: str) -> str:
        """A path in the workspace as the build sees it."""
        return "/".join((self.root, *parts))

    def outside(self, folder: str, *parts: str) -> Path:
        """The same path as this process sees it."""
        return (self._held if folder in _HELD else self._host).joinpath(folder, *parts)

    @property
    def home(self) -> str:
        """The home folder as the build sees it; without namespaces it can only be in the workspace."""
        home = self.surroundings.home
        return home if self._kind.name != "plain" else self.inside(Path(home).name)

    @property
    def etc(self) -> Path:
        """The folder with the account database; a build can't change it for the next command."""
        return self.private / "etc"

    @property
    def stage(self) -> Path:
        """An empty folder that a kind may mount things on while it makes its file system."""
        return self.private / "stage"

    @contextmanager
    def exchange(self) -> Iterator[tuple[Path, str]]:
        """A folder to hand files to one command and take its answer back: as seen here, and inside.

        It is not part of the workspace: what runs in the box at the same time, or ran before, can't put a link
        there for this process to follow. Pass the first of the two to :meth:`run`.
        """
        with scratch_folder(self.private, "exchange-") as folder:
            yield folder, _HOOKS if self._kind.name != "plain" else str(folder)

    @property
    def tools(self) -> tuple[Path, str]:
        """A folder whose ``bin`` comes before the system's programs, as seen here and inside, where it is read-only."""
        if self._kind.name == "plain":
            return self._host / "tools", self.inside("tools")
        return self.private / "tools", _TOOLS

    @property
    def uv_inside(self) -> str:
        """The uv executable as the build sees it."""
        return f"{_TOOLS}/uv" if self._kind.name != "plain" else str(self.uv)

    def path(self, more: Sequence[str] = ()) -> str:
        """PATH inside: the build environment's programs, the wrappers, then more folders, then the system's."""
        return ":".join((self.inside("env", "bin"), f"{self.tools[1]}/bin", *more, SYSTEM_PATH))

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a program in the box; nothing of the caller's gets in."""
        around = self.surroundings
        jobs = str(around.job_count)
        variables = {
            "PATH": self.path(),
            "HOME": self.home,
            "TMPDIR": self.inside("tmp"),
            "USER": around.user,
            "LOGNAME": around.user,
            "TZ": around.timezone,
            "LC_ALL": around.locale,
            "LANG": around.locale,
            "TERM": "dumb",
            "NO_COLOR": "1",
            "PYTHONHASHSEED": around.hash_seed,
            "PYTHONDONTWRITEBYTECODE": "1",
            "VIRTUAL_ENV": self.inside("env"),
            "MAX_JOBS": jobs,
            "CMAKE_BUILD_PARALLEL_LEVEL": jobs,
            "CARGO_BUILD_JOBS": jobs,
            "UV_CACHE_DIR": self.inside("cache", "uv"),
            "UV_LINK_MODE": "hardlink",
            "UV_NO_CONFIG": "1",
            "UV_OFFLINE": "1",
            "UV_NO_PROGRESS": "1",
            "UV_NO_INSTALLER_METADATA": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
        }
        if not self.guarantees.network_off:
            variables |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE)
        if around.noise:
            variables |= {**_NOISE, "REPROBUILD_NOISE": around.noise}
        return {**variables, **extra}

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        exchange: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> process.Completed:
        """Run a command inside.

        Args:
            env: is added to :meth:`environment`.
            cwd: a path as seen inside.
            exchange: the folder of :meth:`exchange`, if the command gets one.
            on_line, timeout: as :func:`reprobuild.process.run`.

        Raises:
            ToolFailed, ToolTimeout, ToolTooLarge, ToolMissing: as :func:`reprobuild.process.run`.
            SandboxUnavailable: the sandbox itself failed, and the command never ran.
        """
        if self.surroundings.clock != "real":  # inside: what makes the sandbox needs no other clock
            argv = ["/usr/bin/env", f"LD_PRELOAD={self.tools[1]}/clock.so", *argv]
        command = self._kind.wrap(self, argv, cwd or self.inside(), exchange)
        plain = self._kind.name == "plain"
        try:
            with _on_processors(self.surroundings.jobs):
                return process.run(
                    command,
                    env=self.environment(env or {}),
                    cwd=Path(cwd or self._host) if plain else None,
                    on_line=on_line,
                    timeout=timeout or self.timeout,
                    memory=self.memory,
                    room=self._held,
                    umask=self.surroundings.umask,
                )
        except (process.ToolTimeout, process.ToolTooLarge) as error:
            _, _, what = error.reason.partition(" ")  # the user knows no bwrap
            remedy = "Have the build print less." if "printed" in what else _LIMITS
            raise type(error)(f"A step of the build ({Path(argv[0]).name}) {what}", remedy) from error
        except process.ToolFailed as error:
            if plain or not _SANDBOX_FAILED.fullmatch(error.output.strip()):
                raise
            raise SandboxUnavailable(
                f"The sandbox kind {self._kind.name} failed before anything ran in it: {error.output.strip()}",
                "Choose another kind with --sandbox; `reprobuild doctor` says which ones work here.",
            ) from error

    def binds(self, exchange: Path | None) -> list[tuple[Path, str]]:
        """Every writable (path outside, path inside) of a command, outermost first."""
        held = [(self._held / name, self.home if name == "home" else self.inside(name)) for name in _HELD]
        return [(self._host, self.root), *held, *([(exchange, _HOOKS)] if exchange else [])]


class _Bubblewrap:
    name = "bubblewrap"

    def why_not(self) -> str:
        return _probe(("bwrap", *self._namespaces(Surroundings()), *self._file_system(), "--", "/usr/bin/env", "true"))

    def wrap(self, box: Box, argv: Sequence[str], cwd: str, exchange: Path | None) -> list[str]:
        arguments = ["bwrap", *self._namespaces(box.surroundings), *self._file_system(box.memory)]
        for path in box.readable:
            arguments += ["--ro-bind", str(path), str(path)]
        for outside, inside in box.binds(exchange):
            arguments += ["--bind", str(outside), inside]
        arguments += ["--ro-bind", *map(str, box.tools)]
        for name in ("passwd", "group", "hosts", "nsswitch.conf"):
            arguments += ["--ro-bind", str(box.etc / name), f"/etc/{name}"]
        arguments += ["--ro-bind", str(box.etc / "processors"), _PROCESSORS]
        arguments += ["--ro-bind", str(box.uv), box.uv_inside]
        if box.memory:  # what lies outside of the mounts above is memory too
            arguments += ["--remount-ro", "/dev", "--remount-ro", "/"]
        return [*arguments, "--chdir", cwd, "--", *argv]

    @staticmethod
    def _namespaces(around: Surroundings) -> list[str]:
        uid = str(around.uid)
        options = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        options += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
        return [*options, "--hostname", around.hostname, "--uid", uid, "--gid", uid]

    @staticmethod
    def _file_system(memory: int | None = None) -> list[str]:
        # Inside an unprivileged container it is often just /proc that can't be mounted: the probe must try it too.
        fresh = ["--proc", "/proc", "--dev", "/dev"]
        for place in ("/tmp", "/var/tmp"):  # noqa: S108 - inside
            fresh += [*(["--size", str(memory)] if memory else []), "--tmpfs", place]
        if memory:
            fresh += ["--size", str(memory), "--tmpfs", "/dev/shm"]  # noqa: S108 - inside
        # To these settings of the kernel root may write from any namespace, and bubblewrap leaves them open.
        fresh += ["--ro-bind", "/proc/sys", "/proc/sys"]
        return [*_system_binds(), *fresh]


class _Unshare:
    name = "unshare"
    _OPTIONS = ("--user", "--map-root-user", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
    # A new /tmp is put together elsewhere, out of the old one's parts too, and moved into its place when it is ready.
    # -n: without it mount would note what it did in a file that only the real root can write.
    _SCRIPT = """
set -eu
stage=$1 name=$2 cwd=$3 size=$4 processors=$5 count=$6; shift 6
mount -n --bind "$processors" PROCESSORS 2>/dev/null || true
mount -n -t tmpfs -o "size=$size" tmpfs "$stage"
while [ "$count" -gt 0 ]; do
  place=$stage${2#/tmp}
  if [ -d "$1" ]; then mkdir -p "$place"; else mkdir -p "${place%/*}"; touch "$place"; fi
  mount -n --rbind "$1" "$place"
  shift 2; count=$((count-1))
done
mount -n --move "$stage" /tmp
mount -n -t proc proc /proc
hostname "$name"
ip link set lo up 2>/dev/null || true
cd "$cwd"
exec "$@"
""".replace("PROCESSORS", _PROCESSORS)
    _PROBE = """
set -eu
mount -n -t tmpfs tmpfs /tmp
mkdir /tmp/stage
mount -n -t tmpfs tmpfs /tmp/stage
mkdir /tmp/stage/usr
mount -n --rbind /usr /tmp/stage/usr
mount -n --move /tmp/stage /tmp
mount -n -t proc proc /proc
hostname probe
test -d /tmp/usr/bin
"""

    def why_not(self) -> str:
        return _probe(("unshare", *self._OPTIONS, "sh", "-c", self._PROBE))

    def wrap(self, box: Box, argv: Sequence[str], cwd: str, exchange: Path | None) -> list[str]:
        hidden = [(path, str(path)) for path in box.readable if path.is_relative_to("/tmp")]  # noqa: S108
        binds = [*hidden, *box.binds(exchange), box.tools, (box.uv, box.uv_inside)]
        pairs = [part for outside, inside in binds for part in (str(outside), inside)]
        script = ["sh", "-c", self._SCRIPT, "sh", str(box.stage), box.surroundings.hostname, cwd]
        script += [str(box.memory or "50%"), str(box.etc / "processors"), str(len(binds))]
        return ["unshare", *self._OPTIONS, *script, *pairs, *argv]


class _Plain:
    name = "plain"

    def why_not(self) -> str:
        return ""

    def wrap(self, box: Box, argv: Sequence[str], cwd: str, exchange: Path | None) -> list[str]:  # noqa: ARG002 - the protocol's
        return list(argv)


KINDS: dict[str, _Kind] = {kind.name: kind for kind in (_Bubblewrap(), _Unshare(), _Plain())}


def _system_binds() -> list[str]:
    arguments = []
    for name in _SYSTEM_FOLDERS:
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            arguments += ["--ro-bind", name, name]
    for name in _SYSTEM_FILES:
        arguments += ["--ro-bind-try", name, name]
    return arguments


@functools.cache
def _probe(argv: tuple[str, ...]) -> str:
    """Try a sandbox out on nothing; why it failed, or an empty string."""
    try:
        process.run(argv, env={"PATH": SYSTEM_PATH}, timeout=20)
    except ToolMissing as error:
        return error.reason
    except process.ToolFailed as error:
        return error.output.strip().splitlines()[-1] if error.output.strip() else error.reason
    except process.ToolTimeout as error:
        return error.reason
    return ""


def choose(kind: str) -> _Kind:
    """The named kind, or for ``auto`` the best that works here.

    Raises:
        SandboxUnavailable: the named kind doesn't work on this machine.
    """
    if kind == "auto":
        return next(each for each in KINDS.values() if not each.why_not())
    chosen = KINDS[kind]
    if why := chosen.why_not():
        raise SandboxUnavailable(
            f"The sandbox kind {kind} doesn't work on this machine: {why}",
            "Install what is missing (see `reprobuild doctor`), or leave the choice to --sandbox auto.",
        )
    return chosen


def is_confined(kind: str) -> bool:
    """Whether a kind shows a build nothing of the machine but the system's own folders and what it is given.

    Raises:
        SandboxUnavailable: as :func:`choose`.
    """
    return choose(kind).name == _Bubblewrap.name


@contextmanager
def open_box(
    kind: str,
    surroundings: Surroundings,
    *,
    readable: Sequence[Path] = (),
    source_size: int = 0,
    environment_size: int | None = None,
    memory: int | None = None,
    timeout: float | None = None,
) -> Iterator[Box]:
    """A fresh workspace in a sandbox; every trace of it is gone at the end.

    Args:
        kind: ``auto`` or a key of :data:`KINDS`.
        surroundings: what the build shall see.
        readable: folders outside the system's own that it may read (the interpreter's prefix).
        source_size: size in bytes of the source, to judge whether it fits in shared memory, where the
            order of directory entries is the order of their making and so can be held fixed.
        environment_size: size in bytes of the build requirements' files, None when unknown. Where they fit in
            shared memory too, the whole workspace lies there, which is faster.
        memory: MiB that a command in it may take, None for any.
        timeout: seconds that a command in it may take where nothing else is said.

    Raises:
        SandboxUnavailable: the named kind doesn't work here.
        ToolMissing, ToolFailed: another clock is asked for, and its library can't be compiled.
        WriteFailed: no room for a workspace.
    """
    chosen = choose(kind)
    outside = tuple(path for path in dict.fromkeys(readable) if not path.is_relative_to("/usr"))
    namespaces = chosen.name != "plain"
    with (
        workspace(None if namespaces else Path(surroundings.root), source_size, environment_size) as place,
        scratch_folder(Path(tempfile.gettempdir()), "reprobuild-private-") as private,
    ):
        for folder in (
            *(place.folder / name for name in FOLDERS),
            *(place.held / name for name in _HELD if namespaces),
        ):
            folder.mkdir(mode=0o755, exist_ok=True)
        (private / "stage").mkdir()
        (private / "tools").mkdir()
        (private / "tools" / "uv").touch()  # it is mounted there
        _write_etc(private / "etc", surroundings)
        guarantees = Guarantees(
            kind=chosen.name,
            fixed_path=place.fixed,
            network_off=namespaces,
            confined=is_confined(chosen.name),
            fixed_hostname=namespaces,
            fixed_user=chosen.name == "bubblewrap",
            fixed_directory_order=place.ordered,
        )
        box = Box(chosen, surroundings, place, private, guarantees, outside, memory)
        box.timeout = timeout
        if surroundings.clock != "real":
            box.tools[0].mkdir(exist_ok=True)
            shutil.copyfile(preload(surroundings.clock), box.tools[0] / "clock.so")
        if not namespaces:
            Path(box.home).mkdir()
        yield box


@contextmanager
def _on_processors(count: int) -> Iterator[None]:
    """Let this thread, and with it what it starts, run on so many processors; 0 means all that it has now."""
    here = os.sched_getaffinity(0)
    if 0 < count < len(here):
        os.sched_setaffinity(0, sorted(here)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, here)


def _write_etc(folder: Path, around: Surroundings) -> None:
    """The account database that a build sees: one user, and nothing of the machine's."""
    folder.mkdir()
    lines = {
        "passwd": f"{around.user}:x:{around.uid}:{around.uid}:{around.user}:{around.home}:/bin/sh\n",
        "group": f"{around.user}:x:{around.uid}:\n",
        "hosts": f"127.0.0.1 localhost {around.hostname}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "processors": f"0-{around.job_count - 1}\n" if around.job_count > 1 else "0\n",
    }
    for name, text in lines.items():
        (folder / name).write_text(text, encoding="utf-8")


def observed(box: Box) -> Surroundings:
    """The surroundings as the build really sees them: what a kind can't hold fixed is the machine's own."""
    around = replace(box.surroundings, root=box.root, home=box.home)
    if not box.guarantees.fixed_user:
        around = replace(around, uid=0 if box.guarantees.fixed_hostname else os.getuid())
    if not box.guarantees.fixed_hostname:
        around = replace(around, hostname=socket.gethostname())
    return around
