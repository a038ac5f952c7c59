import copy
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment

from reprobuild import attest, export, interpreter, recorded
from reprobuild.attest import WheelRecord
from reprobuild.digest import Digest
from reprobuild.errors import (
    RecordUnusable,
    SourceUnusable,
    ToolMissing,
)
from reprobuild.index import LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.lockfile import parse
from reprobuild.project import BuildSettings, Config
from reprobuild.recorded import read_record
from reprobuild.sandbox import USUAL
from reprobuild.source import EARLIEST_EPOCH, Source
from reprobuild.toolchain import compilers
from reprobuild.wheel import Inputs, statement_of

NAME = "demo-1.0-py3-none-any.whl"
CONTENT = b"not really a wheel"
TOOL = Digest.of_bytes(b"tool")
LOCK = f"tool==2.0 --hash={TOOL}\n"
MARKERS = {key: str(value) for key, value in default_environment().items()} | {"python_version": "3.11"}
PYTHON = Interpreter(Path(sys.executable), "3.11.7", "cpython", "linux-x86_64", Path("/usr"), "1.3", "cc", (), MARKERS)


def statement(**changes):
    """What a record says; ``changes`` replace a dependency by role, or a table of the build definition."""
    own = {"implementation": "cpython", "version": "3.11.7", "prefix": "/usr", "compiler": "cc"}
    parts: dict[str, dict[str, Any]] = {
        "source": {"digest": {"gitCommit": "0" * 40, "gitTree": "1" * 40}},
        "lock": {"digest": {"sha256": Digest.of_bytes(LOCK.encode()).hex}, "name": "constraints.txt"},
        "interpreter": {"digest": {"sha256": "0" * 64}, "name": "python3.11", "annotations": own},
        "build-requirement": {
            "digest": {"sha256": TOOL.hex},
            "name": "tool-2.0-py3-none-any.whl",
            "uri": "pkg:pypi/tool@2.0",
        },
    }
    named = []
    for role, usual in parts.items():
        part = usual | changes.get(role.replace("-", "_"), {})
        named.append({**part, "annotations": {**part.get("annotations", {}), "role": role}})
    return attest.provenance(
        attest.descriptor({"sha256": Digest.of_bytes(CONTENT).hex}, name=NAME),
        build_type=attest.WHEEL_BUILD_TYPE,
        external={"source": {"kind": "git"}, "sourceDateEpoch": 1_700_000_000} | changes.get("external", {}),
        internal={"surroundings": {**asdict(USUAL), "jobs": 4}} | changes.get("internal", {}),
        dependencies=named,
        builder_version={},
    )


def record(**changes):
    return WheelRecord(attest.encode(statement(**changes)), f"{NAME}.intoto.json")


# --- the record beside a wheel ---------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    (tmp_path / f"{NAME}.intoto.json").write_bytes(attest.encode(statement()))
    return path


def test_the_record_beside_a_wheel_is_read(wheel):
    assert read_record(wheel).subject == Digest.of_bytes(CONTENT)


def test_a_wheel_without_a_record_says_what_is_missing(wheel):
    wheel.with_name(f"{NAME}.intoto.json").unlink()
    with pytest.raises(RecordUnusable, match=r"has no record: demo-1\.0-py3-none-any\.whl\.intoto\.json") as caught:
        read_record(wheel)
    assert "keep them together" in caught.value.remedy


def test_a_changed_wheel_is_not_the_one_in_the_record(wheel):
    wheel.write_bytes(CONTENT + b"!")
    with pytest.raises(RecordUnusable, match="is about 'demo") as caught:
        read_record(wheel)
    assert "trust neither" in caught.value.remedy


def test_a_renamed_wheel_is_not_the_one_in_the_record(wheel, tmp_path):
    other = wheel.rename(tmp_path / "other-1.0-py3-none-any.whl")
    (tmp_path / f"{NAME}.intoto.json").rename(tmp_path / f"{other.name}.intoto.json")
    with pytest.raises(RecordUnusable, match="is about 'demo-1"):
        read_record(other)


