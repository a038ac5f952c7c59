"""Many checks at once, with a checker that takes its verdicts from a table instead of building."""

import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from reprobuild import batch, interpreter, process, published, sandbox
from reprobuild.batch import Kind, Outcome, Summary, exit_code, verify
from reprobuild.compare import Level, Verdict
from reprobuild.dependencies import Dependency
from reprobuild.difference import Difference
from reprobuild.digest import Digest
from reprobuild.errors import (
    DigestMismatch,
    ExitCode,
    IndexFailed,
    NotComparable,
    ReprobuildError,
    SandboxUnavailable,
    WriteFailed,
)
from reprobuild.guesses import Guess
from reprobuild.index import LockedFile, ReleasedFile
from reprobuild.infer import Hypothesis
from reprobuild.published import Checked, Try
from reprobuild.replay import Replay
from reprobuild.subject import Origin

UPLOADED = "2026-10-01T12:00:00Z"
GUESSES = (Guess("backend", "demo==1", "WHEEL says so"), Guess("clock", "none", "no other evidence"))


def dependency(name, **fields):
    return Dependency(name, "1.0", **{"where": "a lock", **fields})


def pair(name):
    """The two files of a release whose content is their name."""
    return tuple(
        ReleasedFile(LockedFile(name, "1.0", filename, Digest.of_bytes(filename.encode())), UPLOADED)
        for filename in (f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.tar.gz")
    )


def checked(name, level, *, replayed=False, causes=()):
    """What comes of a check: one try that couldn't be built, then one of the level."""
    here = Digest.of_bytes(b"")
    differences = tuple(Difference((), "x", "", "", cause) for cause in causes)
    verdict = None if level is Level.NOT_COMPARABLE else Verdict(level, here, here, 0, 0, differences)
    replay = Replay(("demo.dist-info/RECORD",), "", "") if replayed else None
    tries = (Try(Hypothesis(guesses=GUESSES), None, failure="no"), Try(Hypothesis(guesses=GUESSES), verdict, replay))
    wheel, sdist = pair(name)
    return Checked(wheel, Origin("sdist", sdist.file.filename, {}), tries, "demo 1")


class World:
    """What the index has, and how each check comes out: a level, an error to raise, or a function to call."""

    def __init__(self):
        self.ends = {}
        self.releases = {}
        self.checks = []
        self.options = []

    def select(self, index, name, version, digests=frozenset()):
        found = self.releases.get(name, pair(name))
        if isinstance(found, BaseException):
            raise found
        return found

    def check(self, subject, *, observer, **options):
        name = subject.name
        self.checks.append(name)
        self.options.append({**options, "digests": subject.digests})
        observer.step("building")
        end = self.ends.get(name, Level.IDENTICAL)
        if isinstance(end, BaseException):
            raise end
        found = end(name) if callable(end) else checked(name, end)
        observer.step("built")
        return found


@pytest.fixture
def world(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    made = World()
    monkeypatch.setattr(batch, "select", made.select)
    monkeypatch.setattr(published, "check", made.check)
    monkeypatch.setattr(sandbox, "choose", lambda _: SimpleNamespace(name="bubblewrap"))
    return made


@pytest.fixture
def run(world, tmp_path):
    """The outcomes of some names, in order, and in the order in which they came."""

    def run_it(*names, jobs=2, **options):
        came: list[Outcome] = []
        wanted = [each if isinstance(each, Dependency) else dependency(each) for each in names]
        outcomes = verify(wanted, came.append, settings=tmp_path, jobs=jobs, **options)
        assert sorted(map(str, came)) == sorted(map(str, outcomes))
        return outcomes

    return run_it


# --- one check -------------------------------------------------------------------------------------


def test_what_a_check_finds_out(run, world):
    world.ends["demo"] = lambda name: checked(name, Level.PAYLOAD, replayed=True, causes=("clock",))
    wheel, sdist = pair("demo")
    (outcome,) = run(dependency("demo", digests=frozenset([wheel.file.digest])))
    assert (outcome.kind, outcome.level, outcome.reason, outcome.error) == (Kind.COMPARED, Level.PAYLOAD, "", None)
    assert (outcome.wheel.name, outcome.wheel.locked, outcome.wheel.uploaded) == (wheel.file.filename, True, UPLOADED)
    assert (outcome.sdist.digest, outcome.sdist.locked) == (str(sdist.file.digest), False)
    finding = outcome.finding
    assert (finding.generator, finding.won, finding.tries, finding.guesses) == ("demo 1", 2, 2, GUESSES)
    assert (finding.replayed, finding.causes) == (("demo.dist-info/RECORD",), ("clock",))
    assert not outcome.resumed
    assert world.options[0]["digests"] == {wheel.file.digest, sdist.file.digest}


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (IndexFailed("It is gone."), Kind.FAILED, ExitCode.INDEX_FAILED),
        (DigestMismatch("It is gone."), Kind.FAILED, ExitCode.DIGEST_MISMATCH),
        (NotComparable("It is gone."), Kind.NOT_COMPARABLE, None),
        (ReprobuildError("It is gone."), Kind.FAILED, ExitCode.INTERNAL),
        (ZeroDivisionError("It is gone."), Kind.FAILED, ExitCode.INTERNAL),
    ],
)
@pytest.mark.parametrize("place", ["releases", "ends"])
def test_one_that_fails_ends_no_other(run, world, error, kind, code, place):
    getattr(world, place)["b"] = error
    outcomes = run("a", "b", "c")
    assert [each.level for each in outcomes] == [Level.IDENTICAL, Level.NOT_COMPARABLE, Level.IDENTICAL]
    assert (outcomes[1].kind, outcomes[1].error) == (kind, code)
    assert "It is gone." in outcomes[1].reason


