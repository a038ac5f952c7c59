"""The parts of checking a published wheel that need no build."""

import calendar
import zipfile
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from reprobuild import lock, project, published
from reprobuild.archive import open_archive
from reprobuild.compare import Difference, Level, Verdict
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, IndexFailed
from reprobuild.index import Index, LockedFile, ReleasedFile
from reprobuild.infer import Aspect, Hypothesis
from reprobuild.progress import SILENT
from reprobuild.source import Source
from reprobuild.wheel import Inputs
from reprobuild.wheelfile import WheelFile

INFO = "demo-1.0.dist-info"
WRITTEN = (2026, 11, 21, 8, 0, 0)
RECORDED = (2024, 12, 4, 17, 35, 24)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("six==1.17.0", ("six", "1.17.0")), (" Typing_Extensions == 4.16 ", ("typing-extensions", "4.16"))],
)
def test_a_requirement_is_a_name_and_a_version(text, expected):
    assert published.parse(text) == expected


@pytest.mark.parametrize("text", ["six", "six==", "==1", "six==1.*", "six>=1", "../six==1", "six==1;x", "six[a]==1"])
def test_anything_else_is_refused(text):
    with pytest.raises(BadInput, match="is not NAME==VERSION"):
        published.parse(text)


def released(*names):
    return tuple(ReleasedFile(LockedFile("demo", "1.0", name, Digest.of_bytes(name.encode())), "") for name in names)


def test_the_wheel_for_every_platform_is_checked_first():
    files = released("demo-1.0-cp311-cp311-linux_x86_64.whl", "demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz")
    assert published._wheel_of(files, "demo", "1.0").file.filename == "demo-1.0-py3-none-any.whl"
    assert published._sdist_of(files, "demo", "1.0").file.filename == "demo-1.0.tar.gz"


def test_a_release_without_a_wheel_or_an_sdist_says_so():
    with pytest.raises(IndexFailed, match=r"no wheel of demo 1\.0"):
        published._wheel_of(released("demo-1.0.tar.gz"), "demo", "1.0")
    with pytest.raises(IndexFailed, match=r"no sdist \(\.tar\.gz\) of demo 1\.0"):
        published._sdist_of(released("demo-1.0-py3-none-any.whl"), "demo", "1.0")


# --- the recorded clock ------------------------------------------------------------------------------


def write(path, times):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, moment in times.items():
            archive.writestr(zipfile.ZipInfo(name, moment), f"the content of {name}")


def as_published(path):
    with open_archive(path) as archive:
        fields = dict.fromkeys(WheelFile.__dataclass_fields__)
        return WheelFile(**{**fields, "path": path, "entries": archive.entries})


@pytest.fixture
def pair(tmp_path):
    """A published wheel and one made again, from the times of their members."""

    def make(theirs, ours):
        paths = (tmp_path / "theirs.whl", tmp_path / "ours.whl")
        for path, times in zip(paths, (theirs, ours), strict=True):
            write(path, times)
        return as_published(paths[0]), paths[1]

    return make


OLD = (2024, 11, 1, 10, 0, 0)
STARTED = calendar.timegm((2026, 11, 21, 7, 59, 59))


def test_the_recorded_clock_is_set_on_what_the_rebuild_wrote_alone(pair):
    theirs = {"a.py": OLD, f"{INFO}/METADATA": RECORDED, f"{INFO}/RECORD": (2024, 12, 4, 17, 35, 26)}
    wheel, made = pair(theirs, {"a.py": OLD, f"{INFO}/METADATA": WRITTEN, f"{INFO}/RECORD": WRITTEN})
    assert made.read_bytes() != wheel.path.read_bytes()
    replay = published.replay_clock(wheel, made, STARTED)
    assert made.read_bytes() == wheel.path.read_bytes()
    assert replay == published.Replay(
        (f"{INFO}/METADATA", f"{INFO}/RECORD"), "2024-12-04 17:35:24", "2024-12-04 17:35:26"
    )


def test_a_time_of_the_sources_is_never_taken_from_the_wheel(pair):
    wheel, made = pair({"a.py": RECORDED, "b": RECORDED}, {"a.py": OLD, "b": WRITTEN})
    assert published.replay_clock(wheel, made, STARTED) is not None
    with open_archive(made) as archive:
        assert {entry.name: entry.mtime for entry in archive.entries} == {
            "a.py": "2024-11-01 10:00:00",
            "b": "2024-12-04 17:35:24",
        }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"a": RECORDED}, {"a": OLD}),
        ({"a": RECORDED, "b": (2024, 12, 4, 18, 35, 30)}, {"a": WRITTEN, "b": WRITTEN}),
        ({"a": RECORDED}, {"a": WRITTEN, "extra": WRITTEN}),
        ({}, {}),
    ],
    ids=["nothing was written", "more than an hour apart", "a member of the rebuild's alone", "nothing at all"],
)
def test_where_there_is_no_one_recorded_clock_nothing_is_replayed(pair, theirs, ours):
    wheel, made = pair(theirs, ours)
    before = made.read_bytes()
    assert published.replay_clock(wheel, made, STARTED) is None
    assert made.read_bytes() == before


