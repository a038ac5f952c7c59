#!/usr/bin/env python3
"""A real registry and a real Docker engine for the tests, out of Debian's packages, and nothing gets installed.

The packages are unpacked in the user's cache, from the mirror that the machine's own apt is set up with. What runs
keeps everything in one folder, listens on loopback or on a socket in that folder, and is ended by process id. Both
happen once and are shared: a command waits for the lock of the folder that it changes. Needs Python 3.11 alone.

    engine.py up [--only registry|docker|tools|cosign]   unpack what is missing, start it, print what to export
    engine.py env                                        print that again
    engine.py layout busybox|debian                      make a base image, as an OCI image layout; prints its folder
    engine.py base busybox|debian                        push that to the registry; prints its reference
    engine.py status                                     what runs; 0 when all that was started still does
    engine.py down [--purge]                             end it; --purge removes what was unpacked, too

Exit code 3 says that this machine can't, and why, in one line; 1 that it should have, and what went wrong.

REPROBUILD_ENGINE_STATE  the folder of what runs (else `state` in the cache)
REPROBUILD_ENGINE_CACHE  the folder of what is unpacked (else reprobuild-engine in XDG_CACHE_HOME or ~/.cache)
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import inspect
import io
import json
import os
import platform
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The machine's own release: what is unpacked from it fits the machine's libraries.
OWN = "bookworm"
#: Where the engine comes from: bookworm's can't rewrite timestamps. A stable suite, whose index doesn't expire.
NEWER = "trixie"
#: Where the newest cosign is; this index may have expired, so that only its signature and the hashes are checked.
NEWEST = "sid"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: 2026-10-01 12:00 UTC, the date of everything in a base image.
EPOCH = 1_790_856_000
SECONDS_TO_START, SECONDS_TO_END = 60, 20


@dataclass(frozen=True)
class Component:
    """Some packages that are unpacked together.

    Attributes:
        own: packages of the machine's release; what they need and the machine lacks comes along.
        newer: packages of the newer one; these need nothing but a C library that the machine has.
        newest: the same of the newest.
        programs: what of it is for use.
    """

    own: tuple[str, ...]
    newer: tuple[str, ...]
    programs: tuple[str, ...]
    newest: tuple[str, ...] = ()


COMPONENTS = {
    "registry": Component(("docker-registry",), (), ("docker-registry",)),
    # trixie's runc would need a newer C library.
    "docker": Component(
        ("runc",),
        ("docker.io", "docker-cli", "docker-buildx", "containerd"),
        ("runc", "dockerd", "docker", "containerd", "containerd-shim-runc-v2", "ctr"),
    ),
    "tools": Component(
        ("skopeo", "umoci", "buildah", "podman", "runc"),
        ("oras",),
        ("skopeo", "umoci", "buildah", "podman", "conmon", "oras", "runc"),
    ),
    "cosign": Component((), (), ("cosign",), ("cosign",)),
    "older-cosign": Component((), ("cosign",), ("cosign",)),
    "bases": Component(("mmdebstrap", "busybox-static"), (), ("mmdebstrap", "mmtarfilter", "busybox")),
}


#: What a user asks for by name.
STARTED = ["registry", "docker", "tools", "cosign"]


class CantHere(Exception):
    """This machine is not one where it can run: nothing is wrong."""


class Broken(Exception):
    """It should have worked."""


def main() -> int:
    """Do what the command line says; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    up.add_argument("--only", action="append", choices=STARTED, help="may be repeated")
    up.add_argument("--port", type=int, default=0, help="of the registry; without it, a free one")
    up.add_argument("--owner", type=int, help="end everything when this process is gone")
    for command in (up, commands.add_parser("env")):
        command.add_argument("--json", action="store_true", help="not for a shell")
    for name in ("layout", "base"):
        commands.add_parser(name).add_argument("name", choices=sorted(BASES))
    commands.add_parser("status")
    down = commands.add_parser("down")
    down.add_argument("--purge", action="store_true")
    guard = commands.add_parser("guard")
    guard.add_argument("owner", type=int)
    options = parser.parse_args()
    try:
        return run(options)
    except CantHere as why:
        say(f"can't run here: {why}")
        return 3
    except (Broken, OSError, subprocess.SubprocessError) as error:
        say(str(error))
        return 1


