"""Whether a published wheel is what its sdist makes: fetched, its environment guessed, built again, compared."""

import calendar
import re
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from reprobuild import evidence, infer, interpreter, lock, source
from reprobuild.archive import Entry, open_archive
from reprobuild.compare import Level, Verdict, compare
from reprobuild.errors import BadInput, BuildFailed, IndexFailed, ReprobuildError, SourceUnusable, ToolMissing
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.index import Index, ReleasedFile
from reprobuild.infer import Aspect, Hypothesis, Outcome
from reprobuild.interpreter import Interpreter
from reprobuild.lockfile import Lockfile
from reprobuild.progress import SILENT, Observer
from reprobuild.project import BuildSettings, Config
from reprobuild.sandbox import USUAL
from reprobuild.source import Source
from reprobuild.wheel import Inputs, make, read_export
from reprobuild.wheelfile import WheelFile, read_wheel

#: How far apart the recorded times of what one build wrote may lie, in seconds.
_CLOCK_WINDOW = 3600


@dataclass(frozen=True, slots=True)
class Replay:
    """The recorded clock, set on the members that the rebuild itself wrote.

    Attributes:
        members: their names.
        first, last: the earliest and the latest recorded time, as the wheel has them.
    """

    members: tuple[str, ...]
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Try:
    """One hypothesis, and how it came out.

    Attributes:
        verdict: None when it couldn't be built.
        replay: what was replayed, if anything.
        failure: why it couldn't be built; empty when it could.
        renamed: whether it has another file name than the published wheel.
    """

    hypothesis: Hypothesis
    verdict: Verdict | None
    replay: Replay | None = None
    failure: str = ""
    renamed: bool = False

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
        wheel, sdist: as the index lists them.
        tries: in the order in which they were made.
        generator: what the published WHEEL says made it.
    """

    wheel: ReleasedFile
    sdist: ReleasedFile
    tries: tuple[Try, ...]
    generator: str = ""

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
    with suppress(InvalidVersion):
        if equals and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
            return canonicalize_name(name), str(Version(version))
    raise BadInput(f"{text!r} is not NAME==VERSION.", "Write it like requests==2.34.2.")


def check(
    name: str,
    version: str,
    *,
    settings: Path,
    sandbox: str = "auto",
    keep: Path | None = None,
    observer: Observer = SILENT,
) -> Checked:
    """Fetch a release's wheel and sdist, and make the wheel again from the sdist until it is identical.

    Args:
        name: normalised.
        settings: the folder whose uv settings say where the index is.
        keep: a folder for the best rebuilt wheel and the published one; none means neither is kept.

    Raises:
        IndexFailed: the index can't be asked, or lacks the release, its wheel or its sdist.
        BadInput: the wheel or the sdist is malformed.
    """
    index = Index(settings, observer=observer)
    observer.step(f"fetching {name} {version}")
    released = index.release(name, version)
    wheel, sdist = _wheel_of(released, name, version), _sdist_of(released, name, version)
    with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-") as scratch:
        index.fetch([wheel.file, sdist.file], scratch)
        checker = _Checker(scratch, wheel, sdist, index, settings, sandbox, keep, observer)
        return checker.run()


def _wheel_of(released: tuple[ReleasedFile, ...], name: str, version: str) -> ReleasedFile:
    """The wheel to check: the one for every platform, else the one that this interpreter would install."""
    own = interpreter.find(None)
    ranked = []
    for each in released:
        if each.file.is_wheel:
            *_, tags = parse_wheel_filename(each.file.filename)
            ranks = [own.tag_ranks[tag] for tag in tags if tag in own.tag_ranks]
            pure = each.file.filename.endswith("-none-any.whl")
            ranked.append((not pure, min(ranks, default=len(own.tags)), each))
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
    wheel: ReleasedFile
    sdist: ReleasedFile
    index: Index
    settings: Path
    sandbox: str
    keep: Path | None
    observer: Observer
    locks: dict[tuple[object, ...], Lockfile | ReprobuildError] = field(default_factory=dict)
    done: dict[tuple[object, ...], Try] = field(default_factory=dict)

    def run(self) -> Checked:
        published = read_wheel(self.scratch / self.wheel.file.filename)
        sdist_path = self.scratch / self.sdist.file.filename
        exported = source.open_source(sdist_path, self.scratch)
        with open_archive(sdist_path, names="posix") as archive:
            members = archive.entries
        config, _ = read_export(exported, self.scratch)
        source.peek(exported, ("setup.cfg",), config.root)
        # Nothing in a stranger's files may show the build more of this machine, or run it in another way.
        config = replace(config, wheel=BuildSettings())
        tries: list[Try] = []
        search = infer.Search(
            published, members, self.wheel.uploaded, config.requires_python, _pythons_here(), legacy=config.is_legacy
        )
        while hypothesis := search.next():
            self.observer.step(f"try {len(tries) + 1}: {', '.join(guess.value for guess in hypothesis.guesses)}")
            done = self._try(len(tries) + 1, hypothesis, published, members, exported, config)
            if not any(done is each for each in tries):
                tries.append(done)
            if done.level is Level.IDENTICAL:
                break
            search.learn(done.outcome)
        if not tries:
            raise SourceUnusable(
                f"No Python on this machine is one that {self.sdist.file.filename} admits "
                f"({config.requires_python or 'any'}).",
                "Install one (`uv python install` can).",
            )
        return Checked(self.wheel, self.sdist, tuple(tries), published.generator)

    def _try(
        self,
        number: int,
        hypothesis: Hypothesis,
        published: WheelFile,
        members: Sequence[Entry],
        exported: Source,
        config: Config,
    ) -> Try:
        """Build and compare; where an earlier try had the same inputs and surroundings, that try."""
        with scratch_folder(self.scratch, f"try-{number}-") as folder:
            try:
                inputs = self._inputs(hypothesis, exported, config, folder)
                around = replace(USUAL, umask=hypothesis.umask, timezone=hypothesis.timezone)
                of_user = (inputs.tool, inputs.home, inputs.startup)
                of_files = (inputs.files, hypothesis.epoch, hypothesis.own_modes)
                key = (inputs.interpreter.executable, *of_user, *of_files, around)
                if key in self.done:
                    return self.done[key]
                started = int(time.time())
                made, _, _ = make(inputs, self.index, folder / "out", kind=self.sandbox, surroundings=around)
            except (BadInput, IndexFailed):
                raise
            except ReprobuildError as error:
                return Try(hypothesis, None, failure=error.reason)
            replay = None
            if hypothesis.epoch is None:
                replay = replay_clock(published, made, started)
            verdict = self._compared(published, made, members, config)
            renamed = made.name != published.path.name
            if renamed:
                verdict = replace(verdict, level=max(verdict.level, Level.METADATA, key=lambda level: level.rank))
            if self.keep is not None:
                self._keep(published.path, made)
            self.done[key] = Try(hypothesis, verdict, replay, renamed=renamed)
            return self.done[key]

    @staticmethod
    def _compared(published: WheelFile, made: Path, members: Sequence[Entry], config: Config) -> Verdict:
        verdict = compare(published.path, made)
        if verdict.level is Level.IDENTICAL:
            return verdict
        setup_cfg = config.root / "setup.cfg"
        text = setup_cfg.read_text(encoding="utf-8", errors="replace") if setup_cfg.is_file() else ""
        return evidence.explained(verdict, published, made, members, text)

    def _keep(self, published: Path, made: Path) -> None:
        assert self.keep is not None  # noqa: S101 - the caller has looked
        for name, path in (("published", published), ("rebuilt", made)):
            write_atomically(self.keep / name / path.name, [path.read_bytes()])

    def _inputs(self, hypothesis: Hypothesis, exported: Source, config: Config, scratch: Path) -> Inputs:
        python = interpreter.find(hypothesis.python)
        epoch = exported.epoch if hypothesis.epoch is None else hypothesis.epoch
        timed = replace(exported, epoch=epoch, own_times=hypothesis.epoch is None, own_modes=hypothesis.own_modes)
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
        user = {"tool": hypothesis.tool, "home": hypothesis.home, "startup": hypothesis.startup}
        return Inputs(config, timed, files, locked.digest, python, **user)  # type: ignore[arg-type]

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
        return lock.as_of(
            config,
            python,
            exported,
            hypothesis.pins,
            hypothesis.index_time,
            settings=self.settings,
            scratch=scratch,
            observer=self.observer,
        )


def _pythons_here() -> Iterator[str]:
    for minor in range(9, 15):
        with suppress(ToolMissing, BadInput):
            interpreter.find(f"3.{minor}")
            yield f"3.{minor}"


# --- the recorded clock ------------------------------------------------------------------------------


def replay_clock(published: WheelFile, made: Path, started: int) -> Replay | None:
    """Set the published wheel's recorded times on what the rebuild itself wrote, and on nothing else.

    Without SOURCE_DATE_EPOCH a build's own files carry the time at which it ran, which no rebuild can have. A member
    counts as written by the rebuild when its time isn't before the rebuild's start; its recorded time is taken only
    if all these lie within an hour. Nothing but the two bytes of time and the two of date in each header changes.

    Args:
        made: the rebuilt wheel, changed in place.
        started: when the rebuild started, in seconds since 1970.

    Returns:
        What was replayed; None when nothing was.
    """
    recorded = {entry.name: entry.mtime for entry in published.entries}
    with open_archive(made) as archive:
        written = [entry for entry in archive.entries if _seconds(entry.mtime) >= started // 2 * 2]
    times = sorted(recorded[entry.name] for entry in written if entry.name in recorded)
    if not times or len(times) < len(written) or _seconds(times[-1]) - _seconds(times[0]) > _CLOCK_WINDOW:
        return None
    data = bytearray(made.read_bytes())
    central = _central_offsets(data)
    for entry in written:
        stamp = _dos(recorded[entry.name])
        data[entry.offset + 10 : entry.offset + 14] = stamp
        at = central[entry.order]
        data[at + 12 : at + 16] = stamp
    write_atomically(made, [bytes(data)])
    return Replay(tuple(entry.name for entry in written), times[0], times[-1])


def _central_offsets(data: bytearray) -> list[int]:
    """Where each entry of the central directory starts, in its order (APPNOTE 4.3.12)."""
    end = data.rindex(b"PK\x05\x06")
    count, at = struct.unpack_from("<H", data, end + 10)[0], struct.unpack_from("<I", data, end + 16)[0]
    found = []
    for _ in range(count):
        found.append(at)
        at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))
    return found


def _dos(mtime: str) -> bytes:
    """A zip's time and date (APPNOTE 4.4.6)."""
    when = time.strptime(mtime, "%Y-%m-%d %H:%M:%S")
    clock = when.tm_hour << 11 | when.tm_min << 5 | when.tm_sec // 2
    return struct.pack("<HH", clock, (when.tm_year - 1980) << 9 | when.tm_mon << 5 | when.tm_mday)


def _seconds(mtime: str) -> int:
    return calendar.timegm(time.strptime(mtime, "%Y-%m-%d %H:%M:%S"))