def test_a_replay_hides_no_other_difference(pair):
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN})
    assert published.replay_clock(wheel, made, STARTED) is not None
    assert made.read_bytes() != wheel.path.read_bytes()


# --- what came of it ---------------------------------------------------------------------------------


def tried(level=None, failure="", pins=(), cause=None, **options):
    """A try that gave a level with one difference, or none."""
    differences = (Difference(("a",), "mode", "644", "664", cause),) if level else ()
    digest = Digest.of_bytes(b"")
    verdict = Verdict(level, digest, digest, 0, 0, differences) if level else None
    hypothesis = Hypothesis(pins=tuple(map(Requirement, pins)), **options)
    return published.Try(hypothesis, verdict, failure=failure)


def checked(*tries):
    wheel, sdist = released("demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz")
    return published.Checked(wheel, sdist, tries)


GONE = f"{lock.UNRESOLVED}: there is no version of that"


@pytest.mark.parametrize(
    ("tries", "causes"),
    [
        ([tried(failure=GONE)], ("requirement-gone",)),
        ([tried(failure="The build failed.")], ()),
        ([tried(failure=GONE, pins=["flit==1"])], ()),
        ([tried(failure=GONE, tool="flit.buildapi")], ()),
        ([tried(failure=GONE), tried(Level.METADATA, cause="umask")], ("requirement-gone", "umask")),
        ([tried(failure=GONE), tried(Level.IDENTICAL)], ()),
        ([tried(Level.METADATA, cause="umask")], ("umask",)),
    ],
)
def test_requirements_that_nobody_can_satisfy_any_more_are_a_cause(tries, causes):
    assert checked(*tries).causes == causes


@pytest.mark.parametrize(
    ("done", "aspects"),
    [
        (tried(failure=GONE), {Aspect.UNRESOLVED}),
        (tried(failure="The build failed."), {Aspect.UNBUILT}),
        (tried(Level.METADATA), {Aspect.MODES}),
    ],
)
def test_a_try_says_what_to_change(done, aspects):
    assert done.outcome.aspects == aspects
    assert done.outcome.is_built is (Aspect.MODES in aspects)


def test_a_wrong_file_name_makes_a_try_worse():
    right = tried(Level.METADATA)
    assert right.rank < replace(right, renamed=True).rank


def a_checker(tmp_path, exported):
    wheel, sdist = released("demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz")
    return published._Checker(tmp_path, wheel, sdist, Index(tmp_path), tmp_path, "plain", None, SILENT)


def test_what_cannot_be_resolved_is_asked_once(tmp_path, monkeypatch):
    asked = []

    def resolve(_config, _python, _exported, pins, when, **_options):
        asked.append((pins, when))
        raise BuildFailed(GONE)

    monkeypatch.setattr(lock, "as_of", resolve)
    monkeypatch.setattr("reprobuild.interpreter.find", lambda _: None)
    exported = Source("sdist", tmp_path, 0, {})
    checker = a_checker(tmp_path, exported)
    for hypothesis in (Hypothesis(), Hypothesis(epoch=1), Hypothesis(index_time="2020"), Hypothesis(umask=0o077)):
        with pytest.raises(BuildFailed):
            checker._inputs(hypothesis, exported, None, tmp_path)
    assert asked == [((), ""), ((), "2020")]


def test_what_comes_to_the_same_inputs_is_built_once(tmp_path, monkeypatch):
    """A pin of what would have been chosen anyway changes nothing."""
    built = []

    def make(_inputs, _index, folder, **_options):
        folder.mkdir()
        write(folder / "theirs.whl", {"a.py": OLD, "more.py": OLD})
        built.append(folder)
        return folder / "theirs.whl", None, None

    monkeypatch.setattr(published, "make", make)
    python: Any = SimpleNamespace(executable=tmp_path)
    inputs = Inputs(None, None, (), None, python)  # type: ignore[arg-type]  # what isn't looked at
    monkeypatch.setattr(published._Checker, "_inputs", lambda *_: inputs)
    checker = a_checker(tmp_path, None)
    write(tmp_path / "theirs.whl", {"a.py": OLD})
    wheel, config = replace(as_published(tmp_path / "theirs.whl"), dist_info=INFO), SimpleNamespace(root=tmp_path)
    tries = [
        checker._try(1, each, wheel, (), None, config)
        for each in (Hypothesis(epoch=1), Hypothesis(epoch=1, pins=(Requirement("wheel==1"),)), Hypothesis(umask=0o077))
    ]
    assert tries[0] is tries[1]
    assert tries[2] is not tries[0]
    assert len(built) == 2


def test_a_tool_that_builds_by_itself_knows_no_build_system(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["other>=1"]\nbuild-backend = "other"\n')
    config = project.load(tmp_path)
    own = a_checker(tmp_path, None)._tools_own(config, "flit.buildapi")
    assert (own.backend, own.build_requires, own.backend_path) == ("flit.buildapi", (), ())
    assert project.load(own.root).backend == "flit.buildapi"
    assert project.load(tmp_path).backend == "other"