def test_what_cannot_be_built_is_not_comparable(run, world):
    world.ends["demo"] = Level.NOT_COMPARABLE
    (outcome,) = run("demo")
    assert (outcome.kind, outcome.error) == (Kind.NOT_COMPARABLE, None)
    assert outcome.reason == "no try could be built; the likeliest: no"


def test_a_long_reason_keeps_its_beginning_and_its_end(run, world):
    world.ends["demo"] = IndexFailed("The build failed: " + "x" * 10_000 + " for want of a compiler")
    (outcome,) = run("demo")
    assert len(outcome.reason) < 2100
    assert outcome.reason.startswith("The build failed: ")
    assert outcome.reason.endswith(" for want of a compiler")


def test_what_cannot_be_checked_or_is_skipped_costs_nothing(run, world):
    outcomes = run(dependency("a", why_not="a folder"), "b", skipped=frozenset(["b"]))
    assert [(each.kind, each.reason) for each in outcomes] == [
        (Kind.NOT_CHECKED, "a folder"),
        (Kind.SKIPPED, "skipped, as asked"),
    ]
    assert world.checks == []


# --- at once ---------------------------------------------------------------------------------------


def test_so_many_run_at_once_and_no_more(run, world):
    barrier, running, most = threading.Barrier(3), [], []

    def build(name):
        running.append(name)
        most.append(len(running))
        barrier.wait(20)
        running.remove(name)
        return checked(name, Level.IDENTICAL)

    world.ends = dict.fromkeys("abcdef", build)
    run(*"abcdef", jobs=3)
    assert max(most) == 3


def test_results_come_as_they_finish_and_end_in_the_locks_order(world, tmp_path):
    first_may_end, came = threading.Event(), []
    world.ends["slow"] = lambda name: checked(name, Level.IDENTICAL) if first_may_end.wait(20) else None

    def finished(outcome):
        came.append(outcome.dependency.name)
        first_may_end.set()

    outcomes = verify([dependency("slow"), dependency("quick")], finished, settings=tmp_path, jobs=2)
    assert came == ["quick", "slow"]
    assert [each.dependency.name for each in outcomes] == ["slow", "quick"]


