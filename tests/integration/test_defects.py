"""What verify-wheel says of each defect: the level, the guilty variation and the named cause."""

from __future__ import annotations

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from reprobuild import process
from reprobuild.causes import CAUSES
from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Cli, Git, MakeSdist, Projects

#: project → (the one guilty variation, its cause)
LEAKS = {
    "unsorted-glob": ("directory-order", "file-order"),
    "build-path": ("path", "build-path"),
    "umask-leak": ("umask", "umask"),
    "locale-leak": ("locale", "locale"),
    "hash-seed-order": ("hash-seed", "hash-seed"),
    "home-leak": ("home", "home"),
    "hostname-leak": ("hostname", "hostname"),
    "user-leak": ("user", "user"),
    "timezone-leak": ("timezone", "timezone"),
    "jobs-leak": ("jobs", "jobs"),
    "cpu-count-leak": ("jobs", "jobs"),
    "environment-leak": ("noise", "environment"),
    "python-leak": ("python", "python-version"),
}
#: Those in whose bytes nothing accuses anybody. Of the others one rebuild with everything varied, one with nothing, one
#: for each suspect (an order has two), and one or two for all others are all it takes.
UNRECOGNISED = {"umask-leak", "locale-leak", "jobs-leak", "cpu-count-leak", "environment-leak"}


@pytest.mark.parametrize("name", LEAKS)
def test_the_guilty_variation_is_named(name: str, project: Projects, reprobuild: Cli, bubblewrap: None) -> None:
    variation, cause = LEAKS[name]
    folder = project(name)
    reprobuild("wheel", cwd=folder)
    chosen = ["--vary", "all"] if variation == "python" else []
    ended = reprobuild("verify-wheel", "--json", *chosen, cwd=folder, code=None)
    verdict = ended.json
    if why := verdict["notVaried"].get(variation):
        pytest.skip(f"this machine can't vary the {variation}: {why}")
    assert ended.code == ExitCode.DIFFERS_PAYLOAD
    assert verdict["level"] == "payload"
    assert verdict["left"] != verdict["right"]
    assert (verdict["unvaried"], verdict["held"]) == ("identical", [])
    (guilt,) = verdict["guilty"]
    assert (guilt["variations"], [each["name"] for each in guilt["causes"]]) == ([variation], [cause])
    assert [each["name"] for each in verdict["causes"]] == [cause]
    changed = {each["path"][0] for each in verdict["differences"] if not each["follows"]}
    module = f"{name.replace('-', '_')}.py"
    assert changed == {module}
    assert {where.partition(" of ")[2] for where in guilt["where"]} == {module}
    assert verdict["rebuilds"] <= (10 if name in UNRECOGNISED else 6)


def test_modes_are_traced_to_the_umask_that_is_asked_for(project: Projects, reprobuild: Cli) -> None:
    """Nobody asks for the umask by name to hear that it was held."""
    folder = project("with-setuptools")
    reprobuild("wheel", cwd=folder)
    ended = reprobuild("verify-wheel", "--vary", "umask", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD)
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("umask → ")]
    assert line.startswith("umask → mode of with_setuptools/__init__.py, ")
    assert line.endswith(f"; remedy: {CAUSES['umask'].remedy}")
    assert "held" not in ended.stdout
    assert "made again 2 times" in ended.stdout
    reprobuild("verify-wheel", "--vary", "path,hash-seed", cwd=folder)


def test_a_variation_that_doesnt_matter_is_not_accused(project: Projects, reprobuild: Cli) -> None:
    folder = project("home-leak")
    reprobuild("wheel", cwd=folder)
    verdict = reprobuild("verify-wheel", "--json", "--vary", "path,user", cwd=folder).json
    assert (verdict["level"], verdict["varied"], verdict["rebuilds"]) == ("identical", ["path", "user"], 1)
    assert verdict["notVaried"]["home"] == "not asked for"


