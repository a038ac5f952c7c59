"""Making a wheel or an sdist again from its record, elsewhere on purpose, and saying what mattered."""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from reprobuild import guilty, process, sdist
from reprobuild.attest import SdistRecord, WheelRecord
from reprobuild.causes import cause_of
from reprobuild.compare import Difference, Hint, Level, Verdict, compare
from reprobuild.digest import Digest
from reprobuild.errors import BuildFailed
from reprobuild.files import scratch_folder
from reprobuild.index import Index
from reprobuild.interpreter import Interpreter
from reprobuild.progress import SILENT, Observer
from reprobuild.recorded import (
    another_patch,
    inputs_of,
    is_rewritten,
    read_record,
    source_of,
    surroundings_of,
    then_and_now,
)
from reprobuild.sandbox import Guarantees, Surroundings
from reprobuild.variations import PYTHON, USUAL_NAMES, VARIATIONS, impossible, suspects
from reprobuild.wheel import Inputs, make

_BUILDS_AT_ONCE = 2
#: A stopped clock can keep a program waiting for ever: how long such a rebuild may take, in seconds and in times the
#: slowest one with a clock that runs.
_PATIENCE, _PATIENCE_FACTOR = 60, 10


@dataclass(frozen=True, slots=True)
class Guilt:
    """A variation that by itself changed the wheel, or several that do so only together.

    Attributes:
        variations: their names.
        causes: keys in ``compare.CAUSES``.
        verdict: the comparison with the wheel, less the differences that a rebuild with nothing varied has too.
    """

    variations: tuple[str, ...]
    causes: tuple[str, ...]
    verdict: Verdict

    @property
    def where(self) -> tuple[str, ...]:
        """What differs of which member, without what only follows from that; why nothing was built, if so."""
        if self.verdict.reason:
            return (self.verdict.reason,)
        own = (each for each in self.verdict.differences if not each.follows)
        return tuple(dict.fromkeys(" of ".join(filter(None, (e.field, " > ".join(e.path)))) for e in own))


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The outcome of making a wheel or an sdist again.

    Attributes:
        verdict: the comparison of the wheel with the one made again, everything varied.
        varied: the variations that were in force at once.
        not_varied: all others but the held one, each with the reason.
        held: the umask, when it alone decides the members' modes: the verdict is then that of a rebuild under the
            umask that every build here has, with all else varied (docs/adr/0005-the-umask-is-held.md).
        guilty: where the wheels differ: the variations that each change it alone, then the sets that do so together.
        unvaried: where they differ: what rebuilds here with nothing varied give: ``identical`` (the wheel),
            ``different`` (always the same other one), ``unsteady`` (another one each time); empty when not tried.
        unvaried_verdict: the comparison of the wheel with such a rebuild, unless that is identical or wasn't tried.
        guarantees: what the sandbox of the rebuild held fixed.
        rebuilds: how many times the wheel was made again.
    """

    path: Path
    verdict: Verdict
    varied: tuple[str, ...]
    not_varied: Mapping[str, str]
    held: tuple[str, ...]
    guarantees: Guarantees
    guilty: tuple[Guilt, ...] = ()
    unvaried: str = ""
    unvaried_verdict: Verdict | None = None
    rebuilds: int = 1
    notes: tuple[str, ...] = field(default=())

    @property
    def level(self) -> Level:
        """The deepest level that any of these rebuilds had: to accept less would be to accept what wasn't seen."""
        others = [guilt.verdict for guilt in self.guilty]
        if self.unvaried_verdict:
            others.append(self.unvaried_verdict)
        return max((self.verdict.level, *(each.level for each in others)), key=lambda level: level.rank)

    @property
    def causes(self) -> tuple[str, ...]:
        """The named causes of the difference: the guilty variations', and where these aren't all, the comparisons'."""
        causes = [cause for guilt in self.guilty for cause in guilt.causes]
        if self.unvaried_verdict or not self.guilty:
            causes += self.verdict.causes
        if self.unvaried_verdict:
            causes += self.unvaried_verdict.causes
        return tuple(dict.fromkeys(causes))