def run(options: argparse.Namespace) -> int:
    """One command; the exit code."""
    said = ""
    if options.command == "up":
        bring_up(options.only or STARTED, options.port, options.owner)
        said = exports(as_json=options.json)
    elif options.command == "env":
        said = exports(as_json=options.json)
    elif options.command == "layout":
        said = f"{base_image(options.name)}\n"
    elif options.command == "base":
        said = push(base_image(options.name), f"base/{options.name}") + "\n"
    elif options.command == "status":
        return status()
    elif options.command == "down":
        bring_down(purge=options.purge)
    elif options.command == "guard":
        guard_over(options.owner)
    sys.stdout.write(said)
    return 0


def bring_up(wanted: Sequence[str], port: int, owner: int | None) -> None:
    """Unpack and start what is missing of some components."""
    check_machine(wanted)
    with locked(state()):
        for name in wanted:
            unpacked(name)
            if name == "registry":
                start_registry(port)
            elif name == "docker":
                start_docker()
            elif name == "cosign":
                unpacked("older-cosign")
            else:
                write_tool_settings()
        if owner:
            start_guard(owner)
        update(wanted=sorted({*recorded().get("wanted", []), *wanted}))


def bring_down(*, purge: bool) -> None:
    """End everything, and remove what was unpacked if asked."""
    with locked(state()):
        stop_everything()
    if purge:
        shutil.rmtree(cache(), ignore_errors=True)


def say(text: str) -> None:
    """One line for whoever watches."""
    sys.stderr.write(f"engine: {text}\n")


# --- Folders and locks ------------------------------------------------------------------------------------------------


