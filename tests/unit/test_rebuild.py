import copy
import json
import subprocess
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild import attest, interpreter, rebuild
from reprobuild.attest import WheelRecord
from reprobuild.compare import CAUSES, Difference, Level, Verdict
from reprobuild.digest import Digest
from reprobuild.errors import RecordUnusable, ReprobuildError, SourceUnusable
from reprobuild.lockfile import parse
from reprobuild.rebuild import VARIATIONS, Guilt, Rebuilt, read_record
from reprobuild.sandbox import USUAL, Guarantees, Surroundings

NAME = "demo-1.0-py3-none-any.whl"
CONTENT = b"not really a wheel"
TOOL = Digest.of_bytes(b"tool")
LOCK = f"tool==2.0 --hash={TOOL}\n"
EVERYTHING = Guarantees("bubblewrap", *[True] * 6)


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
    return WheelRecord(json.dumps(statement(**changes)).encode(), f"{NAME}.intoto.json")


def verdict(*causes):
    digest = Digest.of_bytes(b"")
    differences = tuple(Difference((), "content", "a", "b", cause) for cause in causes)
    return Verdict(Level.PAYLOAD, digest, digest, 0, 0, differences)


def outcome(guilty):
    return Rebuilt(
        Path(NAME), verdict("clock"), varied=(), not_varied=(), held=(), guarantees=EVERYTHING, guilty=guilty
    )


# --- the variations --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIATIONS)
def test_each_variation_changes_just_what_it_is_named_for(name):
    changed = VARIATIONS[name].change(USUAL)
    different = {
        field.name for field in fields(Surroundings) if getattr(changed, field.name) != getattr(USUAL, field.name)
    }
    expected = {
        "path": {"root"},
        "hash-seed": {"hash_seed"},
        "user": {"user", "uid"},
        "directory-order": {"directory_order"},
    }
    assert different == expected.get(name, {name})


def test_every_field_is_varied_by_one_variation():
    """``noise`` is for tests of the sandbox; ``uid`` goes with the user."""
    touched = [
        field.name
        for each in VARIATIONS.values()
        for field in fields(Surroundings)
        if getattr(each.change(USUAL), field.name) != getattr(USUAL, field.name)
    ]
    assert sorted(touched) == sorted(field.name for field in fields(Surroundings) if field.name != "noise")


def test_variations_can_be_combined():
    around = USUAL
    for each in VARIATIONS.values():
        around = each.change(around)
    for each in VARIATIONS.values():
        assert each.change(around) == around or each.name == "jobs"


@pytest.mark.parametrize("name", VARIATIONS)
def test_each_variation_has_a_cause_and_a_guarantee_that_exist(name):
    each = VARIATIONS[name]
    assert each.name == name
    assert each.cause in CAUSES
    assert not each.held_by or each.held_by in {field.name for field in fields(Guarantees)}


@pytest.mark.parametrize("name", [name for name in VARIATIONS if VARIATIONS[name].value(USUAL)])
def test_what_a_build_can_see_of_a_variation_differs(name):
    each = VARIATIONS[name]
    assert each.value(each.change(USUAL)) != each.value(USUAL)


def test_the_other_time_zone_is_one():
    """A zone that the C library can't read is UTC, and would vary nothing."""
    varied = VARIATIONS["timezone"].change(USUAL)
    said = subprocess.run(["date", "+%z"], env={"TZ": varied.timezone}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "-1130"


def test_the_other_locale_is_known_here_or_plain_c():
    varied = VARIATIONS["locale"].change(USUAL)
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout
    assert varied.locale.lower().replace("utf-8", "utf8") in known.lower().split()


def test_the_other_path_lies_where_nobody_else_can_swap_it():
    """Only directly in /tmp does the sticky bit keep other users from renaming what we make."""
    assert Path(VARIATIONS["path"].change(USUAL).root).parent == Path("/tmp")
    assert Path(USUAL.root).parent == Path("/tmp")


@pytest.mark.parametrize(("jobs", "other"), [(1, 2), (2, 1), (8, 1)])
def test_the_other_number_of_jobs_is_another(jobs, other):
    assert VARIATIONS["jobs"].change(Surroundings(jobs=jobs)).job_count == other


# --- the record beside a wheel ---------------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    (tmp_path / f"{NAME}.intoto.json").write_text(json.dumps(statement()))
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
    with pytest.raises(RecordUnusable, match="is about demo") as caught:
        read_record(wheel)
    assert "trust neither" in caught.value.remedy


def test_a_renamed_wheel_is_not_the_one_in_the_record(wheel, tmp_path):
    other = wheel.rename(tmp_path / "other-1.0-py3-none-any.whl")
    (tmp_path / f"{NAME}.intoto.json").rename(tmp_path / f"{other.name}.intoto.json")
    with pytest.raises(RecordUnusable, match="is about demo-1"):
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
        {"sourceDateEpoch": 10**30},
    ],
)
def test_a_source_without_its_kind_or_time_is_no_source(tmp_path, external):
    with pytest.raises(RecordUnusable, match="what kind of source and which epoch"):
        rebuild._source_of(record(external=external), tmp_path, tmp_path)


