"""Whether a published wheel is what its sdist makes: fetched, its environment guessed, built again, compared."""

import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from reprobuild import evidence, export, infer, interpreter, lock, lockfile, source, ziptime
from reprobuild.archive import Entry, open_archive, unpack
from reprobuild.compare import Level, Verdict, compare
from reprobuild.digest import Digest, chunks_of
from reprobuild.errors import (
    BadInput,
    BuildFailed,
    IndexFailed,
    NotComparable,
    ReprobuildError,
    SourceUnusable,
    ToolMissing,
    WriteFailed,
    shown,
)
from reprobuild.files import read_text, scratch_folder, write_atomically
from reprobuild.guesses import Guess, choices_of
from reprobuild.index import Index, LockedFile, ReleasedFile
from reprobuild.infer import Aspect, Hypothesis, Outcome
from reprobuild.interpreter import Interpreter
from reprobuild.lockfile import Lockfile, Pin
from reprobuild.process import ToolTimeout, ToolTooLarge
from reprobuild.progress import SILENT, Observer
from reprobuild.project import BuildSettings, Config, requirement_of
from reprobuild.replay import Replay, set_clock
from reprobuild.sandbox import USUAL, choose, is_confined
from reprobuild.source import Source
from reprobuild.wheel import Inputs, make, read_export
from reprobuild.wheelfile import WheelFile, read_wheel


