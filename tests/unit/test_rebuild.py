import copy
import os
import zipfile
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_recorded import LOCK, MARKERS, NAME, PYTHON, inputs, leaves, record, statement, with_change

from reprobuild import attest, guilty, interpreter, process, rebuild, recorded
from reprobuild.attest import WheelRecord
from reprobuild.causes import cause_of
from reprobuild.compare import Difference, Level, Verdict
from reprobuild.digest import Digest
from reprobuild.errors import (
    BuildFailed,
    DigestMismatch,
    LockMissing,
    RecordUnusable,
    ReprobuildError,
)
from reprobuild.lockfile import parse
from reprobuild.project import BuildSettings
from reprobuild.rebuild import Guilt, Rebuilt
from reprobuild.sandbox import USUAL, Guarantees, Surroundings
from reprobuild.variations import USUAL_NAMES, VARIATIONS

EVERYTHING = Guarantees("bubblewrap", *[True] * 6)


def verdict(*causes):
    digest = Digest.of_bytes(b"")
    differences = tuple(Difference((), "content", "a", "b", cause) for cause in causes)
    return Verdict(Level.PAYLOAD, digest, digest, 0, 0, differences)


def outcome(guilty):
    return Rebuilt(
        Path(NAME), verdict("clock"), varied=(), not_varied={}, held=(), guarantees=EVERYTHING, guilty=guilty
    )


# --- hints and causes ------------------------------------------------------------------------------


def test_hints_are_the_values_that_differ():
    found = {
        hint.variable: (hint.left, hint.right)
        for hint in rebuild._hints(record(), VARIATIONS["home"].change(USUAL), PYTHON)
    }
    assert found["home"] == ("/tmp/reprobuild-home", "/tmp/a-second-home")
    assert "path" not in found
    assert "umask" not in found


def test_the_version_of_python_is_a_hint():
    (hint,) = rebuild._hints(record(), Surroundings(jobs=4), replace(PYTHON, version="3.11.9"))
    assert (hint.variable, hint.left, hint.right) == ("python", "3.11.7", "3.11.9")
    assert cause_of("x = '3.11.7'", "x = '3.11.9'", [hint]) == "python-version"


def test_a_variation_of_the_path_is_none_of_the_home():
    found = {
        hint.variable for hint in rebuild._hints(record(), VARIATIONS["path"].change(Surroundings(jobs=4)), PYTHON)
    }
    assert found == {"path"}


@pytest.mark.parametrize(
    "surroundings", [None, [], "x", {"root": 5, "jobs": "x", "user": None, "umask": "0", "unknown": 1}]
)
def test_hints_survive_whatever_a_record_says_of_its_surroundings(surroundings):
    hints = rebuild._hints(record(internal={"surroundings": surroundings}), VARIATIONS["user"].change(USUAL), PYTHON)
    assert {hint.variable: (hint.left, hint.right) for hint in hints} == {"user": ("builder", "rebuilder")}


def test_the_guilty_variations_name_the_causes():
    names = {"umask": "umask", "path": "build-path", "home": "umask"}
    guilty = tuple(Guilt((name,), (cause,), verdict()) for name, cause in names.items())
    assert outcome(guilty=guilty).causes == ("umask", "build-path")
    assert outcome(guilty=()).causes == ("clock",)


JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=2), max_size=2)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(leaves(statement()))), JSON)
def test_whatever_stands_in_a_record_no_step_ends_in_a_traceback(path, value):
    changed = copy.deepcopy(statement())
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        data = attest.encode(changed)
    except (TypeError, ValueError):  # canonical JSON has no word for it
        return
    with suppress(ReprobuildError):
        read = WheelRecord(data, "x")
        rebuild._hints(read, USUAL, PYTHON)
        for part in read.dependencies("build-requirement"):
            recorded._require_locked([recorded.locked_file(read, part)], parse(LOCK, "x"), PYTHON, "")
        recorded.source_of(read, Path("/nonexistent"), Path("/nonexistent"))


# --- what is built again, and what is said of it -------------------------------------------------------


