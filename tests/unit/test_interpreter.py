import json
import os
import platform
import sys
import zlib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.tags import Tag, sys_tags

from reprobuild import interpreter, process
from reprobuild.errors import BadInput, ToolMissing
from reprobuild.interpreter import describe, find

OWN = Path(os.path.realpath(sys.executable))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(folder))
    return folder


def script(path, body):
    """A program that is no interpreter, but might be asked like one."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def counting(path, answer):
    """An interpreter that gives this answer and counts how often it was asked."""
    answer_file = path.with_suffix(".json")
    answer_file.write_text(json.dumps(answer))
    return script(path, f"echo asked >> {path}.asked\ncat {answer_file}")


ANSWER = {
    "version": "3.12.1",
    "implementation": "cpython",
    "platform": "linux-x86_64",
    "prefix": "/opt/python",
    "zlib": "1.3",
    "compiler": "gcc",
    "tags": ["cp312-cp312-linux_x86_64", "py3-none-any"],
    "markers": {"python_version": "3.12"},
}


def times_asked(path):
    counted = Path(f"{path}.asked")
    return len(counted.read_text().splitlines()) if counted.exists() else 0


# --- questions -------------------------------------------------------------------------------------


def test_the_running_interpreter_says_of_itself_what_it_is():
    said = describe(Path(sys.executable))
    assert said.executable == OWN
    assert (said.version, said.implementation) == (platform.python_version(), sys.implementation.name)
    assert said.prefix == Path(sys.base_prefix)
    assert said.zlib == zlib.ZLIB_RUNTIME_VERSION
    assert said.tags == tuple(str(tag) for tag in sys_tags())
    assert said.markers == default_environment()


def test_the_tags_are_ranked_best_first():
    said = describe(Path(sys.executable))
    ranks = list(said.tag_ranks.values())
    assert ranks == sorted(ranks)
    assert said.tag_ranks[next(iter(sys_tags()))] == 0
    assert said.tag_ranks[Tag("py3", "none", "any")] > 0


def test_an_environment_of_the_caller_does_not_colour_the_answer(tmp_path, monkeypatch):
    (tmp_path / "packaging.py").write_text("raise SystemExit('taken from PYTHONPATH')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert describe(Path(sys.executable)).version == platform.python_version()


def test_modules_in_the_present_folder_are_not_imported(tmp_path, monkeypatch):
    for name in ("json", "platform", "zlib", "packaging"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the present folder')")
    monkeypatch.chdir(tmp_path)
    assert describe(Path(sys.executable)).version == platform.python_version()


def test_an_answer_is_remembered_until_the_file_changes(tmp_path):
    python = counting(tmp_path / "python", ANSWER)
    assert describe(python) == describe(python)
    assert times_asked(python) == 1
    counting(python, ANSWER | {"version": "3.12.2"}).write_text(python.read_text() + "\n")
    assert describe(python).version == "3.12.2"
    assert times_asked(python) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"\xff", b'{"version": "3.0"}'])
def test_a_damaged_memory_is_replaced(tmp_path, cache, damage):
    python = counting(tmp_path / "python", ANSWER)
    describe(python)
    (remembered,) = (cache / "interpreters").iterdir()
    remembered.write_bytes(damage)
    assert describe(python).version == "3.12.1"
    assert times_asked(python) == 2
    assert json.loads(remembered.read_text()) == ANSWER


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo broken >&2; exit 3", "ended with status 3:\nbroken"),
        ("echo this is not JSON", "it gave no answer"),
        ("true", "it gave no answer"),
    ],
)
def test_an_interpreter_that_cannot_answer_is_refused(tmp_path, body, why):
    with pytest.raises(BadInput) as caught:
        describe(script(tmp_path / "python", body))
    assert "can't be questioned" in caught.value.reason
    assert why in caught.value.reason
    assert "3.9" in caught.value.remedy


@pytest.mark.parametrize("name", ["absent", "folder", "plain-file"])
def test_what_does_not_start_is_missing(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain-file").write_text("x")
    with pytest.raises(ToolMissing):
        describe(tmp_path / name)


# --- the choice ------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What uv was asked for; it answers with the interpreter that runs this."""
    requests: list[str] = []

    def answer(request):
        requests.append(request)
        return OWN

    monkeypatch.setattr(interpreter, "_ask_uv", answer)
    return requests