# --- what a record names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "external",
    [
        {"source": None},
        {"source": {"kind": "svn"}},
        {"source": {"kind": ["git"]}},
        {"sourceDateEpoch": None},
        {"sourceDateEpoch": "1700000000"},
        {"sourceDateEpoch": True},
        {"sourceDateEpoch": 1.5},
        {"sourceDateEpoch": -1},
        {"sourceDateEpoch": EARLIEST_EPOCH - 1},
        {"sourceDateEpoch": 4_354_819_200},
    ],
)
def test_a_source_without_its_kind_or_time_is_no_source(tmp_path, external):
    with pytest.raises(RecordUnusable, match="what kind of source and which epoch"):
        recorded.source_of(record(external=external), tmp_path, tmp_path)


@pytest.mark.parametrize("commit", ["", "HEAD", "--output=x", "0" * 39, "0" * 40 + "\0", "\u0661" * 40, "G" * 40])
def test_a_commit_is_named_by_its_number(tmp_path, commit):
    with pytest.raises(RecordUnusable, match=r"doesn't name the commit|has no digest"):
        recorded.source_of(record(source={"digest": {"gitCommit": commit}}), tmp_path, tmp_path)


def test_another_source_is_refused_with_both_names(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a.txt").write_text("a")
    (tmp_path / "scratch").mkdir()
    changed = record(external={"source": {"kind": "folder"}}, source={"digest": {"sha256": "0" * 64}})
    with pytest.raises(SourceUnusable, match=f"the record names sha256 {'0' * 64}, but this is sha256 ") as caught:
        recorded.source_of(changed, tmp_path / "project", tmp_path / "scratch")
    assert "--project" in caught.value.remedy


def test_a_locked_file_is_read_back():
    (part,) = record().dependencies("build-requirement")
    file = recorded.locked_file(record(), part)
    assert (file.name, file.version, file.filename, file.digest) == ("tool", "2.0", "tool-2.0-py3-none-any.whl", TOOL)
    recorded._require_locked([file], parse(LOCK, "x"), PYTHON, "")


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_a_file_of_any_algorithm_comes_back_from_the_record_that_holds_it(algorithm, length):
    digest = Digest(algorithm, "a" * length)
    file = LockedFile("tool", "2.0", "tool-2.0-py3-none-any.whl", digest)
    read = written(files=(file,))
    (part,) = read.dependencies("build-requirement")
    assert recorded.locked_file(read, part) == file
    recorded._require_locked([file], parse(f"tool==2.0 --hash={digest}\n", "x"), PYTHON, "")


@pytest.mark.parametrize(
    "part",
    [
        {"name": "../../evil-2.0-py3-none-any.whl"},
        {"name": ".."},
        {"name": ""},
        {"name": "-r"},
        {"name": "a\0b"},
        {"name": "a\nb"},
        {"name": 5},
        {"uri": ""},
        {"uri": "pkg:pypi/tool"},
        {"uri": "pkg:pypi/@2.0"},
        {"uri": None},
        {"digest": {"sha256": "0"}},
        {"digest": {"sha256": TOOL.hex, "sha512": "0" * 128}},
    ],
)
def test_a_malformed_requirement_is_refused(part):
    changed = record(build_requirement=part)
    (found,) = changed.dependencies("build-requirement")
    with pytest.raises(RecordUnusable):
        recorded.locked_file(changed, found)


@pytest.mark.parametrize(
    "part",
    [
        {"digest": {"sha256": Digest.of_bytes(b"evil").hex}},
        {"uri": "pkg:pypi/other@2.0"},
        {"uri": "pkg:pypi/tool@2.1"},
        {"uri": "pkg:pypi/tool@2.0\nevil==1"},
    ],
)
def test_a_record_cannot_bring_in_what_the_lock_does_not_hold(part):
    changed = record(build_requirement=part)
    (found,) = changed.dependencies("build-requirement")
    with pytest.raises(RecordUnusable, match="which the lock doesn't hold"):
        recorded._require_locked([recorded.locked_file(changed, found)], parse(LOCK, "x"), PYTHON, "")


@pytest.mark.parametrize(
    ("lock", "names", "says"),
    [
        ("a==1 {0}\nb==1 {0}\n", ["a", "b"], ""),
        ("a==1 {0}\nb==1 {0}\n", ["a"], "leaves out b 1, which the lock holds for Python 3.11.7"),
        ("a==1 {0}\n", [], "leaves out a 1"),
        ("a==1 {0}\n", ["a", "a"], "names a-1-py3-none-any.whl with"),
        ("a==1 {0}\nb==1 ; python_version < '3.11' {0}\n", ["a"], ""),
        ("a==1 {0}\nb==1 ; python_version < '3.11' {0}\n", ["a", "b"], "names b-1-py3-none-any.whl with"),
    ],
)
def test_a_record_names_what_the_lock_selects_no_less_no_more(lock, names, says):
    files = [LockedFile(name, "1", f"{name}-1-py3-none-any.whl", TOOL) for name in names]
    read = parse(lock.format(f"--hash={TOOL}"), "x")
    with pytest.raises(RecordUnusable, match=says) if says else nullcontext():
        recorded._require_locked(files, read, PYTHON, "")


@pytest.mark.parametrize(
    ("version", "says"), [("3.11.7", "don't trust it"), ("3.12.0", "Use the Python that the record names")]
)
def test_only_with_the_same_python_is_another_selection_a_forgery(version, says):
    assert says in recorded._remedy(record(), replace(PYTHON, version=version))


# --- what a record says of its inputs ----------------------------------------------------------------

DEFINITION = ("predicate", "buildDefinition")
#: What no commit tells, and so a record may say as it likes.
FREE = (
    ("predicate", "runDetails", "builder", "version"),
    (*DEFINITION, "internalParameters"),
    (*DEFINITION, "resolvedDependencies", 2),
    ("subject",),  # compared with the wheel itself
)


def written(**changes):
    """The record that `reprobuild wheel` writes for some inputs."""
    said = statement_of(inputs(**changes), NAME, Digest.of_bytes(CONTENT), {"zlib": "1"}, {"uv": "1"})
    return WheelRecord(attest.encode(said), "x")


def inputs(**changes):
    settings = BuildSettings(environment={"LEVEL": "1"}, config_settings={"define": ("a", "b"), "plain": "c"})
    config = Config(Path(), "demo", "", (), "own.backend", (), True, None, None, settings, ())
    digests = {"gitCommit": "0" * 40, "gitTree": "1" * 40}
    exported = Source("git", Path(), 1_700_000_000, digests, "git+https://example.org/demo", "packages/demo")
    files = (LockedFile("tool", "2.0", "tool-2.0-py3-none-any.whl", TOOL),)
    return replace(Inputs(config, exported, files, Digest.of_bytes(LOCK.encode()), PYTHON), **changes)


def with_change(path, value):
    """The statement of the usual inputs with one thing in it replaced or added."""
    changed = copy.deepcopy(written().statement)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def test_a_record_that_was_just_written_is_believed():
    recorded._require_unchanged(written(), inputs())


def test_no_value_in_a_record_can_be_changed():
    """Of every leaf and every table: it is compared, unless it is among the few that are free."""
    said = written().statement
    tried = [path for path in leaves(said) if not any(path[: len(free)] == free for free in FREE)]
    assert len(tried) > 25
    for path in tried:
        if path[-1] == "uri" and "source" in path:
            continue
        with pytest.raises(RecordUnusable):
            recorded._require_unchanged(WheelRecord(attest.encode(with_change(path, "changed")), "x"), inputs())


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("predicate",),
        ("predicate", "runDetails"),
        ("predicate", "runDetails", "builder"),
        DEFINITION,
        (*DEFINITION, "externalParameters"),
        (*DEFINITION, "externalParameters", "source"),
        (*DEFINITION, "externalParameters", "environment"),
        (*DEFINITION, "externalParameters", "configSettings"),
        (*DEFINITION, "resolvedDependencies", 0),
        (*DEFINITION, "resolvedDependencies", 1, "annotations"),
        (*DEFINITION, "resolvedDependencies", 3, "digest"),
        ("subject", 0),
    ],
)
def test_a_record_says_nothing_more(path):
    changed = WheelRecord(attest.encode(with_change((*path, "more"), "x")), "x")
    with pytest.raises(RecordUnusable, match="more' something else than the source"):
        recorded._require_unchanged(changed, inputs())


