"""Everything that a lock pins, checked in parallel: each release's wheel made again from its sdist.

A package that fails ends no other. What has been found out is written down at once, so that a run that was interrupted
can go on; a finding that is taken from there is marked as resumed, because nothing was built for it now.
"""

import functools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from reprobuild import interpreter, process, published, sandbox
from reprobuild.causes import CAUSES
from reprobuild.compare import Level
from reprobuild.dependencies import Dependency
from reprobuild.digest import Digest
from reprobuild.errors import ExitCode, NotComparable, ReprobuildError, WriteFailed
from reprobuild.files import cache_root, write_atomically
from reprobuild.guesses import Guess
from reprobuild.index import Index, ReleasedFile
from reprobuild.progress import SILENT, Observer
from reprobuild.published import CONFINED, Checked, Confinement
from reprobuild.subject import Subject, select

_T = TypeVar("_T")
_LONGEST_REASON = 2000  # characters of what a build printed


class Kind(StrEnum):
    """How far a check came."""

    COMPARED = "compared"
    NOT_COMPARABLE = "not-comparable"
    NOT_CHECKED = "not-checked"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class File:
    """One of the two files of a comparison, as the index has it.

    Attributes:
        locked: whether the lock has its digest.
        uploaded: as RFC 3339; empty where the index doesn't tell.
    """

    name: str
    digest: str
    locked: bool
    uploaded: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found out; the part that is remembered.

    Attributes:
        generator: what the wheel says made it.
        guesses: those of the best try.
        won: the number of the best try, from 1.
        tries: how many there were.
        replayed: the members on which the recorded clock was replayed.
        causes: why the two differ, by name.
        reason: why there is no verdict; empty when there is one.
        seconds: how long it took.
    """

    level: Level
    generator: str
    guesses: tuple[Guess, ...]
    won: int
    tries: int
    replayed: tuple[str, ...]
    causes: tuple[str, ...]
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one dependency came out.

    Attributes:
        finding: None where nothing was built.
        wheel, sdist: None where they weren't found.
        reason: why it wasn't compared; empty when it was.
        error: of a check that failed, the code that it would have ended with alone.
        seconds: how long it took now.
        resumed: whether the finding is one of an earlier run.
    """

    dependency: Dependency
    kind: Kind
    finding: Finding | None = None
    wheel: File | None = None
    sdist: File | None = None
    reason: str = ""
    error: ExitCode | None = None
    seconds: float = 0.0
    resumed: bool = False

    @property
    def level(self) -> Level:
        """Its level; not comparable where there is no verdict."""
        return self.finding.level if self.finding else Level.NOT_COMPARABLE


@dataclass(frozen=True, slots=True)
class Summary:
    """How many of how many.

    Attributes:
        pinned: everything in the lock but its own projects.
        kinds: how many of each kind; together they are ``pinned``.
        levels: of the compared ones, how many of each level; together they are ``kinds[Kind.COMPARED]``.
        replayed: how many of the identical ones have a replayed clock.
        resumed: how many are findings of an earlier run.
    """

    pinned: int
    kinds: dict[Kind, int]
    levels: dict[Level, int]
    replayed: int
    resumed: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Summary":
        """Count."""
        every = list(outcomes)
        kinds = Counter(each.kind for each in every)
        levels = Counter(each.level for each in every if each.kind is Kind.COMPARED)
        same = [each for each in every if each.level is Level.IDENTICAL]
        return cls(
            len(every),
            {kind: kinds[kind] for kind in Kind},
            {level: levels[level] for level in Level if level is not Level.NOT_COMPARABLE},
            sum(bool(each.finding and each.finding.replayed) for each in same),
            sum(each.resumed for each in every),
        )


def exit_code(outcomes: Iterable[Outcome], accepted: Level, *, allow_unchecked: bool = False) -> ExitCode:
    """What a run ends with: what was found weighs more than what couldn't be found out.

    Bytes that aren't the locked ones come first, then the deepest difference that isn't accepted, then the first error
    in the lock's order, then whatever wasn't compared. What the user skips weighs nothing, unless nothing is left.
    """
    every = list(outcomes)
    errors = [each.error for each in every if each.error is not None]
    if ExitCode.DIGEST_MISMATCH in errors:
        return ExitCode.DIGEST_MISMATCH
    differing = [each.level for each in every if each.kind is Kind.COMPARED and not accepted.accepts(each.level)]
    if differing:
        return max(differing, key=lambda level: level.rank).exit_code
    if errors:
        return errors[0]
    uncompared = any(each.kind in (Kind.NOT_COMPARABLE, Kind.NOT_CHECKED) for each in every)
    uncompared = uncompared or not any(each.kind is Kind.COMPARED for each in every)
    return ExitCode.NOT_COMPARABLE if uncompared and not allow_unchecked else ExitCode.OK


