"""Locks: what gets in, what doesn't, when they change, and where uv is told to look.

Nearly everything here goes through a package index of the test's own, on loopback.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import tomllib
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from packaging.pylock import Pylock

from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli, Git, Projects

USER, PASSWORD = "somebody", "correct-horse-battery"

HEAD = """[build-system]
requires = [{build}]
build-backend = "backend"
backend-path = ["."]

[project]
name = "in-tree-backend"
version = "1.0"
requires-python = ">=3.11"
dependencies = [{runtime}]
{more}
[tool.reprobuild]
exclude-newer = false
"""


def make_wheel(folder: Path, name: str, version: str, *requires: str) -> Path:
    """A wheel with nothing but metadata in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for member, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{member},sha256={digest},{len(text)}\n")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in {**files, f"{info}/RECORD": "".join(rows) + f"{info}/RECORD,,\n"}.items():
            wheel.writestr(zipfile.ZipInfo(member), text)
    return path


class PackageIndex(ThreadingHTTPServer):
    """The simple API (PEP 503) over a folder of wheels."""

    def __init__(self, folder: Path, *, private: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder = folder
        self.private = private
        self.refused = 0
        self.uploaded: dict[str, str] = {}

    def url(self, credentials: str = "") -> str:
        return f"http://{credentials}127.0.0.1:{self.server_port}/simple/"


class _Answer(BaseHTTPRequestHandler):
    server: PackageIndex

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.server.private and self.headers.get("Authorization") != expected:
            self.server.refused += 1
            self._answer(401, b"", **{"WWW-Authenticate": 'Basic realm="private"'})
            return
        kind, _, name = self.path.strip("/").partition("/")
        files = sorted(self.server.folder.glob("*.whl"))
        if kind == "files":
            found = [path for path in files if path.name == name]
            self._answer(200 if found else 404, found[0].read_bytes() if found else b"")
            return
        if self.server.uploaded:
            self._answer_with_times(name, files)
            return
        links = [
            f'<a href="/files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
            for path in files
            if path.name.replace("_", "-").startswith(f"{name}-")
        ]
        page = f"<!DOCTYPE html><html><body>{'<br>'.join(links)}</body></html>".encode()
        self._answer(200 if links else 404, page, **{"Content-Type": "text/html"})

    def _answer_with_times(self, name: str, files: list[Path]) -> None:
        """The simple API in JSON (PEP 691), which alone tells upload times (PEP 700)."""
        listed = [
            {
                "filename": path.name,
                "url": f"/files/{path.name}",
                "hashes": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
                "size": path.stat().st_size,
                "upload-time": self.server.uploaded[path.name],
            }
            for path in files
            if path.name.startswith(f"{name}-")
        ]
        versions = [path.name.split("-")[1] for path in files if path.name.startswith(f"{name}-")]
        page = {"meta": {"api-version": "1.1"}, "name": name, "versions": versions, "files": listed}
        kind = "application/vnd.pypi.simple.v1+json"
        self._answer(200 if listed else 404, json.dumps(page).encode(), **{"Content-Type": kind})

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., PackageIndex]]:
    """Start an index; it stops at the end of the test."""
    started: list[tuple[PackageIndex, threading.Thread]] = []

    def start(*, private: bool = False) -> PackageIndex:
        index = PackageIndex(tmp_path / "packages", private=private)
        index.folder.mkdir(exist_ok=True)
        thread = threading.Thread(target=index.serve_forever, daemon=True)
        thread.start()
        started.append((index, thread))
        return index

    yield start
    for index, thread in started:
        index.shutdown()
        thread.join()
        index.server_close()


@pytest.fixture
def cold_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of this test's own, empty."""
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache/reprobuild"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache/uv"))
    return tmp_path / "cache"


@pytest.fixture
def index(serve: Callable[..., PackageIndex], cold_caches: Path, monkeypatch: pytest.MonkeyPatch) -> PackageIndex:
    """An index with alpha, beta and gamma, the only one that uv knows."""
    started = serve()
    make_wheel(started.folder, "alpha", "1.0")
    make_wheel(started.folder, "beta", "1.0", "gamma")
    make_wheel(started.folder, "gamma", "1.0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", started.url())
    return started


