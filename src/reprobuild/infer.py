"""The environment that made a published wheel, guessed from the wheel and the sdist beside it.

Nothing is read here but the time zone database.

Each guess has a name, a value and the evidence for it. Where several fit, they come in order of likelihood, and what
differs after one try decides which guess the next one changes.
"""

import calendar
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild.archive import Entry
from reprobuild.difference import Difference, Level
from reprobuild.wheelfile import WheelFile

#: How many hypotheses are worth a build.
MOST_TRIES = 12
#: The same where something differs that hardly any can mend: to find out about the rest.
MOST_HOPELESS_TRIES = 4
#: Causes of differences that hardly any environment mends, and of those that none does.
_HOPELESS = frozenset(("not-in-sdist", "not-as-in-sdist", "repaired"))
_UNMENDABLE = frozenset(("not-in-sdist", "repaired"))
#: What WHEEL's Generator calls a distribution: those that it may be, each with the backend that the tool of that name
#: calls by itself, whatever the source's [build-system] says.
_GENERATORS: dict[str, tuple[tuple[str, str], ...]] = {
    "bdist-wheel": (("wheel", ""),),
    "flit": (("flit-core", "flit_core.buildapi"), ("flit", "flit.buildapi")),
    "hatch": (("hatchling", "hatchling.build"),),
    "hatchling": (("hatchling", "hatchling.build"),),
    "pdm-backend": (("pdm-backend", "pdm.backend"),),
    "pdm-pep517": (("pdm-pep517", "pdm.pep517.api"),),
    "poetry": (("poetry-core", "poetry.core.masonry.api"), ("poetry", "poetry.masonry.api")),
    "poetry-core": (("poetry-core", "poetry.core.masonry.api"),),
    "uv": (("uv-build", "uv_build"),),
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
#: setuptools 70.1 is the first with a bdist_wheel of its own, which calls itself setuptools.
_OWN_BDIST_WHEEL = "2024-06-19"
#: Releases of setuptools that CPython brought along (Lib/ensurepip), with their upload: what a new virtual environment
#: holds. Newest first.
_BUNDLED_SETUPTOOLS = (
    ("65.5.0", "2022-10-14"),
    ("63.2.0", "2022-07-14"),
    ("58.1.0", "2021-09-22"),
    ("57.4.0", "2021-07-19"),
    ("56.0.0", "2021-04-09"),
    ("49.2.1", "2020-08-02"),
    ("47.1.0", "2020-05-28"),
    ("41.2.0", "2019-08-21"),
    ("40.8.0", "2019-02-05"),
)
#: The newest release of wheel of each way of writing METADATA and the zip's fields. An installed wheel comes before the
#: one that setuptools vendors.
_OTHER_WHEELS = ("0.37.1", "0.38.4", "0.42.0", "0.45.1")
#: distutils, which setuptools before 66 needs, left the standard library with 3.12.
_LAST_DISTUTILS = Version("3.11")
_GENERATED = frozenset(("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "zip-safe"))
#: How a wheel for Python 2 and 3 is asked for on the command line: distutils reads the user's settings too.
_UNIVERSAL = (".pydistutils.cfg", "[bdist_wheel]\nuniversal = 1\n")
#: zipfile asks sys.platform which system to name as an entry's creator.
_AS_ON_WINDOWS = "import sys, types, zipfile; zipfile.sys = types.SimpleNamespace(**{**vars(sys), 'platform': 'win32'})"
_QUARTER_HOUR = 900
_DAY = 86_400
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
        tool: the backend of a tool that built it by itself, past the source's [build-system]: the pins are then all
            that it needed. Empty where the source's own backend built it.
        home: files in the user's home folder, by name.
        startup: Python code that runs whenever an interpreter of the build environment starts.
        guesses: the same in words, with the evidence.
    """

    pins: tuple[Requirement, ...] = ()
    index_time: str = ""
    epoch: int | None = None
    timezone: str = "UTC"
    umask: int = 0o022
    own_modes: bool = False
    python: str = ""
    tool: str = ""
    home: tuple[tuple[str, str], ...] = ()
    startup: str = ""
    guesses: tuple[Guess, ...] = ()


class Aspect(StrEnum):
    """What of a try isn't as it should be, told as far as it says which guess to change."""

    UNRESOLVED = "the build requirements can't be resolved"
    UNBUILT = "the build fails"
    MODES = "modes"
    TAG = "tags"
    SYSTEM = "operating system"
    BACKEND = "backend"
    METADATA = "metadata"
    FRAMING = "framing"
    CLOCK = "clock"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a hypothesis.

    Attributes:
        rank: the smaller, the better.
        aspects: of what differs, or why nothing was built; empty where no guess can mend what differs.
        age: what METADATA says of the tool that wrote it: ``older`` or ``newer`` than the one that was tried, or empty.
        hopeless: whether something differs that hardly any guess can mend.
        elsewhere: whether it was compiled and repaired elsewhere, so that nothing made here can be the same.
    """

    rank: tuple[int, int]
    aspects: frozenset[Aspect]
    age: str = ""
    hopeless: bool = False
    elsewhere: bool = False

    @property
    def is_built(self) -> bool:
        """Whether a wheel came out."""
        return not self.aspects & {Aspect.UNRESOLVED, Aspect.UNBUILT}


@dataclass(frozen=True, slots=True)
class _Choice:
    """One value of a guess: what it changes in a hypothesis, in words too; no guess where it is what is usual."""

    change: Mapping[str, Any]
    guesses: tuple[Guess, ...] = ()
    version: Version | None = None


_USUAL = _Choice({})
_Point = tuple[int, ...]  # for each kind of guess, the position of its choice


class Search:
    """The hypotheses about a wheel, each chosen by what came of those before.

    It starts with the likeliest of each kind of guess. What differs then says which kinds are worth changing: first
    one at a time from the best try so far, then two.
    """

    def __init__(
        self,
        wheel: WheelFile,
        sdist: Sequence[Entry],
        uploaded: str,
        requires_python: str,
        pythons: Iterable[str],
        *,
        legacy: bool = False,
    ) -> None:
        """Take in the evidence.

        Args:
            sdist: the members of the sdist of the same release.
            uploaded: when the wheel was uploaded (RFC 3339); empty when the index doesn't tell.
            requires_python: the project's range of Python versions.
            pythons: the minor versions of Python that are here, such as ``3.12``.
            legacy: whether the source names no backend, so that setuptools' own fallback for such sources is needed.
        """
        known, why = uploaded, "the index's upload time of the wheel"
        if not uploaded:
            known, why = _dated(wheel), "a day after the newest member of the wheel"
        listed = _pythons(known, requires_python, _of_tags(wheel, pythons))
        self._kinds: dict[str, list[_Choice]] = {
            "umask": _umasks(wheel),
            "modes": _modes(wheel, sdist),
            "system": _systems(wheel),
            "universal": _universal(wheel),
            "python": [_Choice({"python": each}, (Guess("python", each, why),)) for each, why in listed],
            "index time": _index_times(known, why, [each for each, _ in listed], legacy=legacy),
            "backend": _backends(wheel, known),
            "helper": _helpers(wheel, known, [each for each, _ in listed]),
            "clock": _clocks(wheel, _timed(wheel, sdist)),
        }
        self._names = list(self._kinds)
        self._outcomes: dict[_Point, Outcome] = {}
        self._now: _Point = ()
        self._range: list[Version | None] = [None, None]

    def next(self) -> Hypothesis | None:
        """The next hypothesis that is worth a build; None when there is none."""
        if not self._kinds["python"] or self._is_over():
            return None
        point = next((each for each in self._points() if each not in self._outcomes and self._fits(each)), None)
        if point is None:
            return None
        self._now = point
        return self._hypothesis(point)

    def learn(self, outcome: Outcome) -> None:
        """Take in what came of the hypothesis that :meth:`next` gave last."""
        self._outcomes[self._now] = outcome
        version = self._choice(self._now, "helper").version
        if outcome.age == "older":
            self._range[1] = version or self._range[1]
        elif outcome.age == "newer" and version:
            self._range[0] = version

    def _is_over(self) -> bool:
        built = [each for each in self._outcomes.values() if Aspect.UNRESOLVED not in each.aspects]
        most = MOST_HOPELESS_TRIES if any(each.hopeless for each in built) else MOST_TRIES
        elsewhere = any(each.elsewhere for each in built)
        return elsewhere or len(built) >= most or len(self._outcomes) >= 3 * MOST_TRIES

    def _points(self) -> Iterator[_Point]:
        """The choices to try next, the likeliest first; some of them may have been tried."""
        start = (0,) * len(self._names)
        yield start
        built = {point: each for point, each in self._outcomes.items() if each.is_built}
        if built:
            best = min(built, key=lambda point: built[point].rank)
            kinds = _mending(built[best].aspects)
        else:
            best = start
            kinds = _mending(self._outcomes[self._now].aspects)
        singles = [self._changed(best, name, at) for name in kinds for at in range(len(self._kinds[name]))]
        yield from singles
        pairs = [
            self._changed(each, name, at) for each in singles for name in kinds for at in range(len(self._kinds[name]))
        ]
        yield from sorted(pairs, key=lambda point: sum(abs(a - b) for a, b in zip(point, best, strict=True)))

    def _changed(self, point: _Point, name: str, at: int) -> _Point:
        place = self._names.index(name)
        return (*point[:place], at, *point[place + 1 :])

    def _choice(self, point: _Point, name: str) -> _Choice:
        return self._kinds[name][point[self._names.index(name)]]

    def _fits(self, point: _Point) -> bool:
        """Whether the age that METADATA showed so far leaves this choice open."""
        version = self._choice(point, "helper").version
        lower, upper = self._range
        return version is None or not ((lower and version <= lower) or (upper and version >= upper))

    def _hypothesis(self, point: _Point) -> Hypothesis:
        found = Hypothesis()
        pins: list[Requirement] = []
        guesses: list[Guess] = []
        for name in self._names:
            choice = self._choice(point, name)
            change = dict(choice.change)
            pins += change.pop("pins", ())
            found = replace(found, **change)
            guesses = [each for each in guesses if each.name not in {new.name for new in choice.guesses}]
            guesses += choice.guesses
        named = {canonicalize_name(each.name): each for each in pins}  # of two pins of one project the later
        return replace(found, pins=tuple(named.values()), guesses=tuple(guesses))


#: The kinds of guesses that can mend an aspect, the likeliest first.
_MENDS: dict[Aspect, tuple[str, ...]] = {
    Aspect.UNRESOLVED: ("backend", "index time", "helper"),
    Aspect.UNBUILT: ("index time", "python", "backend", "helper"),
    Aspect.MODES: ("modes", "umask", "backend", "helper", "index time"),
    Aspect.TAG: ("universal",),
    Aspect.SYSTEM: ("system",),
    Aspect.BACKEND: ("backend", "index time"),
    Aspect.METADATA: ("helper", "backend", "python", "index time"),
    Aspect.FRAMING: ("backend", "helper", "python", "index time"),
    Aspect.CLOCK: ("clock",),
    Aspect.CONTENT: ("clock", "index time", "backend", "helper", "python"),
}


def _mending(aspects: Iterable[Aspect]) -> list[str]:
    found = set(aspects)
    return list(dict.fromkeys(name for aspect in Aspect if aspect in found for name in _MENDS[aspect]))


def outcome_of(rank: tuple[int, int], differences: Iterable[Difference], *, renamed: bool = False) -> Outcome:
    """What a comparison of the published wheel (left) with one made again says of the guesses.

    Args:
        renamed: whether the two have different file names.
    """
    found = {Aspect.TAG} if renamed else set()
    ages, hopeless, elsewhere = Counter[str](), False, False
    for each in differences:
        hopeless = hopeless or each.cause in _HOPELESS
        elsewhere = elsewhere or each.cause == "repaired"
        if each.cause not in _UNMENDABLE and not each.follows:
            found.add(_aspect(each))
            ages[_age(each)] += 1
    ages.pop("", None)
    age = next(iter(ages)) if len(ages) == 1 else ""
    return Outcome(rank, frozenset(found), age, hopeless, elsewhere)


def _aspect(difference: Difference) -> Aspect:
    by_field = {"time": Aspect.CLOCK, "mode": Aspect.MODES, "create system": Aspect.SYSTEM}
    if difference.field in by_field:
        return by_field[difference.field]
    name = difference.path[0] if difference.path else ""
    if name.endswith(".dist-info/WHEEL"):
        tagged = "Tag:" in difference.left + difference.right
        return Aspect.TAG if tagged else Aspect.BACKEND
    if difference.level is Level.CONTAINER:
        return Aspect.FRAMING
    return Aspect.METADATA if ".dist-info" in name.partition("/")[0] else Aspect.CONTENT


def _age(difference: Difference) -> str:
    """Whether an older or a newer setuptools than the one that was tried wrote the published METADATA."""
    if not (difference.path and difference.path[-1].endswith("/METADATA")):
        return ""
    for start, is_old in (("Platform: UNKNOWN", True), ("License-File:", False), ("Dynamic:", False)):
        theirs, ours = (side.startswith(start) for side in (difference.left, difference.right))
        if theirs != ours:
            return "older" if theirs is is_old else "newer"
    return ""


# --- the kinds of guesses ----------------------------------------------------------------------------


def _dated(wheel: WheelFile) -> str:
    """When a wheel of unknown upload was there at the latest, as its members tell; empty where they don't."""
    times = [entry.mtime for entry in wheel.entries if entry.mtime not in _FIXED_TIMES]
    if not times:
        return ""
    return datetime.fromtimestamp(seconds_of(max(times)) + _DAY, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _index_times(when: str, why: str, pythons: Sequence[str], *, legacy: bool) -> list[_Choice]:
    """What the index had: what it had at the upload, unless nothing of that can build or run here."""
    if not when:
        return [_USUAL]
    if legacy and when < _FALLBACK_SINCE:
        when, why = _FALLBACK_SINCE, "no setuptools before 40.8.0 builds a source without a [build-system]"
    listed = {when: why}
    for python in pythons:
        released = f"{_RELEASED.get(python, '')}T00:00:00Z"
        if when < released and len(listed) < 3:
            listed.setdefault(released, f"older backends may not run under Python {python}")
    found = [_Choice({"index_time": each}, (Guess("index time", each, why),)) for each, why in listed.items()]
    now = Guess("index time", "now", "the index has too little of what it had at the upload")
    return [*found, _Choice({}, (now,))]


def _pairs(wheel: WheelFile, sdist: Sequence[Entry], *, licences: bool = False) -> list[tuple[Entry, Entry]]:
    """Members of the wheel with the file of the sdist that each was copied from, as names and sizes tell.

    Args:
        licences: whether those in dist-info count, whose times a build may set anew.
    """
    by_name: dict[str, list[tuple[str, Entry]]] = {}
    for entry in sdist:
        inner = entry.name.partition("/")[2]
        by_name.setdefault(inner.rpartition("/")[2], []).append((inner, entry))
    found = []
    for entry in wheel.entries:
        last = entry.name.rpartition("/")[2]
        inside = entry.name
        if entry.name.startswith(wheel.dist_info):
            if not licences or last in _GENERATED:
                continue
            inside = last
        same = [
            (len(name), other)
            for name, other in by_name.get(last, [])
            if other.size == entry.size and f"/{name}".endswith(f"/{inside}")
        ]
        if same:
            found.append((entry, min(same, key=lambda each: each[0])[1]))
    return found


def _timed(wheel: WheelFile, sdist: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """The pairs whose times tell something: licences too, where their time isn't that of the build."""
    pairs = _pairs(wheel, sdist)
    licences = [pair for pair in _pairs(wheel, sdist, licences=True) if pair not in pairs]
    return pairs + [pair for pair in licences if _zone([pair]) is not None]


def _backends(wheel: WheelFile, uploaded: str) -> list[_Choice]:
    """The backend, at the version that WHEEL names, called by a front end or by itself; else as the index had it."""
    evidence = f"WHEEL says Generator: {wheel.generator or 'nothing'}"
    said, version = _generator(wheel)
    if version is None:
        return [_Choice({}, (Guess("backend", "the newest of its time", evidence),))]
    candidates = _GENERATORS.get(said, ((said, ""),))
    more: tuple[Requirement, ...] = ()
    if said == "bdist-wheel" and uploaded >= _OWN_BDIST_WHEEL:
        more = (Requirement("setuptools<70.1"),)  # a newer one would have called itself the generator
    pins = {name: (Requirement(f"{name}=={version}"), *more) for name, _ in candidates}
    called = [
        _Choice({"pins": each}, (Guess("backend", ", ".join(map(str, each)), evidence),))
        for name, each in pins.items()
        if name != wheel.name  # a backend builds itself
    ]
    alone = [
        _Choice(
            {"pins": pins[name], "tool": tool},
            (Guess("backend", f"{pins[name][0]} by itself, as {tool}", f"{evidence}; [build-system] gives another"),),
        )
        for name, tool in candidates
        if tool and (name, version) != (wheel.name, wheel.version)
    ]
    return [*called, *alone, _Choice({}, (Guess("backend", "the newest of its time", evidence),))]


def _helpers(wheel: WheelFile, uploaded: str, pythons: Sequence[str]) -> list[_Choice]:
    """What took part beside the backend that WHEEL names: setuptools where it names wheel, and the other way round."""
    said, _ = _generator(wheel)
    listed: list[tuple[str, str, Version | None]] = []
    if said == "setuptools":
        why = "METADATA or RECORD isn't written as by the wheel that setuptools holds"
        listed = [(f"wheel=={version}", why, None) for version in _OTHER_WHEELS]
    elif said == "bdist-wheel":
        why = "METADATA isn't written as by the newest setuptools; this one came with a Python"
        listed = [(f"setuptools=={v}", why, Version(v)) for v, day in _BUNDLED_SETUPTOOLS if day <= uploaded[:10]]
    old = next((each for each in pythons if Version(each) <= _LAST_DISTUTILS), "")
    found = [_USUAL]
    for pin, evidence, version in listed:
        change: dict[str, Any] = {"pins": (Requirement(pin),)}
        guesses = [Guess("installed", pin, evidence)]
        if version and pythons and Version(pythons[0]) > _LAST_DISTUTILS and old:
            change["python"] = old
            guesses.append(Guess("python", old, "the newest that is here with distutils"))
        found.append(_Choice(change, tuple(guesses), version))
    return found


def _generator(wheel: WheelFile) -> tuple[str, Version | None]:
    """What WHEEL calls its generator, normalised, and the version; nothing where it is said in another way."""
    found = _GENERATOR.fullmatch(wheel.generator)
    with suppress(ValueError):
        if found:
            return canonicalize_name(found.group(1)), Version(found.group(2))
    return "", None


def _clocks(wheel: WheelFile, pairs: Sequence[tuple[Entry, Entry]]) -> list[_Choice]:
    """What the build took for the time: an epoch, or its files' own times in some time zone."""
    times = Counter(entry.mtime for entry in wheel.entries)
    zone = _zone(pairs)
    guesses = [Guess("clock", "no SOURCE_DATE_EPOCH", _why_own(zone, times))]
    timezone = "UTC"
    if named := _named_zone(pairs):
        timezone = named
        why = "members are as far from the sdist's times as there, in summer and in winter"
        guesses.append(Guess("time zone", named, why))
    elif zone:
        timezone = _posix(zone)
        guesses.append(Guess("time zone", timezone, f"members are {zone} s apart from the sdist's times"))
    own = _Choice({"timezone": timezone}, tuple(guesses))
    common = times.most_common(1)[0][0]
    why = f"{times[common]} of {times.total()} members"
    epoch = _Choice({"epoch": _epoch(common, pairs)}, (Guess("clock", f"SOURCE_DATE_EPOCH of {common}Z", why),))
    return [own, epoch] if common in _FIXED_TIMES or len(times) > 1 else [epoch, own]


def _why_own(zone: int | None, times: Counter[str]) -> str:
    if zone is not None:
        return "members have the times of the sdist's files"
    return f"members have {len(times)} times" if len(times) > 1 else "no other evidence"


def _zone(pairs: Sequence[tuple[Entry, Entry]]) -> int | None:
    """How many seconds the wheel's times are ahead of the sdist's; None where these aren't the same times."""
    apart = Counter(seconds_of(inner.mtime) - other.seconds // _RESOLUTION * _RESOLUTION for inner, other in pairs)
    if not apart:
        return None
    offset, count = apart.most_common(1)[0]
    rounded = round(offset / _QUARTER_HOUR) * _QUARTER_HOUR
    if abs(offset - rounded) > _RESOLUTION or abs(rounded) > _FARTHEST_ZONE or count < len(pairs) / 2:
        return None
    return rounded


def _named_zone(pairs: Sequence[tuple[Entry, Entry]]) -> str:
    """A time zone with a summer time that explains every member's time; empty where there aren't two offsets."""
    times = {(seconds_of(inner.mtime), other.seconds // _RESOLUTION * _RESOLUTION) for inner, other in pairs}
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


def offset_of(timezone: str, seconds: int) -> int:
    """How many seconds a hypothesis' time zone is ahead of UTC at some moment, in seconds since 1970."""
    if found := re.match(r"<([+-])(\d\d)(\d\d)>", timezone):
        sign, hours, minutes = found.groups()
        return (int(hours) * 60 + int(minutes)) * (60 if sign == "+" else -60)
    with suppress(ZoneInfoNotFoundError):
        offset = datetime.fromtimestamp(seconds, ZoneInfo(timezone)).utcoffset()
        return int(offset.total_seconds()) if offset else 0
    return 0


def _epoch(common: str, pairs: Sequence[tuple[Entry, Entry]]) -> int:
    """The second that a zip's time stands for: where it can be told, the one that the sdist has."""
    seconds = seconds_of(common)
    exact = Counter(other.seconds for _, other in pairs if 0 <= other.seconds - seconds < _RESOLUTION)
    return exact.most_common(1)[0][0] if exact else seconds


def seconds_of(mtime: str) -> int:
    """A zip's time in seconds since 1970; 0 for none that a calendar has."""
    with suppress(ValueError):
        return calendar.timegm(time.strptime(mtime, "%Y-%m-%d %H:%M:%S"))
    return 0


def _umasks(wheel: WheelFile) -> list[_Choice]:
    """The umask: what it left of the mode of a file that every build writes anew; then other usual ones."""
    written = next((entry for entry in wheel.entries if entry.name == f"{wheel.dist_info}/WHEEL"), None)
    mode = written.mode & 0o777 if written else 0
    # A mode of 600 is that of a temporary file, whatever the umask.
    shown = 0o666 & ~mode if mode & 0o640 == 0o640 else 0o022
    evidence = f"WHEEL has mode {mode:03o}"
    return [
        _Choice({"umask": umask}, (Guess("umask", f"{umask:03o}", evidence),))
        for umask in dict.fromkeys((shown, 0o022, 0o002, 0o077, 0o027))
    ]


def _modes(wheel: WheelFile, sdist: Sequence[Entry]) -> list[_Choice]:
    """Which modes the source's files had: 644 and 755, or the sdist's own."""
    kept = [
        (inner, other)
        for inner, other in _pairs(wheel, sdist, licences=True)
        if other.mode & 0o777 not in (0o644, 0o755)
    ]
    same = [inner for inner, other in kept if inner.mode & 0o777 == other.mode & 0o777]
    evidence = f"{same[0].name} has mode {same[0].mode & 0o777:03o}, as in the sdist" if same else "no other evidence"
    own = _Choice({"own_modes": True}, (Guess("modes", "the sdist's own", evidence),))
    if not kept:
        return [_USUAL]
    return [own, _USUAL] if 2 * len(same) > len(kept) else [_USUAL, own]


def _systems(wheel: WheelFile) -> list[_Choice]:
    if any(entry.create_system for entry in wheel.entries):
        return [_USUAL]
    guess = Guess("zip entries", "as Python writes them on Windows", "all of them name FAT as the creating system")
    return [_Choice({"startup": _AS_ON_WINDOWS}, (guess,)), _USUAL]


def _universal(wheel: WheelFile) -> list[_Choice]:
    if len({tag.interpreter for tag in wheel.tags}) < 2:
        return [_USUAL]
    guess = Guess(
        "universal", "bdist_wheel --universal", "the tags are for Python 2 and 3, and the source doesn't say so"
    )
    return [_USUAL, _Choice({"home": (_UNIVERSAL,)}, (guess,))]


def _of_tags(wheel: WheelFile, here: Iterable[str]) -> list[str]:
    """Those of some Pythons that can have built a wheel, as its tags tell."""
    versions = {tag.interpreter: tag.abi for tag in wheel.tags if re.fullmatch(r"cp3\d+", tag.interpreter)}
    if not versions or "abi3" in versions.values():
        return list(here)
    return [each for each in here if f"cp{each.replace('.', '')}" in versions]


def _pythons(uploaded: str, requires_python: str, here: Iterable[str]) -> list[tuple[str, str]]:
    """The Pythons to try: the newest that was out when the wheel was uploaded, then older ones, then newer ones."""
    admitted = SpecifierSet(requires_python)
    fitting = [each for each in here if admitted.contains(f"{each}.99") or admitted.contains(f"{each}.0")]
    fitting.sort(key=Version, reverse=True)
    day = uploaded[:10]
    out = [each for each in fitting if not day or _RELEASED.get(each, "9999") <= day]
    later = [each for each in reversed(fitting) if each not in out]
    listed = [(each, f"out when the wheel was uploaded, by {day}" if day else "here") for each in out]
    return listed + [(each, "no older one is here") for each in later]