def verify(
    dependencies: Sequence[Dependency],
    finished: Callable[[Outcome], None],
    *,
    settings: Path,
    jobs: int,
    confinement: Confinement = CONFINED,
    skipped: frozenset[str] = frozenset(),
    resume: bool = False,
    observer: Observer = SILENT,
) -> tuple[Outcome, ...]:
    """Check every dependency.

    Args:
        finished: called with each outcome as it comes, in this thread.
        settings: the folder whose uv settings say where the index is.
        jobs: how many at once.
        confinement: how each build is shut in.
        skipped: normalised names that are left out.
        resume: take what earlier runs found out of the same files.

    Returns:
        The outcomes in the order of the dependencies.

    Raises:
        SandboxUnavailable: that kind doesn't work here.
    """
    chosen = sandbox.choose(confinement.sandbox).name
    if not sandbox.is_confined(chosen):
        observer.warn(published.IN_VIEW)
    if chosen == "plain" and jobs > 1:
        jobs = 1
        observer.warn("The sandbox kind plain has one fixed path, so one package is checked at a time.")
    checker = _Checker(
        settings, replace(confinement, sandbox=chosen), skipped, resume, _Shared(observer, len(dependencies))
    )
    found: dict[int, Outcome] = {}
    with process.workers(jobs) as pool:
        futures = {pool.submit(checker.check, each): number for number, each in enumerate(dependencies)}
        for future in as_completed(futures):
            found[futures.pop(future)] = outcome = future.result()
            checker.shared.count()
            finished(outcome)
    return tuple(found[number] for number in sorted(found))


@dataclass(frozen=True, slots=True)
class _Checker:
    """What all checks of a run have in common."""

    settings: Path
    confinement: Confinement
    skipped: frozenset[str]
    resume: bool
    shared: "_Shared"

    def check(self, dependency: Dependency) -> Outcome:
        if dependency.name in self.skipped:
            return Outcome(dependency, Kind.SKIPPED, reason="skipped, as asked")
        if dependency.why_not:
            return Outcome(dependency, Kind.NOT_CHECKED, reason=dependency.why_not)
        started = time.monotonic()
        try:
            outcome = self._check(dependency)
        except NotComparable as error:
            outcome = Outcome(dependency, Kind.NOT_COMPARABLE, reason=error.reason)
        except ReprobuildError as error:
            outcome = Outcome(dependency, Kind.FAILED, reason=_short(error.reason), error=error.exit_code)
        except Exception as error:  # noqa: BLE001 - a defect that one package shows must not cost the findings on others
            reason = f"a defect in reprobuild: {type(error).__name__}: {error}"
            outcome = Outcome(dependency, Kind.FAILED, reason=_short(reason), error=ExitCode.INTERNAL)
        return replace(outcome, seconds=round(time.monotonic() - started, 1))

    def _check(self, dependency: Dependency) -> Outcome:
        started = time.monotonic()
        observer = _Named(self.shared, str(dependency))
        observer.step("asking the index")
        pair = select(Index(self.settings, observer=observer), dependency.name, dependency.version, dependency.digests)
        memory = _Memory(pair, self.confinement)
        remembered = memory.recall() if self.resume else None
        if remembered is not None:
            return _outcome(dependency, pair, remembered, resumed=True)
        digests = frozenset(each.file.digest for each in pair)
        checked = published.check(
            Subject(dependency.name, dependency.version, digests=digests),
            settings=self.settings,
            confinement=self.confinement,
            observer=observer,
        )
        finding = _finding(checked, round(time.monotonic() - started, 1))
        try:
            if not checked.exhausted:  # other limits may give another finding
                memory.keep(finding)
        except WriteFailed as error:
            observer.warn(f"What was found out can't be kept for --resume: {error.reason}")
        return _outcome(dependency, pair, finding)


def _outcome(
    dependency: Dependency, pair: tuple[ReleasedFile, ReleasedFile], finding: Finding, *, resumed: bool = False
) -> Outcome:
    wheel, sdist = (
        File(each.file.filename, str(each.file.digest), each.file.digest in dependency.digests, each.uploaded)
        for each in pair
    )
    kind = Kind.NOT_COMPARABLE if finding.level is Level.NOT_COMPARABLE else Kind.COMPARED
    return Outcome(dependency, kind, finding, wheel, sdist, finding.reason, resumed=resumed)