@pytest.fixture
def verify(tmp_path, monkeypatch):
    """`rebuild.verify` where a build is a function: of its surroundings and its number, to a wheel's members.

    Where it has further parameters, these are the interpreter and the seconds that it may take.

    ``record`` changes what is said of the first wheel, ``lock`` is the lock in the source (None: there is none).
    """

    def run(
        build, *, names=lambda *_: NAME, record=lambda _: None, lock=LOCK, source=None, guarantees=EVERYTHING, **options
    ):
        numbers, seen = count(), []

        def make(given, index, out_dir, *, kind, surroundings, observer):
            number = next(numbers)
            seen.append(surroundings)
            out_dir.mkdir(parents=True, exist_ok=True)
            path = out_dir / names(surroundings, number)
            more = (given.interpreter, given.config.wheel.timeout)[: len(signature(build).parameters) - 2]
            with zipfile.ZipFile(path, "w") as archive:
                for name, text in build(surroundings, number, *more).items():
                    info = zipfile.ZipInfo(name)
                    info.external_attr = (0o666 & ~surroundings.umask) << 16 if name == "modes" else 0
                    archive.writestr(info, text)
            return path, guarantees, surroundings

        built, _, _ = make(source or inputs(), None, tmp_path, kind="", surroundings=USUAL, observer=None)
        seen.clear()
        said = with_change(("subject", 0, "digest", "sha256"), Digest.of_file(built).hex)
        record(said["predicate"]["buildDefinition"])
        Path(f"{built}.intoto.json").write_bytes(attest.encode(said))
        monkeypatch.setattr(rebuild, "make", make)
        if lock is not None:
            (tmp_path / "constraints.txt").write_text(lock)
        read = (inputs().config, tmp_path / "constraints.txt")
        monkeypatch.setattr(rebuild, "source_of", lambda *_: inputs().source)
        monkeypatch.setattr(recorded, "read_export", lambda *_: read)
        monkeypatch.setattr(recorded, "_interpreter_of", lambda _: PYTHON)
        return rebuild.verify(built, tmp_path, **options), seen

    return run


def members(text, info=""):
    return {"demo.py": text, "demo-1.0.dist-info/WHEEL": info}


def test_everything_is_varied_at_once_and_that_is_all_when_the_bytes_are_the_same(verify):
    outcome, (around,) = verify(lambda *_: members("x"))
    assert (outcome.level, outcome.causes, outcome.unvaried) == (Level.IDENTICAL, (), "")
    same = [field.name for field in fields(Surroundings) if getattr(around, field.name) == getattr(USUAL, field.name)]
    assert same == []
    assert (outcome.varied, outcome.not_varied) == (USUAL_NAMES, {"python": "not asked for"})
    assert outcome.rebuilds == 1


@pytest.mark.parametrize("recorded", [1, 2, 8, "many", None])
def test_the_jobs_are_varied_even_where_the_first_build_had_just_one(verify, monkeypatch, recorded):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    said = {"internalParameters": {"surroundings": {"jobs": recorded}}}
    _, (around,) = verify(lambda *_: members("x"), record=lambda definition: definition.update(said))
    assert around.jobs == (2 if recorded == 1 else 1)


def test_a_suspect_is_tried_alone_beside_all_the_rest(verify):
    """Values that both wheels show accuse the path and the home: two rebuilds for these, and one for all others."""
    outcome, seen = verify(lambda around, _: members(f"{around.root}\n{around.home}"))
    assert outcome.unvaried == "identical"
    assert [(guilt.variations, guilt.verdict.level) for guilt in outcome.guilty] == [
        (("path",), Level.PAYLOAD),
        (("home",), Level.PAYLOAD),
    ]
    assert outcome.causes == ("build-path", "home")
    assert outcome.unvaried_verdict is None
    assert len(seen) == outcome.rebuilds == 1 + 1 + 3 + 1  # everything, nothing, path, home, the rest, nothing
    tried = [(around.root != USUAL.root, around.home != USUAL.home, around.umask != USUAL.umask) for around in seen]
    assert tried[:2] == [(True, True, True), (False, False, False)]
    assert sorted(tried[2:-1]) == [(False, False, True), (False, True, False), (True, False, False)]
    assert tried[-1] == (False, False, False)


def test_without_a_suspect_halves_are_tried(verify):
    outcome, seen = verify(lambda around, _: members(str(around.umask)))
    assert [guilt.variations for guilt in outcome.guilty] == [("umask",)]
    assert len(seen) == outcome.rebuilds < 3 + len(USUAL_NAMES)