def cache() -> Path:
    """Where packages are unpacked and base images kept."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reprobuild-engine"
    return Path(os.environ.get("REPROBUILD_ENGINE_CACHE") or usual).absolute()


def state() -> Path:
    """Where everything lies that runs; Docker's socket too, and a socket's path can't be long."""
    return Path(os.environ.get("REPROBUILD_ENGINE_STATE") or cache() / "state").absolute()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time for each folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def recorded() -> dict[str, Any]:
    """What was started, as it was written down."""
    try:
        found: dict[str, Any] = json.loads((state() / "engine.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def update(**changes: Any) -> None:
    """Write down what was started; None takes an entry away."""
    kept = {name: value for name, value in {**recorded(), **changes}.items() if value is not None}
    new = state() / "engine.json.new"
    new.write_text(json.dumps(kept, indent=1) + "\n")
    new.rename(state() / "engine.json")


# --- Whether this machine can -----------------------------------------------------------------------------------------


def check_machine(wanted: Sequence[str]) -> None:
    """Raise CantHere where it isn't a Debian 12 that lets this user do what is wanted."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("VERSION_CODENAME") != OWN:
        raise CantHere(f"it needs Debian 12, and this is {release.get('PRETTY_NAME', platform.system())}")
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise CantHere(f"there is no {tool}")
    if platform.machine() != "x86_64":
        raise CantHere(f"it was made for x86_64, and this is {platform.machine()}")
    if "docker" in wanted:
        check_containers()


def check_containers() -> None:
    """Raise CantHere where containers can't be run."""
    if os.geteuid() != 0:
        raise CantHere("Docker needs root")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        raise CantHere("root may not mount file systems here")
    groups = Path("/sys/fs/cgroup")
    if not any(os.access(each, os.W_OK) for each in (groups, *groups.glob("*/"))):
        raise CantHere("root may not make control groups here")


def can_overlay(folder: Path) -> bool:
    """Whether a folder's file system can be the upper one of an overlay; inside a container it often can't."""
    with suppress(FileExistsError):
        for name in ("lower", "upper", "work", "merged"):
            (folder / "probe" / name).mkdir(parents=True)
    options = ",".join(f"{name}dir={folder}/probe/{name}" for name in ("lower", "upper", "work"))
    tried = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/probe/merged"]
    works = subprocess.run(tried, check=False, capture_output=True).returncode == 0
    shutil.rmtree(folder / "probe", ignore_errors=True)
    return works


# --- Packages ---------------------------------------------------------------------------------------------------------


def unpacked(name: str) -> Path:
    """The folder of a component, which is fetched if it isn't there."""
    component = COMPONENTS[name]
    key = hashlib.sha256(repr((1, OWN, NEWER, component)).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{key}"
    if folder.exists():
        return folder
    with locked(cache()):
        if not folder.exists():
            began = time.monotonic()
            new = cache() / f"{folder.name}.new"
            shutil.rmtree(new, ignore_errors=True)
            packages = fetch_packages(component, new)
            write_programs(component.programs, new, folder)
            new.rename(folder)
            say(f"{name}: {', '.join(packages)}; unpacked in {time.monotonic() - began:.0f} s")
    return folder


def fetch_packages(component: Component, into: Path) -> list[str]:
    """Download and unpack packages, and name them with their versions."""
    debs, prefix = into / "debs", into / "prefix"
    (debs / "partial").mkdir(parents=True)
    prefix.mkdir()
    for suite, packages in ((OWN, component.own), (NEWER, component.newer), (NEWEST, component.newest)):
        if packages:
            apt = Apt(suite, into / "apt" / suite, debs)
            apt.run("download", *packages)
            if suite == OWN:
                apt.run("install", "--download-only", "--yes", "--no-install-recommends", *packages)
    versions = []
    for deb in sorted(debs.glob("*.deb")):
        call("dpkg-deb", "--extract", str(deb), str(prefix))
        versions.append(" ".join(call("dpkg-deb", "--show", str(deb)).split()))
    for waste in (debs, into / "apt", prefix / "usr/share/doc", prefix / "usr/share/man", prefix / "usr/share/locale"):
        shutil.rmtree(waste, ignore_errors=True)
    (into / "versions.txt").write_text("\n".join(versions) + "\n")
    return versions


class Apt:
    """apt with lists and downloads of its own, and with the machine's mirror, proxies and keys."""

    def __init__(self, suite: str, folder: Path, debs: Path) -> None:
        (folder / "lists" / "partial").mkdir(parents=True)
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        (folder / "sources.list").write_text(f"deb {signed}{mirror()} {suite} main\n")
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder,
            "Dir::Cache::Archives": debs,
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
            "Acquire::http::Timeout": 30,
            "Acquire::Check-Valid-Until": str(suite != NEWEST).lower(),
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "APT::Get::List-Cleanup": "false",
            "Debug::NoLocking": "true",  # nothing of the machine's is changed
        }
        self._start = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in settings.items())]
        self._folder = debs
        try:
            self.run("update")
        except Broken as error:
            if suite == OWN:
                raise CantHere(f"the package mirror doesn't answer ({str(error).splitlines()[-1]})") from error
            raise

    def run(self, *arguments: str) -> None:
        """Run one command of apt-get in the folder of downloads."""
        call(*self._start, *arguments, folder=self._folder)


def mirror() -> str:
    """The mirror that the machine's own apt is set up with."""
    # Not `indextargets`, which knows nothing until somebody has run `apt-get update` on the machine.
    listed = call("apt-get", "update", "--print-uris", "--option=Debug::NoLocking=true")
    found = re.search(rf"^'(\S+?)/*/dists/{OWN}/InRelease'", listed, re.MULTILINE)
    if found:
        return found[1]
    raise CantHere(f"apt is set up without a mirror for {OWN}")