def test_without_a_wish_it_is_the_one_that_runs_reprobuild(asked, tmp_path):
    assert find(None, tmp_path, ">=3.11").executable == OWN
    assert asked == []


def test_a_project_that_does_not_admit_it_gets_another(asked, tmp_path):
    find(None, tmp_path, "<3.0")
    assert asked == ["<3.0"]


@pytest.mark.parametrize("text", ["3.12\n", "# why\n\n 3.12 # because\n3.11\n", "3.12"])
def test_the_projects_pin_counts(asked, tmp_path, text):
    (tmp_path / ".python-version").write_text(text)
    find(None, tmp_path, ">=3.11")
    assert asked == ["3.12"]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_an_empty_pin_is_none(asked, tmp_path, text):
    (tmp_path / ".python-version").write_text(text)
    assert find(None, tmp_path).executable == OWN
    assert asked == []


def test_a_wish_wins(asked, tmp_path):
    (tmp_path / ".python-version").write_text("3.12\n")
    find("3.13", tmp_path, "<3.0")
    assert asked == ["3.13"]


def test_a_relative_path_is_one_from_here(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    find("venv/bin/python")
    assert asked == [str(tmp_path / "venv" / "bin" / "python")]


VERSIONS = ["3", "3.12", "3.12.1", "3.13rc1", "3.13t", ">=3.11,<3.14", ">= 3.11, !=3.12.*", "~=3.11", "==3.12.*"]
VERSIONS += ["cpython@3.12", "cpython3.12", "python3.12", "pypy@3.10", "pypy3.10", "graalpy3.11", "cpython>=3.12"]
NO_VERSIONS = [
    "/bin/evil",
    "./evil",
    "evil",
    "bin/python",
    "~/python",
    "python-evil",
    "python",
    "3.12/evil",
    "3.12-evil",
]
NO_VERSIONS += ["===evil", "===/bin/evil", ">=3.8,===/bin/evil", "cpython@/bin/evil", "evil@3.12", "--help", ",", "any"]


@pytest.mark.parametrize("text", VERSIONS)
def test_a_projects_files_name_versions(asked, tmp_path, text):
    (tmp_path / ".python-version").write_text(f"{text}\n")
    find(None, tmp_path)
    find(None, tmp_path, configured=text)
    assert asked == [text, text]


@pytest.mark.parametrize("text", NO_VERSIONS)
def test_a_projects_files_name_no_program(asked, tmp_path, text):
    with pytest.raises(BadInput, match=r"python in .* asks for .* not a version of Python") as caught:
        find(None, tmp_path, configured=text)
    assert "only --python takes a path" in caught.value.remedy
    (tmp_path / ".python-version").write_text(f"{text}\n")
    with pytest.raises(BadInput, match=r"\.python-version asks for"):
        find(None, tmp_path)
    assert asked == []


def test_the_projects_range_names_no_program(asked, tmp_path):
    with pytest.raises(BadInput, match="requires-python asks for '===/bin/evil'"):
        find(None, tmp_path, "===/bin/evil")
    assert asked == []


def test_what_is_configured_comes_before_the_pin_and_after_a_wish(asked, tmp_path):
    (tmp_path / ".python-version").write_text("3.12\n")
    find(None, tmp_path, configured="3.13")
    find("/bin/own", tmp_path, configured="/bin/evil")
    assert asked == ["3.13", "/bin/own"]


# --- uv --------------------------------------------------------------------------------------------


def test_uv_finds_an_interpreter_by_its_path():
    assert find(str(OWN)).executable == OWN


def test_a_version_that_nobody_has_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(ToolMissing, match=r"There is no Python 3\.99 on this machine") as caught:
        find("3.99")
    assert "uv python install" in caught.value.remedy


@pytest.mark.parametrize("request_", ["--help", "--version", "-h"])
def test_a_wish_is_never_an_option(request_):
    with pytest.raises(ToolMissing):
        find(request_)


@pytest.mark.parametrize("request_", ["3.97t", "pypy3.97", "3.970", "/nowhere/3.97"])
def test_pyenvs_python_is_not_another_one(monkeypatch, tmp_path, request_):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    (tmp_path / "versions" / "3.97.9" / "bin").mkdir(parents=True)
    counting(tmp_path / "versions" / "3.97.9" / "bin" / "python", ANSWER)
    with pytest.raises(ToolMissing):
        find(request_)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("3.97", "3.97.10"),
        ("cpython@3.97.9", "3.97.9"),
        ("3.97.10", "3.97.10"),
        ("cpython3.97", "3.97.10"),
        ("==3.97.*,<3.97.10", "3.97.9"),
    ],
)
def test_a_version_that_pyenv_has_switched_off_is_found(monkeypatch, tmp_path, request_, expected):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    for version in ("3.97.9", "3.97.10", "3.97.11rc1", "3.970.1", "3.97-dev"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
        counting(tmp_path / "versions" / version / "bin" / "python", ANSWER | {"version": version})
    assert find(request_).version == expected


def test_pyenv_has_no_version_of_very_many_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    program = tmp_path / "versions/3.12.1/bin/python"
    program.parent.mkdir(parents=True)
    program.touch()
    assert interpreter._pyenv("3.12") == program
    assert interpreter._pyenv("9" * 5000) is None


# --- other patch releases --------------------------------------------------------------------------


@pytest.fixture
def pyenv(tmp_path, monkeypatch):
    """Interpreters in a pyenv of their own; uv knows of none."""

    def have(version, **answer):
        prefix = tmp_path / "versions" / version
        (prefix / "bin").mkdir(parents=True)
        counting(prefix / "bin" / "python", ANSWER | {"version": version, "prefix": str(prefix)} | answer)
        return describe(prefix / "bin" / "python")

    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(process, "run", _without_uv(process.run))
    return have


def _without_uv(run):
    def run_others(argv, **options):
        if argv[0] == "uv":
            raise ToolMissing("There is no uv here.")
        return run(argv, **options)

    return run_others


def test_other_patch_releases_come_newest_first(pyenv):
    own = pyenv("3.97.9")
    for version in ("3.97.10", "3.97.2", "3.96.1", "3.98.0"):
        pyenv(version)
    assert [each.version for each in interpreter.other_patches(own)] == ["3.97.10", "3.97.2"]


@pytest.mark.parametrize(
    "other", [{"tags": ["cp397-cp397t-linux_x86_64"]}, {"implementation": "pypy"}, {"prefix": "/elsewhere"}]
)
def test_what_is_not_the_same_but_for_the_patch_is_no_other_patch(pyenv, other):
    own = pyenv("3.97.9")
    pyenv("3.97.10", **other)
    assert list(interpreter.other_patches(own)) == []


def test_an_interpreter_that_does_not_start_is_passed_over(pyenv, tmp_path):
    own = pyenv("3.97.9")
    (tmp_path / "versions" / "3.97.10" / "bin").mkdir(parents=True)
    script(tmp_path / "versions" / "3.97.10" / "bin" / "python", "exit 3")
    assert list(interpreter.other_patches(own)) == []


def test_what_uv_lists_is_found_too(monkeypatch, tmp_path):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    (tmp_path / "bin").mkdir()
    counting(tmp_path / "bin" / "python", ANSWER | {"version": "3.12.9", "prefix": str(tmp_path)})
    listed = json.dumps([{"path": str(tmp_path / "bin" / "python")}, {"path": "/nowhere"}, {"path": str(OWN)}])
    real = process.run

    def run(argv, **options):
        if argv[0] != "uv":
            return real(argv, **options)
        assert argv[-1] == "cpython@3.12"
        return process.Completed(listed.encode(), "")

    monkeypatch.setattr(process, "run", run)
    counting(tmp_path / "own", ANSWER)
    assert [each.version for each in interpreter.other_patches(describe(tmp_path / "own"))] == ["3.12.9"]


@pytest.mark.parametrize("listed", [b"", b"[]", b"{}", b'[{"path": 5}]', b"[1]", b'{"path": 1}'])
def test_an_answer_of_uv_that_is_none_finds_nothing(monkeypatch, tmp_path, listed):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    own = describe(OWN)
    monkeypatch.setattr(process, "run", lambda *_, **__: process.Completed(listed, ""))
    assert list(interpreter.other_patches(own)) == []