def verify(
    path: Path,
    where: Path,
    *,
    python: str | None = None,
    sandbox: str = "auto",
    vary: Sequence[str] = USUAL_NAMES,
    explain: bool = True,
    observer: Observer = SILENT,
) -> Rebuilt:
    """Make a wheel or an sdist again from what its record names, and compare the raw bytes.

    Args:
        path: with its record beside it.
        where: the folder of the project, or the sdist, that it was built from.
        python: another interpreter than the one that the record names.
        vary: names of variations. A umask that is asked for by name is never held.
        explain: when the bytes differ, build more often to find the guilty variations.

    Raises:
        RecordUnusable: there is no record, or it speaks of other bytes, or of other inputs than the source does.
        SourceUnusable, LockMissing, DigestMismatch: the source or the lock isn't what the record names.
        BuildFailed: the wheel can't be made again, whatever is varied.
        IndexFailed, ToolMissing, …: the same.
    """
    record = read_record(path)
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-") as scratch:
        observer.step("exporting the source that the record names")
        exported = source_of(record, where, scratch)
        index = Index(where if where.is_dir() else Path.cwd(), observer=observer)
        inputs, lock = inputs_of(record, exported, scratch, python)
        notes = then_and_now(record, inputs)
        other = another_patch(inputs, lock) if PYTHON in vary else None
        if other:
            notes += (f"python: varied with {other.version}, {other.executable}",)
        again = _Rebuilds(_Maker(path, record, inputs, other, index, scratch, sandbox))
        observer.step("making it again in other surroundings")
        wanted = tuple(name for name in VARIATIONS if name in vary and not VARIATIONS[name].why_not())
        verdict = again(wanted, observer)
        not_varied = {name: "not asked for" for name in VARIATIONS if name not in vary}
        not_varied |= impossible(vary, again.guarantees)
        if PYTHON in vary and other is None:
            not_varied[PYTHON] = f"no other patch release of Python {inputs.interpreter.version} that fits is here"
        varied = tuple(name for name in VARIATIONS if name not in not_varied)
        again.remember(varied, verdict)  # what has no effect makes no other set
        held: tuple[str, ...] = ()
        may_hold = "umask" in varied and set(vary) >= set(USUAL_NAMES)
        if may_hold and _shows_modes(verdict) and _decides_modes_alone(again):
            observer.step("modes follow the umask: making it again with everything else varied")
            held = ("umask",)
            varied = tuple(name for name in varied if name not in held)
            verdict = again(varied)
        in_order = {name: not_varied[name] for name in VARIATIONS if name in not_varied}
        outcome = Rebuilt(path, verdict, varied, in_order, held, again.guarantees, notes=notes)
        if verdict.level is not Level.IDENTICAL and explain:
            outcome = _explain(outcome, again, observer)
        return replace(outcome, rebuilds=again.count)


def _shows_modes(verdict: Verdict) -> bool:
    return any(map(_is_mode, verdict.differences)) or "mode" in dict(verdict.omitted)


def _decides_modes_alone(again: Callable[[Sequence[str]], Verdict]) -> bool:
    """Whether another umask gives other modes and nothing else, beside what comes out otherwise in any case."""
    differences = again(("umask",)).differences
    if not any(map(_is_mode, differences)) or all(map(_is_mode, differences)):
        return bool(differences) and all(map(_is_mode, differences))
    usual = {(each.path, each.field) for each in again(()).differences}
    return all(_is_mode(each) for each in differences if (each.path, each.field) not in usual)


def _is_mode(difference: Difference) -> bool:
    return difference.field == "mode" and difference.cause == "umask"


# --- making it again ---------------------------------------------------------------------------------


