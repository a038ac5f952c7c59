"""The parts of checking a published wheel that need no build."""

import calendar
import struct
import time
import zipfile
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from reprobuild import export, lock, project, published, subject
from reprobuild.archive import open_archive
from reprobuild.compare import Difference, Level, Verdict
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, BuildFailed, ExitCode
from reprobuild.guesses import Guess
from reprobuild.index import Index, LockedFile, ReleasedFile
from reprobuild.infer import Aspect, Hypothesis
from reprobuild.process import ToolTimeout
from reprobuild.progress import SILENT
from reprobuild.replay import Replay, set_clock
from reprobuild.source import Source
from reprobuild.subject import Origin, Subject
from reprobuild.wheel import Inputs
from reprobuild.wheelfile import WheelFile
from reprobuild.ziptime import offset_of

INFO = "demo-1.0.dist-info"
WRITTEN = (2026, 11, 21, 8, 0, 0)
RECORDED = (2024, 12, 4, 17, 35, 24)


@pytest.mark.parametrize(("confined", "notes"), [(True, ()), (False, (published.IN_VIEW,))])
def test_a_build_that_could_see_the_wheel_proves_less(tmp_path, monkeypatch, confined, notes):
    monkeypatch.setattr(published, "is_confined", lambda _: confined)
    monkeypatch.setattr(subject, "read_wheel", lambda path: SimpleNamespace(path=path, generator=""))
    monkeypatch.setattr(export, "open_source", lambda *_: SimpleNamespace(digests={}))
    monkeypatch.setattr(published._Checker, "run", lambda _: ())
    monkeypatch.setattr(subject, "_wheel", lambda *_: (SimpleNamespace(uploaded=""), ()))
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    found = published.check(Subject("demo", "1.0", path), settings=tmp_path, origin="demo")
    assert found.notes == notes


# --- named build requirements ------------------------------------------------------------------------


GUESSED = Hypothesis(
    pins=(Requirement("wheel==0.37"),),
    index_time="2021-01-01T00:00:00Z",
    guesses=tuple(Guess(name, "x", "y") for name in ("index time", "backend", "clock")),
)


def names(hypothesis):
    return [guess.name for guess in hypothesis.guesses]


def test_constraints_take_the_place_of_the_guess_about_what_they_name(tmp_path):
    path = tmp_path / "build.txt"
    path.write_text("# known\nWheel==0.38.4  # for sure\n\nsetuptools<60\n")
    known = published.Constraints.read(path)
    assert known.names == {"wheel", "setuptools"}
    assert known.text == "Wheel==0.38.4\nsetuptools<60\n"
    overruled = known.overrule(GUESSED)
    assert (overruled.pins, overruled.index_time) == ((), GUESSED.index_time)
    assert names(overruled) == ["index time", "clock", "build requirements"]
    other = replace(GUESSED, pins=(Requirement("hatchling==1.0"),))
    assert known.overrule(other).pins == other.pins
    assert "backend" in names(known.overrule(other))


