"""Making a wheel again from its record, in surroundings that differ on purpose, and saying what mattered."""

import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from reprobuild import interpreter, lockfile, process, source
from reprobuild.attest import WheelRecord
from reprobuild.causes import cause_of
from reprobuild.compare import Difference, Hint, Level, Verdict, compare
from reprobuild.digest import Digest
from reprobuild.errors import DigestMismatch, LockMissing, RecordUnusable, ReprobuildError, SourceUnusable, ToolMissing
from reprobuild.files import scratch_folder
from reprobuild.index import Index, LockedFile
from reprobuild.interpreter import Interpreter
from reprobuild.progress import SILENT, Observer
from reprobuild.sandbox import USUAL, Guarantees, Surroundings
from reprobuild.toolchain import compilers, toolkit_of
from reprobuild.wheel import RECORD_SUFFIX, Inputs, make, read_export, statement_of

_BUILDS_AT_ONCE = 2
_CHANGED = "The record was changed after the build: don't trust it."
#: Locales that spell numbers, dates or letters unlike C, in the order in which they are looked for.
_OTHER_LOCALES = ("tr_TR.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8", "C")


@dataclass(frozen=True, slots=True)
class Variation:
    """One thing about a build's surroundings that may not matter.

    Attributes:
        name: as users write it.
        change: from the first build's surroundings to others.
        held_by: the guarantee without which the change would have no effect; empty for none.
        cause: the key in ``compare.CAUSES`` of what it means when this variation changes the wheel.
        value: what a build can see of it, to be looked for in what differs.
    """

    name: str
    change: Callable[[Surroundings], Surroundings]
    cause: str
    held_by: str = ""
    value: Callable[[Surroundings], str] = lambda _: ""


def _other_root(around: Surroundings) -> Surroundings:
    # Right below /tmp, whose sticky bit keeps others from putting their own folder in its place.
    return replace(around, root="/tmp/made-again-in-another-folder")  # noqa: S108 - see Surroundings.root


def _other_locale(around: Surroundings) -> Surroundings:
    here = _locales()
    return replace(around, locale=next((name for name in _OTHER_LOCALES if name.lower() in here), "C"))


@functools.cache
def _locales() -> frozenset[str]:
    # Not from /usr/lib/locale: some systems keep all of them in one archive there.
    try:
        listed = process.run(["locale", "-a"], env=process.tool_environment(), timeout=20).stdout
    except ReprobuildError:
        return frozenset()
    return frozenset(listed.decode(errors="replace").lower().replace(".utf8", ".utf-8").split())


def _other_jobs(around: Surroundings) -> Surroundings:
    return replace(around, jobs=1 if around.job_count > 1 else 2)