class _Rebuilds:
    """The wheel made again with some variations in force, for each set of them once."""

    def __init__(self, make_one: Callable[..., tuple[Verdict, Guarantees | None]]) -> None:
        self._make_one = make_one
        self._done: dict[frozenset[str], Verdict] = {}
        self._guarantees: Guarantees | None = None
        self._seconds: list[float] = []

    def __call__(self, names: Iterable[str], observer: Observer = SILENT) -> Verdict:
        """The verdict on the rebuild with these variations, which is made if there was none."""
        known = self._done.get(frozenset(names))
        return known or self.afresh(names, observer)

    def afresh(self, names: Iterable[str], observer: Observer = SILENT) -> Verdict:
        """The verdict on one more rebuild, whether or not there was one with the same variations."""
        wanted = frozenset(names)
        started = time.monotonic()
        verdict, guarantees = self._make_one(tuple(name for name in VARIATIONS if name in wanted), observer)
        self._seconds.append(time.monotonic() - started)
        self._guarantees = guarantees or self._guarantees
        self._done.setdefault(wanted, verdict)
        return verdict

    def remember(self, names: Iterable[str], verdict: Verdict) -> None:
        """What is known of some variations without a rebuild of its own."""
        self._done[frozenset(names)] = verdict

    def each(self, groups: Iterable[Iterable[str]], *, afresh: bool = False) -> list[Verdict]:
        """Several of them, as many at once as can be."""
        # Only one build at a time can have the fixed path where no namespace gives each its own.
        at_once = 1 if self.guarantees.kind == "plain" else min(_BUILDS_AT_ONCE, os.cpu_count() or 1)
        with process.workers(at_once) as pool:
            return list(pool.map(self.afresh if afresh else self, groups))

    @property
    def count(self) -> int:
        """How many rebuilds there were."""
        return len(self._seconds)

    @property
    def guarantees(self) -> Guarantees:
        """What the sandbox of these rebuilds holds fixed.

        Raises:
            BuildFailed: none could be made, even with nothing varied.
        """
        if self._guarantees is None:
            self(())
        assert self._guarantees is not None  # noqa: S101 - a rebuild with nothing varied has them or raises
        return self._guarantees

    def with_stopped_clock(self) -> "_Rebuilds":
        """The same rebuilds under a clock that doesn't go on, which may take only so long."""
        patience = _PATIENCE + _PATIENCE_FACTOR * max(self._seconds)
        stopped = _Rebuilds(partial(self._make_one, patience=patience))
        stopped._guarantees, stopped._seconds = self._guarantees, self._seconds
        return stopped


@dataclass(frozen=True, slots=True)
class _Maker:
    """What every rebuild of one wheel has in common.

    Attributes:
        other: the interpreter that takes the place of the usual one where Python is varied.
    """

    wheel: Path
    record: WheelRecord | SdistRecord
    inputs: Inputs
    other: Interpreter | None
    index: Index
    scratch: Path
    sandbox: str

    def __call__(
        self, varied: Sequence[str], observer: Observer = SILENT, *, patience: float | None = None
    ) -> tuple[Verdict, Guarantees | None]:
        """One rebuild. One that fails because of what is varied is a finding too; it has no guarantees.

        Args:
            patience: stop the clock, and end the build after so many seconds.
        """
        around, inputs = Surroundings(), self.inputs
        for name in varied:
            around = VARIATIONS[name].change(around)
        if "jobs" in varied and around.jobs == surroundings_of(self.record).jobs:  # or it would be no other
            around = replace(around, jobs=around.jobs + 1)
        if PYTHON in varied and self.other:
            inputs = replace(inputs, interpreter=self.other)
        if patience:
            around = replace(around, clock="stopped")
            settings = replace(inputs.config.wheel, timeout=min(inputs.config.wheel.timeout, int(patience)))
            inputs = replace(inputs, config=replace(inputs.config, wheel=settings))
        with scratch_folder(self.scratch, "again-") as folder:
            try:
                made, guarantees, seen = make(
                    inputs, self.index, folder / "out", kind=self.sandbox, surroundings=around, observer=observer
                )
            except BuildFailed as error:
                if not varied and not patience:
                    raise
                return _failure(self.wheel, error), None
            if is_rewritten(self.record):
                sdist.rewrite(made, folder / made.name, inputs.source.epoch)
                made = folder / made.name
            hints = _hints(self.record, seen, inputs.interpreter)
            verdict = compare(self.wheel, made, hints=hints)
            return _with_names(verdict, self.wheel.name, made.name, hints), guarantees


def _failure(wheel: Path, error: BuildFailed) -> Verdict:
    nothing = Digest.of_bytes(b"")
    last = error.reason.strip().splitlines()[-1]
    size = wheel.stat().st_size
    return Verdict(Level.NOT_COMPARABLE, Digest.of_file(wheel), nothing, size, 0, reason=f"the build fails: {last}")


def _with_names(verdict: Verdict, built: str, again: str, hints: Sequence[Hint]) -> Verdict:
    """A verdict in which another file name is a difference: it says what gets installed, and where."""
    if built == again:
        return verdict
    renamed = Difference((), "name", built, again, cause_of(built, again, hints))
    wheels = built.endswith(".whl")
    return replace(verdict, level=Level.PAYLOAD, differences=(renamed, *verdict.differences), wheels=wheels)