def test_steps_say_whose_they_are_and_how_many_are_done(world, tmp_path):
    steps: list[str] = []
    one_is_done = threading.Event()
    world.ends["b"] = lambda name: checked(name, Level.IDENTICAL) if one_is_done.wait(20) else None
    observer = SimpleNamespace(step=steps.append, line=steps.append, warn=steps.append)
    wanted = [dependency("a"), dependency("b")]
    verify(wanted, lambda _: one_is_done.set(), settings=tmp_path, jobs=1, observer=observer)
    assert steps[:3] == ["0/2 a 1.0: asking the index", "0/2 a 1.0: building", "0/2 a 1.0: built"]
    assert steps[-1] == "1/2 b 1.0: built"


def test_where_there_is_one_fixed_path_one_runs_at_a_time(run, world, monkeypatch):
    monkeypatch.setattr(sandbox, "choose", lambda _: SimpleNamespace(name="plain"))
    running: list[str] = []
    notes: list[str] = []

    def build(name):
        running.append(name)
        time.sleep(0.05)
        assert running == [name]
        running.remove(name)
        return checked(name, Level.IDENTICAL)

    world.ends = dict.fromkeys("abc", build)
    quiet = SimpleNamespace(step=str, line=str, warn=notes.append)
    outcomes = run(*"abc", jobs=3, observer=quiet)
    assert {each.level for each in outcomes} == {Level.IDENTICAL}
    assert [note for note in notes if note != published.IN_VIEW] == [notes[-1]]
    assert published.IN_VIEW in notes
    assert {options["confinement"].sandbox for options in world.options} == {"plain"}


def test_a_sandbox_that_does_not_work_ends_the_run_before_it_begins(run, world, monkeypatch):
    def choose(kind):
        raise SandboxUnavailable(f"{kind} doesn't work.")

    monkeypatch.setattr(sandbox, "choose", choose)
    with pytest.raises(SandboxUnavailable):
        run("a", confinement=replace(published.CONFINED, sandbox="unshare"))
    assert world.checks == []


# --- interrupted and resumed -----------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_was(world, run, tmp_path):
    """Interrupted after two of four, while a third runs: nothing of that one is believed."""
    ended = []
    third_runs = threading.Event()

    def build(name):
        third_runs.set()
        try:
            process.run(["sleep", "60"], env={"PATH": "/usr/bin:/bin"})
        except BaseException as end:
            ended.append(type(end))
            raise

    world.ends["c"] = build
    done = []

    def finished(outcome):
        done.append(outcome.dependency.name)
        if len(done) == 2:
            assert third_runs.wait(20)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        verify([dependency(name) for name in "abcd"], finished, settings=tmp_path, jobs=1)
    assert time.monotonic() - started < 15
    assert done == ["a", "b"]
    assert ended == [process.Stopped]
    assert "d" not in world.checks

    world.ends, world.checks = {}, []
    outcomes = run(*"abcd", resume=True)
    assert sorted(world.checks) == ["c", "d"]
    assert [each.resumed for each in outcomes] == [True, True, False, False]
    assert {each.level for each in outcomes} == {Level.IDENTICAL}


def test_a_resumed_finding_is_the_same_finding(run, world):
    world.ends["demo"] = lambda name: checked(name, Level.METADATA, replayed=True, causes=("clock", "umask"))
    (first,), (second,) = run("demo"), run("demo", resume=True)
    assert second.finding == first.finding
    assert (second.kind, second.level, second.resumed) == (Kind.COMPARED, Level.METADATA, True)
    assert world.checks == ["demo"]


def test_without_resume_everything_is_built_again(run, world):
    run("demo")
    (outcome,) = run("demo")
    assert world.checks == ["demo", "demo"]
    assert not outcome.resumed


