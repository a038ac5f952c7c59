"""The wheel: the same bytes wherever and by whomever it is built, from every kind of source, with its record."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild import process
from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Cli, Git, Projects

NOBODY = 65534
COMMITTED_AT = 1_790_856_000  # as tests/conftest.py commits
WHEEL = "with_hatchling-1.0-py3-none-any.whl"


def members(wheel: Path) -> dict[str, bytes]:
    """The content of a wheel by name."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def record_of(folder: Path) -> dict[str, Any]:
    """The one record in a folder."""
    (path,) = folder.glob("*.intoto.json")
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def dependencies(record: dict[str, Any], role: str) -> list[dict[str, Any]]:
    listed = record["predicate"]["buildDefinition"]["resolvedDependencies"]
    return [each for each in listed if each["annotations"]["role"] == role]


# --- the same bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with-hatchling", "with-setuptools"])
def test_two_clones_two_umasks(name: str, project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    origin = project(name)
    digests = set()
    for folder, umask in (("here", 0o022), ("some where/else", 0o077)):
        clone = tmp_path / folder
        clone.parent.mkdir(exist_ok=True)
        git(tmp_path, "-c", "core.sharedRepository=umask", "clone", "--quiet", origin, clone)
        for path in clone.rglob("*.py"):
            path.chmod(0o644 & ~umask)
        digests.add(reprobuild("wheel", "--json", cwd=clone, umask=umask).json["digest"])
    assert len(digests) == 1


def test_every_kind_of_sandbox_gives_the_same_bytes(
    project: Projects, reprobuild: Cli, sandbox_kinds: dict[str, str]
) -> None:
    folder = project("with-hatchling")
    digests = {}
    for kind, why in sandbox_kinds.items():
        if why:
            refused = reprobuild("wheel", "--sandbox", kind, cwd=folder, code=ExitCode.SANDBOX_UNAVAILABLE)
            assert "remedy: Install what is missing" in refused.stderr
            continue
        built = reprobuild("wheel", "--json", "--sandbox", kind, "--out-dir", f"out/{kind}", cwd=folder)
        assert built.json["sandbox"]["kind"] == kind
        digests[kind] = built.json["digest"]
        if kind != "bubblewrap":
            assert f"note: The sandbox kind {kind} doesn't give: " in built.stderr
    assert "plain" in digests
    assert len(set(digests.values())) == 1, digests


def test_several_pythons_give_the_same_bytes(project: Projects, reprobuild: Cli, pythons: dict[str, Path]) -> None:
    if len(pythons) < 2:
        pytest.skip(f"of CPython 3.11, 3.12 and 3.13 only {', '.join(pythons) or 'none'} is here")
    folder = project("with-hatchling")
    digests = {}
    for minor, path in pythons.items():
        built = reprobuild("wheel", "--json", "--python", path, "--out-dir", minor, cwd=folder).json
        digests[minor] = built["digest"]
        (part,) = dependencies(record_of(folder / minor), "interpreter")
        assert part["annotations"]["version"].startswith(f"{minor}.")
    assert len(set(digests.values())) == 1, digests


def test_verify_uses_the_python_of_the_record(project: Projects, reprobuild: Cli, pythons: dict[str, Path]) -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = [path for minor, path in pythons.items() if minor != own]
    if not others:
        pytest.skip("there is no second CPython here")
    folder = project("with-flit-core")
    reprobuild("wheel", "--python", others[0], cwd=folder)
    findable = {"PATH": f"{others[0].parent}{os.pathsep}{os.environ['PATH']}"}
    verdict = reprobuild("verify-wheel", "--json", cwd=folder, env=findable).json
    assert (verdict["level"], verdict["notes"]) == ("identical", [])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may look into; pytest's own are for one user alone."""
    path = Path(tempfile.mkdtemp(prefix="for-everybody-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def foreign_python() -> str:
    """A Python >= 3.11 that an unprivileged user can run."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) isn't here")
    question = "import sys; open(sys.executable).close(); sys.exit(sys.version_info < (3, 11))"
    for name in (sys.executable, *(f"/usr/bin/python3.{minor}" for minor in (11, 12, 13, 14)), "/usr/bin/python3"):
        candidate = os.path.realpath(name)
        asked = [*_AS_NOBODY, candidate, "-c", question]
        if Path(candidate).exists() and not subprocess.run(asked, capture_output=True, check=False).returncode:
            return candidate
    pytest.skip("an unprivileged user can run no Python >= 3.11 here")


_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.mark.parametrize("kind", ["bubblewrap", "unshare", "plain"])
def test_another_user_gets_the_same_bytes(
    kind: str, project: Projects, reprobuild: Cli, open_folder: Path, foreign_python: str, shared_caches: Path
) -> None:
    folder = project("with-hatchling", open_folder / "as-root")
    own = reprobuild("wheel", "--json", cwd=folder).json["digest"]

    home = open_folder / "nobody"
    home.mkdir()
    shutil.copytree(open_folder / "as-root", home / "project", ignore=shutil.ignore_patterns("dist"))
    shutil.copytree(shared_caches / "reprobuild", home / "cache")
    for path in (home, *home.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    libraries = os.pathsep.join(path for path in sys.path if path.endswith(("site-packages", "/src")))
    env = {
        "PATH": f"{process.find('uv').parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": libraries,
        "PYTHONDONTWRITEBYTECODE": "1",
        "REPROBUILD_CACHE_DIR": str(home / "cache"),
    }
    command = [*_AS_NOBODY, foreign_python, "-m", "reprobuild", "wheel", "--json", "--python", foreign_python]
    command += ["--sandbox", kind]
    done = subprocess.run(command, cwd=home / "project", env=env, capture_output=True, text=True, check=False)
    if done.returncode == ExitCode.SANDBOX_UNAVAILABLE and f"{kind} doesn't work on this machine" in done.stderr:
        pytest.skip(f"an unprivileged user has no {kind} here: {done.stderr}")
    if done.returncode and "Permission denied" in done.stderr:
        pytest.skip(f"an unprivileged user can't read what this needs: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == own
    assert (home / "project/dist" / WHEEL).stat().st_uid == NOBODY


# --- the record ------------------------------------------------------------------------------------


def test_the_record_names_every_input(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("with-hatchling")
    git(folder, "remote", "add", "origin", "https://user:s3cret@git.example.org/some/project.git")
    built = reprobuild("wheel", "--json", cwd=folder).json
    raw = (folder / built["record"]).read_bytes()
    record = json.loads(raw)
    wheel = folder / "dist" / WHEEL

    assert built["record"] == f"dist/{WHEEL}.intoto.json"
    # RFC 8785 for what a record holds: ASCII, whole numbers, keys in order, nothing between the tokens.
    assert raw == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert record["_type"] == "https://in-toto.io/Statement/v1"
    assert record["predicateType"] == "https://slsa.dev/provenance/v1"
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert record["subject"] == [{"name": WHEEL, "digest": {"sha256": sha256}}]
    assert set(record["predicate"]) == {"buildDefinition", "runDetails"}

    (source,) = dependencies(record, "source")
    commit, tree = git(folder, "rev-parse", "HEAD", "HEAD^{tree}").split()
    assert source["digest"] == {"gitCommit": commit, "gitTree": tree}
    assert source["uri"] == "git+https://git.example.org/some/project.git"
    (lock,) = dependencies(record, "lock")
    assert lock["digest"] == {"sha256": hashlib.sha256((folder / "constraints.txt").read_bytes()).hexdigest()}

    text = (folder / "constraints.txt").read_text()
    requirements = dependencies(record, "build-requirement")
    assert len(requirements) == len(re.findall("^[a-z]", text, re.MULTILINE))
    for each in requirements:
        name, _, version = each["uri"].removeprefix("pkg:pypi/").partition("@")
        pin = next(part for part in text.split("\n") if part.startswith(f"{name}=="))
        hashes = text.partition(pin)[2].partition("==")[0]
        assert pin == f"{name}=={version} \\"
        assert f"--hash=sha256:{each['digest']['sha256']}" in hashes

    (python,) = dependencies(record, "interpreter")
    executable = Path(os.path.realpath(sys.executable))
    assert python["digest"] == {"sha256": hashlib.sha256(executable.read_bytes()).hexdigest()}
    external = record["predicate"]["buildDefinition"]["externalParameters"]
    assert external["sourceDateEpoch"] == COMMITTED_AT
    assert external["source"]["kind"] == "git"

    shown = raw.decode()
    assert "s3cret" not in shown
    assert os.environ["HOME"] not in shown
    assert str(folder) not in shown


def test_the_same_inputs_give_the_same_record(project: Projects, reprobuild: Cli) -> None:
    folder = project("with-flit-core")
    for out in ("one", "two"):
        reprobuild("wheel", "--out-dir", out, cwd=folder)
    one, two = (next((folder / out).glob("*.intoto.json")).read_bytes() for out in ("one", "two"))
    assert one == two


def test_the_wheels_times_are_the_commits(project: Projects, reprobuild: Cli) -> None:
    folder = project("with-flit-core")
    reprobuild("wheel", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    assert {info.date_time for info in zipfile.ZipFile(wheel).infolist()} == {(2026, 10, 1, 12, 0, 0)}


@pytest.mark.parametrize(
    ("given", "kept", "date"),
    [("1700000000", 1_700_000_000, (2023, 11, 14, 22, 13, 20)), ("0", 315_532_800, (1980, 1, 1, 0, 0, 0))],
)
def test_the_users_own_epoch(given: str, kept: int, date: tuple[int, ...], project: Projects, reprobuild: Cli) -> None:
    folder = project("with-flit-core")
    reprobuild("wheel", cwd=folder, env={"SOURCE_DATE_EPOCH": given})
    (wheel,) = (folder / "dist").glob("*.whl")
    assert {info.date_time for info in zipfile.ZipFile(wheel).infolist()} == {date}
    external = record_of(folder / "dist")["predicate"]["buildDefinition"]["externalParameters"]
    assert external["sourceDateEpoch"] == kept
    reprobuild("verify-wheel", cwd=folder)  # without the variable: the record has it


@pytest.mark.parametrize("given", ["yesterday", "-1", "99999999999"])
def test_an_epoch_that_is_none(given: str, project: Projects, reprobuild: Cli) -> None:
    folder = project("with-flit-core")
    refused = reprobuild("wheel", cwd=folder, env={"SOURCE_DATE_EPOCH": given}, code=ExitCode.BAD_INPUT)
    assert f"SOURCE_DATE_EPOCH is '{given}'" in refused.stderr
    assert "remedy: Unset it" in refused.stderr


# --- sources: git ----------------------------------------------------------------------------------


def test_only_what_is_committed_gets_in(project: Projects, reprobuild: Cli) -> None:
    folder = project("with-hatchling")
    (folder / "src/with_hatchling/notes.py").write_text("SCRATCH = 1\n")
    built = reprobuild("wheel", cwd=folder)
    assert "note: 1 untracked file is not in the commit" in built.stderr
    assert "with_hatchling/notes.py" not in members(folder / "dist" / WHEEL)
    reprobuild("wheel", "--allow-dirty", cwd=folder)
    assert "with_hatchling/notes.py" in members(folder / "dist" / WHEEL)


def test_a_folder_of_its_own_in_a_repository(project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    repository = tmp_path / "many"
    alone = project("with-hatchling")
    project("with-hatchling", repository / "packages/one", git=False)
    git(tmp_path, "init", "--quiet", repository)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "many projects")
    built = reprobuild("wheel", "--json", repository / "packages/one").json
    assert Path(built["wheel"]) == repository / "packages/one/dist" / WHEEL
    assert built["digest"] == reprobuild("wheel", "--json", alone).json["digest"]
    external = record_of(repository / "packages/one/dist")["predicate"]["buildDefinition"]["externalParameters"]
    assert external["source"]["subdirectory"] == "packages/one"
    reprobuild("verify-wheel", built["wheel"], "--project", repository / "packages/one")


def test_a_worktree_and_a_shallow_clone(project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    folder = project("with-hatchling")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a second one")
    git(folder, "worktree", "add", "--quiet", "--detach", tmp_path / "tree")
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{folder}", "shallow")
    records = []
    for each in (folder, tmp_path / "tree", tmp_path / "shallow"):
        told = reprobuild("wheel", cwd=each).stderr
        assert ("note: The clone is shallow" in told) is (each.name == "shallow")
        records.append(record_of(each / "dist"))
    digests = [record["subject"][0]["digest"]["sha256"] for record in records]
    commits = [dependencies(record, "source")[0]["digest"]["gitCommit"] for record in records]
    assert len(set(digests)) == len(set(commits)) == 1
    reprobuild("verify-wheel", cwd=tmp_path / "shallow")


def test_an_older_commit_is_verified_from_its_record(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("with-hatchling")
    reprobuild("wheel", cwd=folder)
    (folder / "src/with_hatchling/__init__.py").write_text("LATER = True\n")
    git(folder, "commit", "--quiet", "--all", "--message", "later")
    reprobuild("verify-wheel", cwd=folder)
    (folder / "src/with_hatchling/__init__.py").write_text("LATER = 'not committed'\n")
    reprobuild("verify-wheel", cwd=folder)


def test_a_commit_that_isnt_there(project: Projects, reprobuild: Cli, tmp_path: Path) -> None:
    built = project("with-hatchling")
    reprobuild("wheel", cwd=built)
    other = project("with-hatchling", tmp_path / "other", git=False)
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "unrelated"]):
        subprocess.run(["git", *command], cwd=other, check=True)
    refused = reprobuild("verify-wheel", built / "dist" / WHEEL, "--project", other, code=ExitCode.SOURCE_UNUSABLE)
    assert "is not in" in refused.stderr
    assert "remedy: Fetch it" in refused.stderr


def test_a_submodules_content_arrives(project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "vendored.py").write_text("VENDORED = True\n")
    git(inner, "init", "--quiet")
    git(inner, "add", ".")
    git(inner, "commit", "--quiet", "--message", "vendored")
    folder = project("with-hatchling")
    git(folder, "submodule", "--quiet", "add", inner, "src/with_hatchling/inner")
    git(folder, "commit", "--quiet", "--message", "vendor it")
    reprobuild("wheel", cwd=folder)
    assert members(folder / "dist" / WHEEL)["with_hatchling/inner/vendored.py"] == b"VENDORED = True\n"
    reprobuild("verify-wheel", cwd=folder)

    git(tmp_path, "clone", "--quiet", folder, "without")
    refused = reprobuild("wheel", cwd=tmp_path / "without", code=ExitCode.SOURCE_UNUSABLE)
    assert "The submodule src/with_hatchling/inner is not checked out." in refused.stderr
    assert "remedy:" in refused.stderr
    assert "submodule update --init" in refused.stderr


def test_lfs_objects_are_filled_in(project: Projects, reprobuild: Cli, git: Git) -> None:
    content = b"weights" * 1000
    oid = hashlib.sha256(content).hexdigest()
    folder = project("with-hatchling")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
    (folder / "src/with_hatchling/weights.bin").write_text(pointer)
    (folder / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "a large file")
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.SOURCE_UNUSABLE)
    assert "weights.bin is kept in Git LFS" in refused.stderr
    assert "remedy: Fetch it: git lfs pull." in refused.stderr

    kept = folder / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weighed" * 1000)
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.DIGEST_MISMATCH)
    assert f"but sha256:{oid} was promised" in refused.stderr
    assert not (folder / "dist").exists()

    kept.write_bytes(content)
    reprobuild("wheel", cwd=folder)
    assert members(folder / "dist" / WHEEL)["with_hatchling/weights.bin"] == content
    reprobuild("verify-wheel", cwd=folder)


def test_the_repositorys_own_programs_dont_run(project: Projects, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    """A filter, a hook, fsmonitor and the like run whatever the repository's configuration says."""
    folder = project("with-hatchling")
    (folder / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "attributes")
    ran = set_traps(folder, tmp_path, git)
    reprobuild("wheel", cwd=folder)
    assert members(folder / "dist" / WHEEL)["with_hatchling/__init__.py"].startswith(b'"""A package')
    assert sorted(path.name for path in ran.iterdir()) == []
    # Only a file that may have changed makes git ask the user's own filter whether it has: such as Git LFS's.
    os.utime(folder / "src/with_hatchling/__init__.py", (1, 1))
    reprobuild("wheel", cwd=folder)
    assert {path.name for path in ran.iterdir()} <= {"filter.evil.process", "filter.evil.clean"}


def set_traps(folder: Path, tmp_path: Path, git: Git) -> Path:
    """Make git leave a file in the folder that is returned for whatever program it is made to run."""
    ran = tmp_path / "ran"
    ran.mkdir()
    for name in (
        *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"),
        *("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.alternateRefsCommand"),
        *("diff.external", "credential.helper", "tar.tar.command", "uploadpack.packObjectsHook", "alias.status"),
        *("core.askPass", "core.gitProxy", "remote.origin.uploadpack", "remote.origin.vcs", "diff.evil.command"),
        *("merge.evil.driver", "sequence.editor", "trailer.evil.command", "interactive.diffFilter", "pager.log"),
    ):
        git(folder, "config", name, f"touch {ran}/{name}; cat")
    for name in ("gpg.program", "gpg.ssh.program", "gpg.x509.program"):  # these are programs, not shell commands
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {ran}/{name}\n")
        program.chmod(0o755)
        git(folder, "config", name, str(program))
    sign(folder, git)
    for name in ("log.showSignature", "status.submoduleSummary", "core.untrackedCache", "protocol.ext.allow"):
        git(folder, "config", name, "always" if name.endswith("allow") else "true")
    git(folder, "config", "core.hooksPath", str(tmp_path / "hooks"))
    (tmp_path / "hooks").mkdir()
    for name in ("post-checkout", "post-index-change", "pre-commit", "reference-transaction", "post-commit"):
        hook = tmp_path / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {ran}/{name}\n")
        hook.chmod(0o755)
    return ran


def sign(folder: Path, git: Git) -> None:
    """Give the commit a signature that nobody made."""
    head, blank, message = git(folder, "cat-file", "commit", "HEAD").partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
    (folder / ".git/signed").write_text(f"{head}\n{signature}{blank}{message}")
    name = git(folder, "hash-object", "-t", "commit", "-w", ".git/signed").strip()
    git(folder, "update-ref", "HEAD", name)
    git(folder, "tag", "--force", "signed", name)


@pytest.mark.parametrize("command", ["wheel", "lock"])
def test_a_git_directory_among_the_files_of_a_commit_runs_nothing(
    command: str, project: Projects, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    """A clone brings no configuration along, unless a folder of plain files is what git takes for a repository."""
    folder = project("with-hatchling", tmp_path / "top" / "pkg")
    (folder / ".gitattributes").write_text("* filter=evil\n")
    git(folder, "config", "filter.evil.clean", f"touch {tmp_path}/ran; cat")
    git(folder, "config", "core.worktree", ".")
    for path in (folder / ".git").iterdir():
        if path.name != "hooks":
            path.rename(folder / path.name)
    shutil.rmtree(folder / ".git")
    (folder / "refs" / "kept").touch()
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "a trap"]):
        git(folder.parent, *words)
    (folder / "src/with_hatchling/__init__.py").touch()
    refused = reprobuild(command, cwd=folder, code=ExitCode.SOURCE_UNUSABLE)
    assert "pkg is a git directory, and not a source" in refused.stderr
    assert not (tmp_path / "ran").exists()


def test_a_replaced_commit_is_not_the_source(project: Projects, reprobuild: Cli, git: Git) -> None:
    """`git replace` puts other content in a commit's place, on one machine alone."""
    folder = project("with-hatchling")
    named = git(folder, "rev-parse", "HEAD").strip()
    tree = git(folder, "rev-parse", "HEAD^{tree}").strip()
    (folder / "src/with_hatchling/__init__.py").write_text("evil = True\n")
    git(folder, "commit", "--quiet", "--all", "--message", "evil")
    evil = git(folder, "rev-parse", "HEAD").strip()
    git(folder, "reset", "--quiet", "--hard", named)
    git(folder, "replace", named, evil)
    built = reprobuild("wheel", "--json", cwd=folder).json
    assert built["source"] == {"kind": "git", "gitCommit": named, "gitTree": tree}
    assert members(folder / "dist" / WHEEL)["with_hatchling/__init__.py"].startswith(b'"""A package')


def test_another_users_repository_runs_nothing_as_me(
    project: Projects, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    """Its configuration is that user's: git itself refuses such a repository for that reason."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a repository to another user")
    folder = project("with-hatchling")
    (folder / ".gitattributes").write_text("*.py filter=evil diff=evil\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "attributes")
    ran = set_traps(folder, tmp_path, git)
    os.utime(folder / "src/with_hatchling/__init__.py", (1, 1))  # git will want to read it through the filter
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    refused = reprobuild("wheel", cwd=folder, code=ExitCode.SOURCE_UNUSABLE)
    assert "remedy: " in refused.stderr
    assert sorted(path.name for path in ran.iterdir()) == []


def test_attributes_cant_change_the_export(project: Projects, reprobuild: Cli, git: Git) -> None:
    folder = project("with-hatchling")
    plain = reprobuild("wheel", "--json", cwd=folder).json["digest"]
    (folder / "src/with_hatchling/stamp.py").write_text("COMMIT = '$Format:%H$'\n")
    (folder / ".gitattributes").write_text("stamp.py export-subst\n__init__.py export-ignore\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "attributes")
    built = reprobuild("wheel", "--json", cwd=folder).json
    inside = members(folder / "dist" / WHEEL)
    assert built["digest"] != plain
    assert inside["with_hatchling/stamp.py"] == b"COMMIT = '$Format:%H$'\n"
    assert "with_hatchling/__init__.py" in inside


# --- sources: sdists and plain folders -----------------------------------------------------------------


def test_a_wheel_from_an_sdist(project: Projects, reprobuild: Cli, tmp_path: Path) -> None:
    folder = project("with-hatchling")
    command = [str(process.find("uv")), "build", "--quiet", "--sdist", "--out-dir", str(tmp_path / "sdist")]
    subprocess.run(command, cwd=folder, check=True)
    (sdist,) = (tmp_path / "sdist").glob("*.tar.gz")
    built = reprobuild("wheel", "--json", sdist).json
    assert Path(built["wheel"]) == tmp_path / "sdist/dist" / WHEEL
    assert built["source"] == {"kind": "sdist", "sha256": hashlib.sha256(sdist.read_bytes()).hexdigest()}
    record = record_of(tmp_path / "sdist/dist")
    with tarfile.open(sdist) as tar:
        newest = max(member.mtime for member in tar)
    epoch = record["predicate"]["buildDefinition"]["externalParameters"]["sourceDateEpoch"]
    assert epoch == max(int(newest), 315_532_800)
    reprobuild("verify-wheel", built["wheel"], "--project", sdist)

    with sdist.open("ab") as stream:
        stream.write(b"\0")
    refused = reprobuild("verify-wheel", built["wheel"], "--project", sdist, code=ExitCode.SOURCE_UNUSABLE)
    assert "remedy: Name the source that was built with --project." in refused.stderr


def test_a_folder_without_git(project: Projects, reprobuild: Cli) -> None:
    folder = project("with-hatchling", git=False)
    built = reprobuild("wheel", "--json", cwd=folder).json
    assert built["source"]["kind"] == "folder"
    assert "with_hatchling/__init__.py" in members(folder / built["wheel"])
    reprobuild("verify-wheel", cwd=folder)
    (folder / "src/with_hatchling/more.py").touch()
    reprobuild("verify-wheel", cwd=folder, code=ExitCode.SOURCE_UNUSABLE)


def test_record_hashes_of_the_wheel_hold(project: Projects, reprobuild: Cli) -> None:
    """Checked by hand, not by the code under test."""
    folder = project("with-setuptools")
    reprobuild("wheel", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    inside = members(wheel)
    rows = inside["with_setuptools-1.0.dist-info/RECORD"].decode().splitlines()
    recorded = {row.split(",")[0]: row.split(",")[1] for row in rows}
    assert set(recorded) == set(inside)
    for name, content in inside.items():
        if not name.endswith("/RECORD"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert recorded[name] == f"sha256={digest}"


@pytest.fixture(scope="session")
def pythons() -> dict[str, Path]:
    """CPython 3.11 to 3.13, those that are here, by minor version."""
    versions = Path(pwd.getpwuid(os.getuid()).pw_dir, ".pyenv/versions")
    found = {}
    for minor in ("3.11", "3.12", "3.13"):
        known = [*versions.glob(f"{minor}.*/bin/python{minor}"), Path(f"/usr/bin/python{minor}")]
        asked = subprocess.run(
            [str(process.find("uv")), "python", "find", "--system", "--no-project", minor],
            env=os.environ | {"UV_PYTHON_DOWNLOADS": "never"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if not asked.returncode:
            known.insert(0, Path(asked.stdout.strip()))
        here = [path for path in known if path.is_file()]
        if here:
            found[minor] = here[0]
    return found
