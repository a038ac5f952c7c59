"""A whole lock, made again for real: to the end, interrupted and resumed, and with a hash that nobody offers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from reprobuild.errors import ExitCode
from reprobuild.index import Index

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

PINS = {"six": "1.17.0", "idna": "3.20", "iniconfig": "2.3.1"}

pytestmark = pytest.mark.network


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., Path]:
    """A requirements.txt with the hashes of every file; those of the files whose name ends so are all zeros."""

    def write(zeroed: dict[str, str] | None = None) -> Path:
        index = Index(tmp_path)
        lines = []
        for name, version in PINS.items():
            ending = (zeroed or {}).get(name, "\0")
            hashes = (
                "0" * 64 if each.file.filename.endswith(ending) else each.file.digest.hex
                for each in index.release(name, version)
            )
            lines.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{each}" for each in hashes)]))
        path = tmp_path / "requirements.txt"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def left_running(text: str) -> list[str]:
    """The command lines of processes that name something."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def test_a_lock_is_interrupted_resumed_and_reported(reprobuild: Cli, lock: Callable[..., Path], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    own = {"TMPDIR": str(scratch), "REPROBUILD_CACHE_DIR": str(tmp_path / "cache")}
    options = ["verify-wheels", "--from", str(lock()), "--jobs", "2", "--json"]
    command = [sys.executable, "-m", "reprobuild", *options]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("identical"):
                break
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    assert first.returncode == ExitCode.INTERRUPTED, err
    assert out == ""
    assert "--resume takes what was found out." in err
    assert list(scratch.iterdir()) == []
    assert left_running(str(tmp_path)) == []

    junit = tmp_path / "report.xml"
    ended = reprobuild(*options, "--resume", "--junit", junit, env=own)
    packages = {each["name"]: each for each in ended.json["packages"]}
    assert list(packages) == list(PINS)
    assert {each["level"] for each in packages.values()} == {"identical"}
    assert all(each["wheel"]["locked"] and each["sdist"]["locked"] for each in packages.values())
    resumed = [name for name, each in packages.items() if each["resumed"]]
    assert 1 <= len(resumed) < len(PINS)
    assert ended.json["summary"]["resumed"] == len(resumed)
    assert [name for name in PINS if f"{name} {PINS[name]}: try 1" in ended.stderr] == [
        name for name in PINS if name not in resumed
    ]
    assert packages["six"]["replayed"]
    assert len(list(ET.parse(junit).iter("testcase"))) == len(PINS)
    assert list(scratch.iterdir()) == []

    again = reprobuild(*options, "--resume", env=own)
    assert again.json["summary"]["resumed"] == len(PINS)


def test_a_hash_that_nobody_offers_is_an_error_and_no_gap(reprobuild: Cli, lock: Callable[..., Path]) -> None:
    path = lock({"six": ".whl", "idna": ".tar.gz"})
    options = ["--json", "--skip", "iniconfig", "--allow-unchecked"]
    ended = reprobuild("verify-wheels", "--from", path, *options, code=ExitCode.INDEX_FAILED)
    six, idna, skipped = ended.json["packages"]
    assert [six["result"], idna["result"], skipped["result"]] == ["failed", "failed", "skipped"]
    assert six["error"] == idna["error"] == "INDEX_FAILED"
    assert f"sha256:{'0' * 64}" in idna["reason"]
    assert ended.json["summary"]["compared"] == 0
