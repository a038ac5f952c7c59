"""Whether a published wheel is what its sdist makes: fetched, its environment guessed, built again, compared."""

import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild import evidence, infer, interpreter, lock, lockfile, source, ziptime
from reprobuild.archive import Entry, open_archive, unpack
from reprobuild.compare import Level, Verdict, compare
from reprobuild.digest import chunks_of
from reprobuild.errors import (
    BadInput,
    BuildFailed,
    IndexFailed,
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
from reprobuild.lockfile import Lockfile
from reprobuild.process import ToolTimeout, ToolTooLarge
from reprobuild.progress import SILENT, Observer
from reprobuild.project import BuildSettings, Config, requirement_of
from reprobuild.replay import Replay, set_clock
from reprobuild.sandbox import USUAL, choose, is_confined
from reprobuild.source import Source
from reprobuild.subject import Origin, Subject, fetch
from reprobuild.wheel import Inputs, make, read_export
from reprobuild.wheelfile import WheelFile


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
        fetched = fetch(index, subject, origin, scratch, observer)
        given = (fetched.wheel, fetched.listed.uploaded, fetched.source)
        checker = _Checker(scratch, *given, index, settings, confinement, named, observer)
        notes = fetched.notes
        if not is_confined(confinement.sandbox):
            notes = (*notes, IN_VIEW)
        tries = checker.run()
        if named and not named.names & checker.required:
            notes = (*notes, f"Nothing that {named.name} names is among the build requirements.")
        sandbox = choose(confinement.sandbox).name
        generator = fetched.wheel.generator
        checked = Checked(fetched.listed, fetched.origin, tries, generator, notes, checker.exhausted, sandbox)
        if keep is not None:
            checked = replace(checked, unkept=_keep(keep, fetched.wheel.path, checker.best))
    return checked


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
        asked = (self.published, members, self.uploaded, config.requires_python)
        search = infer.Search(choices_of(*asked, _pythons_here(), legacy=config.is_legacy))
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
