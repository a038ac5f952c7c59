"""The environment that made a published wheel, guessed from the wheel and the sdist beside it.

Nothing is read here but the time zone database.

Each guess has a name, a value and the evidence for it. Where several fit, they come in order of likelihood.
"""

import calendar
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from reprobuild.archive import Entry
from reprobuild.wheelfile import WheelFile

#: How many hypotheses are worth a build.
MOST_TRIES = 12
#: What WHEEL's Generator calls a distribution that has another name.
_GENERATORS = {
    "bdist-wheel": ("wheel",),
    "flit": ("flit-core",),
    "hatch": ("hatchling",),
    "poetry": ("poetry-core", "poetry"),
    "uv": ("uv-build",),
}
_GENERATOR = re.compile(r"([A-Za-z][A-Za-z0-9._-]*) \(?([0-9][A-Za-z0-9.+!-]*)\)?")
#: Zip times that backends write by themselves where nothing tells them the time.
_FIXED_TIMES = {"1980-01-01 00:00:00", "2016-01-01 00:00:00", "2020-02-02 00:00:00"}
#: When each minor version of CPython was released (PEP 569, 596, 619, 664, 693, 719, 745).
_RELEASED = {
    "3.9": "2020-10-05",
    "3.10": "2021-10-04",
    "3.11": "2022-10-24",
    "3.12": "2023-10-02",
    "3.13": "2024-10-07",
    "3.14": "2025-10-07",
}
#: The upload of setuptools 40.8.0, the first with PEP 517's fallback for sources that name no backend.
_FALLBACK_SINCE = "2019-02-06T00:00:00Z"
_QUARTER_HOUR = 900
_FARTHEST_ZONE = 14 * 3600
#: Places with a summer time, one for each rule and offset that is common among those who publish wheels.
_SUMMER_ZONES = (
    "Europe/London",
    "Europe/Berlin",
    "Europe/Helsinki",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Halifax",
    "America/Sao_Paulo",
    "Australia/Sydney",
    "Australia/Adelaide",
    "Pacific/Auckland",
    "Asia/Jerusalem",
)
_RESOLUTION = 2  # seconds: a zip's time is even


@dataclass(frozen=True, slots=True)
class Guess:
    """One thing about the environment, and what speaks for it."""

    name: str
    value: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """An environment that may have made the wheel.

    Attributes:
        pins: build requirements beyond those that the source names.
        index_time: only files uploaded before it were to be had; empty when unknown.
        epoch: SOURCE_DATE_EPOCH in seconds, or None where there was none and files kept their own times.
        timezone: of the machine, in the notation of POSIX.
        umask: of the build.
        own_modes: whether files had the sdist's own permissions rather than 644 and 755.
        python: a request for an interpreter.
        guesses: the same in words, with the evidence.
    """

    pins: tuple[Requirement, ...] = ()
    index_time: str = ""
    epoch: int | None = None
    timezone: str = "UTC"
    umask: int = 0o022
    own_modes: bool = False
    python: str = ""
    guesses: tuple[Guess, ...] = ()

    def _with(self, name: str, value: str, evidence: str, **change: object) -> "Hypothesis":
        guess = Guess(name, value, evidence)
        return replace(self, guesses=(*self.guesses, guess), **change)  # type: ignore[arg-type]


def hypotheses(
    wheel: WheelFile,
    sdist: Sequence[Entry],
    uploaded: str,
    requires_python: str,
    pythons: Iterable[str],
    *,
    legacy: bool = False,
) -> Iterator[Hypothesis]:
    """Environments that may have made a wheel, the likeliest first, no more than :data:`MOST_TRIES`.

    Args:
        sdist: the members of the sdist of the same release.
        uploaded: when the wheel was uploaded (RFC 3339); empty when the index doesn't tell.
        requires_python: the project's range of Python versions.
        pythons: the minor versions of Python that are here, such as ``3.12``.
        legacy: whether the source names no backend, so that setuptools' own fallback for such sources is needed.
    """
    pairs = _pairs(wheel, sdist)
    start = _modes(wheel, pairs, Hypothesis())
    listed = (
        clocked
        for python in _pythons(uploaded, requires_python, pythons)
        for timed in _index_times(uploaded, python[0], start._with("python", *python, python=python[0]), legacy=legacy)
        for generated in _generators(wheel, timed)
        for clocked in _clocks(wheel, pairs, generated)
    )
    yield from islice(listed, MOST_TRIES)


