"""Bad input: each kind has its own message, remedy and exit code, and leaves nothing half-done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild.attest import encode
from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Ended, Git, MakeSdist, Projects

WHEEL = "in_tree_backend-1.0-py3-none-any.whl"


def says(ended: Ended, reason: str, remedy: str = "") -> None:
    """Check that a person is told what happened, and what to do."""
    assert f"error: {reason}" in ended.stderr or reason in ended.stderr.partition("error: ")[2]
    if remedy:
        assert remedy in ended.stderr.partition("remedy: ")[2]
    assert "Traceback" not in ended.stderr


@pytest.fixture
def in_tree(project: Projects, git: Git) -> Callable[[str], Path]:
    """The project whose backend misbehaves in a given way."""

    def make(mode: str) -> Path:
        folder = project("in-tree-backend")
        (folder / "mode").write_text(f"{mode}\n")
        git(folder, "commit", "-qam", mode, "--allow-empty")
        return folder

    return make


@pytest.fixture
def with_pyproject(project: Projects, git: Git) -> Callable[[str], Path]:
    """A project with some more text in its pyproject.toml."""

    def make(text: str) -> Path:
        folder = project("in-tree-backend")
        with (folder / "pyproject.toml").open("a") as stream:
            stream.write(text)
        git(folder, "commit", "-qam", "more configuration")
        return folder

    return make


# --- pyproject.toml --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["lock", "wheel"])
def test_no_pyproject(command: str, reprobuild: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = reprobuild(command, cwd=tmp_path / "empty", code=ExitCode.BAD_INPUT)
    says(ended, "There is no pyproject.toml in", "Run the command in a Python project's folder")


@pytest.mark.parametrize("command", ["lock", "wheel"])
def test_broken_toml(command: str, with_pyproject: Callable[[str], Path], reprobuild: Cli) -> None:
    folder = with_pyproject("[tool.reprobuild\n")
    ended = reprobuild(command, cwd=folder, code=ExitCode.BAD_INPUT)
    says(ended, "is not valid TOML", "Mend it at the place that is named.")
    assert "line 11" in ended.stderr
    assert ("pyproject.toml of the source" if command == "wheel" else f"{folder}/pyproject.toml") in ended.stderr


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("[tool.reprobuild]\nexclude_newer = false\n", "has no key 'exclude_newer'", "Did you mean 'exclude-newer'?"),
        ("[tool.reprobuild.images.one]\ngrups = []\n", "has no key 'grups'", "Did you mean 'groups'?"),
        ("[tool.reprobuild.wheel]\nzzz = 1\n", "has no key 'zzz'", "It can hold: "),
        ("[tool.reprobuild]\nwheel = 1\n", "wheel is not a table", ""),
        ("[tool]\nreprobuild = []\n", "reprobuild is not a table", ""),
        ("[tool.reprobuild]\nexclude-newer = 7\n", "is neither a time nor false", ""),
        ("[tool.reprobuild]\nexclude-newer = 'soon'\n", "'soon' is not a time", "Write it like 2026-05-01"),
        ("[tool.reprobuild.wheel]\nsandbox = 'none'\n", "sandbox is 'none', not one of auto, bubblewrap", ""),
        ("[tool.reprobuild.wheel]\ntimeout = 'long'\n", "timeout is not a number of seconds", ""),
        ("[tool.reprobuild.wheel.environment]\nPATH = '/'\n", "environment.PATH can't be set here", "holds it fixed"),
        ("[tool.reprobuild.wheel]\nreadable = ['here']\n", "'here' is not an absolute path", ""),
        ("[tool.reprobuild.images.one]\ngroups = 'dev'\n", "groups is not a list of strings", ""),
    ],
)
def test_wrong_configuration(
    text: str, reason: str, remedy: str, with_pyproject: Callable[[str], Path], reprobuild: Cli
) -> None:
    folder = with_pyproject(text)
    for command in ("lock", "wheel"):
        ended = reprobuild(command, cwd=folder, code=ExitCode.BAD_INPUT)
        says(ended, reason, remedy)
        assert f"{folder}/pyproject.toml: " in ended.stderr or "error: pyproject.toml of the source: " in ended.stderr
    assert not (folder / "dist").exists()


def test_a_broken_requirement(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("in-tree-backend")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("requires = []", 'requires = ["not a requirement"]'))
    git(folder, "commit", "-qam", "broken")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.BAD_INPUT)
    says(ended, "build-system.requires: 'not a requirement' is not a requirement")


# --- the lock --------------------------------------------------------------------------------------


def test_no_lock(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("in-tree-backend")
    git(folder, "rm", "--quiet", "constraints.txt")
    git(folder, "commit", "--quiet", "--message", "without the lock")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.LOCK_MISSING)
    says(ended, "The source has no constraints.txt beside its pyproject.toml.", "Run `reprobuild lock`, then commit it")


def test_an_sdist_without_a_lock(project: Projects, reprobuild: Cli, make_sdist: MakeSdist, tmp_path: Path) -> None:
    folder = project("in-tree-backend")
    (folder / "constraints.txt").unlink()
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: in-tree-backend\nVersion: 1.0\n")
    ended = reprobuild("wheel", make_sdist(folder, tmp_path / "sdist"), code=ExitCode.LOCK_MISSING)
    says(ended, "The source has no constraints.txt", "Unpack it, run `reprobuild lock` in its folder")


def test_a_lock_that_was_never_committed(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("in-tree-backend")
    git(folder, "rm", "--quiet", "--cached", "constraints.txt")
    git(folder, "commit", "--quiet", "--message", "the lock is here, but not in the commit")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.LOCK_MISSING)
    says(ended, "The source has no constraints.txt", "git add constraints.txt")


def test_a_new_build_requirement_makes_the_lock_stale(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("in-tree-backend")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("requires = []", 'requires = ["packaging>=24"]'))
    git(folder, "commit", "-qam", "one more requirement")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.LOCK_STALE)
    says(ended, "constraints.txt doesn't hold what pyproject.toml's [build-system] asks for", "Run `reprobuild lock`")
    assert "packaging>=24 is not in it" in ended.stderr


def test_a_version_that_moved_makes_the_lock_stale(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("with-flit-core")
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("flit_core>=3.11,<4", "flit_core<3"))
    git(folder, "commit", "-qam", "an older one")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.LOCK_STALE)
    says(ended, "flit_core<3 is wanted, but 3.12.0 is locked", "Run `reprobuild lock`")


def test_what_only_the_backend_asks_for_makes_the_lock_stale(in_tree: Callable[[str], Path], reprobuild: Cli) -> None:
    folder = in_tree("asks-for-more")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.LOCK_STALE)
    says(ended, "constraints.txt doesn't hold what the backend backend asks for", "Run `reprobuild lock`")
    assert "packaging>=24 is not in it" in ended.stderr
    assert not (folder / "dist").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("flit-core>=3 --hash=sha256:" + "0" * 64, "is not pinned to one version with =="),
        ("flit-core==3.12.0", "has no hash"),
        ("--index-url https://index.example.org", "is an option; a lock holds pins alone"),
        ("flit-core==3.12.0 --hash=sha256:zz", "is not a digest"),
        ("flit-core @ https://files.example.org/flit.whl --hash=sha256:" + "0" * 64, "is not pinned"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_a_malformed_lock(line: str, reason: str, project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("with-flit-core")
    (folder / "constraints.txt").write_text(f"{line}\n", errors="surrogateescape")
    git(folder, "commit", "-qam", "a malformed lock")
    says(reprobuild("wheel", cwd=folder, code=ExitCode.BAD_INPUT), reason)


# --- the record ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module's one wheel, its record and its checkout are kept."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture
def built(built_once: Path, project: Projects, reprobuild: Cli, tmp_path: Path) -> Path:
    """A fresh copy of a checkout with a wheel of it in dist."""
    kept = built_once / "with-flit-core"
    if not kept.is_dir():
        project("with-flit-core", kept)
        reprobuild("wheel", cwd=kept)
    shutil.copytree(kept, tmp_path / "built")
    return tmp_path / "built"


def record_in(folder: Path) -> Path:
    return next((folder / "dist").glob("*.intoto.json"))


def test_no_wheel(project: Projects, reprobuild: Cli) -> None:
    folder = project("in-tree-backend")
    ended = reprobuild("verify-wheel", cwd=folder, code=ExitCode.BAD_INPUT)
    says(ended, "There is no wheel in dist", "Build one with `reprobuild wheel`")
    ended = reprobuild("verify-wheel", "no-such.whl", cwd=folder, code=ExitCode.BAD_INPUT)
    says(ended, "no-such.whl can't be read: No such file or directory.")


def test_no_record(built: Path, reprobuild: Cli) -> None:
    record_in(built).unlink()
    ended = reprobuild("verify-wheel", cwd=built, code=ExitCode.RECORD_UNUSABLE)
    says(ended, "has no record", "`reprobuild wheel` writes both; keep them together.")


@pytest.mark.parametrize("suffix", ["", ".intoto.json"])
def test_a_pipe_is_not_waited_for(suffix: str, built: Path, reprobuild: Cli) -> None:
    path = next((built / "dist").glob("*.whl"))
    path = path.with_name(f"{path.name}{suffix}")
    path.unlink()
    os.mkfifo(path)
    code = ExitCode.RECORD_UNUSABLE if suffix else ExitCode.BAD_INPUT
    wheel = path.name.removesuffix(suffix)
    reprobuild("verify-wheel", f"dist/{wheel}", cwd=built, code=code)


def test_another_wheels_record(built: Path, reprobuild: Cli) -> None:
    (wheel,) = (built / "dist").glob("*.whl")
    with wheel.open("ab") as stream:
        stream.write(b"\0")
    ended = reprobuild("verify-wheel", cwd=built, code=ExitCode.RECORD_UNUSABLE)
    says(ended, "is about", "The wheel or its record was changed after the build")


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        table = record
        for key in keys[:-1]:
            table = table[key]
        del table[keys[-1]]

    return change


def _of_role(record: dict[str, Any], role: str) -> dict[str, Any]:
    listed = record["predicate"]["buildDefinition"]["resolvedDependencies"]
    found: dict[str, Any] = next(each for each in listed if each["annotations"]["role"] == role)
    return found


def _foreign_file(record: dict[str, Any]) -> None:
    _of_role(record, "build-requirement")["digest"]["sha256"] = "1" * 64


def _foreign_lock(record: dict[str, Any]) -> None:
    _of_role(record, "lock")["digest"]["sha256"] = "1" * 64


def _escaping_name(record: dict[str, Any]) -> None:
    _of_role(record, "build-requirement")["name"] = "../../outside.whl"


def _no_source(record: dict[str, Any]) -> None:
    record["predicate"]["buildDefinition"]["resolvedDependencies"].remove(_of_role(record, "source"))


def _other_type(record: dict[str, Any]) -> None:
    record["predicate"]["buildDefinition"]["buildType"] = "https://example.org/other"


def _left_out(record: dict[str, Any]) -> None:
    record["predicate"]["buildDefinition"]["resolvedDependencies"].remove(_of_role(record, "build-requirement"))


def _other_backend(record: dict[str, Any]) -> None:
    record["predicate"]["buildDefinition"]["externalParameters"]["backend"] = "another"


def _other_variable(record: dict[str, Any]) -> None:
    record["predicate"]["buildDefinition"]["externalParameters"]["environment"]["EVIL"] = "1"


def _option_as_commit(record: dict[str, Any]) -> None:
    _of_role(record, "source")["digest"]["gitCommit"] = "--output=/tmp/owned"


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        (_without("predicate"), ExitCode.RECORD_UNUSABLE, "is not the record of a wheel build"),
        (_without("_type"), ExitCode.RECORD_UNUSABLE, "is not the record of a wheel build"),
        (_without("subject"), ExitCode.RECORD_UNUSABLE, "subject is missing or of the wrong type"),
        (_other_type, ExitCode.RECORD_UNUSABLE, "its build type is 'https://example.org/other'"),
        (_no_source, ExitCode.RECORD_UNUSABLE, "it names 0 dependencies of the role source"),
        (_foreign_file, ExitCode.RECORD_UNUSABLE, "which the lock doesn't hold"),
        (_escaping_name, ExitCode.RECORD_UNUSABLE, "is malformed"),
        (_foreign_lock, ExitCode.DIGEST_MISMATCH, "but the record names sha256:1111"),
        (_left_out, ExitCode.RECORD_UNUSABLE, "leaves out flit-core"),
        (_other_backend, ExitCode.RECORD_UNUSABLE, "'predicate.buildDefinition.externalParameters.backend'"),
        (_other_variable, ExitCode.RECORD_UNUSABLE, "'predicate.buildDefinition.externalParameters.environment.EVIL'"),
        (_option_as_commit, ExitCode.RECORD_UNUSABLE, "a descriptor has no digest"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_malformed_record(
    change: Callable[[dict[str, Any]], None], code: ExitCode, reason: str, built: Path, reprobuild: Cli
) -> None:
    path = record_in(built)
    record = json.loads(path.read_bytes())
    change(record)
    path.write_bytes(encode(record))
    says(reprobuild("verify-wheel", cwd=built, code=code), reason)
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"_type": 1}', "[" * 100_000, "\xff"])
def test_a_record_that_is_none(text: str, built: Path, reprobuild: Cli) -> None:
    record_in(built).write_bytes(text.encode("latin-1"))
    ended = reprobuild("verify-wheel", cwd=built, code=ExitCode.RECORD_UNUSABLE)
    says(ended, "", "Build the wheel again.")


# --- wheels ----------------------------------------------------------------------------------------

#: what is wrong with a wheel → what is said of it
BAD_WHEELS = {
    "truncated": "",
    "escaping": "'../outside.py'",
    "twice": "in_tree_backend.py",
    "huge": "",
    "not-a-zip": "",
}


@pytest.mark.parametrize("mode", BAD_WHEELS)
def test_diff_refuses_a_bad_wheel(mode: str, in_tree: Callable[[str], Path], reprobuild: Cli) -> None:
    folder = in_tree(mode)
    good, bad = folder / "good", folder / "bad"
    for out, wanted in ((good, "good"), (bad, mode)):
        out.mkdir()
        (folder / "mode").write_text(wanted)
        code = f"import backend; backend.build_wheel({str(out)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    for pair in ((good / WHEEL, bad / WHEEL), (bad / WHEEL, good / WHEEL)):
        ended = reprobuild("diff", *pair, code=ExitCode.BAD_INPUT)
        says(ended, BAD_WHEELS[mode])
        assert str(bad / WHEEL) in ended.stderr
        assert "remedy: " in ended.stderr
    assert not (folder / "outside.py").exists()


def test_diff_of_what_isnt_there(reprobuild: Cli, tmp_path: Path) -> None:
    (tmp_path / "one.whl").touch()
    says(reprobuild("diff", "one.whl", "two.whl", code=ExitCode.BAD_INPUT), "two.whl is not a file", "Name two files")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        *((mode, reason) for mode, reason in BAD_WHEELS.items()),
        ("wrong-record", "'in_tree_backend.py' has another sha256 than RECORD says"),
        ("unrecorded", "RECORD omits 'in_tree_backend_extra.py'"),
        ("wrong-name", "other_name"),
        ("two-wheels", "left 2 files *.whl where one was expected"),
        ("asks-for-a-number", "answered [5] when it was asked what it needs"),
    ],
)
def test_a_bad_wheel_of_a_backend_is_not_kept(
    mode: str, reason: str, in_tree: Callable[[str], Path], reprobuild: Cli
) -> None:
    folder = in_tree(mode)
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.BUILD_FAILED)
    says(ended, reason)
    assert "remedy: " in ended.stderr
    assert not (folder / "dist").exists()


@pytest.mark.parametrize("kind", ["bubblewrap", "unshare", "plain"])
def test_a_link_that_the_hook_puts_beside_the_build_is_not_followed(
    kind: str, in_tree: Callable[[str], Path], reprobuild: Cli, tmp_path: Path, sandbox_kinds: dict[str, str]
) -> None:
    """The hook runs while the wheel is built: it could have any file of the machine taken for the wheel."""
    if why := sandbox_kinds[kind]:
        pytest.skip(f"the sandbox kind {kind} doesn't work here: {why}")
    wheel = reprobuild("wheel", "--json", "--out-dir", tmp_path / "good", cwd=in_tree("good")).json["wheel"]
    shutil.rmtree(tmp_path / "in-tree-backend")
    folder = in_tree(f"swaps {wheel}")
    ended = reprobuild("wheel", "--sandbox", kind, cwd=folder, code=ExitCode.BUILD_FAILED)
    says(ended, f"The backend left a {WHEEL!r} that is not a file")
    assert not (folder / "dist").exists()


def test_a_backend_that_fails_when_it_is_asked(in_tree: Callable[[str], Path], reprobuild: Cli) -> None:
    folder = in_tree("hook-fails")
    for command in ("wheel", "lock"):
        ended = reprobuild(command, cwd=folder, code=ExitCode.BUILD_FAILED)
        assert "The backend failed when it was asked what it needs" in ended.stderr
        assert "RuntimeError: not in the mood" in ended.stderr
        assert "remedy: A build runs without the network" in ended.stderr
    assert not (folder / "dist").exists()


def test_a_backend_that_isnt_there(in_tree: Callable[[str], Path], reprobuild: Cli, git: Git) -> None:
    folder = in_tree("good")
    git(folder, "mv", "backend.py", "elsewhere.py")
    git(folder, "commit", "-qm", "no backend")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.BUILD_FAILED)
    says(ended, "Backend 'backend' is not available")


def test_a_backend_in_a_folder_of_the_project(in_tree: Callable[[str], Path], reprobuild: Cli, git: Git) -> None:
    folder = in_tree("good")
    (folder / "build_tools" / "here").mkdir(parents=True)
    git(folder, "mv", "backend.py", "build_tools/here/backend.py")
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace('["."]', '["build_tools/here"]'))
    git(folder, "commit", "-qam", "a backend further down")
    reprobuild("wheel", cwd=folder)
    reprobuild("verify-wheel", cwd=folder)


@pytest.mark.parametrize("path", ["../..", "/etc"])
def test_a_backend_outside_the_project(path: str, in_tree: Callable[[str], Path], reprobuild: Cli, git: Git) -> None:
    folder = in_tree("good")
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace('backend-path = ["."]', f'backend-path = ["{path}"]'))
    git(folder, "commit", "-qam", "a backend elsewhere")
    for command in ("wheel", "lock"):
        ended = reprobuild(command, cwd=folder, code=ExitCode.BAD_INPUT)
        says(ended, "pyproject.toml's [build-system] backend-path: paths must be", "inside the project")


def test_a_source_that_is_no_sdist(reprobuild: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken-1.0.tar.gz").write_bytes(b"not a tar")
    says(reprobuild("wheel", "broken-1.0.tar.gz", code=ExitCode.BAD_INPUT), "broken-1.0.tar.gz is not an sdist")
    (tmp_path / "notes.txt").touch()
    says(reprobuild("wheel", "notes.txt", code=ExitCode.BAD_INPUT), "is neither a folder nor an sdist")
    says(reprobuild("wheel", "nowhere", code=ExitCode.BAD_INPUT), "There is no folder or sdist nowhere")


@pytest.mark.parametrize("request_", ["3.99", "/no/such/python"])
def test_a_python_that_isnt_there(request_: str, project: Projects, reprobuild: Cli) -> None:
    folder = project("in-tree-backend")
    ended = reprobuild("wheel", "--python", request_, cwd=folder, code=ExitCode.TOOL_MISSING)
    says(ended, "", "name another with --python")


@pytest.mark.parametrize("where", ["pyproject.toml", ".python-version"])
@pytest.mark.parametrize("command", ["wheel", "lock"])
def test_a_projects_own_program_is_no_python(
    where: str, command: str, project: Projects, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    folder = project("in-tree-backend")
    (folder / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexec python3 $@\n")
    (folder / "evil").chmod(0o755)
    with (folder / where).open("a") as stream:
        stream.write(f"[tool.reprobuild]\npython = '{folder}/evil'\n" if where[0] == "p" else f"{folder}/evil\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "a python of its own")
    ended = reprobuild(command, cwd=folder, code=ExitCode.BAD_INPUT)
    says(ended, "which is not a version of Python", "only --python takes a path")
    assert not (tmp_path / "ran").exists()


def test_a_command_that_isnt_there(reprobuild: Cli) -> None:
    assert "Did you mean 'wheel'?" in reprobuild("whel", code=ExitCode.USAGE).stderr


# --- a full disk -----------------------------------------------------------------------------------


@pytest.fixture
def mounting() -> list[str]:
    """A command that runs another where it may mount."""
    own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    probe = [*own, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    return own


@pytest.mark.parametrize("where", ["out", "tmp"])
def test_a_full_disk_leaves_no_partial_file(
    where: str, mounting: list[str], in_tree: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = in_tree("large")
    for name in ("out", "tmp"):
        (tmp_path / name).mkdir()
    script = """
    full=$1; shift
    mount -t tmpfs -o size=64k tmpfs "$full" || exit 99
    "$@"; code=$?
    echo "left: $(ls -A "$full")"
    exit $code
    """
    command = [*mounting, "sh", "-c", script, "sh", str(tmp_path / where), sys.executable, "-m", "reprobuild"]
    done = subprocess.run(
        [*command, "wheel", "--out-dir", str(tmp_path / "out")],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.WRITE_FAILED, done.stderr
    assert "No space left on device" in done.stderr
    assert "remedy: Free some space" in done.stderr or where == "tmp"
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() in ("left:", "left: .gitignore")
    assert not list((tmp_path / "out").glob("*.whl*"))


# --- an interruption -------------------------------------------------------------------------------


def processes_with(argument: str) -> list[int]:
    """The processes that have this argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("kind", ["bubblewrap", "unshare", "plain"])
