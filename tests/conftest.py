"""What every test gets: an environment of its own, copies of the test projects, and the command line."""

from __future__ import annotations

import base64
import csv
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from reprobuild.sandbox import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence

    from tests.index.server import Index
    from tests.osv.server import Osv
    from tests.sigstore.stack import Stack

PROJECTS = Path(__file__).parent / "projects"
#: When every commit of a test was made: 2026-10-01 12:00 UTC.
COMMITTED_AT = 1_790_856_000
#: Variables that say where uv finds packages and how it logs in; the tests go through the index that they name.
_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NATIVE_TLS")
_CLEARED: tuple[str, ...] = tuple(
    "UV_ PIP_ LC_ REPROBUILD_ GIT_ XDG_ SOURCE_DATE_EPOCH TZ LANG NETRC "
    "GITHUB_ ACTIONS_ GITLAB_ CIRCLE BUILDKITE SIGSTORE_ COSIGN_".split()  # a CI job's identity isn't a test's
)
_KEPT = ("GIT_SSL_CAINFO",)
_ENGINE = Path(__file__).parent / "engine" / "engine.py"
#: What the engine runs with: the environment of the test run, before any test gets its own.
_ENGINE_ENVIRONMENT = dict(os.environ)
_CANT_HERE = 3  # engine.py's exit code


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its standard output as a JSON document."""
        return json.loads(self.stdout)


class Cli(Protocol):
    """The fixture ``reprobuild``."""

    def __call__(
        self,
        *args: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        code: int | None = 0,
        umask: int = -1,
    ) -> Ended:
        """Run a command; ``code`` is the exit code it must end with (None: any)."""


class Projects(Protocol):
    """The fixture ``project``."""

    def __call__(self, name: str, to: Path | None = None, *, git: bool = True) -> Path:
        """Copy a test project, by default into a git repository with one commit."""


class Git(Protocol):
    """The fixture ``git``."""

    def __call__(self, folder: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run git in a folder; what it prints."""


class MakeSdist(Protocol):
    """The fixture ``make_sdist``."""

    def __call__(self, project: Path, out: Path) -> Path:
        """Write an sdist of a folder into another."""


class MadeOnce(Protocol):
    """The fixture ``made_once``."""

    def __call__(self, name: str, make: Callable[[Path], None]) -> Path:
        """The folder of that name, which ``make`` writes if no test has; it isn't there yet when that is called."""


