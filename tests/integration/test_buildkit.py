"""Images with RUN, built by a real BuildKit, near and far: the same bytes again, or a verdict that says what isn't."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from reprobuild.errors import ExitCode
from reprobuild.image.buildkit import environment_image, settle
from reprobuild.image.engine import common_arguments, find
from reprobuild.image.environment import Environment
from reprobuild.image.target import Target
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import Manifest, Platform
from reprobuild.oci.tree import WHEEL_TIME, Node, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import Cli, Git

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
ENGINE = Path(__file__).parents[1] / "engine" / "engine.py"
EPOCH = 1_700_000_000
SETTINGS = """[project]
name = "demo"
version = "1"
[tool.reprobuild.images.app]
project = false
python = "3.11"
interpreter = "/usr/bin/python3.11"
platform = "x86_64-manylinux_2_28"
"""


class Make(Protocol):
    """The fixture ``demo``."""

    def __call__(self, steps: str, *, epoch: int | None = EPOCH) -> Path:
        """A project whose image does some steps on busybox, in a clean checkout."""


@pytest.fixture
def run(reprobuild: Cli, docker: Mapping[str, str]) -> Cli:
    """The command line, with a real engine and a steady epoch."""

    def started(*args: str | Path, env: Mapping[str, str] | None = None, **more: Any) -> Any:
        return reprobuild(*args, env={"SOURCE_DATE_EPOCH": str(EPOCH), **docker, **(env or {})}, **more)

    return started


@pytest.fixture
def demo(tmp_path: Path, base_image: Callable[[str], str], git: Git) -> Make:
    """A function that makes projects."""

    def made(steps: str, *, epoch: int | None = EPOCH) -> Path:
        folder = tmp_path / "demo"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "images" / "app").mkdir(parents=True)
        (folder / "pyproject.toml").write_text(SETTINGS)
        text = f"FROM {base_image('busybox').replace('@', ':latest@')}\nARG SOURCE_DATE_EPOCH\n{steps}\n"
        (folder / "images" / "app" / "Dockerfile").write_text(text)
        (folder / "app.txt").write_text("one\n")
        git(folder, "init", "--quiet")
        commit(git, folder)
        return folder

    return made


def commit(git: Git, folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state of the test")


@pytest.fixture
def digits(tmp_path: Path, base_image: Callable[[str], str], git: Git, reprobuild: Cli) -> Path:
    """The example with bytecode that RUN compiles and a user that RUN adds, in a clean checkout."""
    folder = tmp_path / "digits"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "venv", "dist", "training"))
    settings = (folder / "pyproject.toml").read_text()
    start, end = settings.index("[tool.reprobuild.images.training]"), settings.index("[tool.reprobuild.images.inf")
    (folder / "pyproject.toml").write_text(settings[:start] + settings[end:])
    path = folder / "images" / "inference" / "Dockerfile"
    text = path.read_text().replace("127.0.0.1:5000/base/debian", base_image("debian").partition("@")[0])
    steps = [
        "ARG SOURCE_DATE_EPOCH",
        'RUN ["/opt/venv/bin/python", "-m", "compileall", "-q", "/opt/venv/lib"]',
        "RUN /usr/sbin/groupadd --gid 65532 app && echo app:x:65532:65532::/:/bin/false >> /etc/passwd",
    ]
    path.write_text(text.replace("USER ", "\n".join([*steps, "USER "])))
    reprobuild("lock", "--project", folder)
    git(folder, "init", "--quiet")
    commit(git, folder)
    return folder


@pytest.mark.long
@pytest.mark.network
def test_an_image_with_run_is_the_same_again_and_runs(
    digits: Path, run: Cli, docker: Mapping[str, str], repository: str, git: Git, tmp_path: Path
) -> None:
    first = run("image", "inference", digits, "-o", f"oci:{tmp_path / 'one'}", "--json").json
    assert first["engine"] == "buildkit"
    other = tmp_path / "a-longer-name-of-a-folder"
    git(tmp_path, "clone", "--quiet", digits, other)
    reference = f"{repository}:1"
    cold = {"REPROBUILD_CACHE_DIR": str(tmp_path / "cold"), "TZ": "Asia/Kathmandu"}
    second = run("image", "inference", other, "--push", reference, "--json", umask=0o077, env=cold).json
    assert second["digest"] == first["digest"]
    assert second["pushed"]["mounted"] > second["pushed"]["sent"] > 0, "the layers of the base are mounted"
    said = run("verify-image", reference, "--project", digits, "--json").json
    assert said["level"] == "identical"
    assert said["platforms"][0]["notes"] == []
    code = "import digits, os, pwd; print(os.path.exists(digits.__cached__), pwd.getpwuid(os.getuid()).pw_name)"
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=/opt/venv/bin/python", reference, "-c", code]
    done = subprocess.run(command, env={**os.environ, **docker}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True app\n", 0), done.stderr


def test_an_archive_and_the_engine_get_the_same(
    demo: Make, run: Cli, docker: Mapping[str, str], tmp_path: Path
) -> None:
    folder = demo("COPY app.txt /srv/\nRUN cat /srv/app.txt > /made")
    name = f"demo-{os.getpid()}:1"
    to = ("-o", f"oci-archive:{tmp_path / 'image.tar'}", "--load", name)
    run("image", "app", folder, *to)
    said = run("verify-image", tmp_path / "image.tar", "--project", folder, "--json").json
    assert said["level"] == "identical"
    command = ["docker", "run", "--rm", "--network=none", name, "cat", "/made"]
    done = subprocess.run(command, env={**os.environ, **docker}, capture_output=True, text=True, check=False)
    assert done.stdout == "one\n", done.stderr
    subprocess.run(["docker", "rmi", "--force", name], env={**os.environ, **docker}, capture_output=True, check=False)


def test_auto_takes_buildkit_for_run_alone(demo: Make, run: Cli) -> None:
    assert run("image", "app", demo("COPY app.txt /srv/"), "--json").json["engine"] == "assembler"
    done = run("image", "app", demo("RUN true"))
    assert "building with BuildKit: images/app/Dockerfile:3: RUN needs a machine" in done.stderr
    assert "[2/2] RUN true" in done.stderr
    assert (
        run("image", "app", demo("COPY app.txt /srv/"), "--engine", "buildkit", "--json").json["engine"] == "buildkit"
    )
    done = run("image", "app", demo("RUN true"), "--engine", "assembler", code=ExitCode.BAD_INPUT)
    assert "--engine buildkit" in done.stderr


def test_a_step_that_is_not_the_same_again_is_found_with_its_file(demo: Make, run: Cli) -> None:
    folder = demo("RUN head -c 8 /dev/urandom > /srv-stamp && echo same > /other")
    run("image", "app", folder)
    done = run("verify-image", "dist/app", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD)
    assert "srv-stamp" in done.stdout
    assert "other" not in done.stdout


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        (
            "COPY --from=environment / /opt/a/\nCOPY --from=environment / /opt/b/",
            "to several places or Pythons: /opt/a",
        ),
        ("RUN --mount=from=environment,target=/opt/a true", "the environment can't be mounted"),
        ("COPY --from=environment /bin /opt/a/", "the environment is copied as a whole"),
    ],
)
def test_an_environment_that_buildkit_can_not_be_given(demo: Make, run: Cli, steps: str, complaint: str) -> None:
    done = run("image", "app", demo(f"{steps}\nRUN true"), code=ExitCode.BAD_INPUT)
    assert complaint in done.stderr


def test_a_step_that_fails_is_told_with_its_line(demo: Make, run: Cli) -> None:
    folder = demo("RUN echo routes: $(wc -l < /proc/net/route); exit 7")
    done = run("image", "app", folder, code=ExitCode.BUILD_FAILED)
    assert "error: BuildKit couldn't build images/app/Dockerfile" in done.stderr
    assert "routes: 1\n" in done.stderr, "RUN has no network: /proc/net/route has its heading alone"
    assert "exit code: 7" in done.stderr
    assert (
        not (folder / "dist" / "app" / "index.json").exists() or not Layout(folder / "dist" / "app").index().manifests
    )


def test_what_was_sent_before_is_not_taken_for_what_is_sent(
    docker: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """BuildKit keeps what it was sent as a context, and compares names, sizes and times alone with the next."""
    for name, value in docker.items():
        monkeypatch.setenv(name, value)
    engine = find()
    target = Target("3.11", "/usr/bin/python3.11", "x86_64-manylinux_2_28")

    def file(path: str, text: bytes) -> Node:
        return Node(f"opt/venv/{path}", "file", 0o640, WHEEL_TIME, content=Text(text))

    for text, more in ((b"one", ()), (b"two", (file("lib/b", b"b"),))):
        folder = tmp_path / text.decode()
        context, out = folder / "context", folder / "out"
        context.mkdir(parents=True)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY --from=environment / /opt/venv/\nCOPY a /a\n")
        (context / "a").write_bytes(text)
        settle(context, EPOCH)
        folders = (Node(path, "directory", 0o755, WHEEL_TIME) for path in ("opt/venv", "opt/venv/lib"))
        skeleton = (*folders, file("lib/a", text), *more)
        environment = Environment(target, skeleton, (), ())
        given = environment_image(environment, Platform("linux", "amd64"), folder / "environment", EPOCH)
        arguments = common_arguments(EPOCH, out)
        engine.buildx(*arguments, "--no-cache", f"--build-context=environment={given}", context)
        layout = Layout(out)
        found = {}
        for layer in Manifest.read(layout.read(layout.find()), "the image").layers:
            with tarfile.open(layout.path_of(layer.digest)) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isfile() else None
                    found[member.name.rstrip("/")] = stream and stream.read(), member.mtime, member.mode
        assert found["a"] == (text, EPOCH, 0o644)
        assert found["opt/venv/lib/a"] == (text, WHEEL_TIME, 0o640)
        assert found["opt/venv/lib"] == (None, WHEEL_TIME, 0o755)


def test_times_do_not_depend_on_what_was_built_before(demo: Make, run: Cli) -> None:
    """A step out of the cache would have the time when it ran, which a later epoch doesn't make younger."""
    folder = demo("COPY app.txt /made/\nRUN mkdir /run-made")
    run("image", "app", folder)
    time.sleep(1.1)
    later = {"SOURCE_DATE_EPOCH": str(int(time.time()))}
    time.sleep(1.1)
    run("image", "app", folder, env=later)
    assert run("verify-image", "dist/app", "--json", cwd=folder).json["level"] == "identical"
    layout = Layout(folder / "dist" / "app")
    manifest = Manifest.read(layout.read(layout.find()), "the image")
    (own, _) = [each for each in manifest.layers if layout.has(each.digest)]
    with tarfile.open(layout.path_of(own.digest)) as tar:
        assert {int(member.mtime) for member in tar} == {int(later["SOURCE_DATE_EPOCH"])}