def test_no_explain_is_one_rebuild(project: Projects, reprobuild: Cli, bubblewrap: None) -> None:
    folder = project("user-leak")
    reprobuild("wheel", cwd=folder)
    verdict = reprobuild("verify-wheel", "--json", "--no-explain", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD).json
    assert verdict["guilty"] == []
    assert verdict["unvaried"] == ""
    assert [each["name"] for each in verdict["causes"]] == ["user"]
    reprobuild("verify-wheel", "--no-explain", "--accept", "metadata", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD)
    reprobuild("verify-wheel", "--no-explain", "--accept", "payload", cwd=folder)


def test_a_clock_is_traced_by_stopping_it(project: Projects, reprobuild: Cli, compiler: str) -> None:
    folder = project("embedded-clock")
    reprobuild("wheel", cwd=folder)
    ended = reprobuild("verify-wheel", "--json", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD)
    verdict = ended.json
    assert verdict["level"] == "payload"
    assert verdict["unvaried"] == "unsteady"
    # Without a compiler no program can be shown another clock.
    assert [guilt["variations"] for guilt in verdict["guilty"]] == ([["clock"]] if compiler else [])
    assert ("clock" in verdict["varied"]) is bool(compiler)
    assert [each["name"] for each in verdict["causes"]] == ["clock"]


def test_a_person_is_told_the_cause_and_its_remedy(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("embedded-clock")
    built = reprobuild("wheel", "--json", cwd=folder).json
    shown = reprobuild("verify-wheel", cwd=folder, code=ExitCode.DIFFERS_PAYLOAD).stdout
    for words in (built["digest"], "payload", "embedded_clock.py", CAUSES["clock"].summary, CAUSES["clock"].remedy):
        assert words in shown


# --- line endings ----------------------------------------------------------------------------------


def test_line_endings_of_the_checkout_dont_matter(project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    origin = project("crlf")
    git(tmp_path, "clone", "--quiet", origin, "unix")
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", origin, "windows")
    assert b"\r\n" in (tmp_path / "windows/src/crlf/poem.txt").read_bytes()
    assert b"\r\n" not in (tmp_path / "unix/src/crlf/poem.txt").read_bytes()
    digests = {reprobuild("wheel", "--json", cwd=tmp_path / each).json["digest"] for each in ("unix", "windows")}
    assert len(digests) == 1
    reprobuild("verify-wheel", cwd=tmp_path / "windows")


def test_diff_names_line_endings(project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    origin = project("crlf")
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", origin, "windows")
    for folder in (origin, tmp_path / "windows"):
        command = [str(process.find("uv")), "build", "--quiet", "--wheel", "--build-constraint=constraints.txt"]
        subprocess.run(command, cwd=folder, check=True)
    left, right = (folder / "dist/crlf-1.0-py3-none-any.whl" for folder in (origin, tmp_path / "windows"))
    verdict = reprobuild("diff", "--json", left, right, code=ExitCode.DIFFERS_PAYLOAD).json
    assert verdict["level"] == "payload"
    assert [each["name"] for each in verdict["causes"]] == ["line-endings"]
    assert CAUSES["line-endings"].remedy in reprobuild("diff", left, right, code=ExitCode.DIFFERS_PAYLOAD).stdout


# --- a tree with changes ---------------------------------------------------------------------------


def test_a_dirty_tree_is_refused(project: Projects, reprobuild: Cli) -> None:
    folder = project("dirty")
    (folder / "src/dirty/__init__.py").write_text("CHANGED = True\n")
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.SOURCE_UNUSABLE)
    assert "src/dirty/__init__.py" in refused.stderr
    assert "--allow-dirty" in refused.stderr
    assert not (folder / "dist").exists()


def test_a_dirty_tree_can_be_verified_until_it_changes(project: Projects, reprobuild: Cli) -> None:
    folder = project("dirty")
    module = folder / "src/dirty/__init__.py"
    module.write_text("CHANGED = True\n")
    built = reprobuild("wheel", "--allow-dirty", "--json", cwd=folder).json
    assert built["source"]["kind"] == "dirty"
    assert '"kind":"dirty"' in (folder / f"{built['wheel']}.intoto.json").read_text()
    reprobuild("verify-wheel", cwd=folder)
    module.write_text("CHANGED = 'again'\n")
    refused = reprobuild("verify-wheel", cwd=folder, code=ExitCode.SOURCE_UNUSABLE)
    assert "is not the source that was built" in refused.stderr
    assert "remedy:" in refused.stderr


# --- the network -----------------------------------------------------------------------------------


class _Asked(HTTPServer):
    """A server on loopback that remembers whether anybody asked it anything."""

    requests = 0

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Asked)
        self.server.requests += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"an answer")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
        pass