@dataclass(frozen=True, slots=True)
class Confinement:
    """How the builds of a stranger's code are shut in.

    Attributes:
        sandbox: its kind, or ``auto``.
        timeout: seconds for each step.
        memory: MiB that the programs of a step may hold together.
    """

    sandbox: str = "auto"
    timeout: int = 1800
    memory: int = field(default_factory=lambda: max(1024, _physical_memory() * 3 // 4))


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


CONFINED = Confinement()
IN_VIEW = (
    "This sandbox leaves the machine's files in view of the build, perhaps the published wheel too: that it made the "
    "same bytes proves less than under bubblewrap."
)


@dataclass(frozen=True, slots=True)
class Constraints:
    """Versions of build requirements that somebody knows, in place of guesses.

    Attributes:
        name: the file's.
        names: the normalised names in it.
        text: what uv is given; empty where ``locked`` says all.
        locked: the whole lock, where each pin has its hashes, as in what ``reprobuild lock`` writes.
    """

    name: str
    names: frozenset[str]
    text: str
    locked: Lockfile | None

    @classmethod
    def read(cls, path: Path) -> "Constraints":
        """Read a file of pins, either all hashed or none.

        Raises:
            BadInput: a line is anything else than a requirement.
        """
        text = read_text(path)
        if "--hash=" in text:
            locked = lockfile.read(path)
            return cls(path.name, frozenset(pin.name for pin in locked.pins), "", locked)
        lines = [line for each in text.splitlines() if (line := re.sub(r"(^|\s)#.*$", "", each).strip())]
        try:
            names = frozenset(canonicalize_name(requirement_of(line).name) for line in lines)
        except ValueError as error:
            raise BadInput(
                f"{path} holds a line that is not a requirement: {error}.", "Write lines like setuptools==68.0."
            ) from error
        return cls(path.name, names, "".join(f"{line}\n" for line in lines), None)

    def overrule(self, hypothesis: Hypothesis) -> Hypothesis:
        """The hypothesis without the guesses that this file makes needless."""
        pins = () if self.locked else tuple(p for p in hypothesis.pins if canonicalize_name(p.name) not in self.names)
        needless = {"index time"} if self.locked else set()
        needless |= set() if pins or hypothesis.tool else {"backend"}
        kept = tuple(guess for guess in hypothesis.guesses if guess.name not in needless)
        said = Guess("build requirements", self.name, "named with --constraints")
        when = "" if self.locked else hypothesis.index_time
        return replace(hypothesis, pins=pins, index_time=when, guesses=(*kept, said))


@dataclass(frozen=True, slots=True)
class Try:
    """One hypothesis, and how it came out.

    Attributes:
        verdict: None when it couldn't be built.
        replay: what was replayed, if anything.
        failure: why it couldn't be built; empty when it could.
        renamed: whether it has another file name than the published wheel.
        requirements: the files of the build environment; whoever chose these could put anything into the wheel.
    """

    hypothesis: Hypothesis
    verdict: Verdict | None
    replay: Replay | None = None
    failure: str = ""
    renamed: bool = False
    requirements: tuple[LockedFile, ...] = ()

    @property
    def level(self) -> Level:
        """Its level; not comparable when it couldn't be built."""
        return self.verdict.level if self.verdict else Level.NOT_COMPARABLE

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among the tries, the best first: by level, then by how much differs."""
        if self.verdict is None:
            return len(Level), 0
        differing = len(self.verdict.differences) + sum(n for _, n in self.verdict.omitted) + self.renamed
        return self.verdict.level.rank, differing

    @property
    def is_resolved(self) -> bool:
        """Whether versions of the build requirements were found that fit together."""
        return not self.failure.startswith(lock.UNRESOLVED)

    @property
    def lacks_requirements(self) -> bool:
        """Whether the source's own build requirements, with nothing guessed of them, couldn't be satisfied."""
        return not (self.is_resolved or self.hypothesis.pins or self.hypothesis.tool)

    @property
    def outcome(self) -> Outcome:
        """What it says of the guesses."""
        if self.verdict is None:
            aspect = Aspect.UNBUILT if self.is_resolved else Aspect.UNRESOLVED
            return Outcome(self.rank, frozenset((aspect,)))
        return infer.outcome_of(self.rank, self.verdict.differences, renamed=self.renamed)


@dataclass(frozen=True, slots=True)
class Subject:
    """The wheel to check.

    Attributes:
        name: of the distribution, normalised.
        file: the wheel itself; none means the release's own, as the index has it.
        digests: of the release's files that may be taken; empty for all.
    """

    name: str
    version: str
    file: Path | None = None
    digests: frozenset[Digest] = frozenset()

    @classmethod
    def of(cls, text: str) -> "Subject":
        """What somebody names: a wheel's path, or ``NAME==VERSION``.

        Raises:
            BadInput: it is neither.
        """
        if not text.endswith(".whl"):
            return cls(*parse(text))
        try:
            name, version, *_ = parse_wheel_filename(Path(text).name)
        except InvalidWheelFilename as error:
            raise BadInput(f"{shown(text)} doesn't have the name of a wheel: {shown(error)}.") from error
        return cls(name, str(version), Path(text))


@dataclass(frozen=True, slots=True)
class Origin:
    """What a wheel is made again from.

    Attributes:
        kind: ``sdist``, ``git`` or ``folder``.
        name: a file's name, a folder's path or a repository's URL.
        digests: what identifies its content, as in :class:`reprobuild.source.Source`.
    """

    kind: str
    name: str
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one published wheel.

    Attributes:
        wheel: as the index lists it; a file's own digest, and no upload time, where the index doesn't know it.
        origin: what it was made again from.
        tries: in the order in which they were made.
        generator: what the wheel says made it; empty when it doesn't say.
        notes: what else a reader should know, each a sentence.
        exhausted: whether the last try went beyond its limits.
        sandbox: the kind that the builds ran in.
        unkept: why nothing was kept, where that was asked for; else None.
    """

    wheel: ReleasedFile
    origin: Origin
    tries: tuple[Try, ...]
    generator: str = ""
    notes: tuple[str, ...] = ()
    exhausted: bool = False
    sandbox: str = ""
    unkept: WriteFailed | None = None

    @property
    def best(self) -> Try:
        """The best of the tries; of equals the first."""
        return min(self.tries, key=lambda each: each.rank)

    @property
    def level(self) -> Level:
        """The level of the best try; not comparable when none could be built."""
        return self.best.level

    @property
    def causes(self) -> tuple[str, ...]:
        """The named causes of what differs, or of there being nothing to compare, the deepest first."""
        found = self.best.verdict.causes if self.best.verdict else ()
        if self.level is Level.IDENTICAL or not any(each.lacks_requirements for each in self.tries):
            return found
        return ("requirement-gone", *found)


def parse(text: str) -> tuple[str, str]:
    """The normalised name and the version in ``NAME==VERSION``.

    Raises:
        BadInput: it is anything else.
    """
    name, equals, version = (part.strip() for part in text.partition("=="))
    with suppress(ValueError):  # also of a number with too many digits
        if equals and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
            return canonicalize_name(name), str(Version(version))
    raise BadInput(f"{shown(text)!r} is not NAME==VERSION.", "Write it like requests==2.34.2.")


def select(
    index: Index, name: str, version: str, digests: frozenset[Digest] = frozenset()
) -> tuple[ReleasedFile, ReleasedFile]:
    """The wheel of a release that this interpreter would install, and the sdist beside it.

    Args:
        name: normalised.
        digests: of the files that a lock admits; empty for whatever the index has.

    Raises:
        IndexFailed: the index can't be asked, or lacks the release or a file that the lock names.
        NotComparable: no wheel of it fits this interpreter, or there is no sdist.
    """
    released = index.release(name, version)
    if not released:
        raise IndexFailed(f"The index has no {name} {version}.", "Check the lock, and uv's index settings.")
    own = interpreter.find(None)
    admitted = [each for each in released if not digests or each.file.digest in digests]
    missing = sorted(digests - {each.file.digest for each in released})
    if not missing and not any(_fits(each, own) for each in admitted):
        for_others = any(each.file.is_wheel for each in admitted)
        why = f"no wheel for Python {own.version} on {own.platform}" if for_others else "no wheel"
        raise NotComparable(f"{name} {version} has {why}: there is nothing to compare with.")
    pin = Pin(name, Version(version), None, (*(each.file.digest for each in admitted), *missing))
    (best,) = index.choose([pin], own)
    wheel = next((each for each in admitted if each.file.digest == best.digest), None)
    sdists = [each for each in (*admitted, *released) if each.file.filename.endswith(".tar.gz")]
    if wheel is None or (missing and sdists and sdists[0] not in admitted):
        raise IndexFailed(
            f"The index lists {name} {version} without a file that has {missing[0] if missing else best.digest}, "
            "which is in the lock.",
            "The file was deleted or replaced, or the hash is wrong.",
        )
    if not sdists:
        raise NotComparable(f"{name} {version} has no sdist (.tar.gz): there is nothing to make its wheel from.")
    return wheel, sdists[0]


def _fits(released: ReleasedFile, own: Interpreter) -> bool:
    return released.file.is_wheel and not own.tag_ranks.keys().isdisjoint(
        parse_wheel_filename(released.file.filename)[-1]
    )


def check(
    subject: Subject,
    *,
    settings: Path,
    origin: str | None = None,
    constraints: Path | None = None,
    keep: Path | None = None,
    confinement: Confinement = CONFINED,
    observer: Observer = SILENT,
) -> Checked:
    """Take a published wheel, and make it again from its source until it is identical.

    Args:
        settings: the folder whose uv settings say where the index is.
        origin: ``git+URL@REF``, a folder or an sdist to make it from; none means the release's own sdist.
        constraints: a file with the versions of build requirements, in place of what would be guessed of them.
        keep: a new or empty folder for the published wheel and the best rebuilt one, packed and unpacked.

    Raises:
        IndexFailed: the index can't be asked, or lacks the release, its wheel or its sdist.
        BadInput: the wheel, the source or the constraints are malformed, or ``keep`` isn't empty.
        SourceUnusable: the source isn't there, or admits no Python that is here.
    """
    if keep is not None and keep.exists() and not (keep.is_dir() and not any(keep.iterdir())):
        raise BadInput(f"{keep} is there already, and not an empty folder.", "Name a new folder with --keep.")
    named = Constraints.read(constraints) if constraints else None
    index = Index(settings, observer=observer)
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-") as scratch:
        observer.step(f"looking for {subject.name} {subject.version}")
        listed = _released(index, subject, needed=subject.file is None or origin is None)
        released = tuple(each for each in listed if not subject.digests or each.file.digest in subject.digests)
        wheel, notes = _wheel(released, subject)
        published = read_wheel(_fetched(index, wheel, subject, scratch))
        if origin is None:
            opened, made_from = _open_sdist(index, released, subject, scratch)
        else:
            opened, made_from = _open_origin(origin, scratch, observer)
        checker = _Checker(scratch, published, wheel.uploaded, opened, index, settings, confinement, named, observer)
        if not is_confined(confinement.sandbox):
            notes = (*notes, IN_VIEW)
        tries = checker.run()
        if named and not named.names & checker.required:
            notes = (*notes, f"Nothing that {named.name} names is among the build requirements.")
        checked = Checked(
            wheel, made_from, tries, published.generator, notes, checker.exhausted, choose(confinement.sandbox).name
        )
        if keep is not None:
            checked = replace(checked, unkept=_keep(keep, published.path, checker.best))
    return checked


def _released(index: Index, subject: Subject, *, needed: bool) -> tuple[ReleasedFile, ...]:
    """What the index has of a release; where it isn't needed, only for the time of the upload, nothing will do."""
    try:
        return index.release(subject.name, subject.version)
    except IndexFailed:
        if needed:
            raise
        return ()


def _wheel(released: tuple[ReleasedFile, ...], subject: Subject) -> tuple[ReleasedFile, tuple[str, ...]]:
    """The wheel to check, and what to say of it."""
    if subject.file is None:
        return _wheel_of(released, subject.name, subject.version), ()
    filename, digest = subject.file.name, Digest.of_file(subject.file)
    found = next((each for each in released if each.file.filename == filename), None)
    if found is not None and found.file.digest == digest:
        return found, ()
    note = f"The index offers no {filename}: when it was uploaded isn't known."
    if found is not None:
        note = f"The index offers another file of the name {filename}, with {found.file.digest}; this one has {digest}."
    return ReleasedFile(LockedFile(subject.name, subject.version, filename, digest), ""), (note,)


def _fetched(index: Index, wheel: ReleasedFile, subject: Subject, scratch: Path) -> Path:
    if subject.file is not None:
        return subject.file
    folder = scratch / "published"
    folder.mkdir()
    index.fetch([wheel.file], folder)
    return folder / wheel.file.filename


def _open_sdist(
    index: Index, released: tuple[ReleasedFile, ...], subject: Subject, scratch: Path
) -> tuple[Source, Origin]:
    sdist = _sdist_of(released, subject.name, subject.version).file
    index.fetch([sdist], scratch)
    opened = export.open_source(scratch / sdist.filename, scratch)
    return opened, Origin("sdist", sdist.filename, opened.digests)


def _open_origin(origin: str, scratch: Path, observer: Observer) -> tuple[Source, Origin]:
    if not origin.startswith("git+"):
        place = Path(origin)
        opened = export.open_source(place, scratch)
        return opened, Origin("folder" if place.is_dir() else "sdist", origin, opened.digests)
    observer.step(f"cloning {origin}")
    opened = export.clone(origin, scratch)
    return opened, Origin("git", origin.removeprefix("git+"), opened.digests)


def _wheel_of(released: tuple[ReleasedFile, ...], name: str, version: str) -> ReleasedFile:
    """The wheel to check: the one that this interpreter would install, else one for every platform, else any."""
    own = interpreter.find(None)
    ranked = []
    for each in released:
        if each.file.is_wheel:
            *_, tags = parse_wheel_filename(each.file.filename)
            ranks = [own.tag_ranks[tag] for tag in tags if tag in own.tag_ranks]
            pure = each.file.filename.endswith("-none-any.whl")
            ranked.append((min(ranks, default=len(own.tags)), not pure, each))
    if not ranked:
        raise IndexFailed(f"The index has no wheel of {name} {version}.", "Look which files the release has.")
    return min(ranked)[-1]


def _sdist_of(released: tuple[ReleasedFile, ...], name: str, version: str) -> ReleasedFile:
    for each in released:
        if each.file.filename.endswith(".tar.gz"):
            return each
    raise IndexFailed(
        f"The index has no sdist (.tar.gz) of {name} {version}: there is nothing to make its wheel from.",
        "Name the source with --source.",
    )


@dataclass(slots=True)
class _Checker:
    """The work on one wheel: what is fetched once and used in each try."""

    scratch: Path
    published: WheelFile
    uploaded: str
    exported: Source
    index: Index
    settings: Path
    confinement: Confinement
    constraints: Constraints | None
    observer: Observer
    best: Path | None = None
    exhausted: bool = False
    required: set[str] = field(default_factory=set)
    locks: dict[tuple[object, ...], Lockfile | ReprobuildError] = field(default_factory=dict)
    done: dict[tuple[object, ...], Try] = field(default_factory=dict)

    def run(self) -> tuple[Try, ...]:
        """One try after the other until one is identical; ``best`` is then the best rebuilt wheel."""
        config, _ = read_export(self.exported, self.scratch)
        source.peek(self.exported, ("setup.cfg",), config.root)
        # Nothing in a stranger's files may show the build more of this machine, or run it in another way.
        config = replace(config, wheel=_settings(self.confinement))
        tries: list[Try] = []
        members = _members(self.exported)
        evidence = (self.published, members, self.uploaded, config.requires_python)
        search = infer.Search(choices_of(*evidence, _pythons_here(), legacy=config.is_legacy))
        while hypothesis := search.next():
            if self.constraints:
                hypothesis = self.constraints.overrule(hypothesis)
            self.observer.step(f"try {len(tries) + 1}: {', '.join(guess.value for guess in hypothesis.guesses)}")
            done = self._try(len(tries) + 1, hypothesis, members, config)
            if not any(done is each for each in tries):
                tries.append(done)
            if done.level is Level.IDENTICAL or self.exhausted:
                break
            search.learn(done.outcome)
        if not tries:
            raise SourceUnusable(
                f"No Python on this machine is one that made {self.published.path.name}: its source admits "
                f"{config.requires_python or 'any'}.",
                "Install one (`uv python install` can).",
            )
        return tuple(tries)

    def _try(self, number: int, hypothesis: Hypothesis, members: Sequence[Entry], config: Config) -> Try:
        """Build and compare; where an earlier try had the same inputs and surroundings, that try."""
        with scratch_folder(self.scratch, f"try-{number}-") as folder:
            try:
                inputs = self._inputs(hypothesis, config, folder)
                around = replace(USUAL, umask=hypothesis.umask, timezone=hypothesis.timezone)
                of_user = (inputs.tool, inputs.home, inputs.startup)
                of_files = (inputs.files, hypothesis.epoch, hypothesis.own_modes)
                key = (inputs.interpreter.executable, *of_user, *of_files, around)
                if key in self.done:
                    return self.done[key]
                started = int(time.time())
                made, _, _ = make(
                    inputs, self.index, folder / "out", kind=self.confinement.sandbox, surroundings=around
                )
            except (BadInput, IndexFailed):
                raise
            except ReprobuildError as error:
                # Another guess won't make a build small or fast that has just gone beyond its limits.
                self.exhausted = isinstance(error, (ToolTimeout, ToolTooLarge))
                return Try(hypothesis, None, failure=error.reason)
            replayed = None
            if hypothesis.epoch is None:
                offset = ziptime.offset_of(hypothesis.timezone, started)
                replayed = set_clock(self.published, made, started, offset)
            verdict = self._compared(made, members, config)
            renamed = made.name != self.published.path.name
            if renamed:
                verdict = replace(verdict, level=max(verdict.level, Level.METADATA, key=lambda level: level.rank))
            tried = Try(hypothesis, verdict, replayed, renamed=renamed, requirements=inputs.files)
            if all(tried.rank < other.rank for other in self.done.values()):
                (self.scratch / "best").mkdir(exist_ok=True)
                if self.best:
                    self.best.unlink()
                self.best = made.replace(self.scratch / "best" / made.name)
            self.done[key] = tried
            return tried

    def _compared(self, made: Path, members: Sequence[Entry], config: Config) -> Verdict:
        verdict = compare(self.published.path, made)
        if verdict.left != self.published.digest:
            raise BadInput(f"{self.published.path} was changed while it was checked.", "Check a copy of it.")
        if verdict.level is Level.IDENTICAL:
            return verdict
        setup_cfg = config.root / "setup.cfg"
        text = setup_cfg.read_text(encoding="utf-8", errors="replace") if setup_cfg.is_file() else ""
        return evidence.explained(verdict, self.published, made, members, text)

    def _inputs(self, hypothesis: Hypothesis, config: Config, scratch: Path) -> Inputs:
        python = interpreter.find(hypothesis.python)
        epoch = self.exported.epoch if hypothesis.epoch is None else hypothesis.epoch
        timed = replace(self.exported, epoch=epoch, own_times=hypothesis.epoch is None, own_modes=hypothesis.own_modes)
        if hypothesis.tool:
            config = self._tools_own(config, hypothesis.tool)
        key = (hypothesis.pins, hypothesis.index_time, hypothesis.python, hypothesis.tool)
        locked = self.locks.get(key)
        if locked is None:
            try:
                locked = self._locked(hypothesis, python, timed, config, scratch)
            except BuildFailed as error:
                locked = error
            self.locks[key] = locked
        if isinstance(locked, ReprobuildError):
            raise locked
        files = self.index.choose(locked.selected(python.markers).values(), python)
        self._refuse_itself(files)
        self.required.update(file.name for file in files)
        user = {"tool": hypothesis.tool, "home": hypothesis.home, "startup": hypothesis.startup}
        return Inputs(config, timed, files, locked.digest, python, **user)  # type: ignore[arg-type]

    def _refuse_itself(self, files: Iterable[LockedFile]) -> None:
        """A build that is given the wheel that it is to make can copy it."""
        own = (self.published.name, self.published.version)
        for file in files:
            if (file.name, Version(file.version)) == own or file.digest == self.published.digest:
                raise BuildFailed(f"The source asks for {file.filename} to build it, which is what is to be checked.")

    def _tools_own(self, config: Config, tool: str) -> Config:
        """The intent of a source as a tool sees it that builds by itself: without its [build-system]."""
        folder = self.scratch / "tools" / tool
        folder.mkdir(parents=True, exist_ok=True)
        text = f'[build-system]\nrequires = []\nbuild-backend = "{tool}"\n'
        (folder / "pyproject.toml").write_text(text, encoding="utf-8")
        return replace(config, root=folder, backend=tool, backend_path=(), build_requires=())

    def _locked(
        self, hypothesis: Hypothesis, python: Interpreter, exported: Source, config: Config, scratch: Path
    ) -> Lockfile:
        if self.constraints and self.constraints.locked:
            return self.constraints.locked
        known = lock.Known(hypothesis.pins, hypothesis.index_time, self.constraints.text if self.constraints else "")
        return lock.as_of(
            config,
            python,
            exported,
            known,
            settings=self.settings,
            scratch=scratch,
            observer=self.observer,
        )


def _settings(confinement: Confinement) -> BuildSettings:
    return BuildSettings(sandbox=confinement.sandbox, timeout=confinement.timeout, memory=confinement.memory)


def _members(exported: Source) -> tuple[Entry, ...]:
    """The files of a source, each below one top folder, as an sdist has them."""
    with open_archive(exported.tar, names="posix") as archive:
        if exported.kind == "sdist":
            return archive.entries
        below = f"{exported.subdirectory}/" if exported.subdirectory else ""
        inside = [entry for entry in archive.entries if entry.name.startswith(below)]
        return tuple(replace(entry, name=f"source/{entry.name.removeprefix(below)}") for entry in inside)


def _keep(folder: Path, published: Path, best: Path | None) -> WriteFailed | None:
    """Both wheels and what is in them, for whoever wants to look for themselves: all of it, or nothing and why."""
    made = not folder.exists()
    try:
        with scratch_folder(folder, ".reprobuild-") as scratch:
            for name, path in (("published", published), ("rebuilt", best)):
                if path is not None:
                    _keep_wheel(path, scratch / name)
            for each in sorted(scratch.iterdir()):
                each.rename(folder / each.name)
    except (OSError, WriteFailed, BadInput) as error:
        why = error.reason if isinstance(error, ReprobuildError) else f"{error}."
        return WriteFailed(f"Nothing was kept in {folder}: {shown(why, 500)}", "Name another folder with --keep.")
    finally:
        if made:
            with suppress(OSError):  # something is in it, as it should be
                folder.rmdir()
    return None


def _keep_wheel(path: Path, folder: Path) -> None:
    with path.open("rb") as stream:
        write_atomically(folder / path.name, chunks_of(stream))
    tree = folder / "tree"
    tree.mkdir()
    with open_archive(path) as archive:
        unpack(archive, tree, own_modes=True)
    for each in tree.rglob("*"):
        if not each.is_symlink():
            each.chmod(each.stat().st_mode & 0o755)  # a stranger's modes would let everyone write there


def _pythons_here() -> Iterator[str]:
    for minor in range(9, 15):
        with suppress(ToolMissing, BadInput):
            interpreter.find(f"3.{minor}")
            yield f"3.{minor}"