def test_what_matters_only_together_is_named_together(verify):
    def build(around, _):
        return members("x" if around.home == USUAL.home or around.umask == USUAL.umask else "y")

    outcome, seen = verify(build)
    (guilt,) = outcome.guilty
    assert (guilt.variations, guilt.causes) == (("umask", "home"), ("umask", "home"))
    assert guilt.where == ("line 1 of demo.py",)
    assert len(seen) == outcome.rebuilds < 30
    assert not any("guilty" in note for note in outcome.notes)


def test_a_guilty_variation_comes_before_what_matters_only_together(verify):
    def build(around, _):
        both = around.root != USUAL.root and around.timezone != USUAL.timezone
        return {**members(str(both)), "noisy.py": around.noise}

    outcome, _ = verify(build)
    assert [guilt.variations for guilt in outcome.guilty] == [("noise",), ("path", "timezone")]
    assert [guilt.where for guilt in outcome.guilty] == [("line 1 of noisy.py",), ("line 1 of demo.py",)]
    assert outcome.causes == ("environment", "build-path", "timezone")


def test_a_search_without_end_is_given_up(verify, monkeypatch):
    monkeypatch.setattr(guilty, "find", partial(guilty.find, limit=3))
    outcome, seen = verify(lambda around, _: members(str(around.umask) + around.noise))
    assert len(seen) == outcome.rebuilds <= 5
    assert "The search was given up after" in outcome.notes[-1]


# --- the choice of what is varied ----------------------------------------------------------------------


def test_only_what_is_asked_for_is_varied(verify):
    outcome, (around,) = verify(lambda *_: members("x"), vary=("path", "umask"))
    assert around == replace(USUAL, root=around.root, umask=0o077)
    assert outcome.varied == ("path", "umask")
    assert outcome.not_varied == dict.fromkeys(
        [name for name in VARIATIONS if name not in outcome.varied], "not asked for"
    )


def test_a_umask_that_is_asked_for_by_name_is_not_held(verify):
    """Or nothing at all would have been varied."""
    outcome, seen = verify(lambda *_: {"modes": "x", **members("x")}, vary=("umask",))
    assert (outcome.level, outcome.held, outcome.varied) == (Level.PAYLOAD, (), ("umask",))
    (guilt,) = outcome.guilty
    assert (guilt.variations, guilt.where) == (("umask",), ("mode of modes",))
    assert len(seen) == 2


def test_a_umask_among_all_is_held(verify, monkeypatch):
    monkeypatch.setattr(interpreter, "other_patches", lambda _: iter([replace(PYTHON, version="3.11.9")]))
    outcome, _ = verify(lambda *_: {"modes": "x", **members("x")}, vary=tuple(VARIATIONS))
    assert (outcome.level, outcome.held) == (Level.IDENTICAL, ("umask",))
    assert sorted((*outcome.varied, "umask")) == sorted(VARIATIONS)


@pytest.mark.parametrize(("text", "unvaried", "level"), [("same", "", "identical"), ("other", "different", "payload")])
def test_nothing_can_be_varied(verify, text, unvaried, level):
    outcome, seen = verify(lambda _, number: members(text if number else "same"), vary=())
    assert (outcome.level, outcome.varied, outcome.unvaried, outcome.guilty) == (level, (), unvaried, ())
    assert all(around == USUAL for around in seen)


def test_a_clock_that_cannot_be_varied_is_not_said_to_be(verify, monkeypatch):
    monkeypatch.setitem(VARIATIONS, "clock", replace(VARIATIONS["clock"], why_not=lambda: "no compiler"))
    outcome, (around,) = verify(lambda *_: members("x"))
    assert around.clock == "real"
    assert "clock" not in outcome.varied
    assert outcome.not_varied == {"clock": "no compiler", "python": "not asked for"}


# --- another patch release of Python -------------------------------------------------------------------


def test_python_is_varied_with_another_patch_release(verify, monkeypatch):
    other = replace(PYTHON, version="3.11.9", executable=Path("/usr/bin/other"))
    monkeypatch.setattr(interpreter, "other_patches", lambda _: iter([other]))
    seen = []

    def build(_, __, python):
        seen.append(python.version)
        return members(python.version)

    outcome, _ = verify(build, vary=("path", "python"))
    assert seen[1:3] == ["3.11.9", "3.11.7"]  # all that is varied, nothing; then each alone
    assert sorted(seen[3:]) == ["3.11.7", "3.11.9"]
    assert [(guilt.variations, guilt.causes) for guilt in outcome.guilty] == [(("python",), ("python-version",))]
    assert outcome.notes[-1] == "python: varied with 3.11.9, /usr/bin/other"
    assert outcome.not_varied.keys() == VARIATIONS.keys() - {"path", "python"}


