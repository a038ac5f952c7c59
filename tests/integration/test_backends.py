"""Each build backend, from its lock to two equal digests; and a wrong hash, which each must refuse."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import zipfile
from typing import TYPE_CHECKING

import pytest

from reprobuild import interpreter, lockfile, memory, process
from reprobuild.digest import Digest
from reprobuild.errors import ExitCode
from reprobuild.index import Index, release_key
from reprobuild.variations import VARIATIONS
from reprobuild.wheelfile import read_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli, Git, Projects

BACKENDS = {
    "with-hatchling": "hatchling",
    "with-setuptools": "setuptools",
    "with-flit-core": "flit-core",
    "with-poetry-core": "poetry-core",
    "with-pdm-backend": "pdm-backend",
    "with-uv-build": "uv-build",
    "with-c-extension": "setuptools",
    "with-setuptools-scm": "setuptools",
    "with-hatch-vcs": "hatchling",
}
#: Those whose version is the tag of a commit.
TAGGED = ("with-setuptools-scm", "with-hatch-vcs")
ZERO = "sha256:" + "0" * 64
HASH = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture
def backend_project(project: Projects, git: Git, compiler: str, name: str) -> Path:
    """A clean checkout of the project ``name``."""
    if name == "with-c-extension" and not compiler:
        pytest.skip("there is no C compiler here")
    folder = project(name)
    if name in TAGGED:
        git(folder, "tag", "v1.0")
    return folder


@pytest.mark.parametrize("name", BACKENDS)
def test_a_wheel_made_twice_has_the_same_bytes(backend_project: Path, name: str, reprobuild: Cli) -> None:
    built = reprobuild("wheel", "--json", cwd=backend_project).json
    wheel = backend_project / built["wheel"]
    assert str(read_wheel(wheel).version) == "1.0"
    assert str(Digest.of_file(wheel)) == built["digest"]
    if name == "with-uv-build":
        locked = {pin.name: pin.version for pin in lockfile.read(backend_project / "constraints.txt").pins}["uv-build"]
        assert str(locked) not in process.run(["uv", "--version"], env=process.tool_environment()).stdout.decode()
        assert read_wheel(wheel).generator == f"uv {locked}"
    if name == "with-setuptools":
        members = set(zipfile.ZipFile(wheel).namelist())
        assert {"with_setuptools/data/one.txt", "with_setuptools-1.0.dist-info/entry_points.txt"} <= members

    shown = reprobuild("verify-wheel", cwd=backend_project)
    assert "identical" in shown.stdout
    assert shown.stdout.count(built["digest"]) == 2
    assert set(HASH.findall(shown.stdout)) == {built["digest"]}


@pytest.mark.parametrize("name", ["with-hatchling", "with-setuptools"])
def test_everything_is_varied_at_once(
    backend_project: Path, name: str, reprobuild: Cli, bubblewrap: None, compiler: str
) -> None:
    reprobuild("wheel", cwd=backend_project)
    verdict = reprobuild("verify-wheel", "--json", "--vary", "all", cwd=backend_project).json
    assert verdict["level"] == "identical"
    assert verdict["left"] == verdict["right"]
    assert len(VARIATIONS) == 13
    assert sorted([*verdict["varied"], *verdict["notVaried"], *verdict["held"]]) == sorted(VARIATIONS)
    # setuptools gives the members of a wheel whatever modes the umask leaves.
    assert verdict["held"] == (["umask"] if name == "with-setuptools" else [])
    # Little shared memory: nothing here keeps the order in which files are made. And machines have one Python or more.
    missing = [] if verdict["sandbox"]["fixed_directory_order"] else ["directory-order"]
    missing += [] if compiler else ["clock"]
    assert sorted(verdict["notVaried"].keys() - {"python"}) == sorted(missing)


def test_an_extension_gets_the_flags_that_python_was_compiled_with(
    project: Projects, reprobuild: Cli, compiler: str
) -> None:
    if not compiler:
        pytest.skip("there is no C compiler here")
    told = reprobuild("wheel", "-v", cwd=project("with-c-extension")).stderr
    line = next(line for line in told.splitlines() if "gcc" in line and " -c " in line)
    flags = sysconfig.get_config_var("CFLAGS").split()
    assert "-DNDEBUG" in flags
    assert set(flags) <= set(line.split())


@pytest.mark.network
@pytest.mark.parametrize("name", ["with-hatchling", "with-setuptools-scm"])
def test_a_second_lock_changes_no_byte(backend_project: Path, name: str, reprobuild: Cli) -> None:
    locks = [backend_project / lock for lock in ("constraints.txt", "requirements.txt")]
    for lock in locks:
        lock.unlink()
    first = reprobuild("lock", "--exclude-newer", "2026-11-01", cwd=backend_project)
    assert first.stdout == "wrote constraints.txt\nwrote requirements.txt\n"
    before = [lock.read_bytes() for lock in locks]
    assert not any(b"://" in text for text in before)
    assert reprobuild("lock", cwd=backend_project).stdout == "unchanged constraints.txt\nunchanged requirements.txt\n"
    assert [lock.read_bytes() for lock in locks] == before
    reprobuild("lock", "--check", cwd=backend_project)


@pytest.mark.parametrize("name", BACKENDS)
def test_plain_uv_builds_with_the_same_lock(backend_project: Path, name: str) -> None:
    command = [str(process.find("uv")), "build", "--build-constraint=constraints.txt", "--require-hashes", "--wheel"]
    done = subprocess.run(
        [*command, "--python", sys.executable], cwd=backend_project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((backend_project / "dist").glob("*.whl"))) == 1


def test_no_committed_lock_names_an_index(projects_folder: Path) -> None:
    locks = [*projects_folder.glob("*/constraints.txt"), *projects_folder.glob("*/requirements.txt")]
    assert len(locks) > 40
    assert [lock for lock in locks if "://" in lock.read_text()] == []


@pytest.mark.parametrize("name", BACKENDS)
def test_zeroed_hashes_are_refused(backend_project: Path, name: str, reprobuild: Cli, git: Git) -> None:
    lock = backend_project / "constraints.txt"
    lock.write_text(HASH.sub(ZERO, lock.read_text()))
    git(backend_project, "commit", "-aqm", "zero every hash")
    refused = reprobuild("wheel", cwd=backend_project, code=ExitCode.INDEX_FAILED)
    assert "whose hash is in the lock" in refused.stderr
    assert not (backend_project / "dist").exists()


@pytest.mark.parametrize("name", BACKENDS)
def test_one_zeroed_hash_is_refused(backend_project: Path, name: str, reprobuild: Cli, git: Git) -> None:
    """The hash of the very file that a build would use; the hash of its sdist stays right."""
    lock = backend_project / "constraints.txt"
    python = interpreter.find(None)
    files = Index(backend_project).choose(lockfile.read(lock).selected(python.markers).values(), python)
    used = next(str(file.digest) for file in files if file.name == BACKENDS[name])
    lock.write_text(lock.read_text().replace(used, ZERO))
    git(backend_project, "commit", "-aqm", "zero one hash")
    refused = reprobuild("wheel", cwd=backend_project, code=ExitCode.INDEX_FAILED)
    assert f"No suitable file of {BACKENDS[name]} " in refused.stderr
    assert not (backend_project / "dist").exists()


def test_a_committed_wrong_hash_is_refused_and_mended_by_what_is_advised(
    project: Projects, reprobuild: Cli, git: Git
) -> None:
    folder = project("wrong-hash")
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.INDEX_FAILED)
    advised = re.search(r"remedy: Run `reprobuild (lock --upgrade)`", refused.stderr)
    assert advised, refused.stderr
    assert not (folder / "dist").exists()
    reprobuild(*advised[1].split(), cwd=folder)
    git(folder, "commit", "-aqm", "lock again")
    reprobuild("wheel", cwd=folder)


def test_a_file_that_the_index_swapped_is_refused(
    project: Projects, reprobuild: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right name and the promised hash, but other bytes: a folder of links tells no hashes."""
    folder = project("with-flit-core")
    lock = folder / "constraints.txt"
    python = interpreter.find(None)
    (used,) = Index(folder).choose(lockfile.read(lock).pins, python)
    links = tmp_path / "links"
    links.mkdir()
    (links / used.filename).write_bytes(b"not the file that was locked")
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cold"))
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.INDEX_FAILED)
    assert "No suitable file of flit-core" in refused.stderr
    # The name is remembered from better days, so now it comes to the bytes.
    names = release_key("flit-core", str(used.version))
    memory.remember("releases", names, {**memory.recall("releases", names), str(used.digest): used.filename})
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.DIGEST_MISMATCH)
    assert f"but {used.digest} was promised" in refused.stderr
    assert not (folder / "dist").exists()
