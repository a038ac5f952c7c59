"""The Docker engine and the BuildKit that build images with RUN: found, questioned and tried out.

Versions say little (Debian's BuildKit calls itself ``v0.0.0+unknown``), and an old BuildKit ignores what it doesn't
know. So what matters is tried once with a build of one file, and what comes out is looked at.
"""

import functools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reprobuild import process
from reprobuild.archive import Entry
from reprobuild.errors import ReprobuildError, ToolMissing, redacted, shown
from reprobuild.files import scratch_folder
from reprobuild.image.store import InLayout, images_of
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import Platform
from reprobuild.oci.rootfs import open_layer
from reprobuild.progress import SILENT, Observer

#: Variables that say where the engine is and how to get there; buildx gets no others of its own.
_PASSED_ON = ("DOCKER_", "BUILDX_", "BUILDKIT_", "KUBE", "SSH_AUTH_SOCK")
#: They would put something of the machine into the image.
_WITHHELD = ("BUILDX_GIT_", "DOCKER_DEFAULT_PLATFORM", "BUILDKIT_PROGRESS")
_CONTAINERD = ["driver-type", "io.containerd.snapshotter.v1"]
_SECONDS = 120  # until an engine has said what it is
_GET_DOCKER = "Install Docker 26 or newer with buildx 0.13 or newer, or name another builder with --builder."
_GET_STORE = (
    'Set "features": {"containerd-snapshotter": true} in its daemon.json and restart it, or make a builder of another '
    "kind: docker buildx create --name own --driver docker-container; then --builder own."
)
_LINE = re.compile(r"\s*(?P<key>[A-Za-z][A-Za-z ]*?):\s+(?P<value>\S.*?)\s*")
_EPOCH = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Engine:
    """A builder of buildx that does all that is needed.

    Attributes:
        builder: its name; empty for the one that buildx takes by itself.
        endpoint: where it is, without credentials.
        versions: of ``buildx``, ``buildkit`` and, where Docker itself builds, ``docker``, in their own words.
        platforms: what it can run.
    """

    builder: str
    name: str
    driver: str
    endpoint: str
    versions: Mapping[str, str] = field(hash=False)
    platforms: tuple[Platform, ...]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"the builder {self.name} (driver {self.driver}, {versions})"

    def runs(self, platform: Platform) -> bool:
        """Whether RUN works for a platform, by itself or by emulation."""
        return any(each.suits(platform) for each in self.platforms)

    def buildx(
        self, *arguments: str | Path, on_line: Callable[[str], None] | None = None, timeout: float | None = None
    ) -> process.Completed:
        """Have it build.

        Raises:
            ToolFailed: the build failed.
            ToolTimeout: it took too long.
        """
        named = (f"--builder={self.builder}",) if self.builder else ()
        return docker("buildx", "build", *named, *arguments, on_line=on_line, timeout=timeout)


def docker(
    *arguments: str | Path, on_line: Callable[[str], None] | None = None, timeout: float | None = None
) -> process.Completed:
    """Run the docker command with the user's own settings of where the engine is.

    Raises:
        ToolMissing: there is no such command.
        ToolFailed, ToolTimeout: it failed, or took too long.
    """
    env = process.tool_environment(dict(_settings()))
    return process.run(["docker", *arguments], env=env, on_line=on_line, timeout=timeout)


def _settings() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name.startswith(_PASSED_ON) and not name.startswith(_WITHHELD):
            yield name, value


def find(builder: str = "", observer: Observer = SILENT) -> Engine:
    """The builder that a user means, asked what it is and tried out; within one process once.

    Args:
        builder: one of `docker buildx ls`; empty for the present one.

    Raises:
        ToolMissing: there is no engine or no buildx, or it is too old or set up in a way that doesn't do.
    """
    observer.step("asking the engine what it can do")
    return _found(builder, tuple(sorted(_settings())))


@functools.lru_cache(maxsize=8)
def _found(builder: str, settings: tuple[tuple[str, str], ...]) -> Engine:  # noqa: ARG001 - part of the key
    version = _buildx_version()
    told = _inspected(builder, version)
    name, driver = told["Name"][0], told["Driver"][0]
    versions = {"buildx": version, "buildkit": ", ".join(_unique(_versions_in(told))) or "unknown"}
    endpoints = _unique(told.get("Endpoint", []))
    if driver == "docker":
        versions = {"docker": _questioned(endpoints[0] if endpoints else "default", name), **versions}
    platforms = (each.strip(" *") for line in told.get("Platforms", []) for each in line.split(","))
    engine = Engine(
        builder,
        name,
        driver,
        ", ".join(redacted(each) for each in endpoints),
        versions,
        tuple(Platform.parse(each) for each in _unique(platforms) if each.count("/") in (1, 2)),
    )
    _try_out(engine)
    return engine


def _buildx_version() -> str:
    try:
        words = docker("buildx", "version", timeout=_SECONDS).stdout.decode(errors="replace").split()
    except process.ToolFailed as error:
        raise ToolMissing("This machine's `docker` has no buildx.", _GET_DOCKER) from error
    return shown(words[1].removeprefix("v") if len(words) > 1 else "unknown")


def _inspected(builder: str, version: str) -> dict[str, list[str]]:
    """What buildx says of a builder and its nodes, by what it is about."""
    try:
        named = [builder] if builder else []
        text = docker("buildx", "inspect", "--bootstrap", *named, timeout=_SECONDS).stdout.decode(errors="replace")
    except process.ToolFailed as error:
        raise _unreachable(builder, version, error.output) from error
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            found.setdefault(match["key"], []).append(match["value"])
    if "Error" in found or "Name" not in found or "Driver" not in found:
        raise _unreachable(builder, version, "\n".join(found.get("Error", [text])))
    return found


