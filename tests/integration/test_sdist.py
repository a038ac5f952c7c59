"""Source distributions of each build backend: made twice, signed, and a wheel of them."""

from __future__ import annotations

import gzip
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from reprobuild import lockfile
from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli, Git, Projects

#: The projects, and whether their backend puts the clock or the builder into the archive, whatever the epoch is.
BACKENDS = {
    "with-setuptools": True,
    "with-hatchling": False,
    "with-flit-core": False,
    "with-poetry-core": False,
    "with-pdm-backend": True,
    "with-uv-build": False,
    "with-scikit-build-core": False,
    "with-meson-python": False,
    "with-setuptools-scm": True,
    "with-hatch-vcs": False,
}
TAGGED = ("with-setuptools-scm", "with-hatch-vcs")


def record_of(sdist: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(sdist.with_name(f"{sdist.name}.intoto.json").read_bytes())
    return said


@pytest.fixture
def folder(project: Projects, git: Git, name: str) -> Path:
    where = project(name)
    if name in TAGGED:
        git(where, "tag", "v1.0")
    return where


@pytest.mark.parametrize("name", BACKENDS)
def test_an_sdist_made_twice_has_the_same_bytes(
    folder: Path, name: str, reprobuild: Cli, projects_folder: Path
) -> None:
    built = reprobuild("sdist", "--json", cwd=folder).json
    sdist = folder / built["sdist"]
    record = record_of(sdist)
    definition = record["predicate"]["buildDefinition"]
    assert definition["buildType"] == "https://reprobuild.dev/build-types/sdist/v1"
    assert definition["internalParameters"]["archive"]["rewritten"] is BACKENDS[name]
    schema = projects_folder.parents[1] / "docs" / "schemas" / "sdist-v1.schema.json"
    assert [each.message for each in Draft202012Validator(json.loads(schema.read_text())).iter_errors(record)] == []
    verdict = reprobuild("verify-sdist", "--json", cwd=folder).json
    assert (verdict["level"], verdict["held"], verdict["left"]) == ("identical", [], verdict["right"])
    assert "umask" in verdict["varied"]
    assert verdict["left"]["digest"] == built["digest"]


@pytest.mark.parametrize("name", ["with-setuptools"])
def test_an_archive_that_is_written_anew_has_the_same_members(folder: Path, name: str, reprobuild: Cli) -> None:
    sdist = folder / reprobuild("sdist", "--json", cwd=folder).json["sdist"]
    epoch = record_of(sdist)["predicate"]["buildDefinition"]["externalParameters"]["sourceDateEpoch"]
    raw = sdist.read_bytes()
    assert int.from_bytes(raw[4:8], "little") == epoch
    with tarfile.open(sdist) as tar:
        members = tar.getmembers()
        assert {(each.mtime, each.uid, each.gid, each.uname, each.gname) for each in members} == {(epoch, 0, 0, "", "")}
        assert [each.name for each in members] == sorted(each.name for each in members)
        assert {each.mode for each in members} == {0o644, 0o755}
        told = tar.extractfile("with_setuptools-1.0/pyproject.toml")
        assert told
        assert told.read() == (folder / "pyproject.toml").read_bytes()
    assert gzip.decompress(raw)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_the_backend_needs_for_an_sdist_is_locked(folder: Path, name: str, reprobuild: Cli) -> None:
    """Asked in the build itself: what isn't locked would end it."""
    told = reprobuild("sdist", "-v", cwd=folder, code=None)
    assert "isn't locked" not in told.stderr
    assert told.code == 0
    assert lockfile.read(folder / "constraints.txt").pins


@pytest.mark.parametrize("name", ["with-hatchling"])
def test_an_sdist_is_signed_and_verified(folder: Path, name: str, reprobuild: Cli, tmp_path: Path) -> None:
    sdist = folder / reprobuild("sdist", "--json", cwd=folder).json["sdist"]
    reprobuild("keys", "new", tmp_path / "alice.key")
    reprobuild("keys", "new", tmp_path / "bob.key")
    reprobuild("sign", sdist, "--key", tmp_path / "alice.key")
    vote = reprobuild("verify-sdist", "--attest", tmp_path / "bob.key", "--json", cwd=folder).json["attested"]
    assert ".rebuild.key-" in vote
    policy = tmp_path / "policy.toml"
    policy.write_text('keys = ["alice.pub", "bob.pub"]\nrebuilds = 1\npredicates = ["provenance"]\nbases = ["x"]\n')
    assert reprobuild("verify", sdist, "--policy", policy, "--json").json["passed"]
    policy.write_text('keys = ["alice.pub", "bob.pub"]\nrebuilds = 2\n')
    assert not reprobuild("verify", sdist, "--policy", policy, "--json", code=ExitCode.NOT_VERIFIED).json["passed"]


@pytest.mark.parametrize("name", ["with-hatchling"])
def test_a_changed_sdist_or_record_is_refused(folder: Path, name: str, reprobuild: Cli) -> None:
    sdist = folder / reprobuild("sdist", "--json", cwd=folder).json["sdist"]
    beside = sdist.with_name(f"{sdist.name}.intoto.json")
    kept = beside.read_bytes()
    beside.write_bytes(kept.replace(b"build-types/sdist/v1", b"build-types/wheel/v1"))
    refused = reprobuild("verify-sdist", cwd=folder, code=ExitCode.RECORD_UNUSABLE)
    assert "not the record of an sdist build: its build type" in refused.stderr
    beside.write_bytes(kept)
    sdist.write_bytes(sdist.read_bytes() + b"\0")
    assert "is about" in reprobuild("verify-sdist", cwd=folder, code=ExitCode.RECORD_UNUSABLE).stderr
    beside.unlink()
    assert "`reprobuild sdist` writes both" in reprobuild("verify-sdist", cwd=folder, code=11).stderr


def test_a_difference_has_its_level_and_its_cause(project: Projects, reprobuild: Cli) -> None:
    folder = project("embedded-clock")
    reprobuild("sdist", cwd=folder)
    verdict = reprobuild("verify-sdist", "--json", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD).json
    assert (verdict["level"], [each["name"] for each in verdict["causes"]]) == ("payload", ["clock"])
    reprobuild("verify-sdist", "--accept", "payload", "--no-explain", cwd=folder)


@pytest.mark.parametrize("name", ["with-hatchling"])
def test_no_sdist_of_an_sdist(folder: Path, name: str, reprobuild: Cli) -> None:
    reprobuild("sdist", cwd=folder)
    refused = reprobuild("sdist", folder / "dist" / "with_hatchling-1.0.tar.gz", code=ExitCode.BAD_INPUT)
    assert "is an sdist already" in refused.stderr


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("sdist-no-metadata", "PKG-INFO is missing"),
        ("sdist-of-another", "PKG-INFO is about 'other' '1.0'"),
        ("sdist-two-folders", "it has 2 folders at its top"),
        ("sdist-escaping", "unsafe member name"),
        ("sdist-device", "a character-device"),
        ("sdist-not-a-tar", "is damaged"),
        ("sdist-no-name", "in-tree.tar.gz"),
    ],
)
def test_an_unsound_sdist_is_not_kept(project: Projects, reprobuild: Cli, mode: str, says: str) -> None:
    folder = project("in-tree-backend")
    (folder / "mode").write_text(f"{mode}\n")
    refused = reprobuild("sdist", "--allow-dirty", cwd=folder, code=None)
    assert refused.code in (ExitCode.BUILD_FAILED, ExitCode.BAD_INPUT)
    assert says in refused.stderr
    assert not (folder / "dist").exists()


def test_a_lock_asks_for_both(project: Projects, reprobuild: Cli) -> None:
    """A backend that needs more for an sdist: the lock has it, and the wheel's environment too."""
    folder = project("in-tree-backend")
    (folder / "mode").write_text("asks-for-more-in-an-sdist\n")
    refused = reprobuild("sdist", "--allow-dirty", cwd=folder, code=ExitCode.LOCK_STALE)
    assert "packaging" in refused.stderr
    reprobuild("lock", "--exclude-newer", "2026-11-01", cwd=folder)
    assert "packaging==" in (folder / "constraints.txt").read_text()
    reprobuild("sdist", "--allow-dirty", cwd=folder)
