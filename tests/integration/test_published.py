"""Wheels that somebody else published, checked against the sdists beside them."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild import interpreter
from reprobuild.archive import extract_tar
from reprobuild.errors import ExitCode, ToolMissing
from reprobuild.index import Index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli, Git

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


def fetched(folder: Path, name: str, version: str) -> list[Path]:
    """The wheel and the sdist of a release."""
    folder.mkdir()
    index = Index(folder)
    files = [each.file for each in index.release(name, version)]
    index.fetch(files, folder)
    return sorted(folder.iterdir(), reverse=True)


def unpack(sdist: Path, folder: Path) -> None:
    folder.mkdir()
    with sdist.open("rb") as stream:
        extract_tar(stream, folder)


def test_a_file_without_a_record_is_a_published_wheel(reprobuild: Cli, tmp_path: Path) -> None:
    wheel = tmp_path / "links" / SIX
    fetched(tmp_path / "links", "six", "1.17.0")
    said = reprobuild("verify-wheel", str(wheel), "--keep", "kept", "--json", cwd=tmp_path).json
    assert (said["level"], said["notes"], said["source"]["kind"]) == ("identical", [], "sdist")
    assert (tmp_path / "kept" / "rebuilt" / SIX).read_bytes() == wheel.read_bytes()
    assert (tmp_path / "kept" / "published" / "tree" / "six.py").is_file()
    tamper(wheel)
    said = reprobuild("verify-wheel", str(wheel), "--json", code=ExitCode.DIFFERS_PAYLOAD).json
    assert "The index offers another file of the name" in said["notes"][0]
    empty = {"UV_INDEX_URL": (tmp_path / "nothing").as_uri()}
    ended = reprobuild("verify-wheel", str(wheel), env=empty, code=ExitCode.INDEX_FAILED)
    assert "has no record beside it" in ended.stderr


def test_a_commit_elsewhere_instead_of_the_sdist(reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    wheel, sdist = sorted(fetched(tmp_path / "links", "click", "8.5.1"), key=lambda path: path.suffix != ".whl")
    unpack(sdist, tmp_path / "unpacked")
    repository = tmp_path / "unpacked" / "click-8.5.1"
    git(repository, "init", "--quiet")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "as released")
    git(repository, "tag", "8.5.1")
    address = f"git+file://{repository}@8.5.1"
    said = reprobuild("verify-wheel", str(wheel), "--source", address, "--json").json
    assert (said["level"], said["source"]["kind"], said["source"]["name"]) == ("identical", "git", address[4:])
    constraints = tmp_path / "build.txt"
    constraints.write_text("flit-core==3.11.0\n")
    arguments = ("click==8.5.1", "--source", str(repository), "--constraints", str(constraints), "--json")
    said = reprobuild("verify-wheel", *arguments, code=ExitCode.DIFFERS_METADATA).json
    assert {"name": "build requirements", "value": "build.txt", "evidence": "named with --constraints"} in said[
        "guesses"
    ]
    assert said["causes"][0]["name"] == "backend-version"
    assert len(said["tries"]) == len({str(each["guesses"]) for each in said["tries"]})


def test_a_build_that_needs_more_memory_than_it_may_have(reprobuild: Cli, tmp_path: Path) -> None:
    sdist = tmp_path / "unpacked" / "six-1.17.0"
    fetched(tmp_path / "links", "six", "1.17.0")
    unpack(tmp_path / "links" / "six-1.17.0.tar.gz", tmp_path / "unpacked")
    setup = sdist / "setup.py"
    greedy = "import mmap, time\nheld = mmap.mmap(-1, 700 << 20)\n"
    greedy += "while held.tell() < len(held): held.write(bytes(1 << 20))\ntime.sleep(20)\nimport six"
    setup.write_text(setup.read_text().replace("import six", greedy))
    arguments = ("six==1.17.0", "--source", str(sdist), "--memory", "300", "--json")
    said = reprobuild("verify-wheel", *arguments, code=ExitCode.NOT_COMPARABLE).json
    assert "more than 300 MiB of memory" in said["failure"]
    assert len(said["tries"]) == 1


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
    if what.startswith("filelock"):
        try:
            interpreter.find("3.9")
        except ToolMissing:
            pytest.skip("the setuptools that made it doesn't run under any Python that is here: it needs CPython 3.9")
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


def a_release(
    links: Path, name: str, requires: list[str], backend: str, module: str = "a = 1\n", about: str = ""
) -> None:
    """An sdist with a backend of its own in a folder of links.

    Args:
        about: the text of its PKG-INFO.
    """
    links.mkdir(exist_ok=True)
    manifest = f'[build-system]\nrequires = {requires}\nbuild-backend = "own"\nbackend-path = ["."]\n'
    manifest += f'[project]\nname = "{name}"\nversion = "1.0"\ndynamic = ["dependencies"]\n'
    with tarfile.open(links / f"{name}-1.0.tar.gz", "w:gz") as archive:
        files = {"pyproject.toml": manifest, "own.py": backend, f"{name}.py": module, "PKG-INFO": about}
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))


#: A backend: NAME and IMPORTS are put in front.
WRITER = """
import base64, hashlib, zipfile
def build_wheel(folder, *_, module=""):
    for each in IMPORTS:
        __import__(each)
    about = f"{NAME}-1.0.dist-info"
    files = {f"{NAME}.py": module, f"{about}/METADATA": f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: 1.0\\n"}
    tag = "Wheel-Version: 1.0\\nGenerator: flit 3.12.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{about}/WHEEL"] = tag
    lines = []
    with zipfile.ZipFile(f"{folder}/{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={digest},{len(text)}\\n")
            wheel.writestr(zipfile.ZipInfo(path), text)
        wheel.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "".join([*lines, f"{about}/RECORD,,\\n"]))
    return f"{NAME}-1.0-py3-none-any.whl"