def test_a_wheel_that_another_zlib_compressed_says_so(verify, monkeypatch):
    monkeypatch.setattr(interpreter, "other_patches", lambda _: iter([replace(PYTHON, version="3.11.9")]))
    usual = verdict("compression")
    assert rebuild._guilt(("python",), usual, verdict()).causes == ("compression",)
    assert rebuild._guilt(("python",), verdict("clock"), verdict()).causes == ("python-version",)
    assert rebuild._guilt(("home",), usual, verdict()).causes == ("home",)


@pytest.mark.parametrize("others", [[], ["3.11.9"]])
def test_another_python_must_get_the_very_same_files(verify, monkeypatch, others):
    found = [replace(PYTHON, version=version, markers={**MARKERS, "python_full_version": "9"}) for version in others]
    monkeypatch.setattr(interpreter, "other_patches", lambda _: iter(found))
    lock = LOCK + "more==1 ; python_full_version == '9' --hash=sha256:" + "0" * 64 + "\n"
    digest = {"digest": {"sha256": Digest.of_bytes(lock.encode()).hex}}
    outcome, _ = verify(
        lambda *_: members("x"),
        vary=("path", "python"),
        lock=lock,
        source=inputs(lock=Digest.of_bytes(lock.encode())),
        record=lambda said: said["resolvedDependencies"][1].update(digest),
    )
    assert outcome.not_varied["python"] == "no other patch release of Python 3.11.7 that fits is here"
    assert outcome.varied == ("path",)


# --- rebuilds that fail ----------------------------------------------------------------------------------


def test_a_build_that_fails_because_of_a_variation_has_its_guilty_one(verify):
    def build(around, _):
        if around.umask == 0o077:
            raise BuildFailed("The build failed:\nsome lines\nPermissionError: nobody may read it")
        return members("x")

    outcome, _ = verify(build)
    assert outcome.level is Level.NOT_COMPARABLE
    assert outcome.verdict.reason == "the build fails: PermissionError: nobody may read it"
    assert [guilt.variations for guilt in outcome.guilty] == [("umask",)]
    assert outcome.guilty[0].where == (outcome.verdict.reason,)
    assert outcome.unvaried == "identical"


def test_a_build_that_always_fails_is_an_error(verify):
    def build(_, number):
        if number:
            raise BuildFailed("No space left")
        return members("x")

    with pytest.raises(BuildFailed, match="No space left"):
        verify(build, explain=False)


# --- a clock in the wheel ----------------------------------------------------------------------------------


def test_a_wheel_that_is_steady_under_a_stopped_clock_has_the_clock_to_blame(verify):
    def build(around, number):
        return members("stopped" if around.clock == "stopped" else f"at {number}")

    outcome, seen = verify(build)
    assert outcome.unvaried == "unsteady"
    assert [(guilt.variations, guilt.causes) for guilt in outcome.guilty] == [(("clock",), ("clock",))]
    assert outcome.guilty[0].verdict == outcome.unvaried_verdict
    assert [around.clock for around in seen] == ["shifted", "real", "real", "stopped", "stopped", "stopped"]
    assert outcome.rebuilds == len(seen)


def test_a_minute_that_passes_during_the_search_accuses_nobody_but_the_clock(verify):
    """With nothing varied it came out the same at first; all that is tried after the minute looks guilty."""

    def build(around, number):
        minute = "stopped" if around.clock == "stopped" else "12:01" if number > 2 else "12:00"
        return members(f"at {minute}", f"in {around.root}")

    outcome, _ = verify(build)
    assert outcome.unvaried == "unsteady"
    assert [guilt.variations for guilt in outcome.guilty] == [("path",), ("clock",)]


def test_beside_a_clock_other_guilty_variations_are_found(verify):
    def build(around, number):
        return members(f"x = '{around.home}'", "stopped" if around.clock == "stopped" else f"at 10:00:{10 + number}")

    outcome, _ = verify(build)
    assert [guilt.variations for guilt in outcome.guilty] == [("home",), ("clock",)]
    assert outcome.guilty[0].where == ("line 1 of demo.py",)
    assert outcome.level is Level.PAYLOAD


def test_a_build_that_a_stopped_clock_stops_stays_unsteady(verify):
    def build(around, number):
        if around.clock == "stopped":
            raise process.ToolTimeout("uv ran longer than 60 s and was ended.")
        return members(str(number))

    outcome, _ = verify(build)
    assert (outcome.unvaried, outcome.guilty) == ("unsteady", ())