VARIATIONS: dict[str, Variation] = {
    each.name: each
    for each in (
        Variation("path", _other_root, "build-path", value=lambda around: around.root),
        Variation("umask", partial(replace, umask=0o077), "umask"),
        Variation("timezone", partial(replace, timezone="<-1130>+11:30"), "timezone", value=lambda a: a.timezone),
        Variation("locale", _other_locale, "locale", value=lambda around: around.locale),
        Variation("hash-seed", partial(replace, hash_seed="20011"), "hash-seed", value=lambda a: a.hash_seed),
        Variation("home", partial(replace, home="/tmp/a-second-home"), "home", value=lambda a: a.home),  # noqa: S108 - as root
        Variation(
            "hostname", partial(replace, hostname="elsewhere"), "hostname", "fixed_hostname", lambda a: a.hostname
        ),
        Variation("user", partial(replace, user="rebuilder", uid=1001), "user", value=lambda around: around.user),
        Variation("jobs", _other_jobs, "jobs", value=lambda around: str(around.job_count)),
        Variation(
            "directory-order", partial(replace, directory_order="reversed"), "file-order", "fixed_directory_order"
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Guilt:
    """A variation that by itself changed the wheel.

    Attributes:
        verdict: the comparison with the wheel, less the differences that a rebuild with nothing varied has too.
    """

    variation: str
    cause: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The outcome of making a wheel again.

    Attributes:
        verdict: the comparison of the wheel with the one made again, everything varied.
        varied: the variations that were in force at once.
        not_varied: those that this machine's sandbox has no way to vary.
        held: the umask, when it alone decides the members' modes: the verdict is then that of a rebuild under the
            umask that every build here has, with all else varied (docs/adr/0005-the-umask-is-held.md).
        guilty: where the wheels differ: the variations that each change it alone.
        unvaried: where they differ: what rebuilds here with nothing varied give: ``identical`` (the wheel),
            ``different`` (always the same other one), ``unsteady`` (another one each time); empty when not tried.
        unvaried_verdict: the comparison of the wheel with such a rebuild, unless that is identical or wasn't tried.
        guarantees: what the sandbox of the rebuild held fixed.
    """

    wheel: Path
    verdict: Verdict
    varied: tuple[str, ...]
    not_varied: tuple[str, ...]
    held: tuple[str, ...]
    guarantees: Guarantees
    guilty: tuple[Guilt, ...] = ()
    unvaried: str = ""
    unvaried_verdict: Verdict | None = None
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
        causes = [guilt.cause for guilt in self.guilty]
        if self.unvaried_verdict or not self.guilty:
            causes += self.verdict.causes
        if self.unvaried_verdict:
            causes += self.unvaried_verdict.causes
        return tuple(dict.fromkeys(causes))


def verify(
    wheel: Path,
    where: Path,
    *,
    python: str | None = None,
    sandbox: str = "auto",
    explain: bool = True,
    observer: Observer = SILENT,
) -> Rebuilt:
    """Make a wheel again from what its record names, and compare the raw bytes.

    Args:
        wheel: with its record beside it.
        where: the folder of the project, or the sdist, that it was built from.
        python: another interpreter than the one that the record names.
        explain: when the bytes differ, build once more for each variation to find the guilty ones.

    Raises:
        RecordUnusable: there is no record, or it speaks of other bytes, or of other inputs than the source does.
        SourceUnusable, LockMissing, DigestMismatch: the source or the lock isn't what the record names.
        BuildFailed, IndexFailed, ToolMissing, …: the wheel can't be made again.
    """
    record = read_record(wheel)
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-") as scratch:
        observer.step("exporting the source that the record names")
        exported = _source_of(record, where, scratch)
        index = Index(where if where.is_dir() else Path.cwd(), observer=observer)
        inputs = _inputs_of(record, exported, scratch, python)
        _require_unchanged(record, inputs)
        notes = _then_and_now(record, inputs)
        again = partial(_make_again, wheel, inputs, index, scratch, record, sandbox)
        observer.step("making it again in other surroundings")
        verdict, guarantees = again(tuple(VARIATIONS), observer)
        possible = tuple(name for name, each in VARIATIONS.items() if _can_vary(each, guarantees))
        not_varied = tuple(name for name in VARIATIONS if name not in possible)
        held: tuple[str, ...] = ()
        if verdict.level is not Level.IDENTICAL and _decides_modes_alone(again):
            observer.step("modes follow the umask: making it again with everything else varied")
            held = ("umask",)
            possible = tuple(name for name in possible if name not in held)
            verdict, _ = again(possible)
        outcome = Rebuilt(wheel, verdict, possible, not_varied, held, guarantees, notes=notes)
        if verdict.level is Level.IDENTICAL or not explain:
            return outcome
        return _explain(outcome, again, observer)


def _can_vary(variation: Variation, guarantees: Guarantees) -> bool:
    return not variation.held_by or bool(getattr(guarantees, variation.held_by))


def _decides_modes_alone(again: Callable[..., tuple[Verdict, Guarantees]]) -> bool:
    """Whether another umask gives other modes and nothing else, beside what comes out otherwise in any case."""
    differences = again(("umask",))[0].differences
    if not any(map(_is_mode, differences)) or all(map(_is_mode, differences)):
        return bool(differences) and all(map(_is_mode, differences))
    usual = {(each.path, each.field) for each in again(())[0].differences}
    return all(_is_mode(each) for each in differences if (each.path, each.field) not in usual)


def _is_mode(difference: Difference) -> bool:
    return difference.field == "mode" and difference.cause == "umask"


def read_record(wheel: Path) -> WheelRecord:
    """The record beside a wheel.

    Raises:
        BadInput: there is no such wheel.
        RecordUnusable: no record, a malformed one, or one about other bytes.
    """
    digest = Digest.of_file(wheel)
    path = wheel.with_name(f"{wheel.name}{RECORD_SUFFIX}")
    if not path.is_file():
        raise RecordUnusable(
            f"{wheel} has no record: {path.name} is not beside it.",
            "`reprobuild wheel` writes both; keep them together.",
        )
    data = path.read_bytes()
    record = WheelRecord(data, str(path))
    if record.subject != digest or record.subject_name != wheel.name:
        raise RecordUnusable(
            f"{path} is about {record.subject_name!r} with {record.subject}, but {wheel.name} has {digest}.",
            "The wheel or its record was changed after the build: trust neither.",
        )
    return record


# --- from a record back to a build's inputs ----------------------------------------------------------


def _source_of(record: WheelRecord, where: Path, scratch: Path) -> source.Source:
    described = record.dependency("source")
    digests = record.digests(described)
    parameters = record.external.get("source")
    kind = parameters.get("kind") if isinstance(parameters, dict) else None
    epoch = record.external.get("sourceDateEpoch")
    if type(epoch) is not int or source.clamped(epoch) != epoch or kind not in ("git", "dirty", "sdist", "folder"):
        raise RecordUnusable("The record doesn't say what kind of source and which epoch the wheel was built with.")
    commit = digests.get("gitCommit", "") if kind == "git" else "HEAD"
    if kind == "git" and not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        raise RecordUnusable("The record doesn't name the commit that the wheel was built from.")
    found = source.open_source(where, scratch, allow_dirty=kind == "dirty", commit=commit, epoch=epoch)
    if dict(found.digests) != digests:
        remedy = {
            "git": "Name the right checkout with --project.",
            "dirty": "It was built from a working tree with changes, which has changed since: build from a commit.",
        }.get(kind, "Name the source that the wheel was built from with --project.")
        raise SourceUnusable(
            f"{where} is not the source that the wheel was built from: the record names {_shown(digests)}, "
            f"but this is {_shown(found.digests)}.",
            remedy,
        )
    return found


def _shown(digests: Any) -> str:  # noqa: ANN401 - a mapping of texts
    return ", ".join(f"{name} {value}" for name, value in sorted(digests.items()))


def _inputs_of(record: WheelRecord, exported: source.Source, scratch: Path, asked: str | None) -> Inputs:
    config, lock_path = read_export(exported, scratch)
    if not lock_path.is_file():
        raise LockMissing(f"The source that the record names has no {lock_path.name}.")
    locked, recorded = Digest.of_file(lock_path), record.sha256(record.dependency("lock"))
    if locked != recorded:
        raise DigestMismatch(f"{lock_path.name} in the source has {locked}, but the record names {recorded}.")
    python = interpreter.find(asked) if asked else _interpreter_of(record)
    files = tuple(sorted(_locked_file(record, part) for part in record.dependencies("build-requirement")))
    _require_locked(files, lockfile.read(lock_path), python, _remedy(record, python))
    return Inputs(config, exported, files, locked, python)


def _require_locked(files: Iterable[LockedFile], lock: lockfile.Lockfile, python: Interpreter, remedy: str) -> None:
    """A record names one file of each requirement that the lock of the same commit selects, and no other file."""
    selected = {(pin.name, str(pin.version)): pin for pin in lock.selected(python.markers).values()}
    for file in files:
        pin = selected.pop((file.name, file.version), None)
        if pin is None or file.digest not in pin.hashes:
            what = f"{file.filename} with {file.digest}, which the lock doesn't hold"
            raise RecordUnusable(f"The record names {what} for Python {python.version}.", remedy)
    for name, version in selected:
        what = f"{name} {version}, which the lock holds"
        raise RecordUnusable(f"The record leaves out {what} for Python {python.version}.", remedy)


def _remedy(record: WheelRecord, python: Interpreter) -> str:
    said = record.dependency("interpreter").get("annotations", {})
    if (said.get("implementation"), said.get("version")) != (python.implementation, python.version):
        return "Use the Python that the record names: which requirements apply may depend on it."
    return _CHANGED


def _require_unchanged(record: WheelRecord, inputs: Inputs) -> None:
    """A record says of its inputs what `reprobuild wheel` would, to the last key.

    What no commit tells is free: where the source can be had, the interpreter, the machine, the builder's version.
    """
    said = record.external.get("source")
    uri = said.get("uri") if isinstance(said, dict) else None
    if not isinstance(uri, str):
        raise RecordUnusable("The record doesn't say where its source can be had.", _CHANGED)
    wanted = statement_of(
        replace(inputs, source=replace(inputs.source, uri=uri)),
        record.subject_name,
        record.subject,
        record.internal,
        record.builder_version,
    )
    listed = wanted["predicate"]["buildDefinition"]["resolvedDependencies"]
    own = record.dependency("interpreter")
    listed[:] = [own if each["annotations"]["role"] == "interpreter" else each for each in listed]
    try:
        where = _differing(record.statement, wanted)
    except RecursionError as error:
        raise RecordUnusable("The record is nested too deeply.", _CHANGED) from error
    if where:
        raise RecordUnusable(f"The record says of {where!r} something else than the source and its lock do.", _CHANGED)


def _differing(said: Any, wanted: Any, where: str = "") -> str:  # noqa: ANN401 - JSON
    """Where two JSON values first differ; empty for nowhere."""
    if isinstance(said, dict) and isinstance(wanted, dict):
        inner = ((key, said.get(key, ...), wanted.get(key, ...)) for key in sorted(said.keys() | wanted.keys()))
    elif isinstance(said, list) and isinstance(wanted, list):
        inner = ((str(at), *pair) for at, pair in enumerate(zip_longest(said, wanted, fillvalue=...)))
    else:
        return "" if said == wanted else where
    return next((found for key, a, b in inner if (found := _differing(a, b, f"{where}.{key}".lstrip(".")))), "")


def _locked_file(record: WheelRecord, part: dict[str, Any]) -> LockedFile:
    filename, uri = record.text(part, "name"), record.text(part, "uri")
    name, _, version = uri.removeprefix("pkg:pypi/").partition("@")
    if not name or not version or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", filename):
        raise RecordUnusable(f"The record's build requirement {filename!r} is malformed.")
    return LockedFile(name, version, filename, record.digest(part))


def _interpreter_of(record: WheelRecord) -> Interpreter:
    """The interpreter that the record names, else another patch release of it."""
    part = record.dependency("interpreter")
    said = part.get("annotations", {})
    version, implementation = record.text(said, "version"), record.text(said, "implementation")
    # uv takes a path for a request too, and would run what lies there.
    if not re.fullmatch(r"[a-z]+", implementation) or not re.fullmatch(r"[0-9]+\.[0-9]+[0-9a-z.+]*", version):
        raise RecordUnusable(f"The record's interpreter {implementation!r} {version!r} is malformed.")
    own = interpreter.describe(Path(sys.executable))
    if (own.version, own.implementation) == (version, implementation):
        return own
    try:
        return interpreter.find(f"{implementation}@{version}")
    except ToolMissing:
        return interpreter.find(f"{implementation}@{version.rpartition('.')[0]}")


def _then_and_now(record: WheelRecord, inputs: Inputs) -> tuple[str, ...]:
    """What this machine has in another version than the one that built the wheel."""
    part, python = record.dependency("interpreter"), inputs.interpreter
    said = part.get("annotations", {})
    then = {"Python": said.get("version"), "zlib": record.internal.get("zlib")}
    now = {"Python": python.version, "zlib": python.zlib}
    if then["Python"] == now["Python"] and record.sha256(part) != Digest.of_file(python.executable):
        then["Python"], now["Python"] = f"one build of {python.version}", "another"
    then["source"], now["source"] = record.external["source"]["uri"], inputs.source.uri
    recorded = record.internal.get("compilers")
    for name, version in compilers().items():
        then[name], now[name] = recorded.get(name) if isinstance(recorded, dict) else None, version
    if isinstance(cuda := record.internal.get("cuda"), dict):
        for name, here in toolkit_of(inputs.config).items():
            said = cuda.get(name)
            then[name] = said.get("version") or said.get("sha256") if isinstance(said, dict) else None
            now[name] = here.get("version") or here["sha256"]
    return tuple(
        f"{name}: {then[name] or 'unknown'} then, {now[name] or 'unknown'} now"
        for name in now
        if then[name] != now[name]
    )


# --- making it again ---------------------------------------------------------------------------------


def _make_again(
    wheel: Path,
    inputs: Inputs,
    index: Index,
    scratch: Path,
    record: WheelRecord,
    sandbox: str,
    varied: Sequence[str],
    observer: Observer = SILENT,
) -> tuple[Verdict, Guarantees]:
    around = Surroundings()
    for name in varied:
        around = VARIATIONS[name].change(around)
    if "jobs" in varied and around.jobs == _surroundings_of(record).jobs:  # or it would be no other
        around = replace(around, jobs=around.jobs + 1)
    with scratch_folder(scratch, "again-") as folder:
        made, guarantees, seen = make(
            inputs, index, folder / "out", kind=sandbox, surroundings=around, observer=observer
        )
        hints = _hints(record, seen)
        return _with_names(compare(wheel, made, hints=hints), wheel.name, made.name, hints), guarantees


def _with_names(verdict: Verdict, built: str, again: str, hints: Sequence[Hint]) -> Verdict:
    """A verdict in which another file name is a difference: it says what gets installed, and where."""
    if built == again:
        return verdict
    renamed = Difference((), "name", built, again, cause_of(built, again, hints))
    return replace(verdict, level=Level.PAYLOAD, differences=(renamed, *verdict.differences), wheels=True)


def _hints(record: WheelRecord, second: Surroundings) -> list[Hint]:
    """What a build could see then and now, wherever the two differ."""
    first = _surroundings_of(record)
    pairs = [(name, each.value(first), each.value(second)) for name, each in VARIATIONS.items()]
    return [Hint(name, left, right) for name, left, right in pairs if left and left != right]


def _surroundings_of(record: WheelRecord) -> Surroundings:
    """The surroundings of the first build, as far as the record tells them."""
    recorded = record.internal.get("surroundings")
    known = {each.name: type(getattr(USUAL, each.name)) for each in fields(Surroundings)}
    if not isinstance(recorded, dict):
        return USUAL
    said = {key: value for key, value in recorded.items() if key in known and type(value) is known[key]}
    return Surroundings(**said)


def _explain(outcome: Rebuilt, again: Callable[..., tuple[Verdict, Guarantees]], observer: Observer) -> Rebuilt:
    """Make it again with nothing varied, and, unless that is another wheel each time, with each variation alone."""
    observer.step("the bytes differ: looking for the guilty variable")
    unvaried, _ = again(())
    if unvaried.level is Level.IDENTICAL:
        outcome = replace(outcome, unvaried="identical")
    else:
        second, _ = again(())
        steady = second.right == unvaried.right
        deeper = max(unvaried, second, key=lambda verdict: verdict.level.rank)
        outcome = replace(outcome, unvaried="different" if steady else "unsteady", unvaried_verdict=deeper)
        if not steady:
            return outcome
    # Only one build at a time can have the fixed path where no namespace gives each its own.
    at_once = 1 if outcome.guarantees.kind == "plain" else min(_BUILDS_AT_ONCE, os.cpu_count() or 1)
    guilty = []
    with process.workers(at_once) as pool:
        for name, (verdict, _) in zip(
            outcome.varied, pool.map(lambda name: again((name,)), outcome.varied), strict=True
        ):
            observer.step(f"{name} alone: {verdict.level}")
            if (verdict.level, verdict.right) != (unvaried.level, unvaried.right):
                own = tuple(each for each in verdict.differences if each not in unvaried.differences)
                guilty.append(Guilt(name, VARIATIONS[name].cause, replace(verdict, differences=own)))
    return replace(outcome, guilty=tuple(guilty))