def test_an_interruption_leaves_nothing(
    kind: str,
    number: signal.Signals,
    in_tree: Callable[[str], Path],
    tmp_path: Path,
    sandbox_kinds: dict[str, str],
) -> None:
    if why := sandbox_kinds[kind]:
        pytest.skip(f"the sandbox kind {kind} doesn't work here: {why}")
    seconds = f"9{os.getpid()}{time.monotonic_ns() % 1000}"  # nobody else sleeps just as long
    folder = in_tree(f"sleep {seconds}")
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "reprobuild", "wheel", "--sandbox", kind]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert wait_for(lambda: bool(processes_with(seconds)) or running.poll() is not None)
        running.send_signal(number)
        time.sleep(0.1)
        running.send_signal(number)  # who is impatient presses Ctrl-C twice
        _, told = running.communicate(timeout=30)
    assert running.returncode == ExitCode.INTERRUPTED, told
    assert "interrupted" in told
    assert "Traceback" not in told
    assert wait_for(lambda: not processes_with(seconds), 2)
    assert not (folder / "dist").exists()
    assert list((tmp_path / "tmp").iterdir()) == []
    kept = [path for path in Path("/dev/shm").glob("reprobuild-*/src/mode") if seconds in path.read_text()]
    assert kept == []


def test_a_build_that_takes_too_long(in_tree: Callable[[str], Path], reprobuild: Cli, git: Git) -> None:
    seconds = f"8{os.getpid()}{time.monotonic_ns() % 1000}"
    folder = in_tree(f"sleep {seconds}")
    with (folder / "pyproject.toml").open("a") as stream:
        stream.write("[tool.reprobuild.wheel]\ntimeout = 2\n")
    git(folder, "commit", "-qam", "two seconds")
    ended = reprobuild("wheel", cwd=folder, code=ExitCode.BUILD_FAILED)
    says(ended, "ran longer than 2 s and was ended")
    assert wait_for(lambda: not processes_with(seconds), 2)
    assert not (folder / "dist").exists()