def test_a_hashed_lock_takes_the_place_of_all_such_guesses(tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text(f"setuptools==60.0 --hash=sha256:{'0' * 64}\n")
    known = published.Constraints.read(path)
    assert known.locked is not None
    overruled = known.overrule(GUESSED)
    assert (overruled.pins, overruled.index_time, names(overruled)) == ((), "", ["clock", "build requirements"])


def test_constraints_that_are_none_are_refused(tmp_path):
    path = tmp_path / "build.txt"
    for line in ("-r other.txt", "a==" + "9" * 5000, "a; " + "(" * 3000 + "os_name=='x'" + ")" * 3000):
        path.write_text(f"{line}\n")
        with pytest.raises(BadInput, match="holds a line that is not a requirement"):
            published.Constraints.read(path)
    with pytest.raises(BadInput, match="holds a line that is not a requirement"):
        published.Constraints.read(path)
    with pytest.raises(BadInput, match=r"can't be read|There is no"):
        published.Constraints.read(tmp_path / "none.txt")


# --- what is kept ------------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="not an empty folder"):
        published.check(Subject("demo", "1.0"), settings=tmp_path, keep=tmp_path)
    with pytest.raises(BadInput, match="not an empty folder"):
        published.check(Subject("demo", "1.0"), settings=tmp_path, keep=tmp_path / "file")


def test_both_wheels_and_their_trees_are_kept_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "chunks_of", lambda stream: iter(lambda: stream.read(7), b""))
    for name in ("one.whl", "two.whl"):
        write(tmp_path / name, {"demo/a.py": OLD})
    published._keep(tmp_path / "kept", tmp_path / "one.whl", tmp_path / "two.whl")
    kept = {str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    trees = {f"{name}/tree/demo/a.py" for name in ("published", "rebuilt")}
    assert kept == {"published/one.whl", "rebuilt/two.whl", *trees}
    assert (tmp_path / "kept/published/one.whl").read_bytes() == (tmp_path / "one.whl").read_bytes()
    published._keep(tmp_path / "half", tmp_path / "one.whl", None)
    assert [path.name for path in (tmp_path / "half").iterdir()] == ["published"]


@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_be_kept_whole_is_not_kept_at_all(tmp_path, there):
    folder = tmp_path / "kept"
    if there:
        folder.mkdir()
    write(tmp_path / "one.whl", {"demo/a.py": OLD})
    write(tmp_path / "two.whl", {"demo/a.py": OLD, f"demo/{'b' * 300}.py": OLD})
    failed = published._keep(folder, tmp_path / "one.whl", tmp_path / "two.whl")
    assert failed is not None
    assert failed.exit_code == ExitCode.WRITE_FAILED
    assert "File name too long" in failed.reason
    assert folder.exists() == there
    assert not there or list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    failed = published._keep(tmp_path / "file" / "kept", tmp_path / "one.whl", None)
    assert failed is not None
    assert "Not a directory" in failed.reason


def test_a_kept_tree_is_for_its_owner_to_write(tmp_path):
    with zipfile.ZipFile(tmp_path / "one.whl", "w") as archive:
        for name, mode in (("a.py", 0o666), ("b.sh", 0o4777), ("c.py", 0o600)):
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o100000 | mode) << 16
            archive.writestr(member, b"")
    assert published._keep(tmp_path / "kept", tmp_path / "one.whl", None) is None
    tree = tmp_path / "kept/published/tree"
    assert [(tree / name).stat().st_mode & 0o7777 for name in ("a.py", "b.sh", "c.py")] == [0o644, 0o755, 0o600]


# --- the recorded clock ------------------------------------------------------------------------------


def write(path, times):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, moment in times.items():
            archive.writestr(zipfile.ZipInfo(name, moment), f"the content of {name}")


def as_published(path):
    with open_archive(path) as archive:
        fields = dict.fromkeys(WheelFile.__dataclass_fields__)
        return WheelFile(**{**fields, "path": path, "digest": Digest.of_file(path), "entries": archive.entries})


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
    replay = set_clock(wheel, made, STARTED)
    assert made.read_bytes() == wheel.path.read_bytes()
    assert replay == Replay((f"{INFO}/METADATA", f"{INFO}/RECORD"), "2024-12-04 17:35:24", "2024-12-04 17:35:26")


def test_a_time_of_the_sources_is_never_taken_from_the_wheel(pair):
    wheel, made = pair({"a.py": RECORDED, "b": RECORDED}, {"a.py": OLD, "b": WRITTEN})
    assert set_clock(wheel, made, STARTED) is not None
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
    assert set_clock(wheel, made, STARTED) is None
    assert made.read_bytes() == before


def test_the_clock_of_a_zip64_wheel_is_replayed(pair, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN, "b": OLD})
    for path in (wheel.path, made):
        data = bytearray(path.read_bytes())
        assert b"PK\x06\x06" in data
        struct.pack_into("<HHLL", data, len(data) - 14, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        path.write_bytes(data)
    assert set_clock(wheel, made, STARTED) is not None
    assert made.read_bytes() == wheel.path.read_bytes()


def test_the_clock_is_replayed_behind_a_script_that_starts_the_zip(pair):
    """A path in front shifts every offset that the zip itself records."""
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN, "b": OLD})
    for path in (wheel.path, made):
        path.write_bytes(b"PK\x03\x04" + b"#" * 99 + path.read_bytes())
    assert set_clock(as_published(wheel.path), made, STARTED) is not None
    assert made.read_bytes() == wheel.path.read_bytes()


