"""The rehearsal of a release: each planted failure stops it before anything has a name, and mended it goes on.

Two stories, so that two workers share them, and what is built once serves for all of one: each takes some minutes, and
needs the engine of the tests.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Git

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.network
CLOCK = """\
import time
from pathlib import Path
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        Path(self.root, "src/reprobuild/stamp.txt").write_text(str(time.time_ns()))
"""
NO_REGISTRY = "no answer: Connection refused"
#: As OSV's database has them.
ADVISORY = {
    "id": "GHSA-0000-test-0001",
    "summary": "A planted one",
    "modified": "2026-11-01T00:00:00Z",
    "published": "2026-11-01T00:00:00Z",
    "aliases": ["CVE-2026-99999"],
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "click"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch, engine_cache: None) -> Any:
    """The module, as release/rehearsal.py imports its neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "release"))
    import rehearsal  # noqa: PLC0415 - found there

    return rehearsal


@pytest.fixture
def source(tmp_path: Path, git: Git) -> Path:
    """This repository as it is, in one commit."""
    folder = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


class Story:
    """One release, tried again and again."""

    def __init__(self, rehearsal: Any, state: Path, source: Path, services: Any) -> None:
        self.rehearsal, self.state, self.source, self.services = rehearsal, state, source, services

    def attempt(self, **settings: str) -> Any:
        """Run it; the report."""
        return self.rehearsal.Rehearsal(self.state, self.source, self.services, **settings).run()

    def stops(self, step: str, code: int, said: str, **settings: str) -> list[str]:
        """Run it: it has to stop there, with the step's own words, and leave no name; the steps that were done anew."""
        report = self.attempt(**settings)
        assert report["stopped"], report
        assert (report["steps"][-1]["step"].split(" (")[0], report["stopped"]["code"]) == (step, code), self.log(step)
        assert said in self.log(step), self.log(step)
        assert self.named() == (set(), set())
        return [each["step"] for each in report["steps"] if each["status"] == "done"]

    def log(self, step: str) -> str:
        """What a step said, on each machine."""
        logs = sorted((self.state / "log").glob(f"{step.replace(' ', '-')}-(*).log"))
        return "\n".join(path.read_text() for path in logs)

    def named(self) -> tuple[set[str], set[str]]:
        """The tags in the registry, but for those of referrers, and the files on the index."""
        tags: list[str] = []
        with suppress(OSError), closing(open_at(self.services.registry)) as connection:
            connection.request("GET", "/v2/reprobuild/cli/tags/list")
            tags = json.loads(connection.getresponse().read()).get("tags") or []
        packages = self.state / "index" / "packages"
        return {tag for tag in tags if not tag.startswith("sha256-")}, {each.name for each in packages.iterdir()}

    def kill_registry(self) -> None:
        """End it; what it has stays."""
        pid = json.loads((self.services.place / "engine.json").read_text())["registry"]["pid"]
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                open_at(self.services.registry).close()
            except OSError:
                return
            time.sleep(0.1)
        raise AssertionError("the registry didn't end")

    def start_registry(self) -> None:
        """Start it at the same port."""
        port = self.services.registry.rpartition(":")[2]
        self.rehearsal.local.engine(self.services.place, "up", "--only", "registry", "--port", port)


@pytest.fixture
def story(rehearsal: Any, source: Path, tmp_path: Path) -> Iterator[Story]:
    """Services of its own, which can be stopped."""
    state = tmp_path / "state"
    state.mkdir()
    try:
        with rehearsal.local.running(state) as services:
            yield Story(rehearsal, state, source, services)
    except rehearsal.local.CantHere as why:
        pytest.skip(f"no engine: {why}")


