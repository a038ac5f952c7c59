"""Wheels that somebody else published, checked against the sdists beside them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from typing import TYPE_CHECKING

import pytest

from reprobuild.errors import ExitCode
from reprobuild.index import Index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli

SIX = "six-1.17.0-py2.py3-none-any.whl"
SIX_DIGEST = "sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"

pytestmark = pytest.mark.network


def test_a_wheel_that_holds_the_time_of_its_build(reprobuild: Cli) -> None:
    said = reprobuild("verify-wheel", "six==1.17.0", "--json").json
    assert said["level"] == "identical"
    assert said["left"] == said["right"]
    assert said["left"]["digest"] == SIX_DIGEST
    guesses = {guess["name"]: guess["value"] for guess in said["guesses"]}
    assert guesses["backend"] == "setuptools==75.6.0"
    assert guesses["clock"] == "no SOURCE_DATE_EPOCH"
    replayed = said["clock"]["replayed"]
    assert "six.py" not in replayed
    assert all(name.startswith("six-1.17.0.dist-info/") for name in replayed)


def test_a_wheel_that_was_made_under_an_epoch(reprobuild: Cli) -> None:
    told = reprobuild("verify-wheel", "click==8.5.1").stdout
    assert "SOURCE_DATE_EPOCH of 2026-11-06" in told
    assert "clock: replayed" not in told
    assert told.splitlines()[-1] == "identical: the two have the same bytes"


def test_a_wheel_that_its_sdist_does_not_make(reprobuild: Cli, tmp_path: Path) -> None:
    """A folder of links comes before the index: there the wheel has one line more, and its RECORD says so."""
    folder = tmp_path / "links"
    folder.mkdir()
    index = Index(tmp_path)
    index.fetch([each.file for each in index.release("six", "1.17.0")], folder)
    tamper(folder / SIX)
    ended = reprobuild(
        "verify-wheel", "six==1.17.0", "--json", env={"UV_FIND_LINKS": str(folder)}, code=ExitCode.DIFFERS_PAYLOAD
    )
    assert ended.json["level"] == "payload"
    assert len(ended.json["tries"]) > 1
    named = {difference["path"][0]: difference["cause"] for difference in ended.json["differences"]}
    assert named["six.py"] == "not-as-in-sdist"


def tamper(wheel: Path) -> None:
    """Add a line to a wheel's module, and mend its RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    evil = next(content for info, content in members.items() if info.filename == "six.py") + b"EVIL = True\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(evil).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members.items():
            changed = evil if info.filename == "six.py" else content
            if info.filename.endswith("RECORD"):
                lines = [line for line in content.decode().splitlines() if not line.startswith("six.py,")]
                changed = "\n".join([f"six.py,sha256={digest},{len(evil)}", *lines, ""]).encode()
            archive.writestr(info, changed)


@pytest.mark.parametrize(
    ("what", "name", "value"),
    [
        ("pep517==0.9.1", "backend", "flit-core==3.0.0 by itself, as flit_core.buildapi"),
        ("rsa==4.9", "zip entries", "as Python writes them on Windows"),
        ("filelock==3.0.12", "modes", "the sdist's own"),
    ],
)
def test_a_wheel_that_was_made_in_an_unusual_way(reprobuild: Cli, what: str, name: str, value: str) -> None:
    said = reprobuild("verify-wheel", what, "--json").json
    assert said["level"] == "identical"
    assert {"name": name, "value": value} in [
        {"name": guess["name"], "value": guess["value"]} for guess in said["guesses"]
    ]


def test_a_wheel_with_files_that_its_sdist_lacks(reprobuild: Cli) -> None:
    said = reprobuild("verify-wheel", "more-itertools==8.0.2", "--json", code=ExitCode.DIFFERS_PAYLOAD).json
    assert [cause["name"] for cause in said["causes"]] == ["not-in-sdist"]
    assert len(said["tries"]) == 1  # no guess could mend that


def test_a_release_that_is_not_there(reprobuild: Cli) -> None:
    ended = reprobuild("verify-wheel", "six==99", code=ExitCode.INDEX_FAILED)
    assert "The index has no wheel of six 99." in ended.stderr
    assert "is not NAME==VERSION" in reprobuild("verify-wheel", "six==x", code=ExitCode.BAD_INPUT).stderr