def test_a_record_names_no_further_dependency():
    listed = written().statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    for more in ({"digest": {"sha256": "0" * 64}}, {"annotations": {"role": "other"}}, listed[3]):
        changed = with_change((*DEFINITION, "resolvedDependencies"), [*listed, more])
        with pytest.raises(RecordUnusable, match="resolvedDependencies"):
            recorded._require_unchanged(WheelRecord(attest.encode(changed), "x"), inputs())


def test_another_machine_and_clone_may_have_made_the_wheel():
    changed = written().statement
    changed["predicate"]["runDetails"]["builder"]["version"] = {"reprobuild": "9"}
    definition = changed["predicate"]["buildDefinition"]
    definition["internalParameters"] = {"new": 1}
    definition["externalParameters"]["source"]["uri"] = definition["resolvedDependencies"][0]["uri"] = "git+x://y"
    definition["resolvedDependencies"][2]["digest"] = {"sha256": "0" * 64}
    recorded._require_unchanged(WheelRecord(attest.encode(changed), "x"), inputs())


def test_the_place_of_the_source_is_said_twice_alike():
    changed = with_change((*DEFINITION, "externalParameters", "source", "uri"), "git+https://example.org/other")
    with pytest.raises(RecordUnusable, match=r"resolvedDependencies\.0\.uri"):
        recorded._require_unchanged(WheelRecord(attest.encode(changed), "x"), inputs())