def test_errors_are_not_remembered(run, world):
    world.ends["demo"] = IndexFailed("not now")
    run("demo")
    world.ends = {}
    (outcome,) = run("demo", resume=True)
    assert (outcome.level, outcome.resumed) == (Level.IDENTICAL, False)


@pytest.mark.parametrize("change", ["wheel", "sdist", "sandbox", "code", "python"])
def test_a_finding_about_anything_else_is_not_taken(run, world, monkeypatch, change):
    run("demo")
    wheel, sdist = pair("demo")
    other = LockedFile("demo", "1.0", wheel.file.filename, Digest.of_bytes(b"another"))
    if change == "wheel":
        world.releases["demo"] = (ReleasedFile(other, UPLOADED), sdist)
    elif change == "sdist":
        world.releases["demo"] = (wheel, ReleasedFile(other, UPLOADED))
    elif change == "sandbox":
        monkeypatch.setattr(sandbox, "choose", lambda _: SimpleNamespace(name="unshare"))
    elif change == "code":
        monkeypatch.setattr(batch, "_code", lambda: "another")
    else:
        own = SimpleNamespace(implementation="cpython", version="3.99", platform="linux", zlib="1")
        monkeypatch.setattr(interpreter, "find", lambda _: own)
    (outcome,) = run("demo", resume=True)
    assert not outcome.resumed
    assert world.checks == ["demo", "demo"]


def remembered(tmp_path):
    (path,) = (tmp_path / "cache" / "verified").iterdir()
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda said: said["finding"].pop("level"),
        lambda said: said["finding"].update(level="splendid"),
        lambda said: said["finding"].update(guesses=[3]),
        lambda said: said["finding"].update(guesses=[{"name": "x"}]),
        lambda said: said["finding"].update(tries="2"),
        lambda said: said["finding"].update(won=3),
        lambda said: said["finding"].update(causes=["magic"]),
        lambda said: said["finding"].update(replayed=[None]),
        lambda said: said["finding"].update(seconds="long"),
        lambda said: said.update(finding=[]),
        lambda said: said["key"].update(wheel="sha256:0"),
        lambda said: said.clear(),
    ],
)
def test_a_damaged_or_foreign_entry_is_ignored(run, world, tmp_path, damage):
    run("demo")
    path = remembered(tmp_path)
    said = json.loads(path.read_text())
    damage(said)
    path.write_text(json.dumps(said))
    (outcome,) = run("demo", resume=True)
    assert not outcome.resumed
    assert world.checks == ["demo", "demo"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, None])
def test_a_file_that_is_no_entry_is_ignored(run, world, tmp_path, content):
    run("demo")
    path = remembered(tmp_path)
    path.unlink()
    if content is None:
        path.mkdir()
        (path / "x").touch()
    else:
        path.write_bytes(content)
    (outcome,) = run("demo", resume=True)
    assert (outcome.resumed, outcome.level) == (False, Level.IDENTICAL)


def test_a_cache_that_cannot_be_written_costs_no_finding(run, monkeypatch):
    def fail(path, chunks):
        raise WriteFailed("The disk is full.")

    monkeypatch.setattr(batch, "write_atomically", fail)
    notes: list[str] = []
    (outcome,) = run("demo", observer=SimpleNamespace(step=str, line=str, warn=notes.append))
    assert outcome.level is Level.IDENTICAL
    assert notes == ["demo 1.0: What was found out can't be kept for --resume: The disk is full."]


# --- how many, and the exit code -------------------------------------------------------------------


def outcome(kind, level=None, error=None, **fields):
    finding = None
    if level:
        replayed = ("x",) if fields.pop("replayed", False) else ()
        finding = batch.Finding(level, "", (), 1, 1, replayed, (), "", 1.0)
    return Outcome(dependency("x"), kind, finding, error=error, **fields)


def same(**fields):
    return outcome(Kind.COMPARED, Level.IDENTICAL, **fields)