def write_programs(names: Sequence[str], into: Path, final: Path) -> None:
    """Scripts in ``bin`` that run the programs with the libraries that were unpacked beside them."""
    (into / "bin").mkdir()
    there = final / "prefix"
    libraries = [f"{there}/{each}/x86_64-linux-gnu" for each in ("usr/lib", "lib")]
    perl = [
        f"{there}/{each}" for each in ("usr/share/perl5", "usr/share/perl/5.36", "usr/lib/x86_64-linux-gnu/perl/5.36")
    ]
    for name in names:
        found = [path for path in (into / "prefix").glob(f"**/{name}") if path.parent.name in {"bin", "sbin", "podman"}]
        if not found:
            raise Broken(f"no package brought the program {name}")
        program = there / found[0].relative_to(into / "prefix")
        script = into / "bin" / name
        script.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH={":".join(libraries)} PERL5LIB={":".join(perl)} exec {program} "$@"\n'
        )
        script.chmod(0o755)


def call(*command: str, folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a program prints, which must succeed."""
    done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-5:]
        raise Broken(f"{command[0]} ended with {done.returncode}: " + "\n".join(last))
    return done.stdout.decode()


# --- Processes --------------------------------------------------------------------------------------------------------


def alive(pid: int, started: int) -> bool:
    """Whether a process is the one that was started, and more than a zombie, which pid 1 may leave here."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in "ZX" and int(fields[19]) == started


def is_up(name: str) -> bool:
    """Whether what was started under a name still runs."""
    record = recorded().get(name)
    return record is not None and alive(record["pid"], record["started"])


def start(name: str, *command: str, env: Mapping[str, str] | None = None, **more: Any) -> None:
    """Start a program that goes on without us, and write down which process it is."""
    with (state() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env
        )
    started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[19])
    update(**{name: {"pid": process.pid, "started": started, **more}})