def test_a_time_that_no_calendar_has_is_replayed_too(pair):
    wheel, made = pair({"a": RECORDED}, {"a": WRITTEN})
    path, data = wheel.path, wheel.path.read_bytes()
    now = struct.pack("<HH", 17 << 11 | 35 << 5 | 12, 44 << 9 | 12 << 5 | 4)
    assert data.count(now) == 2
    path.write_bytes(data.replace(now, b"\xff\xff\0\0"))
    assert set_clock(as_published(path), made, STARTED) is not None
    assert made.read_bytes() == path.read_bytes()


def test_a_replay_hides_no_other_difference(pair):
    wheel, made = pair({"a": RECORDED, "b": OLD}, {"a": WRITTEN})
    assert set_clock(wheel, made, STARTED) is not None
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
    name = "demo-1.0-py3-none-any.whl"
    wheel = ReleasedFile(LockedFile("demo", "1.0", name, Digest.of_bytes(name.encode())), "")
    return published.Checked(wheel, Origin("sdist", "demo-1.0.tar.gz", {}), tries)


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


def a_checker(tmp_path, exported, wheel: Any = None):
    return published._Checker(
        tmp_path, wheel, "", exported, Index(tmp_path), tmp_path, published.CONFINED, None, SILENT
    )


def test_what_cannot_be_resolved_is_asked_once(tmp_path, monkeypatch):
    asked = []

    def resolve(_config, _python, _exported, known, **_options):
        asked.append((known.pins, known.when))
        raise BuildFailed(GONE)

    monkeypatch.setattr(lock, "as_of", resolve)
    monkeypatch.setattr("reprobuild.interpreter.find", lambda _: None)
    exported = Source("sdist", tmp_path, 0, {})
    checker = a_checker(tmp_path, exported)
    for hypothesis in (Hypothesis(), Hypothesis(epoch=1), Hypothesis(index_time="2020"), Hypothesis(umask=0o077)):
        with pytest.raises(BuildFailed):
            checker._inputs(hypothesis, None, tmp_path)
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
    write(tmp_path / "theirs.whl", {"a.py": OLD})
    checker = a_checker(
        tmp_path, None, replace(as_published(tmp_path / "theirs.whl"), dist_info=INFO, tags=frozenset())
    )
    config: Any = SimpleNamespace(root=tmp_path)
    tries = [
        checker._try(1, each, (), config)
        for each in (Hypothesis(epoch=1), Hypothesis(epoch=1, pins=(Requirement("wheel==1"),)), Hypothesis(umask=0o077))
    ]
    assert tries[0] is tries[1]
    assert tries[2] is not tries[0]
    assert len(built) == 2


@pytest.mark.parametrize(
    ("zone", "ahead"),
    [("<-0800>+08:00", -8 * 3600), ("<+0530>-05:30", 19800), ("UTC", 0), ("America/New_York", -18000)],
)
@pytest.mark.parametrize("is_local", [True, False])
def test_the_clock_is_replayed_in_every_time_zone(pair, monkeypatch, zone, ahead, is_local):
    """Some backends write local time, some UTC, whatever the time zone is; sources are older than the build."""
    monkeypatch.setattr("time.time", lambda: STARTED + 3)
    now = STARTED + (ahead if is_local else 0) + 1
    written, older = (time.gmtime(each)[:6] for each in (now, now - 7200))
    theirs = {"a.py": OLD, f"{INFO}/RECORD": RECORDED}
    wheel, made = pair(theirs, {"a.py": older, f"{INFO}/RECORD": written})
    replay = set_clock(wheel, made, STARTED, offset_of(zone, STARTED))
    assert replay is not None
    assert replay.members == (f"{INFO}/RECORD",)


@pytest.mark.parametrize(
    "file",
    [
        LockedFile("demo", "1.0", "demo-1.0.tar.gz", Digest.of_bytes(b"x")),
        LockedFile("other", "1", "x", Digest.of_bytes(b"")),
    ],
)
def test_a_build_is_not_given_the_wheel_that_it_is_to_make(tmp_path, file):
    """By its name and version, or, under whatever name, by its digest."""
    wheel = SimpleNamespace(name="demo", version=Version("1.0"), digest=Digest.of_bytes(b""))
    checker = a_checker(tmp_path, None, wheel)
    with pytest.raises(BuildFailed, match="which is what is to be checked"):
        checker._refuse_itself([file])
    checker._refuse_itself([LockedFile("demo", "0.9", "demo-0.9.tar.gz", Digest.of_bytes(b"y"))])