@pytest.fixture
def server() -> Iterator[_Asked]:
    with _Asked(("127.0.0.1", 0), _Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["bubblewrap", "unshare", "plain"])
def test_setup_py_cant_reach_the_network(
    kind: str, project: Projects, reprobuild: Cli, git: Git, server: _Asked, sandbox_kinds: dict[str, str]
) -> None:
    if why := sandbox_kinds[kind]:
        pytest.skip(f"the sandbox kind {kind} doesn't work here: {why}")
    folder = project("network-in-setup")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("http://127.0.0.1:9/", server.url()))
    git(folder, "commit", "-aqm", "ask a server that is there")
    failed = reprobuild("wheel", "--sandbox", kind, cwd=folder, code=ExitCode.BUILD_FAILED)
    assert "URLError" in failed.stderr
    assert "A build has no network" in failed.stderr
    assert not (folder / "dist").exists()
    assert server.requests == 0


def test_a_swallowed_network_error_is_a_build_without_the_answer(
    project: Projects, reprobuild: Cli, git: Git, server: _Asked
) -> None:
    folder = project("network-in-setup")
    pyproject, setup = folder / "pyproject.toml", folder / "setup.py"
    pyproject.write_text(pyproject.read_text().replace("http://127.0.0.1:9/", server.url()))
    asking = next(line for line in setup.read_text().splitlines() if "urlopen(" in line)
    setup.write_text(setup.read_text().replace(asking, f"    try:\n    {asking}\n    except OSError:\n        pass"))
    git(folder, "commit", "-aqm", "don't mind when nobody answers")
    reprobuild("wheel", cwd=folder)
    reprobuild("verify-wheel", cwd=folder)
    assert server.requests == 0


# --- a build requirement without a wheel -------------------------------------------------------------


def test_a_build_requirement_that_is_only_an_sdist(
    project: Projects, reprobuild: Cli, make_sdist: MakeSdist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project("sdist-only-requirement")
    sdist = make_sdist(folder / "only-as-sdist", tmp_path / "links")
    monkeypatch.setenv("UV_FIND_LINKS", str(sdist.parent))
    reprobuild("wheel", cwd=folder)
    record = next((folder / "dist").glob("*.intoto.json")).read_text()
    for name in ("only_as_sdist-1.0.tar.gz", "hatchling-"):
        assert name in record
    verdict = reprobuild("verify-wheel", "--json", cwd=folder).json
    assert verdict["level"] == "identical"


@pytest.mark.network
def test_the_lock_holds_what_the_sdist_itself_needs(
    project: Projects, reprobuild: Cli, make_sdist: MakeSdist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project("sdist-only-requirement")
    sdist = make_sdist(folder / "only-as-sdist", tmp_path / "links")
    monkeypatch.setenv("UV_FIND_LINKS", str(sdist.parent))
    before = (folder / "constraints.txt").read_bytes()
    (folder / "constraints.txt").unlink()
    reprobuild("lock", "--exclude-newer", "2026-11-01", cwd=folder)
    assert (folder / "constraints.txt").read_bytes() == before
    assert b"hatchling==" in before