@pytest.mark.parametrize("commit", ["", "HEAD", "--output=x", "0" * 39, "0" * 40 + "\0", "\ud800" * 40, "G" * 40])
def test_a_commit_is_named_by_its_number(tmp_path, commit):
    with pytest.raises(RecordUnusable, match="doesn't name the commit"):
        rebuild._source_of(record(source={"digest": {"gitCommit": commit}}), tmp_path, tmp_path)


def test_another_source_is_refused_with_both_names(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a.txt").write_text("a")
    (tmp_path / "scratch").mkdir()
    changed = record(external={"source": {"kind": "folder"}}, source={"digest": {"sha256": "0" * 64}})
    with pytest.raises(SourceUnusable, match=f"the record names sha256 {'0' * 64}, but this is sha256 ") as caught:
        rebuild._source_of(changed, tmp_path / "project", tmp_path / "scratch")
    assert "--project" in caught.value.remedy


def test_a_locked_file_is_read_back():
    (part,) = record().dependencies("build-requirement")
    file = rebuild._locked_file(record(), part)
    assert (file.name, file.version, file.filename, file.digest) == ("tool", "2.0", "tool-2.0-py3-none-any.whl", TOOL)
    rebuild._require_in_lock([file], parse(LOCK, "x"))


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
    ],
)
def test_a_malformed_requirement_is_refused(part):
    changed = record(build_requirement=part)
    (found,) = changed.dependencies("build-requirement")
    with pytest.raises(RecordUnusable):
        rebuild._locked_file(changed, found)


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
        rebuild._require_in_lock([rebuild._locked_file(changed, found)], parse(LOCK, "x"))


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
        rebuild._interpreter_of(record(interpreter={"annotations": own}))


# --- hints and causes ------------------------------------------------------------------------------


def test_hints_are_the_values_that_differ():
    found = {
        hint.variable: (hint.left, hint.right) for hint in rebuild._hints(record(), VARIATIONS["home"].change(USUAL))
    }
    assert found["home"] == ("/tmp/reprobuild-home", "/tmp/a-second-home")
    assert "path" not in found
    assert "umask" not in found


def test_a_variation_of_the_path_is_none_of_the_home():
    found = {hint.variable for hint in rebuild._hints(record(), VARIATIONS["path"].change(Surroundings(jobs=4)))}
    assert found == {"path"}


@pytest.mark.parametrize(
    "surroundings", [None, [], "x", {"root": 5, "jobs": "x", "user": None, "umask": "0", "unknown": 1}]
)
def test_hints_survive_whatever_a_record_says_of_its_surroundings(surroundings):
    hints = rebuild._hints(record(internal={"surroundings": surroundings}), VARIATIONS["user"].change(USUAL))
    assert {hint.variable: (hint.left, hint.right) for hint in hints} == {"user": ("builder", "rebuilder")}


def test_the_guilty_variations_name_the_causes():
    names = {"umask": "umask", "path": "build-path", "home": "umask"}
    guilty = tuple(Guilt(name, cause, verdict()) for name, cause in names.items())
    assert outcome(guilty=guilty).causes == ("umask", "build-path")
    assert outcome(guilty=()).causes == ("clock",)


JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=2), max_size=2)


def leaves(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from leaves(each, (*path, key))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(leaves(statement()))), JSON)
def test_whatever_stands_in_a_record_no_step_ends_in_a_traceback(path, value):
    changed = copy.deepcopy(statement())
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with suppress(ReprobuildError):
        read = WheelRecord(json.dumps(changed).encode(), "x")
        rebuild._hints(read, USUAL)
        for part in read.dependencies("build-requirement"):
            rebuild._require_in_lock([rebuild._locked_file(read, part)], parse(LOCK, "x"))
        rebuild._source_of(read, Path("/nonexistent"), Path("/nonexistent"))