def test_what_went_beyond_its_limits_is_not_tried_again(tmp_path, monkeypatch):
    def make(*_arguments, **_options):
        raise ToolTimeout("It ran longer than 3 s and was ended.")

    monkeypatch.setattr(published, "make", make)
    inputs = Inputs(None, None, (), None, SimpleNamespace(executable=tmp_path))  # type: ignore[arg-type]
    monkeypatch.setattr(published._Checker, "_inputs", lambda *_: inputs)
    checker = a_checker(tmp_path, None)
    config: Any = None
    assert checker._try(1, Hypothesis(), (), config).failure == "It ran longer than 3 s and was ended."
    assert checker.exhausted


def test_a_strangers_settings_show_a_build_nothing_more(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "x"\n'
        '[tool.reprobuild.wheel]\nreadable = ["/root"]\npath = ["/opt"]\n'
    )
    monkeypatch.setattr(published, "read_export", lambda *_: (project.load(tmp_path), None))
    monkeypatch.setattr("reprobuild.source.peek", lambda *_: None)
    monkeypatch.setattr(published, "_members", lambda _: ())
    search = SimpleNamespace(next=Hypothesis, learn=None)
    monkeypatch.setattr("reprobuild.published.choices_of", lambda *_, **__: {})
    monkeypatch.setattr("reprobuild.infer.Search", lambda *_, **__: search)
    seen = []

    def build(self, number, hypothesis, members, config):
        seen.append(config.wheel)
        return tried(Level.IDENTICAL)

    monkeypatch.setattr(published._Checker, "_try", build)
    wheel = SimpleNamespace(name="demo", version="1.0", path=tmp_path)
    a_checker(tmp_path, None, wheel).run()
    assert seen == [project.BuildSettings(timeout=1800, memory=published.CONFINED.memory)]


def test_a_wheel_that_changes_meanwhile_is_refused(tmp_path):
    path = tmp_path / "theirs.whl"
    write(path, {"a.py": OLD})
    checker = a_checker(tmp_path, None, as_published(path))
    write(path, {"b.py": OLD})
    with pytest.raises(BadInput, match="was changed while it was checked"):
        checker._compared(path, (), None)


def test_a_tool_that_builds_by_itself_knows_no_build_system(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["other>=1"]\nbuild-backend = "other"\n')
    config = project.load(tmp_path)
    own = a_checker(tmp_path, None)._tools_own(config, "flit.buildapi")
    assert (own.backend, own.build_requires, own.backend_path) == ("flit.buildapi", (), ())
    assert project.load(own.root).backend == "flit.buildapi"
    assert project.load(tmp_path).backend == "other"


def test_the_best_rebuilt_wheel_is_the_one_that_is_kept(tmp_path, monkeypatch):
    contents = [{"a.py": OLD}, {"a.py": WRITTEN, "more.py": OLD, "b.py": OLD}]

    def make(_inputs, _index, folder, **_options):
        folder.mkdir()
        write(folder / "theirs.whl", contents.pop(0))
        return folder / "theirs.whl", None, None

    monkeypatch.setattr(published, "make", make)
    python: Any = SimpleNamespace(executable=tmp_path)
    inputs = Inputs(None, None, (), None, python)  # type: ignore[arg-type]  # what isn't looked at
    monkeypatch.setattr(published._Checker, "_inputs", lambda *_: inputs)
    write(tmp_path / "theirs.whl", {"a.py": RECORDED})
    theirs = replace(as_published(tmp_path / "theirs.whl"), dist_info=INFO, tags=frozenset())
    checker = a_checker(tmp_path, None, theirs)
    config: Any = SimpleNamespace(root=tmp_path)
    for each in (Hypothesis(epoch=1), Hypothesis(epoch=1, own_modes=True)):
        checker._try(1, each, (), config)
    assert contents == []
    with open_archive(checker.best) as archive:
        assert [entry.name for entry in archive.entries] == ["a.py"]