# The index's own framework leaves files to the collector, and it runs in this process.
leaves_files = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.long
@leaves_files
def test_what_is_wrong_with_a_commit_stops_its_release(story: Story, source: Path, git: Git) -> None:
    """Mended, each gets as far as the next; after the last one, as far as it can get without a registry."""
    pyproject = source / "pyproject.toml"
    sound = pyproject.read_text()

    pyproject.write_text(sound.replace('    "click>=8.2",\n', '    "click>=8.2",\n    "colorama>=0.4",\n'))
    git(source, "commit", "--quiet", "--all", "--message", "A requirement that nobody locked")
    story.stops("check", ExitCode.LOCK_STALE, "colorama")
    git(source, "revert", "--no-edit", "HEAD")

    planted = story.services.advisories / f"{ADVISORY['id']}.json"
    planted.write_text(json.dumps(ADVISORY))
    story.stops("check", ExitCode.VULNERABLE, "99.1")
    planted.unlink()

    (source / "hatch_build.py").write_text(CLOCK)
    pyproject.write_text(sound + "\n[tool.hatch.build.targets.wheel.hooks.custom]\n")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "The clock in a file")
    anew = story.stops("wheel", ExitCode.DIFFERS_PAYLOAD, "stamp.txt")
    assert anew == ["check (builder)"]
    git(source, "revert", "--no-edit", "HEAD")

    story.kill_registry()
    anew = story.stops("images", ExitCode.REGISTRY_FAILED, NO_REGISTRY)
    assert {each.split(" (")[0] for each in anew} == {"check", "wheel", "sdist", "compare"}


@pytest.mark.long
@leaves_files
def test_what_is_wrong_around_a_release_stops_it_and_mended_it_completes(story: Story) -> None:
    story.kill_registry()
    story.stops("images", ExitCode.REGISTRY_FAILED, NO_REGISTRY)
    story.start_registry()

    anew = story.stops(
        "verify", ExitCode.NOT_VERIFIED, "signature", signer="mallory/other/.github/workflows/release.yml"
    )
    assert not {each for each in anew if each.startswith(("check", "wheel", "sdist"))}

    index = story.services.parts["index"]
    index.close()
    anew = story.stops("publish", ExitCode.PUBLISH_FAILED, story.services.index.url.rstrip("/"))
    # The votes are about what was built, whoever signed it.
    assert [each.split(" (")[0] for each in anew] == ["sbom sign", "push", "verify"]

    with ExitStack() as again:
        server = story.rehearsal.local.module(ROOT / "tests" / "index" / "server.py")
        port = int(story.services.index.url.rstrip("/").rpartition(":")[2])
        story.services.index = again.enter_context(server.running(story.state / "index", port))
        report = story.attempt()
        assert report["passed"], report["stopped"]
        done = {each["step"].split(" (")[0] for each in report["steps"] if each["status"] == "done"}
        assert done == {"verify", "publish", "try", "notes"}

        made = {each["name"]: each for each in report["artifacts"]}
        assert len(made) == 3
        assert all(len(each["votes"]) == 2 and each["level"] == "identical" for each in made.values())
        wheel, sdist = (next(name for name in made if name.endswith(end)) for end in (".whl", ".tar.gz"))
        assert story.named() == ({"0.1.0"}, {wheel, sdist})
        assert all(each.attestations for each in story.services.index.uploads if each.status == 200)
        assert "installed by pip and uv" in made[wheel]["published"]
        assert "ran" in made["cli"]["published"]
        assert made[wheel]["digest"][:23] in story.rehearsal.table(report)
        notes = story.log("notes")
        assert all(each["digest"] in notes for each in made.values())
        assert f"reprobuild verify {made['cli']['where']} --policy policy.toml" in notes


@pytest.mark.long
def test_an_interrupted_rehearsal_leaves_nothing_running(engine_cache: None, source: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = str(ROOT / "release" / "rehearsal.py")
    command = [sys.executable, script, "--state", str(state), "--source", str(source)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 300
        while process.poll() is None and not list((state / "log").glob("check*.log")) and time.monotonic() < until:
            time.sleep(0.1)
        if process.poll() == 3:
            pytest.skip(f"no engine: {process.stderr.read() if process.stderr else ''}")
        assert process.poll() is None
        ports = json.loads((state / "ports.json").read_text())
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
        assert process.returncode == ExitCode.INTERRUPTED
        assert "failed" not in said  # of steps that it ended itself
    for port in ports.values():
        with pytest.raises(OSError, match="refused"):
            open_at(f"127.0.0.1:{port}")
    mark = str(state).encode()
    alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path)]
    assert alive == []


def open_at(where: str) -> http.client.HTTPConnection:
    """A connection that is there."""
    connection = http.client.HTTPConnection(where, timeout=10)
    connection.connect()
    return connection


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