"""


def a_writer(name: str, *imports: str) -> str:
    return f"NAME, IMPORTS = {name!r}, {imports!r}\n{WRITER}"


def a_wheel(links: Path, name: str, module: str) -> None:
    backend: dict[str, Any] = {}
    exec(a_writer(name), backend)
    backend["build_wheel"](links, module=module)


THIEF = """
import pathlib, shutil
def build_wheel(folder, *_):
    for path in pathlib.Path("/tmp").rglob("demo_thief-1.0-py3-none-any.whl"):
        shutil.copy(path, folder)
        return path.name
    raise SystemExit("nothing to copy")
"""


def test_a_source_that_requires_its_own_wheel_proves_nothing(reprobuild: Cli, tmp_path: Path) -> None:
    links = tmp_path / "links"
    a_release(links, "demo_thief", ["demo_thief==1.0"], THIEF)
    a_wheel(links, "demo_thief", "BACKDOOR = 1\n")
    environment = {"UV_FIND_LINKS": str(links)}
    arguments = ("verify-wheel", "demo_thief==1.0", "--json")
    said = reprobuild(*arguments, env=environment, code=ExitCode.NOT_COMPARABLE).json
    assert "which is what is to be checked" in said["failure"]
    assert said["sandbox"] in ("bubblewrap", "unshare", "plain")


def test_no_code_of_build_requirements_runs_outside_of_the_sandbox(reprobuild: Cli, tmp_path: Path) -> None:
    """uv would build what has an sdist alone, on this machine, to learn what it requires."""
    links, escaped = tmp_path / "links", tmp_path / "escaped"
    evil = f"open({str(escaped)!r}, 'w')\ndef get_requires_for_build_wheel(*_): return []\n"
    a_release(links, "demo_evil", [], evil)
    a_release(links, "demo_victim", ["demo_evil"], "def build_wheel(*_): pass\n")
    a_wheel(links, "demo_victim", "a = 1\n")
    environment = {"UV_FIND_LINKS": str(links)}
    reprobuild("verify-wheel", "demo_victim==1.0", env=environment, code=ExitCode.NOT_COMPARABLE)
    assert not escaped.exists()


def test_no_setting_of_uvs_lets_code_of_build_requirements_out(reprobuild: Cli, tmp_path: Path) -> None:
    """no-binary of a package counts above --no-build."""
    links, escaped, here = tmp_path / "links", tmp_path / "escaped", tmp_path / "here"
    evil = f"open({str(escaped)!r}, 'w')\ndef get_requires_for_build_wheel(*_): return []\n"
    a_release(links, "demo_evil", [], evil)
    a_release(links, "demo_victim", ["demo_evil"], "def build_wheel(*_): pass\n")
    a_wheel(links, "demo_victim", "a = 1\n")
    here.mkdir()
    (here / "uv.toml").write_text("no-binary-package = ['demo_evil']\n")
    environment = {"UV_FIND_LINKS": str(links)}
    ended = reprobuild("verify-wheel", "demo_victim==1.0", cwd=here, env=environment, code=None)
    assert not escaped.exists()
    assert "uv.toml: uv's setting no-binary-package" in ended.stderr
    assert ended.code == ExitCode.BAD_INPUT


def test_a_build_requirement_that_has_an_sdist_alone(reprobuild: Cli, tmp_path: Path) -> None:
    """What it requires itself is learnt from its PKG-INFO, and it is built where the wheel is built."""
    links = tmp_path / "links"
    about = "Metadata-Version: 2.1\nName: demo-needed\nVersion: 1.0\nRequires-Dist: demo-helper\n"
    a_release(links, "demo_needed", [], a_writer("demo_needed"), about=about)
    a_release(links, "demo_made", ["demo_needed"], a_writer("demo_made", "demo_needed", "demo_helper"))
    a_wheel(links, "demo_helper", "")
    a_wheel(links, "demo_made", "")
    said = reprobuild("verify-wheel", "demo_made==1.0", "--json", env={"UV_FIND_LINKS": str(links)}).json
    assert said["level"] == "identical"
    required = {each["name"] for each in said["buildRequirements"]}
    assert {"demo_helper-1.0-py3-none-any.whl", "demo_needed-1.0.tar.gz"} <= required