def _finding(checked: Checked, seconds: float) -> Finding:
    best = checked.best
    return Finding(
        level=checked.level,
        generator=checked.generator,
        guesses=best.hypothesis.guesses,
        won=checked.tries.index(best) + 1,
        tries=len(checked.tries),
        replayed=best.replay.members if best.replay else (),
        causes=checked.causes,
        reason=_short(f"no try could be built; the likeliest: {best.failure}") if best.verdict is None else "",
        seconds=seconds,
    )


def _short(text: str) -> str:
    """A reason of a bounded length. What went wrong is at the end of what a build prints."""
    if len(text) <= _LONGEST_REASON:
        return text
    head = _LONGEST_REASON // 5
    return f"{text[:head]}\n…\n{text[head - _LONGEST_REASON :]}"


# --- what is remembered --------------------------------------------------------------------------------


class _Memory:
    """The place of one finding: known by all that it is a function of."""

    def __init__(self, pair: tuple[ReleasedFile, ReleasedFile], confinement: Confinement) -> None:
        own = interpreter.find(None)
        wheel, sdist = pair
        self._key = {
            "wheel": str(wheel.file.digest),
            "name": wheel.file.filename,
            "uploaded": wheel.uploaded,
            "sdist": str(sdist.file.digest),
            "sandbox": confinement.sandbox,
            "python": f"{own.implementation} {own.version} {own.platform} zlib {own.zlib}",
            "code": _code(),
        }
        self._path = cache_root() / "verified" / f"{Digest.of_bytes(_json(self._key)).hex}.json"

    def keep(self, finding: Finding) -> None:
        """Write it down for later runs.

        Raises:
            WriteFailed: that can't be done.
        """
        write_atomically(self._path, [_json({"key": self._key, "finding": _to_json(finding)})])

    def recall(self) -> Finding | None:
        """What an earlier run wrote; None where there is nothing, or something else."""
        try:
            held = json.loads(self._path.read_bytes())
            return _from_json(held["finding"]) if held["key"] == self._key else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


@functools.cache
def _code() -> str:
    """A digest of reprobuild's own code: another version may guess, build or compare in another way."""
    folder = Path(__file__).parent
    files = {
        str(path.relative_to(folder)): str(Digest.of_file(path))
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.suffix != ".pyc"
    }
    return str(Digest.of_bytes(_json(files)))


def _to_json(finding: Finding) -> dict[str, Any]:
    said = {name: getattr(finding, name) for name in Finding.__dataclass_fields__}
    guesses = [{"name": each.name, "value": each.value, "evidence": each.evidence} for each in finding.guesses]
    lists = {"guesses": guesses, "replayed": list(finding.replayed), "causes": list(finding.causes)}
    return {**said, **lists, "level": str(finding.level)}


def _from_json(said: dict[str, Any]) -> Finding:
    """Read a finding again.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is none.
    """
    finding = Finding(
        level=Level(said["level"]),
        generator=_a(str, said["generator"]),
        guesses=tuple(Guess(**{name: _a(str, text) for name, text in each.items()}) for each in said["guesses"]),
        won=_a(int, said["won"]),
        tries=_a(int, said["tries"]),
        replayed=tuple(_a(str, each) for each in said["replayed"]),
        causes=tuple(_a(str, each) for each in said["causes"]),
        reason=_a(str, said["reason"]),
        seconds=_a(float, said["seconds"]),
    )
    if not set(finding.causes) <= CAUSES.keys() or not 1 <= finding.won <= finding.tries:
        raise ValueError
    return finding


def _a(kind: type[_T], value: object) -> _T:
    if type(value) is not kind:
        raise TypeError
    return value


# --- progress ------------------------------------------------------------------------------------------


class _Shared:
    """The observer of all checks, for one thread at a time, and how many of them are done."""

    def __init__(self, observer: Observer, total: int) -> None:
        self.observer = observer
        self.lock = threading.Lock()
        self._done, self._total = 0, total

    def count(self) -> None:
        with self.lock:
            self._done += 1

    @property
    def progress(self) -> str:
        return f"{self._done}/{self._total}"


class _Named:
    """The observer of one check: what it says is passed on with the package's name."""

    def __init__(self, shared: _Shared, name: str) -> None:
        self._shared = shared
        self._name = name

    def step(self, message: str) -> None:
        with self._shared.lock:
            self._shared.observer.step(f"{self._shared.progress} {self._name}: {message}")

    def line(self, text: str) -> None:
        with self._shared.lock:
            self._shared.observer.line(f"{self._name}: {text}")

    def warn(self, message: str) -> None:
        with self._shared.lock:
            self._shared.observer.warn(f"{self._name}: {message}")