@pytest.fixture
def make_project(project: Projects, git: Git) -> Callable[..., Path]:
    """A project that is built with some requirements and runs with others."""

    def make(build: str = "", runtime: str = "", more: str = "", tail: str = "") -> Path:
        folder = project("in-tree-backend")
        text = HEAD.format(build=build, runtime=runtime, more=more) + tail
        (folder / "pyproject.toml").write_text(text)
        for lock in ("constraints.txt", "requirements.txt"):
            (folder / lock).unlink()
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "without locks")
        return folder

    return make


def pins(lock: Path) -> list[str]:
    """The pins of a lock, with their markers."""
    return [line.removesuffix(" \\") for line in lock.read_text().splitlines() if re.match("[a-z]", line)]


# --- what gets in ------------------------------------------------------------------------------------


def test_build_and_runtime_requirements_stay_apart(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    folder = make_project('"alpha"', '"beta"')
    ended = reprobuild("lock", cwd=folder)
    assert ended.stdout == "wrote constraints.txt\nwrote requirements.txt\n"
    assert pins(folder / "constraints.txt") == ["alpha==1.0"]
    assert pins(folder / "requirements.txt") == ["beta==1.0", "gamma==1.0"]
    for lock in ("constraints.txt", "requirements.txt"):
        text = (folder / lock).read_text()
        assert "://" not in text
        assert "127.0.0.1" not in text
        assert text.count("--hash=sha256:") == len(pins(folder / lock))


def test_selections(index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli) -> None:
    for name in ("delta", "epsilon", "on_windows", "on_old"):
        make_wheel(index.folder, name, "1.0")
    more = """
[project.optional-dependencies]
plots = ["delta"]

[dependency-groups]
test = ["epsilon"]
"""
    tail = """
[tool.reprobuild.images.training]
extras = ["plots"]
python = "3.12"
platform = "x86_64-manylinux_2_28"

[tool.reprobuild.images.inference]
project = false
groups = ["test"]

[tool.reprobuild.environments.dev]
extras = ["plots"]
groups = ["test"]
"""
    runtime = '"alpha", "on-windows; sys_platform == \'win32\'", "on-old; python_version < \'3.12\'"'
    folder = make_project("", runtime, more, tail)
    told = reprobuild("lock", "--json", cwd=folder).json
    others = ["environments/dev", "images/inference", "images/training"]
    assert told["locks"] == ["constraints.txt", *(f"{each}/requirements.txt" for each in others), "requirements.txt"]
    assert sorted(told["written"]) == told["locks"]
    windows, old = "on-windows==1.0 ; sys_platform == 'win32'", "on-old==1.0 ; python_full_version < '3.12'"
    assert pins(folder / "constraints.txt") == []
    assert pins(folder / "requirements.txt") == ["alpha==1.0", old, windows]
    assert pins(folder / "images/training/requirements.txt") == ["alpha==1.0", "delta==1.0"]
    assert pins(folder / "images/inference/requirements.txt") == ["epsilon==1.0"]
    assert pins(folder / "environments/dev/requirements.txt") == [
        *("alpha==1.0", "delta==1.0", "epsilon==1.0", old, windows)
    ]


def test_what_the_backend_asks_for_is_locked(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli, git: Git
) -> None:
    make_wheel(index.folder, "packaging", "24.0", "gamma")
    folder = make_project('"alpha"')
    (folder / "mode").write_text("asks-for-more\n")
    git(folder, "commit", "-aqm", "ask for more")
    reprobuild("lock", cwd=folder)
    assert pins(folder / "constraints.txt") == ["alpha==1.0", "gamma==1.0", "packaging==24.0"]
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "locks")
    reprobuild("wheel", cwd=folder)
    reprobuild("verify-wheel", cwd=folder)


