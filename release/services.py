"""What a rehearsed release talks to, all on loopback: a registry and Docker, an index, advisories, a Sigstore.

They are those of the tests. Three run in threads of this process; the registry and Docker are processes that end when
it does, even if it is killed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
CANT_HERE = 3  # engine.py's exit code


class CantHere(Exception):
    """This machine is not one where a registry can be started: nothing is wrong."""


@dataclass
class Services:
    """Where each of them is.

    Attributes:
        variables: how programs find the registry and Docker.
        base: the image that stands for the released image's base, by digest.
        advisories: the folder of those that the audit hears of.
        parts: what ends each of them alone.
        place: where the registry and Docker keep what they have.
        instance: another one each time, since the registry begins empty.
    """

    variables: dict[str, str]
    base: str
    advisories: Path
    osv: str
    sigstore: Any
    index: Any
    parts: dict[str, ExitStack] = field(default_factory=dict)
    place: Path = Path()
    instance: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def registry(self) -> str:
        """HOST:PORT."""
        return self.variables["REGISTRY"]

    @property
    def has_docker(self) -> bool:
        """Whether images can be run, and built by BuildKit."""
        return "DOCKER_HOST" in self.variables


def module(path: Path) -> ModuleType:
    """A file of the tests as a module."""
    name = f"services_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # data classes look there
    spec.loader.exec_module(found)
    return found


def engine(folder: Path, *arguments: str) -> str:
    """Run tests/engine/engine.py with its state in a folder; what it prints.

    Raises:
        CantHere: this machine isn't one for it.
    """
    settings = {**os.environ, "REPROBUILD_ENGINE_STATE": str(folder)}
    command = [sys.executable, str(TESTS / "engine" / "engine.py"), *arguments]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode == CANT_HERE:
        raise CantHere(done.stderr.strip().removeprefix("engine: "))
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.strip()


@contextmanager
def running(state: Path) -> Iterator[Services]:
    """Start them all, and end them whatever happens.

    Args:
        state: the folder of the rehearsal, where the ports are written down so that they are the same the next time.
    """
    # Docker's socket lies there, and a socket's path can't be long.
    place = Path(tempfile.mkdtemp(prefix="release-", dir="/tmp"))
    try:
        with ExitStack() as all_of_them:
            all_of_them.callback(engine, place, "down")
            owner = ["--owner", str(os.getpid())]
            port = ["--port", str(known_port(state, "registry"))]
            said = engine(place, "up", "--only", "registry", "--only", "docker", "--json", *port, *owner)
            base = engine(place, "base", "debian")
            yield replace(started(state, json.loads(said), base, all_of_them), place=place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def started(state: Path, variables: dict[str, str], base: str, until: ExitStack) -> Services:
    """Start those that are threads, beside a registry that runs."""
    advisories = state / "advisories"
    if not advisories.exists():
        shutil.copytree(TESTS / "osv" / "advisories", advisories)
    (state / "sigstore").mkdir(exist_ok=True)
    found = Services(variables, base, advisories, "", None, None)
    for name, path, folder in (
        ("osv", "osv/server.py", advisories),
        ("sigstore", "sigstore/stack.py", state / "sigstore"),
        ("index", "index/server.py", state / "index"),
    ):
        part = until.enter_context(ExitStack())
        server = part.enter_context(module(TESTS / path).running(folder, known_port(state, name)))
        setattr(found, name, f"{server.url}/v1/query" if name == "osv" else server)
        found.parts[name] = part
    return found


def known_port(state: Path, name: str) -> int:
    """A port that was free when it was asked for first; what names it has the same digest in each run."""
    path = state / "ports.json"
    ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    if name not in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports[name] = probe.getsockname()[1]
        state.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ports))
    return ports[name]