def _index_times(uploaded: str, python: str, start: Hypothesis, *, legacy: bool) -> Iterator[Hypothesis]:
    """What the index had: what it had at the upload, unless nothing of that can build or run here."""
    if not uploaded:
        yield start
        return
    when, why = uploaded, "the index's upload time of the wheel"
    if legacy and when < _FALLBACK_SINCE:
        when, why = _FALLBACK_SINCE, "no setuptools before 40.8.0 builds a source without a [build-system]"
    yield start._with("index time", when, why, index_time=when)
    released = f"{_RELEASED.get(python, '')}T00:00:00Z"
    if when < released:
        yield start._with(
            "index time", released, f"older backends may not run under Python {python}", index_time=released
        )


def _pairs(wheel: WheelFile, sdist: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Members of the wheel with the file of the sdist that each was copied from, as names and sizes tell."""
    by_name: dict[str, list[tuple[str, Entry]]] = {}
    for entry in sdist:
        inner = entry.name.partition("/")[2]
        by_name.setdefault(inner.rpartition("/")[2], []).append((inner, entry))
    found = []
    for entry in wheel.entries:
        if entry.name.startswith(wheel.dist_info):
            continue
        same = [
            (len(name), other)
            for name, other in by_name.get(entry.name.rpartition("/")[2], [])
            if other.size == entry.size and f"/{name}".endswith(f"/{entry.name}")
        ]
        if same:
            found.append((entry, min(same, key=lambda each: each[0])[1]))
    return found


def _generators(wheel: WheelFile, start: Hypothesis) -> Iterator[Hypothesis]:
    """The backend, at the version that WHEEL names, else as the index had it then."""
    evidence = f"WHEEL says Generator: {wheel.generator or 'nothing'}"
    for pin in _pins(wheel):
        yield start._with("backend", str(pin), evidence, pins=(pin,))
    yield start._with("backend", "the newest of its time", evidence)


def _pins(wheel: WheelFile) -> list[Requirement]:
    found = _GENERATOR.fullmatch(wheel.generator)
    if not found:
        return []
    said = canonicalize_name(found.group(1))
    names = _GENERATORS.get(said, (said,))
    with suppress(InvalidVersion):
        version = Version(found.group(2))
        return [Requirement(f"{name}=={version}") for name in names if name != wheel.name]  # a backend builds itself
    return []


def _clocks(wheel: WheelFile, pairs: Sequence[tuple[Entry, Entry]], start: Hypothesis) -> Iterator[Hypothesis]:
    """What the build took for the time: an epoch, or its files' own times in some time zone."""
    times = Counter(entry.mtime for entry in wheel.entries)
    zone = _zone(pairs)
    own = start._with("clock", "no SOURCE_DATE_EPOCH", _why_own(zone, times))
    if named := _named_zone(pairs):
        own = own._with(
            "time zone", named, "members are as far from the sdist's times as there, in summer and in winter"
        )
        own = replace(own, timezone=named)
    elif zone:
        own = own._with("time zone", _posix(zone), f"members are {zone} s apart from the sdist's times")
        own = replace(own, timezone=_posix(zone))
    common = times.most_common(1)[0][0]
    epoch = start._with("clock", f"SOURCE_DATE_EPOCH of {common}Z", f"{times[common]} of {times.total()} members")
    epoch = replace(epoch, epoch=_epoch(common, pairs))
    if common in _FIXED_TIMES or len(times) > 1:
        yield from (own, epoch)
    else:
        yield from (epoch, own)


def _why_own(zone: int | None, times: Counter[str]) -> str:
    if zone is not None:
        return "members have the times of the sdist's files"
    return f"members have {len(times)} times" if len(times) > 1 else "no other evidence"


def _zone(pairs: Sequence[tuple[Entry, Entry]]) -> int | None:
    """How many seconds the wheel's times are ahead of the sdist's; None where these aren't the same times."""
    apart = Counter(_seconds(inner.mtime) - other.seconds // _RESOLUTION * _RESOLUTION for inner, other in pairs)
    if not apart:
        return None
    offset, count = apart.most_common(1)[0]
    rounded = round(offset / _QUARTER_HOUR) * _QUARTER_HOUR
    if abs(offset - rounded) > _RESOLUTION or abs(rounded) > _FARTHEST_ZONE or count < len(pairs) / 2:
        return None
    return rounded


def _named_zone(pairs: Sequence[tuple[Entry, Entry]]) -> str:
    """A time zone with a summer time that explains every member's time; empty where there aren't two offsets."""
    times = {(_seconds(inner.mtime), other.seconds // _RESOLUTION * _RESOLUTION) for inner, other in pairs}
    if len({shown - known for shown, known in times}) < 2:
        return ""
    for name in _SUMMER_ZONES:
        with suppress(ZoneInfoNotFoundError):
            zone = ZoneInfo(name)
            moments = ((shown - known, datetime.fromtimestamp(known, zone).utcoffset()) for shown, known in times)
            if all(offset is not None and offset.total_seconds() == apart for apart, offset in moments):
                return name
    return ""


def _posix(offset: int) -> str:
    """A time zone so many seconds ahead of UTC, in POSIX's notation, where the sign is the other way round."""
    sign, (hours, minutes) = ("-" if offset > 0 else "+"), divmod(abs(offset) // 60, 60)
    name = f"<{'+' if offset > 0 else '-'}{hours:02}{minutes:02}>"
    return f"{name}{sign}{hours:02}:{minutes:02}" if offset else "UTC"


def _epoch(common: str, pairs: Sequence[tuple[Entry, Entry]]) -> int:
    """The second that a zip's time stands for: where it can be told, the one that the sdist has."""
    seconds = _seconds(common)
    exact = Counter(other.seconds for _, other in pairs if 0 <= other.seconds - seconds < _RESOLUTION)
    return exact.most_common(1)[0][0] if exact else seconds


def _seconds(mtime: str) -> int:
    return calendar.timegm(time.strptime(mtime, "%Y-%m-%d %H:%M:%S"))


def _modes(wheel: WheelFile, pairs: Sequence[tuple[Entry, Entry]], start: Hypothesis) -> Hypothesis:
    metadata = next((entry for entry in wheel.entries if entry.name == f"{wheel.dist_info}/METADATA"), None)
    mode = metadata.mode & 0o777 if metadata else 0
    umask = 0o666 & ~mode if mode & 0o600 == 0o600 else 0o022
    start = start._with("umask", f"{umask:03o}", f"METADATA has mode {mode:03o}", umask=umask)
    unusual = [inner for inner, _ in pairs if inner.mode and inner.mode & 0o777 not in (0o644, 0o755)]
    if unusual:
        evidence = f"{unusual[0].name} has mode {unusual[0].mode & 0o777:03o}"
        start = start._with("modes", "the sdist's own", evidence, own_modes=True)
    return start


def _pythons(uploaded: str, requires_python: str, here: Iterable[str]) -> list[tuple[str, str]]:
    """The Pythons to try: the newest that was out when the wheel was uploaded, then older ones, then newer ones."""
    admitted = SpecifierSet(requires_python)
    fitting = [each for each in here if admitted.contains(f"{each}.99") or admitted.contains(f"{each}.0")]
    fitting.sort(key=Version, reverse=True)
    day = uploaded[:10]
    out = [each for each in fitting if not day or _RELEASED.get(each, "9999") <= day]
    later = [each for each in reversed(fitting) if each not in out]
    listed = [(each, f"out when the wheel was uploaded on {day}" if day else "here") for each in out]
    return listed + [(each, "no older one is here") for each in later]