def test_what_this_machine_has_otherwise_is_noted():
    read = written()
    read.internal["compilers"] = compilers()
    read.internal["zlib"] = PYTHON.zlib
    assert recorded.then_and_now(read, inputs()) == ()
    read.dependency("interpreter")["digest"]["sha256"] = "0" * 64
    read.external["source"]["uri"] = ""
    read.internal["zlib"] = "0.9"
    assert recorded.then_and_now(read, inputs()) == (
        "Python: one build of 3.11.7 then, another now",
        f"zlib: 0.9 then, {PYTHON.zlib} now",
        "source: unknown then, git+https://example.org/demo now",
    )
    newer = inputs(interpreter=replace(PYTHON, version="3.11.9"))
    assert recorded.then_and_now(read, newer)[0] == "Python: 3.11.7 then, 3.11.9 now"


@pytest.mark.parametrize(
    "said",
    [
        {"implementation": "/tmp/evil"},
        {"implementation": "--config-file=x"},
        {"implementation": "CPython"},
        {"version": ""},
        {"version": "../evil"},
        {"version": ">=3"},
        {"version": "3\n"},
        {"version": None},
    ],
)
def test_a_record_cannot_name_a_program_to_run(monkeypatch, said):
    """The record isn't signed: nothing that it says may become an option, or a path that gets started."""

    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(interpreter, "find", refuse)
    own = {"implementation": "cpython", "version": "3.99.1", "prefix": "/usr"} | said
    with pytest.raises(RecordUnusable):
        recorded._interpreter_of(record(interpreter={"annotations": own}))


@pytest.mark.parametrize(
    ("kind", "commit"), [("git", "a" * 40), ("dirty", "HEAD"), ("sdist", "HEAD"), ("folder", "HEAD")]
)
def test_the_source_is_opened_as_the_record_says(monkeypatch, tmp_path, kind, commit):
    opened = {}
    digests = {"gitCommit": "a" * 40, "gitTree": "b" * 40}

    def open_source(where, scratch, **options):
        opened.update(options)
        return replace(inputs().source, digests=digests)

    monkeypatch.setattr(export, "open_source", open_source)
    recorded.source_of(record(external={"source": {"kind": kind}}, source={"digest": digests}), tmp_path, tmp_path)
    assert opened == {"allow_dirty": kind == "dirty", "commit": commit, "epoch": 1_700_000_000}


def test_the_interpreter_is_the_recorded_one_else_its_next_of_kin(monkeypatch):
    asked = []

    def find(request):
        asked.append(request)
        if request.endswith(".7"):
            raise ToolMissing("not here")
        return PYTHON

    monkeypatch.setattr(interpreter, "find", find)
    monkeypatch.setattr(interpreter, "describe", lambda _: replace(PYTHON, version="3.12.0"))
    assert recorded._interpreter_of(record()) == PYTHON
    assert asked == ["cpython@3.11.7", "cpython@3.11"]
    monkeypatch.setattr(interpreter, "describe", lambda _: PYTHON)
    assert recorded._interpreter_of(record()) is PYTHON
    assert len(asked) == 2  # uv isn't asked for what runs already


def leaves(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from leaves(each, (*path, key))