def _unreachable(builder: str, version: str, said: str) -> ToolMissing:
    lines = [line for line in said.strip().splitlines() if line.strip()] or ["it said nothing"]
    what = f"doesn't reach the builder {builder}" if builder else "reaches no engine"
    return ToolMissing(
        f"buildx {version} {what}: {redacted(shown(lines[-1].removeprefix('ERROR: ')))}",
        "Start Docker, say where it is with DOCKER_HOST, or name a builder of `docker buildx ls` with --builder.",
    )


def _versions_in(told: Mapping[str, Sequence[str]]) -> list[str]:
    return [each for key, values in told.items() if key.lower() in ("buildkit version", "buildkit") for each in values]


def _unique(values: Any) -> list[str]:  # noqa: ANN401 - any iterable of texts
    return list(dict.fromkeys(each for each in values if each))


def require_sdk() -> None:
    """Raise ToolMissing unless the Docker SDK is here, which is an extra."""
    try:
        import docker  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ToolMissing(
            "There is no Docker SDK here.", "Install reprobuild[docker] instead of reprobuild."
        ) from error


def _questioned(endpoint: str, name: str) -> str:
    """The version of the Docker engine that builds by itself, which needs containerd's image store for that.

    Args:
        endpoint: a Docker context's name.
    """
    require_sdk()
    import docker as sdk  # noqa: PLC0415 - an extra
    from docker.context import ContextAPI  # noqa: PLC0415
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        context = ContextAPI.get_context(endpoint) if endpoint != "default" else None
        client: Any = (
            sdk.DockerClient(base_url=context.Host, tls=context.TLSConfig or False, timeout=_SECONDS)
            if context
            else sdk.from_env(timeout=_SECONDS)
        )
        with closing(client):
            version, status = str(client.version().get("Version", "unknown")), client.info().get("DriverStatus")
    except (DockerException, OSError) as error:
        raise ToolMissing(
            f"The Docker engine of the builder {name} doesn't answer: {redacted(shown(error))}.",
            "Start it, or say where it is with DOCKER_HOST.",
        ) from error
    if _CONTAINERD not in [list(each) for each in status or []]:
        raise ToolMissing(
            f"Docker {shown(version)} keeps images in its old store, from which it can't export OCI images; "
            "it takes Docker 26 or newer with containerd's image store.",
            _GET_STORE,
        )
    return shown(version)


def _try_out(engine: Engine) -> None:
    """Export an image of one file that is newer than the epoch, and see which time the file has there.

    Raises:
        ToolMissing: the export isn't possible, or the file kept its time.
    """
    try:
        probe = _built_probe(engine, "FROM scratch\nCOPY probe /\n")
    except process.ToolFailed as error:
        reason = error.output.strip().splitlines()[-1:] or ["it said nothing"]
        if f"docker --context={engine.builder} buildx" in reason[0]:
            raise ToolMissing(
                f"{engine.builder} is no builder of its own: {redacted(shown(reason[0]))}",
                f"It is a context of Docker: DOCKER_CONTEXT={engine.builder} without DOCKER_HOST and --builder.",
            ) from error
        raise ToolMissing(
            f"{str(engine).capitalize()} can't export an OCI image: {redacted(shown(reason[0]))}",
            f"{_GET_DOCKER} {_GET_STORE}",
        ) from error
    except (ReprobuildError, ValueError, IndexError) as error:
        raise ToolMissing(f"{str(engine).capitalize()} exports no OCI image: {error}", _GET_DOCKER) from error
    if probe is None or probe.seconds != _EPOCH:
        raise ToolMissing(
            f"{str(engine).capitalize()} ignores rewrite-timestamp: images would hold the time of the build. "
            "It takes BuildKit 0.13 or newer, which Docker has from 26 on.",
            _GET_DOCKER,
        )


def has_symbolic_modes(engine: Engine, frontend: str = "") -> bool:
    """Whether ``--chmod=u=rw`` does something, which Dockerfiles before 1.14 ignore without a word.

    Args:
        frontend: the image that reads the Dockerfile; empty for the engine's own.
    """
    syntax = f"# syntax={frontend}\n" if frontend else ""
    try:
        probe = _built_probe(engine, f"{syntax}FROM scratch\nCOPY --chmod=u=rw,go= probe /\n")
    except process.ToolFailed:
        return False
    return probe is not None and probe.mode == 0o600


def _built_probe(engine: Engine, dockerfile: str) -> Entry | None:
    """An empty file that is newer than the epoch, in an image that an engine exports; None where it isn't in it."""
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-probe-") as scratch:
        context, out = scratch / "context", scratch / "out"
        context.mkdir()
        (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
        (context / "probe").write_bytes(b"")
        (context / "probe").chmod(0o644)
        os.utime(context / "probe", (2 * _EPOCH, 2 * _EPOCH))
        engine.buildx(*common_arguments(_EPOCH, out), context, timeout=_SECONDS)
        (image,) = images_of(InLayout(Layout(out)), Layout(out).find(), "the trial image")
        with open_layer(image.blob(image.manifest.layers[-1]), name="the trial image") as layer:
            return next((entry for entry in layer.entries if entry.name == "probe"), None)


def common_arguments(epoch: int, out: Path, compression: str = "gzip") -> list[str]:
    """What each build says: where the image goes, with which times, and without evidence in its index."""
    place = str(out).replace('"', '""')
    output = f'type=oci,"dest={place}",tar=false,rewrite-timestamp=true,oci-mediatypes=true,compression={compression}'
    return [
        "--progress=plain",
        "--provenance=false",
        "--sbom=false",
        f"--build-arg=SOURCE_DATE_EPOCH={epoch}",
        f"--output={output}",
    ]