def pytest_configure(config: pytest.Config) -> None:
    """Say, before there are workers, where the engine of this test run lies; the first test that asks starts it."""
    # With it, each of the thousands of programs that the tests start would compile all that it imports.
    sys.dont_write_bytecode = False
    for environment in (os.environ, _ENGINE_ENVIRONMENT):
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if not hasattr(config, "workerinput"):
        # Docker's socket is in it, and a socket's path can't be long.
        folder = tempfile.mkdtemp(prefix="reprobuild-engine-", dir="/tmp")
        os.environ["REPROBUILD_ENGINE_STATE"] = _ENGINE_ENVIRONMENT["REPROBUILD_ENGINE_STATE"] = folder
        os.environ["REPROBUILD_ENGINE_OWNER"] = _ENGINE_ENVIRONMENT["REPROBUILD_ENGINE_OWNER"] = str(os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing running."""
    if not hasattr(config, "workerinput"):
        folder = Path(_ENGINE_ENVIRONMENT["REPROBUILD_ENGINE_STATE"])
        if (folder / "engine.json").exists():
            _engine("down")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Each test begins with signals as a terminal gives them, whatever its worker inherited or the last test left."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    hook = sys.unraisablehook
    try:
        return (yield)
    finally:
        sys.unraisablehook = hook


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers, let each begin with its share of what takes long."""
    if workers := getattr(config, "workerinput", {}).get("workercount", 0):
        items[:] = dealt(items, workers)


def dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests in an order that gives each worker the long ones first, then whole files of slow ones, then the rest.

    worksteal begins with a row for each worker, equal parts in the order of collection; who is done takes the last
    half of another's row. So what is left to the end has to be quick, or one worker runs it while the others wait.
    """
    sizes = [(len(items) + number) // workers for number in range(workers)]
    rows: list[list[pytest.Item]] = [[] for _ in sizes]
    long = [each for each in items if each.get_closest_marker("long")]
    files: dict[Path, list[pytest.Item]] = {}
    quick: list[pytest.Item] = []
    for each in items:
        if not each.get_closest_marker("long"):
            of_one_module = not {"unit", "property"}.isdisjoint(each.path.parts)
            (quick if of_one_module else files.setdefault(each.path, [])).append(each)
    for number, each in enumerate(long):
        rows[number % workers].append(each)
    for tests in sorted(files.values(), key=len, reverse=True):
        min(rows, key=len).extend(tests)
    left = iter([*quick, *(each for row, size in zip(rows, sizes, strict=True) for each in row[size:])])
    for row, size in zip(rows, sizes, strict=True):
        del row[size:]
        row += [next(left) for _ in range(size - len(row))]
    return [each for row in rows for each in row]


def _engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_ENGINE), *arguments]
    return subprocess.run(command, env=_ENGINE_ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)


def _from_engine(*arguments: str) -> str:
    """What the engine prints; where it can't run the test is skipped, or fails if it has to run there."""
    done = _engine(*arguments)
    if done.returncode == 0:
        return done.stdout.strip()
    why = done.stderr.strip().removeprefix("engine: ")
    if done.returncode != _CANT_HERE and _ENGINE_ENVIRONMENT.get("REPROBUILD_REQUIRE_ENGINE") == "1":
        pytest.fail(f"the engine should work here (REPROBUILD_REQUIRE_ENGINE=1): {why}", pytrace=False)
    return pytest.skip(f"no engine: {why}")


def _engine_variables(component: str) -> dict[str, str]:
    """Start a part of the engine, if no other worker has; the environment that its programs need."""
    owner = _ENGINE_ENVIRONMENT["REPROBUILD_ENGINE_OWNER"]
    found: dict[str, str] = json.loads(_from_engine("up", "--only", component, "--owner", owner, "--json"))
    return {**found, "PATH": f"{found['PATH']}:{os.environ['PATH']}"}


@pytest.fixture
def engine_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that a test starts itself finds what was unpacked before."""
    home = _ENGINE_ENVIRONMENT.get("XDG_CACHE_HOME") or str(Path(_ENGINE_ENVIRONMENT["HOME"], ".cache"))
    usual = str(Path(home, "reprobuild-engine"))
    monkeypatch.setenv("REPROBUILD_ENGINE_CACHE", _ENGINE_ENVIRONMENT.get("REPROBUILD_ENGINE_CACHE", usual))


@pytest.fixture(scope="session")
def registry() -> str:
    """HOST:PORT of a real registry on loopback, shared by the whole test run, which begins with an empty one."""
    return _engine_variables("registry")["REGISTRY"]


@pytest.fixture
def repository(registry: str) -> str:
    """A repository of that registry that no other test uses: HOST:PORT/NAME."""
    return f"{registry}/test/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def docker() -> dict[str, str]:
    """The environment of the docker command, its SDK and containerd's ctr, for a real engine.

    It has no network of its own: containers and builds run with ``--network none`` or ``host``.
    """
    return _engine_variables("docker")


@pytest.fixture(scope="session")
def _unpacked_tools() -> dict[str, str]:
    return _engine_variables("tools")


@pytest.fixture
def tools(_unpacked_tools: dict[str, str]) -> dict[str, str]:
    """The environment of skopeo, umoci, buildah, podman and oras."""
    policy = Path.home() / ".config" / "containers" / "policy.json"  # the home is this test's own
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return _unpacked_tools


@pytest.fixture(scope="session")
def base_image(registry: str) -> Callable[[str], str]:
    """Push a base image, ``busybox`` or ``debian`` (with Python), to the registry: HOST:PORT/NAME@DIGEST."""
    return functools.cache(lambda name: _from_engine("base", name))


@pytest.fixture(scope="session")
def base_layout() -> Callable[[str], Path]:
    """The OCI image layout of a base image, ``busybox`` or ``debian``; don't write there."""
    return functools.cache(lambda name: Path(_from_engine("layout", name)))


def _server(name: str, path: str) -> Any:
    """The module of a server of the tests' own."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its data classes look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """A package index on loopback, empty, that takes uploads and remembers them."""
    module = sys.modules.get("index_server") or _server("index_server", "index/server.py")
    with module.running(tmp_path_factory.mktemp("index")) as index:
        yield index


@pytest.fixture
def tls_index(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The same with https, whose certificate is trusted."""
    module = sys.modules.get("index_server") or _server("index_server", "index/server.py")
    folder = tmp_path_factory.mktemp("index")
    with module.running(folder, tls=True) as index:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):  # requests heeds its own variable first
            monkeypatch.setenv(name, str(folder / "certificate.pem"))
        yield index


@pytest.fixture(scope="session")
def sigstore_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The project's own Sigstore on loopback, one for each worker."""
    module = _server("sigstore_stack", "sigstore/stack.py")
    with module.running(tmp_path_factory.mktemp("sigstore")) as stack:
        yield stack


