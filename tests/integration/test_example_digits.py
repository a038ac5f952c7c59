"""examples/digits in an ordinary virtual environment: it learns the same model twice, and answers over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli, Git

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"

pytestmark = pytest.mark.network


@pytest.fixture
def example(tmp_path: Path, git: Git) -> Path:
    """A copy in a git repository of its own."""
    folder = tmp_path / "digits"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "dist"))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


def environment(image: str, example: Path, reprobuild: Cli) -> Path:
    """A virtual environment of one image's lock and the project's wheel: its programs' folder."""
    venv = example.parent / f"venv-{image}"
    uv("venv", "--quiet", "--python", sys.executable, venv)
    install = ("pip", "install", "--quiet", "--python", venv / "bin" / "python")
    uv(
        *install,
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--requirement",
        f"{example}/images/{image}/requirements.txt",
    )
    if not (example / "dist").exists():
        reprobuild("wheel", "--quiet", cwd=example)
    uv(*install, "--no-deps", *(example / "dist").glob("*.whl"))
    uv("pip", "check", "--quiet", "--python", venv / "bin" / "python")
    return venv / "bin"


def uv(*arguments: str | Path) -> None:
    """Run uv, which must succeed."""
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def train(programs: Path, out: Path, **variables: str) -> dict[str, Any]:
    """Train a model: its metrics."""
    command = [str(programs / "digits-train"), "--out", str(out)]
    subprocess.run(command, env=os.environ | variables, check=True, capture_output=True)
    found: dict[str, Any] = json.loads((out / "metrics.json").read_bytes())
    return found


@pytest.fixture
def model(example: Path, reprobuild: Cli, tmp_path: Path) -> Path:
    """A model that was trained twice, the second time with another hash seed and another number of threads."""
    programs = environment("training", example, reprobuild)
    metrics = train(programs, tmp_path / "one", PYTHONHASHSEED="1", OPENBLAS_NUM_THREADS="1")
    assert train(programs, tmp_path / "two", PYTHONHASHSEED="2", OPENBLAS_NUM_THREADS="2") == metrics
    assert metrics["accuracy"] > 0.95
    assert metrics["held_out"] == 450
    for name in ("model.safetensors", "metrics.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    return tmp_path / "one" / "model.safetensors"


@pytest.fixture
def server(example: Path, reprobuild: Cli, model: Path) -> Iterator[http.client.HTTPConnection]:
    """The server, in the environment of the inference image, which lacks what only training needs."""
    programs = environment("inference", example, reprobuild)
    lacks = subprocess.run([programs / "python", "-c", "import sklearn"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in lacks.stderr
    command = [str(programs / "digits-serve"), "--model", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        try:
            said = process.stdout.readline()
            port = re.search(r":(\d+)$", said.strip())
            assert port, said
            yield http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=30)
        finally:
            process.terminate()


def ask(server: http.client.HTTPConnection, method: str, path: str, document: Any = None) -> tuple[int, Any]:
    """One request: the status and the document."""
    server.request(method, path, None if document is None else json.dumps(document))
    answer = server.getresponse()
    found = json.loads(answer.read())
    server.close()
    return answer.status, found


#: A drawn zero, row by row, each pixel from 0 to 9; a 7 drawn the same way.
ZERO = "00398000 03999300 09605900 09000900 09000900 09000900 08906900 00899300"
SEVEN = "00999990 00999990 00000990 00009900 00099000 00990000 00990000 00990000"


def pixels(drawing: str) -> list[float]:
    """A drawing on the data set's scale."""
    return [int(each) * 16 / 9 for each in drawing.replace(" ", "")]


def test_the_same_model_twice_and_a_prediction_over_http(server: http.client.HTTPConnection) -> None:
    """One test, since its two environments take most of the time."""
    assert ask(server, "GET", "/health") == (200, {"status": "ready"})
    for drawing, digit in ((ZERO, 0), (SEVEN, 7)):
        status, answer = ask(server, "POST", "/predict", {"image": pixels(drawing)})
        assert (status, answer["digit"]) == (200, digit)
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    bad: list[Any] = [
        {"image": [1, 2]},
        {"image": "text"},
        {},
        [],
        {"image": [float("nan")] * 64},
        {"image": [None] * 64},
    ]
    for wrong in bad:
        assert ask(server, "POST", "/predict", wrong)[0] == 400
    assert ask(server, "POST", "/other", {})[0] == 404


def test_the_locks_are_fresh(example: Path, reprobuild: Cli) -> None:
    reprobuild("lock", "--check", "--no-images", cwd=example)
