"""Whether a published wheel is what its sdist makes: fetched, its environment guessed, built again, compared."""

import calendar
import re
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from reprobuild import infer, interpreter, lock, source
from reprobuild.archive import open_archive
from reprobuild.compare import Level, Verdict, compare
from reprobuild.digest import chunks_of
from reprobuild.errors import BadInput, IndexFailed, ReprobuildError, SourceUnusable, ToolMissing
from reprobuild.files import scratch_folder, write_atomically
from reprobuild.index import Index, ReleasedFile
from reprobuild.infer import Hypothesis
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
    """

    hypothesis: Hypothesis
    verdict: Verdict | None
    replay: Replay | None = None
    failure: str = ""

    @property
    def level(self) -> Level:
        """Its level; not comparable when it couldn't be built."""
        return self.verdict.level if self.verdict else Level.NOT_COMPARABLE

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among the tries, the best first: by level, then by how much differs."""
        if self.verdict is None:
            return len(Level), 0
        return self.verdict.level.rank, len(self.verdict.differences) + sum(n for _, n in self.verdict.omitted)


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking one published wheel.

    Attributes:
        wheel, sdist: as the index lists them.
        tries: in the order in which they were made.
    """

    wheel: ReleasedFile
    sdist: ReleasedFile
    tries: tuple[Try, ...]

    @property
    def best(self) -> Try:
        """The best of the tries; of equals the first."""
        return min(self.tries, key=lambda each: each.rank)

    @property
    def level(self) -> Level:
        """The level of the best try; not comparable when none could be built."""
        return self.best.level


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

    def run(self) -> Checked:
        published = read_wheel(self.scratch / self.wheel.file.filename)
        sdist_path = self.scratch / self.sdist.file.filename
        exported = source.open_source(sdist_path, self.scratch)
        with open_archive(sdist_path, names="posix") as archive:
            members = archive.entries
        config, _ = read_export(exported, self.scratch)
        # Nothing in a stranger's files may show the build more of this machine, or run it in another way.
        config = replace(config, wheel=BuildSettings())
        tries: list[Try] = []
        guessed = infer.hypotheses(
            published, members, self.wheel.uploaded, config.requires_python, _pythons_here(), legacy=config.is_legacy
        )
        for number, hypothesis in enumerate(guessed, 1):
            self.observer.step(f"try {number}: {', '.join(guess.value for guess in hypothesis.guesses)}")
            tries.append(self._try(number, hypothesis, published, exported, config))
            if tries[-1].verdict and tries[-1].verdict.level is Level.IDENTICAL:
                break
        if not tries:
            raise SourceUnusable(
                f"No Python on this machine is one that {self.sdist.file.filename} admits "
                f"({config.requires_python or 'any'}).",
                "Install one (`uv python install` can).",
            )
        return Checked(self.wheel, self.sdist, tuple(tries))

    def _try(self, number: int, hypothesis: Hypothesis, published: WheelFile, exported: Source, config: Config) -> Try:
        with scratch_folder(self.scratch, f"try-{number}-") as folder:
            try:
                inputs = self._inputs(hypothesis, exported, config, folder)
                around = replace(USUAL, umask=hypothesis.umask, timezone=hypothesis.timezone)
                started = int(time.time())
                made, _, _ = make(inputs, self.index, folder / "out", kind=self.sandbox, surroundings=around)
            except (BadInput, IndexFailed):
                raise
            except ReprobuildError as error:
                return Try(hypothesis, None, failure=error.reason)
            replay = None
            if hypothesis.epoch is None:
                replay = replay_clock(published, made, started)
            verdict = compare(published.path, made)
            if made.name != published.path.name:
                verdict = replace(verdict, level=max(verdict.level, Level.METADATA, key=lambda level: level.rank))
            if self.keep is not None:
                self._keep(published.path, made)
            return Try(hypothesis, verdict, replay)

    def _keep(self, published: Path, made: Path) -> None:
        assert self.keep is not None  # noqa: S101 - the caller has looked
        for name, path in (("published", published), ("rebuilt", made)):
            with path.open("rb") as stream:
                write_atomically(self.keep / name / path.name, chunks_of(stream))

    def _inputs(self, hypothesis: Hypothesis, exported: Source, config: Config, scratch: Path) -> Inputs:
        python = interpreter.find(hypothesis.python)
        epoch = exported.epoch if hypothesis.epoch is None else hypothesis.epoch
        timed = replace(exported, epoch=epoch, own_times=hypothesis.epoch is None, own_modes=hypothesis.own_modes)
        locked = self._locked(hypothesis, python, timed, config, scratch)
        files = self.index.choose(locked.selected(python.markers).values(), python)
        return Inputs(config, timed, files, locked.digest, python)

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
    with made.open("r+b") as stream:
        for entry in written:
            # APPNOTE 4.3.7 and 4.3.12: a header has the time 10 bytes from its start, a record of the directory 12.
            for offset in (entry.offset + 10, entry.directory_offset + 12):
                stream.seek(offset)
                stream.write(_dos(recorded[entry.name]))
    return Replay(tuple(entry.name for entry in written), times[0], times[-1])


def _dos(mtime: str) -> bytes:
    """A zip's time and date (APPNOTE 4.4.6), which may be none that a calendar has."""
    year, month, day, hour, minute, second = map(int, re.findall(r"\d+", mtime))
    return struct.pack("<HH", hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)


def _seconds(mtime: str) -> int:
    """A zip's time in seconds since 1970; 0 for none that a calendar has."""
    with suppress(ValueError):
        return calendar.timegm(time.strptime(mtime, "%Y-%m-%d %H:%M:%S"))
    return 0