def test_the_folder_of_an_environment_has_the_time_of_the_commit_that_is_built(demo: Make, run: Cli) -> None:
    """An earlier commit's image had the same environment, and BuildKit has kept what it unpacked for it."""
    folder = demo("COPY --from=environment / /opt/venv/\nRUN touch /made")
    (folder / "images" / "app" / "requirements.txt").write_text("")
    for epoch in (lambda: EPOCH, lambda: int(time.time())):
        time.sleep(1.1)
        now = epoch()
        time.sleep(1.1)
        run("image", "app", folder, "--allow-dirty", env={"SOURCE_DATE_EPOCH": str(now)})
        layout = Layout(folder / "dist" / "app")
        manifest = Manifest.read(layout.read(layout.find()), "the image")
        (own, _) = [each for each in manifest.layers if layout.has(each.digest)]
        with tarfile.open(layout.path_of(own.digest)) as tar:
            assert tar.getmember("opt/venv").mtime == now


# --- elsewhere -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far(docker: Mapping[str, str], base_layout: Callable[[str], Path]) -> Iterator[dict[str, str]]:
    """The environment of a second Docker engine, which has nothing of the first."""
    with tempfile.TemporaryDirectory(prefix="reprobuild-far-", dir="/tmp") as state:
        cache = str(base_layout("busybox").parent)
        own = {**os.environ, "REPROBUILD_ENGINE_STATE": state, "REPROBUILD_ENGINE_CACHE": cache}

        def engine(*arguments: str) -> str:
            command = [sys.executable, str(ENGINE), *arguments]
            done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        try:
            found: dict[str, str] = json.loads(engine("up", "--only", "docker", "--owner", str(os.getpid()), "--json"))
            yield {**found, "PATH": f"{found['PATH']}:{os.environ['PATH']}"}
        finally:
            engine("down")