def test_a_stopped_clock_is_waited_for_only_so_long(verify):
    def build(around, number, _, timeout):
        timeouts.append((around.clock, timeout))
        return members("" if around.clock == "stopped" else str(number))

    timeouts: list[tuple[str, float]] = []
    verify(build)
    assert {timeout for clock, timeout in timeouts[1:] if clock != "stopped"} == {BuildSettings().timeout}
    assert all(60 <= timeout < BuildSettings().timeout for clock, timeout in timeouts if clock == "stopped")


def test_without_another_clock_an_unsteady_build_is_left_at_that(verify, monkeypatch):
    monkeypatch.setitem(VARIATIONS, "clock", replace(VARIATIONS["clock"], why_not=lambda: "no compiler"))
    outcome, seen = verify(lambda _, number: members(str(number)))
    assert (outcome.unvaried, outcome.guilty, len(seen)) == ("unsteady", (), 3)


# --- what a record may not say -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda said: said.update(resolvedDependencies=said["resolvedDependencies"][:3]), RecordUnusable, "leaves out"),
        (lambda said: said["externalParameters"].update(backend="evil"), RecordUnusable, "externalParameters.backend"),
        (
            lambda said: said["resolvedDependencies"][1]["digest"].update(sha256="0" * 64),
            DigestMismatch,
            "record names",
        ),
    ],
)
def test_nothing_is_built_from_a_record_that_contradicts_the_source(verify, change, error, says):
    def build(around, number):
        assert number == 0
        return members("x")

    with pytest.raises(error, match=says):
        verify(build, record=change)


def test_nothing_is_built_without_a_lock(verify):
    with pytest.raises(LockMissing, match=r"no constraints\.txt"):
        verify(lambda *_: members("x"), lock=None)


def test_another_interpreter_can_be_asked_for(verify, monkeypatch):
    monkeypatch.setattr(interpreter, "find", lambda request: replace(PYTHON, version=f"{request}.9"))
    outcome, _ = verify(lambda *_: members("x"), python="3.11")
    assert "Python: 3.11.7 then, 3.11.9 now" in outcome.notes


def test_what_the_sandbox_cannot_vary_is_not_said_to_be_varied(verify):
    less = replace(EVERYTHING, kind="plain", fixed_hostname=False, fixed_directory_order=False)
    outcome, seen = verify(lambda around, _: members(around.home), guarantees=less)
    cannot = "the sandbox kind plain can't"
    assert outcome.not_varied == {"hostname": cannot, "directory-order": cannot, "python": "not asked for"}
    assert sorted([*outcome.varied, *outcome.not_varied]) == sorted(VARIATIONS)
    assert [guilt.variations for guilt in outcome.guilty] == [("home",)]
    assert len(seen) == 1 + 1 + 2  # everything, nothing, the home, the rest


@pytest.mark.parametrize(("kind", "processors", "expected"), [("plain", 8, 1), ("bubblewrap", 8, 2), ("unshare", 1, 1)])
def test_without_namespaces_one_is_built_at_a_time(verify, monkeypatch, kind, processors, expected):
    counts = []
    real = process.workers

    def workers(number):
        counts.append(number)
        return real(number)

    monkeypatch.setattr(process, "workers", workers)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    verify(lambda around, _: members(around.home), guarantees=replace(EVERYTHING, kind=kind))
    assert counts[-1] == expected


@pytest.mark.parametrize(
    ("umasked", "usual", "expected"),
    [
        ([("mode", "umask")], [], True),
        ([("mode", "umask"), ("mode", "umask")], [], True),
        ([("mode", None)], [], False),
        ([("line 1", "umask")], [], False),
        ([("mode", "umask"), ("line 1", "clock")], [], False),
        ([("mode", "umask"), ("line 1", "clock")], [("line 1", "clock")], True),
        ([("mode", "umask"), ("line 1", None), ("line 2", None)], [("line 2", None)], False),
        ([("line 1", "clock")], [("line 1", "clock")], False),
        ([], [], False),
    ],
)
def test_modes_alone_are_modes_alone(umasked, usual, expected):
    def again(names):
        listed = umasked if names == ("umask",) else usual
        differences = tuple(Difference(("a",), name, "644", "600", cause) for name, cause in listed)
        return replace(verdict(), differences=differences)

    assert rebuild._decides_modes_alone(again) is expected


