"""The engine of the tests itself: that it is shared, heals, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ENGINE = Path(__file__).parents[1] / "engine" / "engine.py"


class Engine:
    """An engine apart from the one that the other tests use; both share what is unpacked."""

    def __init__(self, state: Path, cache: Path) -> None:
        self.state = state
        self.variables = {"REPROBUILD_ENGINE_STATE": str(state), "REPROBUILD_ENGINE_CACHE": str(cache)}

    def __call__(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run a command; what it prints."""
        command = [sys.executable, str(ENGINE), *arguments]
        env = os.environ | self.variables | variables
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def process(self, name: str) -> int:
        """The process id that was recorded."""
        found: dict[str, Any] = json.loads((self.state / "engine.json").read_bytes())
        return int(found[name]["pid"])


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(done: Callable[[], bool]) -> None:
    """Wait for something that happens by itself."""
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within 30 s")


@pytest.fixture
def own_engine(base_layout: Callable[[str], Path], registry: str, tmp_path: Path) -> Iterator[Engine]:
    """One with nothing started; everything it needs is unpacked."""
    engine = Engine(tmp_path / "state", base_layout("busybox").parent)
    yield engine
    engine("down")


def test_a_registry_heals_and_ends(own_engine: Engine) -> None:
    assert "REGISTRY=127.0.0.1:" in own_engine("up", "--only", "registry")
    first = own_engine.process("registry")
    own_engine("up", "--only", "registry")
    assert own_engine.process("registry") == first
    assert own_engine("status") == "registry: runs\n"
    os.kill(first, signal.SIGKILL)
    until(lambda: not runs(first))
    assert own_engine("status", code=1) == "registry: has ended\n"
    own_engine("up", "--only", "registry")
    second = own_engine.process("registry")
    assert second != first
    assert runs(second)
    own_engine("down")
    assert not runs(second)
    assert [path.name for path in own_engine.state.iterdir()] == ["lock"]
    assert own_engine("status", code=1) == "nothing was started\n"


def test_a_pid_that_now_is_somebody_elses_is_left_alone(own_engine: Engine) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        own_engine.state.mkdir()
        record = {"registry": {"pid": other.pid, "started": 1, "port": 1}, "wanted": ["registry"]}
        (own_engine.state / "engine.json").write_text(json.dumps(record))
        assert own_engine("status", code=1) == "registry: has ended\n"
        own_engine("down")
        assert runs(other.pid)
        other.kill()


def test_it_ends_with_its_owner_even_if_that_was_killed(own_engine: Engine) -> None:
    with subprocess.Popen(["sleep", "60"]) as owner:
        own_engine("up", "--only", "registry", "--owner", str(owner.pid))
        process = own_engine.process("registry")
        assert runs(process)
        owner.kill()
    until(lambda: not runs(process) and not own_engine.state.exists())


def test_a_base_is_pushed_by_digest_with_every_byte(
    registry: str, base_image: Callable[[str], str], base_layout: Callable[[str], Path]
) -> None:
    reference = base_image("busybox")
    host, _, rest = reference.partition("/")
    repository, _, digest = rest.partition("@")
    assert host == registry
    connection = http.client.HTTPConnection(host, timeout=30)
    kind = "application/vnd.oci.image.manifest.v1+json"
    connection.request("GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": kind})
    served = connection.getresponse().read()
    connection.close()
    blobs = base_layout("busybox") / "blobs" / "sha256"
    assert served == (blobs / digest.removeprefix("sha256:")).read_bytes()
    for each in (json.loads(served)["config"], *json.loads(served)["layers"]):
        connection.request("HEAD", f"/v2/{repository}/blobs/{each['digest']}")
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(each["size"]))
    connection.close()


def test_docker_runs_python_in_the_debian_base(docker: Mapping[str, str], base_image: Callable[[str], str]) -> None:
    code = "import os, platform, ssl, sqlite3; print(platform.python_version() == os.environ['PYTHON_VERSION'])"
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        "--user=65532:65532",
        base_image("debian"),
        "python3",
        "-c",
        code,
    ]
    done = subprocess.run(command, env=os.environ | docker, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_buildkit_builds_on_the_base(
    docker: Mapping[str, str], base_image: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image('busybox')}\nRUN echo built > /made\n")
    target = f"type=oci,dest={tmp_path}/image.tar,rewrite-timestamp=true"
    build = ["docker", "buildx", "build", "--network=none", "--provenance=false", "--output", target, str(tmp_path)]
    done = subprocess.run(build, env=os.environ | docker, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "image.tar").stat().st_size > 500_000


def test_a_machine_without_apt_is_told_so_in_one_line(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "state", tmp_path / "cache")
    said = engine("up", "--only", "registry", code=3, PATH=str(tmp_path))
    assert said.startswith("engine: can't run here: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "cache").exists()