def test_another_engine_gives_the_same_image(
    demo: Make, run: Cli, docker: Mapping[str, str], far: Mapping[str, str], tmp_path: Path
) -> None:
    folder = demo("COPY app.txt /srv/\nRUN cat /srv/app.txt > /made")
    near = run("image", "app", folder, "-o", f"oci:{tmp_path / 'near'}", "--json").json
    assert docker["DOCKER_HOST"] != far["DOCKER_HOST"]
    there = run("image", "app", folder, "-o", f"oci:{tmp_path / 'far'}", "--json", env=far).json
    assert near["digest"] == there["digest"]
    said = run("verify-image", tmp_path / "near", "--project", folder, "--json", env=far).json
    assert said["level"] == "identical"


@contextmanager
def buildkit_at(host: str) -> Iterator[str]:
    """The BuildKit inside of a Docker engine as a BuildKit of its own, on a port of loopback (moby, `POST /grpc`)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    threading.Thread(target=connect, args=(near,), daemon=True).start()

        def connect(near: socket.socket) -> None:
            there = socket.socket(socket.AF_UNIX)
            there.connect(host.removeprefix("unix://"))
            there.sendall(b"POST /grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += there.recv(1)
            back = threading.Thread(target=pipe, args=(near, there), daemon=True)
            back.start()
            pipe(there, near)
            back.join()
            near.close()
            there.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"


def pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def test_a_builder_of_the_remote_driver_needs_no_docker_here(
    demo: Make, run: Cli, docker: Mapping[str, str], far: Mapping[str, str], tmp_path: Path
) -> None:
    folder = demo("COPY app.txt /srv/\nRUN cat /srv/app.txt > /made")
    near = run("image", "app", folder, "-o", f"oci:{tmp_path / 'near'}", "--json").json
    own = {"BUILDX_CONFIG": str(tmp_path / "buildx"), "DOCKER_HOST": "unix:///nowhere.sock"}
    with buildkit_at(far["DOCKER_HOST"]) as address:
        command = ["docker", "buildx", "create", "--name", "far", "--driver", "remote", address]
        subprocess.run(command, env={**os.environ, **docker, **own}, capture_output=True, check=True)
        remote = ("--builder", "far", "--json")
        there = run("image", "app", folder, "-o", f"oci:{tmp_path / 'far'}", *remote, env=own).json
        assert there["digest"] == near["digest"]
        said = run("verify-image", tmp_path / "near", "--project", folder, *remote, env=own).json
        assert said["level"] == "identical"
    (layout,) = [Layout(tmp_path / "far")]
    (record,) = layout.referrers(layout.find().digest)
    statement = json.loads(layout.read(record.layers[0]))
    internal = statement["predicate"]["buildDefinition"]["internalParameters"]
    assert internal["builder"] == {"name": "far", "driver": "remote", "endpoint": address}
    assert "docker" not in internal["versions"]
    done = run("image", "app", folder, "--builder", "far", env=own, code=ExitCode.TOOL_MISSING)
    assert "buildx" in done.stderr