@pytest.fixture
def osv(tmp_path: Path) -> Iterator[Osv]:
    """A server of advisories on loopback, with a folder of its own to add to and to take from."""
    path = Path(__file__).parent / "osv" / "server.py"
    spec = importlib.util.spec_from_file_location("osv_server", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copytree(path.parent / "advisories", tmp_path / "advisories")
    with module.running(tmp_path / "advisories") as server:
        yield server


@dataclass(frozen=True)
class Cosign:
    """A real cosign, without any network unless it is asked for.

    Attributes:
        older: whether it is version 2, where what is the rule in 3 has to be asked for.
    """

    path: str
    older: bool

    def __call__(self, *arguments: str | Path, code: int = 0, online: bool = False) -> Ended:
        """Run it; ``code`` is the exit code it must end with, where 1 stands for all that aren't 0."""
        alone = [] if online else ["unshare", "--net", "--map-root-user"]
        done = subprocess.run(
            [*alone, self.path, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert bool(done.returncode) == bool(code), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def _cosigns() -> dict[str, str]:
    return _engine_variables("cosign")


@pytest.fixture(params=["COSIGN", "OLDER_COSIGN"])
def cosign(request: pytest.FixtureRequest, _cosigns: dict[str, str]) -> Cosign:
    """Debian's newest cosign, and that of its stable release."""
    path = _cosigns[request.param]
    if subprocess.run(["unshare", "--net", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces can be made here")
    return Cosign(path, older=request.param == "OLDER_COSIGN")


class MakeWheel(Protocol):
    """The fixture ``make_wheel``."""

    def __call__(
        self,
        folder: Path,
        members: Mapping[str, bytes | tuple[bytes, int]] | None = None,
        *,
        name: str = "demo",
        version: str = "1.0",
        tag: str = "py3-none-any",
        metadata: str = "",
        changed: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Write a wheel.

        Args:
            members: content, or content and mode, by name; ``@info/`` and ``@data/`` stand for the wheel's own folders.
            changed: what members hold in place of what RECORD says.
        """


@pytest.fixture(scope="session")
def shared_caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run, the same for every worker, for what is slow to fetch."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "caches"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def made_once(shared_caches: Path) -> MadeOnce:
    """Folders of this test run, each made by whichever test of whichever worker asks first; don't write there."""

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, new = shared_caches / name, shared_caches / f"{name}.new"
        with (shared_caches / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(new, ignore_errors=True)  # of one that failed
                make(new)
                new.rename(folder)
        return folder

    return get


@pytest.fixture(autouse=True)
def _own_environment(
    tmp_path_factory: pytest.TempPathFactory, shared_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the user's settings but the way to the package index."""
    home = tmp_path_factory.mktemp("home")
    before = dict(os.environ)
    settings = Path(before.get("XDG_CONFIG_HOME") or Path.home() / ".config", "uv", "uv.toml")
    netrc = Path(before.get("NETRC") or Path.home() / ".netrc")
    if settings.is_file():
        copy = home / ".config" / "uv" / "uv.toml"
        copy.parent.mkdir(parents=True)
        shutil.copyfile(settings, copy)
    for name in before:
        if name.startswith(_CLEARED) and not name.startswith(_INDEX_VARIABLES) and name not in _KEPT:
            monkeypatch.delenv(name)
    if netrc.is_file():
        monkeypatch.setenv("NETRC", str(netrc))
    (home / ".gitconfig").write_text('[init]\n\tdefaultBranch = main\n[protocol "file"]\n\tallow = always\n')
    who = {
        f"GIT_{role}_{key}": f"{key.lower()}@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for key in ("NAME", "EMAIL")
    }
    when = {f"GIT_{role}_DATE": f"{COMMITTED_AT} +0000" for role in ("AUTHOR", "COMMITTER")}
    own = {
        **who,
        **when,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local"),
        "REPROBUILD_CACHE_DIR": str(shared_caches / "reprobuild"),
        "UV_CACHE_DIR": str(shared_caches / "uv"),
        "LC_ALL": "C.UTF-8",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)


@functools.cache
def _documented_exit_codes() -> dict[str, set[int]]:
    """What docs/commands.md says that each command can end with."""
    text = (Path(__file__).parents[1] / "docs" / "commands.md").read_text()
    always, *others = re.split("^## reprobuild ", text, flags=re.MULTILINE)
    codes = [{int(code) for code in re.findall(r"\b(\d+) `[A-Z_]+`", each)} for each in (always, *others)]
    return {each.partition("\n")[0]: codes[0] | own for each, own in zip(others, codes[1:], strict=True)}


def _exit_codes(arguments: Sequence[str | Path]) -> Container[int]:
    """The exit codes that are documented for a command line; any for one that names no command."""
    words = [str(each) for each in arguments if not str(each).startswith("-")]
    known = _documented_exit_codes()
    name = next((each for each in (" ".join(words[:2]), *words[:1]) if each in known), "")
    return known[name] if name else range(256)


@pytest.fixture
def reprobuild(tmp_path: Path) -> Cli:
    """The real command line, in a process of its own."""

    def run(
        *args: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        code: int | None = 0,
        umask: int = -1,
    ) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "reprobuild", *map(str, args)],
            cwd=cwd or tmp_path,
            env=os.environ | (env or {}),
            umask=umask,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode in _exit_codes(args), (
            f"docs/commands.md has no exit code {done.returncode}\n{done.stderr}"
        )
        # A backend may print a traceback of its own; ours would pass through the command line's module.
        assert "reprobuild/cli/" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def project(tmp_path: Path) -> Projects:
    """Copies of the projects in tests/projects."""

    def copy(name: str, to: Path | None = None, *, git: bool = True) -> Path:
        folder = to or tmp_path / name
        shutil.copytree(PROJECTS / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if git:
            commit_all(folder)
        return folder

    return copy


@pytest.fixture(name="git")
def _git_fixture() -> Git:
    """git, which must succeed."""
    return git


@pytest.fixture(name="make_sdist")
def _make_sdist_fixture() -> MakeSdist:
    """Sdists that have the same bytes everywhere."""
    return make_sdist


@pytest.fixture(scope="session", name="make_wheel")
def _make_wheel_fixture() -> MakeWheel:
    """Wheels that have the same bytes everywhere."""
    return make_wheel


@pytest.fixture(scope="session")
def sandbox_kinds() -> dict[str, str]:
    """Each kind of sandbox, with why it doesn't work here (empty when it does)."""
    return {name: kind.why_not() for name, kind in KINDS.items()}


@pytest.fixture
def projects_folder() -> Path:
    """tests/projects."""
    return PROJECTS


@pytest.fixture
def compiler() -> str:
    """The C compiler; empty when there is none."""
    return shutil.which("cc") or ""


@pytest.fixture
def bubblewrap(sandbox_kinds: dict[str, str]) -> None:
    """Skip where bubblewrap doesn't work."""
    if why := sandbox_kinds["bubblewrap"]:
        pytest.skip(f"bubblewrap doesn't work here: {why}")


def git(folder: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run git in a folder and return what it prints."""
    command = ["git", *map(str, args)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit_all(folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Commit everything in a folder, which becomes a repository if it is none; the commit's name."""
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", env=env)
    git(folder, "add", "--all", env=env)
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a state of the test", env=env)
    return git(folder, "rev-parse", "HEAD", env=env).strip()


def make_sdist(project: Path, out: Path) -> Path:
    """An sdist of a folder (``name`` and ``version`` from its PKG-INFO) that has the same bytes everywhere."""
    fields = dict(line.split(": ", 1) for line in (project / "PKG-INFO").read_text().splitlines())
    top = f"{fields['Name'].replace('-', '_')}-{fields['Version']}"
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(path for path in project.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(f"{top}/{path.relative_to(project).as_posix()}")
            member.size, member.mtime, member.mode = path.stat().st_size, COMMITTED_AT, 0o644
            with path.open("rb") as stream:
                tar.addfile(member, stream)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{top}.tar.gz"
    target.write_bytes(_stored_gzip(packed.getvalue()))
    return target


def make_wheel(
    folder: Path,
    members: Mapping[str, bytes | tuple[bytes, int]] | None = None,
    *,
    name: str = "demo",
    version: str = "1.0",
    tag: str = "py3-none-any",
    metadata: str = "",
    changed: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel, as :class:`MakeWheel` describes."""
    stem = f"{name}-{version}"
    said: dict[str, bytes | tuple[bytes, int]] = {
        **(members if members is not None else {f"{name}.py": b"x = 1\n"}),
        "@info/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}".encode(),
        "@info/WHEEL": f"Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = StringIO(newline="")
    record = csv.writer(rows, lineterminator="\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in {**said, "@info/RECORD": b""}.items():
            content, mode = value if isinstance(value, tuple) else (value, 0o100644)
            member = zipfile.ZipInfo(key.replace("@info", f"{stem}.dist-info").replace("@data", f"{stem}.data"))
            member.external_attr = mode << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            if key == "@info/RECORD":
                record.writerow([member.filename, "", ""])
                content = rows.getvalue().encode()
            elif not key.endswith("/"):
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                record.writerow([member.filename, f"sha256={digest}", len(content)])
            archive.writestr(member, (changed or {}).get(key, content))
    return path


def _stored_gzip(data: bytes) -> bytes:
    """A gzip file without compression, which no two versions of zlib spell differently (RFC 1951, 3.2.4)."""
    pieces = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
    blocks = b"".join(
        struct.pack("<BHH", number == len(pieces), len(piece), len(piece) ^ 0xFFFF) + piece
        for number, piece in enumerate(pieces, 1)
    )
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + blocks + struct.pack("<II", zlib.crc32(data), len(data))