DIFFERENT = outcome(Kind.COMPARED, Level.PAYLOAD)
FRAMED = outcome(Kind.COMPARED, Level.CONTAINER)
REPLAYED = outcome(Kind.COMPARED, Level.CONTAINER, replayed=True)
LACKING = outcome(Kind.NOT_COMPARABLE)
UNBUILT = outcome(Kind.NOT_COMPARABLE, Level.NOT_COMPARABLE)
UNCHECKED = outcome(Kind.NOT_CHECKED)
SKIPPED = outcome(Kind.SKIPPED)
LOST = outcome(Kind.FAILED, error=ExitCode.INDEX_FAILED)
FORGED = outcome(Kind.FAILED, error=ExitCode.DIGEST_MISMATCH)
BROKEN = outcome(Kind.FAILED, error=ExitCode.INTERNAL)


def test_the_denominators():
    compared = [same(), same(replayed=True, resumed=True), DIFFERENT, REPLAYED]
    every = [*compared, LACKING, UNBUILT, UNCHECKED, SKIPPED, LOST]
    summary = Summary.of(every)
    assert summary.pinned == len(every) == sum(summary.kinds.values())
    assert summary.kinds == {
        Kind.COMPARED: 4,
        Kind.NOT_COMPARABLE: 2,
        Kind.NOT_CHECKED: 1,
        Kind.SKIPPED: 1,
        Kind.FAILED: 1,
    }
    assert summary.levels == {Level.IDENTICAL: 2, Level.CONTAINER: 1, Level.METADATA: 0, Level.PAYLOAD: 1}
    assert sum(summary.levels.values()) == summary.kinds[Kind.COMPARED]
    assert (summary.replayed, summary.resumed) == (1, 1)


def test_nothing_is_pinned():
    assert Summary.of([]).pinned == 0
    assert exit_code([], Level.IDENTICAL) is ExitCode.NOT_COMPARABLE
    assert exit_code([SKIPPED], Level.IDENTICAL) is ExitCode.NOT_COMPARABLE
    assert exit_code([SKIPPED], Level.IDENTICAL, allow_unchecked=True) is ExitCode.OK


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([same(), SKIPPED], ExitCode.OK),
        ([same(), FRAMED], ExitCode.DIFFERS_CONTAINER),
        ([FRAMED, DIFFERENT, LACKING, LOST], ExitCode.DIFFERS_PAYLOAD),
        ([same(), LACKING], ExitCode.NOT_COMPARABLE),
        ([same(), UNBUILT], ExitCode.NOT_COMPARABLE),
        ([same(), UNCHECKED], ExitCode.NOT_COMPARABLE),
        ([LACKING, LOST, BROKEN], ExitCode.INDEX_FAILED),
        ([BROKEN, LOST], ExitCode.INTERNAL),
        ([DIFFERENT, LOST, FORGED], ExitCode.DIGEST_MISMATCH),
    ],
)
def test_the_worst_decides(outcomes, code):
    assert exit_code(outcomes, Level.IDENTICAL) is code


@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        (Level.CONTAINER, ExitCode.DIFFERS_PAYLOAD),
        (Level.METADATA, ExitCode.DIFFERS_PAYLOAD),
        (Level.PAYLOAD, ExitCode.OK),
    ],
)
def test_a_level_may_be_accepted(accepted, code):
    assert exit_code([same(), FRAMED, DIFFERENT], accepted) is code


def test_what_is_not_compared_is_accepted_by_no_level():
    for each in (LACKING, UNBUILT, UNCHECKED):
        assert exit_code([each], Level.PAYLOAD) is ExitCode.NOT_COMPARABLE
        assert exit_code([each], Level.PAYLOAD, allow_unchecked=True) is ExitCode.OK


@pytest.mark.parametrize("bad", [LOST, FORGED, BROKEN])
def test_no_option_makes_an_error_a_success(bad):
    assert exit_code([same(), bad], Level.PAYLOAD, allow_unchecked=True) is bad.error