def test_without_an_explanation_nothing_more_is_built(verify):
    outcome, seen = verify(lambda around, _: members(around.root), explain=False)
    assert (outcome.level, outcome.guilty, outcome.unvaried) == (Level.PAYLOAD, (), "")
    assert len(seen) == 1


def test_a_clock_in_the_metadata_hides_no_path_in_the_payload(verify):
    """What the unvaried rebuild shows is less than what the varied one did: the verdict stays the latter's."""
    outcome, _ = verify(lambda around, number: members(f"x = '{around.root}'", f"at 2026-01-01 10:00:{10 + number}"))
    assert outcome.unvaried == "unsteady"
    assert outcome.verdict.level is Level.PAYLOAD
    assert outcome.unvaried_verdict is not None
    assert outcome.unvaried_verdict.level is Level.METADATA
    assert outcome.level is Level.PAYLOAD
    assert set(outcome.causes) == {"build-path", "clock"}
    assert outcome.guilty == ()


def test_the_deeper_of_two_unsteady_rebuilds_counts(verify):
    """The third wheel alone (everything, nothing, nothing again) is worse than its metadata."""
    outcome, _ = verify(lambda _, number: members("y" if number == 3 else "x", str(number)))
    assert outcome.verdict.level is Level.METADATA
    assert outcome.unvaried_verdict is not None
    assert outcome.level is outcome.unvaried_verdict.level is Level.PAYLOAD


def test_of_a_steady_other_wheel_the_guilty_variations_are_still_found(verify):
    outcome, _ = verify(lambda around, number: members(f"x = '{around.home}'", "first" if number == 0 else "later"))
    assert outcome.unvaried == "different"
    assert outcome.unvaried_verdict is not None
    assert outcome.unvaried_verdict.level is Level.METADATA
    (guilt,) = outcome.guilty
    assert guilt.variations == ("home",)
    assert {each.path[0] for each in guilt.verdict.differences} == {"demo.py"}


def test_a_variation_that_alone_does_worse_than_all_together_counts(verify):
    def build(around, number):
        alone = around.user != USUAL.user and around.root == USUAL.root
        return members("y" if alone else "x", around.user)

    outcome, _ = verify(build)
    assert outcome.verdict.level is Level.METADATA
    assert outcome.level is Level.PAYLOAD


def test_a_umask_that_decides_modes_alone_is_held(verify):
    outcome, seen = verify(lambda *_: {"modes": "x", **members("x")})
    assert (outcome.level, outcome.held) == (Level.IDENTICAL, ("umask",))
    assert "umask" not in outcome.varied
    assert [around.umask for around in seen] == [0o077, 0o077, 0o022]
    assert seen[2].root != USUAL.root


def test_a_umask_that_decides_modes_alone_is_held_beside_a_clock(verify):
    """Or else the modes, which are payload, would be all that is told of a clock in the metadata."""
    outcome, _ = verify(lambda _, number: {"modes": "x", **members("x", f"at 2026-01-01 10:00:{10 + number}")})
    assert (outcome.level, outcome.held, outcome.causes) == (Level.METADATA, ("umask",), ("clock",))


def test_a_umask_that_gets_into_the_content_is_not_held(verify):
    outcome, _ = verify(lambda around, _: {"modes": "x", **members(oct(around.umask))})
    assert outcome.held == ()
    assert [guilt.variations for guilt in outcome.guilty] == [("umask",)]


OTHER = "demo-1.1-py3-none-any.whl"


def test_another_file_name_is_a_difference_even_of_the_same_bytes(verify):
    outcome, _ = verify(lambda *_: members("x"), names=lambda _, number: OTHER if number else NAME)
    assert outcome.verdict.left == outcome.verdict.right
    assert (outcome.level, outcome.verdict.wheels) == (Level.PAYLOAD, True)
    assert outcome.verdict.differences == (Difference((), "name", NAME, OTHER, None),)
    assert (outcome.unvaried, outcome.guilty) == ("different", ())


def test_a_name_that_follows_a_variation_has_its_guilty_one(verify):
    def names(around, number):
        return NAME if around.home == USUAL.home else OTHER

    outcome, _ = verify(lambda around, _: members(str(around.home)), names=names)
    assert [each.field for each in outcome.verdict.differences] == ["name", "line 1"]
    assert [guilt.variations for guilt in outcome.guilty] == [("home",)]