def _hints(record: WheelRecord | SdistRecord, second: Surroundings, python: Interpreter) -> list[Hint]:
    """What a build could see then and now, wherever the two differ."""
    first = surroundings_of(record)
    pairs = [(name, each.value(first), each.value(second)) for name, each in VARIATIONS.items()]
    said = record.dependency("interpreter").get("annotations", {}).get("version")
    pairs.append((PYTHON, said if isinstance(said, str) else "", python.version))
    return [Hint(name, left, right) for name, left, right in pairs if left and left != right]


# --- which variations matter -------------------------------------------------------------------------


def _explain(outcome: Rebuilt, again: _Rebuilds, observer: Observer) -> Rebuilt:
    """Make it again with nothing varied, and in as many other ways as it takes to find each guilty variation."""
    observer.step("the bytes differ: looking for the guilty variable")
    unvaried = again(())
    if unvaried.level is Level.IDENTICAL:
        outcome = replace(outcome, unvaried="identical")
    else:
        second = again.afresh(())
        steady = second.right == unvaried.right
        deeper = max(unvaried, second, key=lambda verdict: verdict.level.rank)
        outcome = replace(outcome, unvaried="different" if steady else "unsteady", unvaried_verdict=deeper)
        if not steady:
            return _explain_unsteady(outcome, again, observer)
    found = _search(outcome, again, outcome.varied, observer)
    if len(found.guilty) > 1:
        # A date or a minute that passed meanwhile makes all that was tried later look guilty.
        later = again.afresh(())
        if later.right != unvaried.right:
            drifted = replace(outcome, unvaried="unsteady", unvaried_verdict=later)
            return _explain_unsteady(drifted, again, observer)
    return found


def _explain_unsteady(outcome: Rebuilt, again: _Rebuilds, observer: Observer) -> Rebuilt:
    """Stop the clock: if that makes it steady, the clock is guilty, and what else is can be found as usual."""
    if VARIATIONS["clock"].why_not() or outcome.unvaried_verdict is None:
        return outcome
    observer.step("it comes out different each time: making it twice with the clock stopped")
    stopped = again.with_stopped_clock()
    first, second = stopped.each([(), ()], afresh=True)
    if first.right != second.right or first.reason:
        return outcome
    outcome = replace(outcome, guilty=(Guilt(("clock",), ("clock",), outcome.unvaried_verdict),))
    return _search(outcome, stopped, tuple(name for name in outcome.varied if name != "clock"), observer)


def _search(outcome: Rebuilt, again: _Rebuilds, names: Sequence[str], observer: Observer) -> Rebuilt:
    """Find which of some variations make another wheel than comes out with nothing varied."""
    usual = again(())

    def differs(verdict: Verdict) -> bool:
        return (verdict.level, verdict.right) != (usual.level, usual.right)

    def trial(groups: Sequence[frozenset[str]]) -> list[bool]:
        verdicts = again.each(groups)
        for group, verdict in zip(groups, verdicts, strict=True):
            tried = [name for name in VARIATIONS if name in group]
            observer.step(f"{', '.join(tried)} alone: {verdict.level}")
        return [differs(verdict) for verdict in verdicts]

    if not names or not differs(again(names)):
        return outcome
    found = guilty.find(names, trial, suspects=suspects(outcome.verdict.causes))
    verdicts = zip(found.sets, again.each(found.sets), strict=True)
    guilts = [_guilt(each, verdict, usual) for each, verdict in verdicts if differs(verdict)]
    place = {name: at for at, name in enumerate(VARIATIONS)}
    in_order = sorted(
        [*outcome.guilty, *guilts],
        key=lambda guilt: (len(guilt.variations) > 1, [place[name] for name in guilt.variations]),
    )
    notes = outcome.notes
    if not found.complete:
        notes += (f"The search was given up after {again.count} rebuilds: more variables may be guilty.",)
    elif len(guilts) < len(found.sets):
        notes += (
            "With the same things varied it doesn't always come out the same: some guilty variables are missing.",
        )
    return replace(outcome, guilty=tuple(in_order), notes=notes)


def _guilt(names: tuple[str, ...], verdict: Verdict, usual: Verdict) -> Guilt:
    own = replace(verdict, differences=tuple(each for each in verdict.differences if each not in usual.differences))
    if names == (PYTHON,) and "compression" in own.causes:  # the reason why its version matters
        return Guilt(names, ("compression",), own)
    return Guilt(names, tuple(dict.fromkeys(VARIATIONS[name].cause for name in names)), own)