def wait_for(name: str, connection: http.client.HTTPConnection, path: str) -> None:
    """Wait until a server answers.

    Raises:
        Broken: it ended, or doesn't answer.
    """
    until = time.monotonic() + SECONDS_TO_START
    while not answers(connection, path):
        if not is_up(name) or time.monotonic() > until:
            last = (state() / f"{name}.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise Broken(f"the {name} {'does not answer' if is_up(name) else 'ended'}:\n" + "\n".join(last))
        time.sleep(0.05)


def answers(connection: http.client.HTTPConnection, path: str) -> bool:
    """Whether a server says 200."""
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(name: str) -> None:
    """End what was started under a name, gently first."""
    record = recorded().get(name)
    if record and is_up(name):
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(record["pid"], how)
            until = time.monotonic() + SECONDS_TO_END
            while is_up(name) and time.monotonic() < until:
                time.sleep(0.05)
    update(**{name: None})


def stop_everything() -> None:
    """End all that was started, and remove what it stored."""
    guard = recorded().get("guard")
    if guard and guard["pid"] != os.getpid():
        stop("guard")
    stop("docker")
    end_leftovers()
    stop("registry")
    for mount in sorted(mounts_below(state()), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    for path in state().iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != "lock":
            path.unlink(missing_ok=True)


def end_leftovers() -> None:
    """End what a Docker engine that was killed leaves running: all that has its socket on the command line."""
    mark = f"{state()}/exec/".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)


def mounts_below(folder: Path) -> list[str]:
    """What is mounted in a folder."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return [each for each in (line.split(" ")[1] for line in lines) if each.startswith(f"{folder}/")]


def start_guard(owner: int) -> None:
    """Have a process wait for the owner's end, so that not even a killed test run leaves anything behind."""
    if not is_up("guard"):
        start("guard", sys.executable, str(Path(__file__).absolute()), "guard", str(owner), env=dict(os.environ))


def guard_over(owner: int) -> None:
    """Wait for a process to end, then end everything."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(owner)
        select.select([descriptor], [], [])
    with locked(state()):
        stop_everything()
    shutil.rmtree(state(), ignore_errors=True)


# --- The registry and Docker ------------------------------------------------------------------------------------------


def start_registry(wanted_port: int) -> None:
    """A registry on loopback, with an empty store; 0 for any free port."""
    if is_up("registry"):
        if wanted_port not in {0, recorded()["registry"]["port"]}:
            raise Broken(f"the registry runs at another port: {registry_host()}")
        return
    for attempt in (1, 2, 3):  # another program may take a free port before the registry does
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", wanted_port))
            port = probe.getsockname()[1]
        settings = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": f"{state()}/registry"}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "only for loopback"},
        }
        (state() / "registry.yml").write_text(json.dumps(settings))  # JSON is YAML
        program = unpacked("registry") / "bin/docker-registry"
        start("registry", str(program), "serve", f"{state()}/registry.yml", port=port)
        try:
            wait_for("registry", http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/v2/")
        except Broken:
            if attempt == 3:
                raise
        else:
            return


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def start_docker() -> None:
    """Docker with containerd's image store and BuildKit.

    Without a bridge, so that the machine's network stays as it is: containers run with ``--network none`` or ``host``.
    """
    if is_up("docker"):
        return
    folder = state()
    config = folder / "docker-config"
    (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
    (config / "config.json").write_text("{}\n")
    plugin = config / "cli-plugins" / "docker-buildx"
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(unpacked("docker") / "prefix/usr/libexec/docker/cli-plugins/docker-buildx")
    settings = {
        "data-root": f"{folder}/data",
        "exec-root": f"{folder}/exec",
        "pidfile": f"{folder}/docker.pid",
        "hosts": [f"unix://{folder}/docker.sock"],
        "features": {"containerd-snapshotter": True},
        "storage-driver": "overlayfs" if can_overlay(folder) else "native",
        "insecure-registries": ["127.0.0.0/8"],
        "bridge": "none",
        "userland-proxy": False,
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "shutdown-timeout": 3,
    }
    (folder / "docker.json").write_text(json.dumps(settings, indent=1))
    for stale in ("docker.pid", "docker.sock"):
        (folder / stale).unlink(missing_ok=True)
    programs = unpacked("docker") / "bin"
    path = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    start("docker", str(programs / "dockerd"), "--config-file", f"{folder}/docker.json", env=path)
    wait_for("docker", UnixConnection(folder / "docker.sock"), "/_ping")


def write_tool_settings() -> None:
    """Settings for skopeo, podman and buildah that name no registry, and a store of their own."""
    folder = state()
    (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    (folder / "registries.conf").write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/containers/run"\ngraphroot = "{folder}/containers/store"\n'
    )
    programs = unpacked("tools") / "bin"
    (folder / "containers.conf").write_text(
        # podman's own limits are higher than root may set in a container without CAP_SYS_RESOURCE.
        f'[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
        f'conmon_path = ["{programs}/conmon"]\nhelper_binaries_dir = ["{programs}"]\n'
        f'static_dir = "{folder}/containers/static"\ntmp_dir = "{folder}/containers/tmp"\n'
        f'[engine.runtimes]\nrunc = ["{programs}/runc"]\n'
    )


def variables() -> dict[str, str]:
    """What programs that use it need in their environment; PATH has only what comes first in it."""
    wanted = recorded().get("wanted", [])
    found = {"PATH": ":".join(f"{unpacked(name)}/bin" for name in wanted)}
    if "registry" in wanted:
        found["REGISTRY"] = registry_host()
    if "docker" in wanted:
        found["DOCKER_HOST"] = f"unix://{state()}/docker.sock"
        found["DOCKER_CONFIG"] = f"{state()}/docker-config"
        found["CONTAINERD_ADDRESS"] = f"{state()}/exec/containerd/containerd.sock"
    if "tools" in wanted:
        found["CONTAINERS_CONF"] = f"{state()}/containers.conf"
        found["CONTAINERS_STORAGE_CONF"] = f"{state()}/storage.conf"
        found["CONTAINERS_REGISTRIES_CONF"] = f"{state()}/registries.conf"
    if "cosign" in wanted:
        found["COSIGN"] = f"{unpacked('cosign')}/bin/cosign"
        found["OLDER_COSIGN"] = f"{unpacked('older-cosign')}/bin/cosign"
    return found


def exports(*, as_json: bool) -> str:
    """The same, by default for a shell."""
    if as_json:
        return json.dumps(variables()) + "\n"
    lines = [
        f"export {name}={shlex.quote(value)}" + (":$PATH" if name == "PATH" else "")
        for name, value in variables().items()
        if value
    ]
    return "".join(f"{line}\n" for line in lines)


def status() -> int:
    """Say what runs; 0 if something does, and nothing that should doesn't."""
    wanted = [name for name in recorded().get("wanted", []) if name in {"registry", "docker"}]
    for name in wanted:
        sys.stdout.write(f"{name}: {'runs' if is_up(name) else 'has ended'}\n")
    if not wanted:
        sys.stdout.write("nothing was started\n")
    return 0 if wanted and all(map(is_up, wanted)) else 1


def registry_host() -> str:
    """HOST:PORT of the registry."""
    record = recorded().get("registry")
    if not record:
        raise Broken("the registry isn't started: run `engine.py up --only registry` first")
    return f"127.0.0.1:{record['port']}"


# --- Base images ------------------------------------------------------------------------------------------------------


def base_image(name: str) -> Path:
    """The OCI image layout of a base, which is made if it isn't there; equal bytes for one state of the mirror."""
    check_machine(())
    make, settings = BASES[name]
    recipe = "".join(inspect.getsource(each) for each in (make, write_layout, write_layer))
    key = hashlib.sha256(f"{OWN} {EPOCH} {settings} {recipe}".encode()).hexdigest()[:12]
    folder = cache() / f"base-{name}-{key}"
    if folder.exists():
        return folder
    unpacked("bases")
    with locked(cache()):
        if not folder.exists():
            began = time.monotonic()
            new = cache() / f"{folder.name}.new"
            shutil.rmtree(new, ignore_errors=True)
            (new / "blobs/sha256").mkdir(parents=True)
            make(new / "rootfs.tar")
            write_layout(new, settings)
            (new / "rootfs.tar").unlink()
            new.rename(folder)
            say(f"base {name}: made in {time.monotonic() - began:.0f} s")
    return folder


def make_busybox(target: Path) -> None:
    """One static busybox, its applets, and the few folders and files that a container wants."""
    program = next((unpacked("bases") / "prefix").glob("**/bin/busybox"))
    applets = call(str(program), "--list").split()
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, mode: int, kind: bytes, data: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.mode, member.type, member.size, member.linkname, member.mtime = mode, kind, len(data), link, EPOCH
            tar.addfile(member, io.BytesIO(data))

        for folder in ("bin", "dev", "etc", "proc", "root", "sys"):
            add(folder, 0o755, tarfile.DIRTYPE)
        add("tmp", 0o1777, tarfile.DIRTYPE)
        add("etc/group", 0o644, tarfile.REGTYPE, b"root:x:0:\nnogroup:x:65534:\n")
        users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        add("etc/passwd", 0o644, tarfile.REGTYPE, users)
        add("bin/busybox", 0o755, tarfile.REGTYPE, program.read_bytes())
        for applet in sorted({*applets} - {"busybox"}):
            add(f"bin/{applet}", 0o777, tarfile.SYMTYPE, link="busybox")


def make_debian(target: Path) -> None:
    """The smallest Debian with apt, and Python; neither the mirror's name nor what only one run leaves is in it."""
    if os.geteuid() != 0:
        raise CantHere("mmdebstrap needs root")
    waste = ("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "var/cache/ldconfig/aux-cache")
    programs = unpacked("bases") / "bin"
    call(
        str(programs / "mmdebstrap"),
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        "--aptopt=Acquire::Languages none",
        *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale", "info")),
        "--include=python3",
        "--customize-hook=rm -f " + " ".join(f'"$1/{each}"' for each in waste),
        OWN,
        str(target),
        mirror(),
        env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "PATH": f"{programs}:{os.environ['PATH']}"},
    )


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASES = {
    "busybox": (make_busybox, {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"]}),
    # The version that this release of Debian has kept since it came out; said as Python's own images say it.
    "debian": (
        make_debian,
        {"Env": [f"PATH={PATH}", "LANG=C.UTF-8", "PYTHON_VERSION=3.11.2"], "Cmd": ["/usr/bin/python3"]},
    ),
}


def write_layout(folder: Path, settings: Mapping[str, Any]) -> None:
    """An OCI image layout of one layer, out of rootfs.tar."""
    layer, diff_id = write_layer(folder)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    config = {
        "architecture": "amd64",
        "config": settings,
        "created": created,
        "history": [{"created": created, "created_by": "tests/engine/engine.py"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": write_json(folder, config, "application/vnd.oci.image.config.v1+json"),
        "layers": [layer],
    }
    entry = write_json(folder, manifest, manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def write_layer(folder: Path) -> tuple[dict[str, Any], str]:
    """Compress rootfs.tar into the blobs: its descriptor, and the digest of the tar."""
    new, diff, packed = folder / "layer.new", hashlib.sha256(), hashlib.sha256()
    squeeze = zlib.compressobj(1, wbits=31)  # wbits: a gzip header without a time
    with (folder / "rootfs.tar").open("rb") as tar, new.open("wb") as out:
        while chunk := tar.read(1 << 20):
            diff.update(chunk)
            piece = squeeze.compress(chunk)
            packed.update(piece)
            out.write(piece)
        piece = squeeze.flush()
        packed.update(piece)
        out.write(piece)
    size = new.stat().st_size
    new.rename(folder / "blobs/sha256" / packed.hexdigest())
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    return {"mediaType": kind, "digest": f"sha256:{packed.hexdigest()}", "size": size}, f"sha256:{diff.hexdigest()}"


def write_json(folder: Path, document: object, kind: str) -> dict[str, Any]:
    """Put a document among the blobs: its descriptor."""
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def push(layout: Path, repository: str) -> str:
    """Push a layout's image to the registry, if it isn't there: its reference by digest."""
    host = registry_host()
    entry = json.loads((layout / "index.json").read_text())["manifests"][0]
    raw = (layout / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
    manifest = json.loads(raw)
    for blob in (manifest["config"], *manifest["layers"]):
        with (layout / "blobs/sha256" / blob["digest"].removeprefix("sha256:")).open("rb") as stream:
            push_blob(host, repository, blob, stream)
    for name in (entry["digest"], "latest"):
        ask(host, "PUT", f"/v2/{repository}/manifests/{name}", raw, {"Content-Type": entry["mediaType"]}, 201)
    return f"{host}/{repository}@{entry['digest']}"


def push_blob(host: str, repository: str, blob: Mapping[str, Any], stream: Any) -> None:
    """Upload one blob in one piece."""
    if ask(host, "HEAD", f"/v2/{repository}/blobs/{blob['digest']}", None, {}, 200, 404)[0] == 200:
        return
    _, place = ask(host, "POST", f"/v2/{repository}/blobs/uploads/", b"", {}, 202)
    place = re.sub(r"^https?://[^/]+", "", place)
    target = f"{place}{'&' if '?' in place else '?'}digest={blob['digest']}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob["size"])}
    ask(host, "PUT", target, stream, headers, 201)


def ask(host: str, method: str, path: str, body: Any, headers: Mapping[str, str], *wanted: int) -> tuple[int, str]:
    """One request to the registry: the status, which must be among those wanted, and the Location."""
    connection = http.client.HTTPConnection(host, timeout=300)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        said = answer.read(500)
        if answer.status not in wanted:
            raise Broken(f"the registry answered {method} {path} with {answer.status}: {said!r}")
        return answer.status, answer.headers.get("Location", "")
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