@pytest.mark.parametrize("place", ["build", "runtime"])
def test_a_url_requirement_is_refused(
    place: str, index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    url = f"http://{USER}:{PASSWORD}@127.0.0.1:{index.server_port}/files/alpha-1.0-py3-none-any.whl"
    folder = make_project(**{place: f'"alpha @ {url}"'})
    refused = reprobuild("lock", cwd=folder, code=ExitCode.BAD_INPUT)
    assert "is a URL, and a lock holds names, versions and hashes alone" in refused.stderr
    assert "remedy: Publish it to an index, or name a released version." in refused.stderr
    assert PASSWORD not in refused.stderr + refused.stdout
    assert not (folder / "constraints.txt").exists()
    assert not (folder / "requirements.txt").exists()


def test_a_repository_without_a_commit_can_be_locked(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    folder = make_project('"alpha"')
    (folder / ".git").rename(tmp_path / "gone")
    git(folder, "init", "--quiet")
    reprobuild("lock", cwd=folder)
    assert pins(folder / "constraints.txt") == ["alpha==1.0"]


METADATA_HOOK = """

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    import os, tempfile
    Path("leftover").touch()
    Path("mode").write_text("changed")
    Path(tempfile.gettempdir(), "temporary").touch()
    Path(folder, INFO).mkdir()
    text = "Metadata-Version: 2.1\\nName: in-tree-backend\\nVersion: 1.0\\nRequires-Dist: beta\\n"
    Path(folder, INFO, "METADATA").write_text(text)
    return INFO
"""


@pytest.fixture
def dynamic(make_project: Callable[..., Path], git: Git) -> Callable[..., Path]:
    """A project whose requirements only its backend knows, which leaves files where it runs."""

    def make(build: str = "", more: str = "", tail: str = "") -> Path:
        folder = make_project(build, "", more, tail)
        pyproject = folder / "pyproject.toml"
        pyproject.write_text(pyproject.read_text().replace("dependencies = []", 'dynamic = ["dependencies"]', 1))
        with (folder / "backend.py").open("a") as stream:
            stream.write(METADATA_HOOK)
        git(folder, "commit", "-qam", "dynamic")
        return folder

    return make


def test_backends_run_elsewhere(
    index: PackageIndex, dynamic: Callable[..., Path], reprobuild: Cli, tmp_path: Path, git: Git
) -> None:
    (tmp_path / "tmp: a b").mkdir()
    more = '[dependency-groups]\ntest = ["alpha"]\n'
    folder = dynamic(more=more, tail='\n[tool.reprobuild.images.one]\ngroups = ["test"]\n')
    env = {"TMPDIR": str(tmp_path / "tmp: a b")}
    for options in (["--check"], []):
        reprobuild("lock", *options, cwd=folder, env=env, code=ExitCode.LOCK_STALE if options else 0)
        assert not (folder / "leftover").exists()
        assert git(folder, "diff", "--name-only") == ""
        assert list((tmp_path / "tmp: a b").iterdir()) == []
    assert pins(folder / "requirements.txt") == ["beta==1.0", "gamma==1.0"]
    assert pins(folder / "images/one/requirements.txt") == ["alpha==1.0", "beta==1.0", "gamma==1.0"]
    text = (folder / "images/one/requirements.txt").read_text()
    assert "# via in-tree-backend (pyproject.toml)\n" in text
    assert "# via in-tree-backend (pyproject.toml:test)\n" in text
    assert "tmp" not in text


@pytest.mark.parametrize("tmpdir", [".", "tmp", "../tmp"])
def test_scratch_may_be_in_the_project(
    tmpdir: str, index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli, git: Git
) -> None:
    folder = make_project('"alpha"', '"beta"')
    (folder / tmpdir).mkdir(exist_ok=True)
    env = {"TMPDIR": tmpdir}
    reprobuild("lock", cwd=folder, env=env)
    assert "# via in-tree-backend (pyproject.toml)\n" in (folder / "requirements.txt").read_text()
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "locks")
    built = reprobuild("wheel", "--allow-dirty", "--json", cwd=folder, env=env)
    assert built.json["source"]["kind"] == "git"
    assert "untracked" not in built.stderr
    reprobuild("verify-wheel", cwd=folder, env=env)


def test_uvs_settings_are_those_of_the_working_tree(
    make_project: Callable[..., Path], reprobuild: Cli, git: Git, cold_caches: Path
) -> None:
    """Also where git knows nothing of them, and paths in them are relative."""
    folder = make_project('"alpha"', '"alpha"')
    (folder / ".git/info/exclude").write_text("uv.toml\n")
    (folder / "uv.toml").write_text('no-index = true\nfind-links = ["../links"]\n')
    make_wheel(folder.parent / "links", "alpha", "1.0")
    reprobuild("lock", cwd=folder)
    assert pins(folder / "constraints.txt") == pins(folder / "requirements.txt") == ["alpha==1.0"]


@pytest.mark.parametrize("variable", ["UV_FIND_LINKS", "UV_CONFIG_FILE"])
def test_paths_in_variables_are_relative_to_the_caller(
    variable: str, make_project: Callable[..., Path], reprobuild: Cli, cold_caches: Path, tmp_path: Path
) -> None:
    folder = make_project('"alpha"', '"alpha"')
    make_wheel(tmp_path / "some links", "alpha", "1.0")
    (tmp_path / "own.toml").write_text('find-links = ["some links"]\n')
    value = "some links" if variable == "UV_FIND_LINKS" else "own.toml"
    reprobuild("lock", "--project", folder, cwd=tmp_path, env={variable: value, "UV_NO_INDEX": "1"})
    assert pins(folder / "constraints.txt") == pins(folder / "requirements.txt") == ["alpha==1.0"]


def test_a_project_that_git_ignores(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli, git: Git
) -> None:
    folder = make_project()
    (folder / "inner").mkdir()
    (folder / "inner/pyproject.toml").write_text("")
    (folder / ".gitignore").write_text("inner\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "inner is ignored")
    refused = reprobuild("lock", cwd=folder / "inner", code=ExitCode.SOURCE_UNUSABLE)
    assert "git ignores the project" in refused.stderr


# --- when it changes ---------------------------------------------------------------------------------


def test_check_shows_the_drift_and_writes_nothing(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    folder = make_project('"alpha"', '"beta"')
    missing = reprobuild("lock", "--check", cwd=folder, code=ExitCode.LOCK_STALE)
    assert "+alpha==1.0" in missing.stdout
    assert not (folder / "constraints.txt").exists()
    reprobuild("lock", cwd=folder)
    assert reprobuild("lock", "--check", cwd=folder).stdout == "every lock is up to date\n"
    before = {path.name: path.read_bytes() for path in folder.glob("*.txt")}

    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('["beta"]', '["alpha"]'))
    drifted = reprobuild("lock", "--check", cwd=folder, code=ExitCode.LOCK_STALE)
    lines = drifted.stdout.splitlines()
    assert "--- requirements.txt (on disk)" in lines
    assert "+++ requirements.txt (resolved)" in lines
    assert "-beta==1.0 \\" in lines
    assert "+alpha==1.0 \\" in lines
    assert "constraints.txt" not in drifted.stdout
    assert {path.name: path.read_bytes() for path in folder.glob("*.txt")} == before
    checked = reprobuild("lock", "--check", "--json", cwd=folder, code=ExitCode.LOCK_STALE).json
    assert (checked["drift"], checked["written"]) == (drifted.stdout, [])


def test_only_what_may_move_moves(index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli) -> None:
    folder = make_project("", '"alpha", "beta"')
    reprobuild("lock", cwd=folder)
    before = (folder / "requirements.txt").read_bytes()
    for name, *requires in (("alpha",), ("beta", "gamma"), ("gamma",)):
        make_wheel(index.folder, name, "2.0", *requires)

    assert reprobuild("lock", cwd=folder).stdout == "unchanged constraints.txt\nunchanged requirements.txt\n"
    assert (folder / "requirements.txt").read_bytes() == before
    reprobuild("lock", "--check", cwd=folder)
    reprobuild("lock", "--upgrade", "gamma", cwd=folder)
    assert pins(folder / "requirements.txt") == ["alpha==1.0", "beta==1.0", "gamma==2.0"]
    reprobuild("lock", "--upgrade", cwd=folder)
    assert pins(folder / "requirements.txt") == ["alpha==2.0", "beta==2.0", "gamma==2.0"]


def test_the_old_lock_does_not_constrain_the_new_builds(
    index: PackageIndex, dynamic: Callable[..., Path], reprobuild: Cli
) -> None:
    make_wheel(index.folder, "alpha", "2.0")
    folder = dynamic('"alpha<2"')
    reprobuild("lock", cwd=folder)
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("alpha<2", "alpha>=2"))
    reprobuild("lock", cwd=folder, env={"UV_CACHE_DIR": str(folder.parent / "another-cache")})
    assert pins(folder / "constraints.txt") == ["alpha==2.0"]


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_name_that_no_lock_holds_cant_be_upgraded(
    check: list[str], index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    folder = make_project('"alpha"', '"beta"')
    refused = reprobuild("lock", "--upgrade", *check, "alpa", cwd=folder, code=ExitCode.USAGE)
    assert "No lock holds 'alpa', and no requirement names it. Did you mean 'alpha'?" in refused.stderr
    assert not (folder / "constraints.txt").exists()
    reprobuild("lock", cwd=folder)
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"beta"', '"alpha"'))
    reprobuild("lock", "--upgrade", "Gamma", cwd=folder)  # it was in the lock
    reprobuild("lock", "--upgrade", "gamma", cwd=folder, code=ExitCode.USAGE)


@pytest.fixture
def dated(index: PackageIndex) -> PackageIndex:
    """The index with a first version of everything from January, and a second from March."""
    for name in ("alpha", "beta", "gamma"):
        make_wheel(index.folder, name, "2.0")
    for path in index.folder.iterdir():
        month = "01" if "-1.0-" in path.name else "03"
        index.uploaded[path.name] = f"2026-{month}-01T00:00:00Z"
    return index


def test_a_lock_is_as_of_a_time(dated: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli) -> None:
    folder = make_project('"alpha"', '"gamma"')
    pyproject = folder / "pyproject.toml"
    without = pyproject.read_text().replace("exclude-newer = false\n", "")
    configured = without.replace("[tool.reprobuild]\n", '[tool.reprobuild]\nexclude-newer = "2026-02-01"\n')

    def lock(text: str, *options: str) -> list[str]:
        pyproject.write_text(text)
        reprobuild("lock", *options, cwd=folder)
        return [*pins(folder / "constraints.txt"), *pins(folder / "requirements.txt")]

    assert lock(configured) == ["alpha==1.0", "gamma==1.0"]
    assert "# exclude-newer: 2026-02-01T00:00:00Z\n" in (folder / "requirements.txt").read_text()
    # Nothing is configured: the time that the lock records counts, also for what is new in it.
    more = without.replace('["gamma"]', '["gamma", "beta"]')
    assert lock(more) == ["alpha==1.0", "beta==1.0", "gamma==1.0"]
    assert "# exclude-newer: 2026-02-01T00:00:00Z\n" in (folder / "requirements.txt").read_text()
    assert lock(without, "--upgrade") == ["alpha==2.0", "gamma==2.0"]
    assert lock(without, "--upgrade", "--exclude-newer", "2026-02-01") == ["alpha==1.0", "gamma==1.0"]
    assert lock(without, "--upgrade", "--exclude-newer", "2026-02-15") == ["alpha==1.0", "gamma==1.0"]
    assert "# exclude-newer: 2026-02-15T00:00:00Z\n" in (folder / "requirements.txt").read_text()  # it was asked for


def test_a_time_of_the_callers_own_uv_does_not_count(
    dated: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    folder = make_project('"alpha"', '"beta"')
    reprobuild("lock", cwd=folder, env={"UV_EXCLUDE_NEWER": "2026-02-01T00:00:00Z"})
    assert [*pins(folder / "constraints.txt"), *pins(folder / "requirements.txt")] == ["alpha==2.0", "beta==2.0"]


def test_time_alone_is_no_drift(index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli) -> None:
    folder = make_project('"alpha"', '"beta"')
    pyproject = folder / "pyproject.toml"
    reprobuild("lock", cwd=folder)
    old = "# exclude-newer: 2026-01-01T00:00:00Z\n"
    for name in ("constraints.txt", "requirements.txt"):
        title, rest = (folder / name).read_text().split("again instead.\n")
        (folder / name).write_text(f"{title}again instead.\n{old}{rest}")
    # This index tells no upload times: uv would find nothing if it were to heed one.
    pyproject.write_text(pyproject.read_text().replace("exclude-newer = false\n", ""))
    with pyproject.open("a") as stream:
        stream.write("[tool.uv]\nexclude-newer-package = { alpha = false, beta = false, gamma = false }\n")
    for options in (["--check"], ["--check", "--upgrade"], ["--check", "--upgrade", "gamma"], ["--upgrade"]):
        ended = reprobuild("lock", *options, cwd=folder)
        assert ended.stdout in ("every lock is up to date\n", "unchanged constraints.txt\nunchanged requirements.txt\n")

    make_wheel(index.folder, "gamma", "2.0")
    reprobuild("lock", "--check", cwd=folder)
    reprobuild("lock", "--upgrade", cwd=folder)
    for name in ("constraints.txt", "requirements.txt"):  # one time for all
        assert old not in (folder / name).read_text()
        assert "# exclude-newer: 20" in (folder / name).read_text()


# --- where it comes from -------------------------------------------------------------------------------


def test_a_folder_of_links(make_project: Callable[..., Path], reprobuild: Cli, git: Git, cold_caches: Path) -> None:
    folder = make_project('"alpha"', '"alpha"', tail='\n[tool.uv]\nno-index = true\nfind-links = ["links"]\n')
    make_wheel(folder / "links", "alpha", "1.0")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "links")
    reprobuild("lock", cwd=folder)
    assert pins(folder / "constraints.txt") == pins(folder / "requirements.txt") == ["alpha==1.0"]
    assert "links" not in (folder / "constraints.txt").read_text()
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "locks")
    reprobuild("wheel", cwd=folder)
    reprobuild("verify-wheel", cwd=folder)


@pytest.mark.parametrize("way", ["variables", "project", "netrc", "inline"])
def test_a_private_index(
    way: str,
    serve: Callable[..., PackageIndex],
    cold_caches: Path,
    make_project: Callable[..., Path],
    reprobuild: Cli,
    git: Git,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = serve(private=True)
    make_wheel(private.folder, "alpha", "1.0")
    tail = ""
    if way in ("variables", "project"):
        monkeypatch.setenv("UV_INDEX_PRIVATE_USERNAME", USER)
        monkeypatch.setenv("UV_INDEX_PRIVATE_PASSWORD", PASSWORD)
    if way == "variables":
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"private={private.url()}")
    elif way == "project":
        monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
        tail = f'\n[[tool.uv.index]]\nname = "private"\nurl = "{private.url()}"\ndefault = true\n'
    elif way == "netrc":
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("UV_DEFAULT_INDEX", private.url())
    else:
        monkeypatch.setenv("UV_DEFAULT_INDEX", private.url(f"{USER}:{PASSWORD}@"))

    folder = make_project('"alpha"', '"alpha"', tail=tail)
    printed = []
    for command in (["lock", "--verbose"], ["wheel", "--verbose"], ["verify-wheel", "--verbose"]):
        ended = reprobuild(*command, cwd=folder)
        printed += [ended.stdout, ended.stderr]
        if command[0] == "lock":
            git(folder, "add", "--all")
            git(folder, "commit", "--quiet", "--message", "locks")
    assert pins(folder / "constraints.txt") == ["alpha==1.0"]
    written = [path for path in (*folder.rglob("*"), *(cold_caches / "reprobuild").rglob("*")) if path.is_file()]
    assert len(written) > 10
    secrets = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
    for secret in secrets:
        assert not any(secret in text for text in printed)
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("command", ["lock", "wheel"])
def test_a_wrong_password_is_not_repeated(
    command: str,
    serve: Callable[..., PackageIndex],
    cold_caches: Path,
    make_project: Callable[..., Path],
    reprobuild: Cli,
    git: Git,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # `wheel` asks the index by itself, `lock` has uv do it.
    private = serve(private=True)
    wheel = make_wheel(private.folder, "alpha", "1.0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", private.url(f"{USER}:not-the-{PASSWORD}@"))
    folder = make_project('"alpha"')
    if command == "wheel":
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (folder / "constraints.txt").write_text(f"alpha==1.0 --hash=sha256:{digest}\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", "a lock")
    refused = reprobuild(command, cwd=folder, code=ExitCode.INDEX_FAILED)
    assert private.refused > 0
    assert PASSWORD not in refused.stdout + refused.stderr
    assert "remedy: " in refused.stderr
    assert not (folder / "dist").exists()


def test_what_a_backend_prints_shows_no_credential(
    serve: Callable[..., PackageIndex],
    cold_caches: Path,
    dynamic: Callable[..., Path],
    reprobuild: Cli,
    git: Git,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = serve(private=True)
    monkeypatch.setenv("UV_DEFAULT_INDEX", private.url(f"{USER}:{PASSWORD}@"))
    folder = dynamic()
    backend = folder / "backend.py"
    says = f"raise RuntimeError('it ends', {private.url('other:s3cret@')!r}, {PASSWORD!r})"
    backend.write_text(backend.read_text().replace("    import os, tempfile\n", f"    {says}\n"))
    git(folder, "commit", "-qam", "it talks")
    ended = reprobuild("lock", "--verbose", cwd=folder, code=ExitCode.BUILD_FAILED)
    assert "it ends" in ended.stderr
    assert PASSWORD not in ended.stderr
    assert "s3cret" not in ended.stderr


def test_a_second_wheel_needs_no_index(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli, git: Git
) -> None:
    folder = make_project('"alpha"')
    reprobuild("lock", cwd=folder)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "locks")
    reprobuild("wheel", cwd=folder)
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/"}
    reprobuild("wheel", cwd=folder, env=nowhere)
    reprobuild("verify-wheel", cwd=folder, env=nowhere)
    cold = {**nowhere, "REPROBUILD_CACHE_DIR": str(folder / "empty")}
    refused = reprobuild("wheel", cwd=folder, env=cold, code=ExitCode.INDEX_FAILED)
    assert "remedy: Check the network" in refused.stderr


def test_an_index_that_isnt_there(make_project: Callable[..., Path], reprobuild: Cli, cold_caches: Path) -> None:
    folder = make_project('"alpha"')
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/", "UV_HTTP_RETRIES": "0"}
    refused = reprobuild("lock", cwd=folder, env=nowhere, code=ExitCode.INDEX_FAILED)
    assert "remedy: Check the network" in refused.stderr
    assert not (folder / "constraints.txt").exists()


def test_requirements_that_contradict_each_other(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    folder = make_project("", '"alpha>1"')
    refused = reprobuild("lock", cwd=folder, code=ExitCode.BUILD_FAILED)
    assert "uv can't resolve the requirements" in refused.stderr
    assert "alpha" in refused.stderr
    assert "remedy: " in refused.stderr
    assert not (folder / "constraints.txt").exists()


def test_an_index_without_upload_times(index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli) -> None:
    folder = make_project('"alpha"')
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("exclude-newer = false", 'exclude-newer = "2026-05-01"'))
    refused = reprobuild("lock", cwd=folder, code=ExitCode.BUILD_FAILED)
    assert "set exclude-newer = false in [tool.reprobuild]" in refused.stderr


# --- PEP 751 -------------------------------------------------------------------------------------------


def test_pylock_is_valid_and_pins_the_same(
    index: PackageIndex, make_project: Callable[..., Path], reprobuild: Cli
) -> None:
    folder = make_project('"alpha"', '"beta"', tail="\n[tool.reprobuild.images.one]\n")
    reprobuild("lock", "--pylock", cwd=folder)
    for where in (folder, folder / "images/one"):
        document = tomllib.loads((where / "pylock.toml").read_text())
        pylock = Pylock.from_dict(document)
        pylock.validate()
        assert [f"{each.name}=={each.version}" for each in pylock.packages] == pins(where / "requirements.txt")
        hashes = {kept.hashes["sha256"] for each in pylock.packages for kept in each.wheels or ()}
        locked = set(re.findall("sha256:([0-9a-f]{64})", (where / "requirements.txt").read_text()))
        assert hashes == locked
    second = reprobuild("lock", "--pylock", cwd=folder)
    assert "wrote" not in second.stdout
