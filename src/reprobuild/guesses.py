"""What a published wheel and the sdist beside it say of the environment that made the wheel.

Each guess has a name, a value and the evidence for it. Where several fit, they come in order of likelihood. Nothing is
read here but the time zone database.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from reprobuild.archive import Entry
from reprobuild.wheelfile import WheelFile
from reprobuild.ziptime import epoch_of, named_zone, posix_zone, seconds_of, zone_of

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
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Guess:
    """One thing about the environment, and what speaks for it."""

    name: str
    value: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a guess: what it changes in a hypothesis, in words too; no guess where it is what is usual."""

    change: Mapping[str, Any]
    guesses: tuple[Guess, ...] = ()
    version: Version | None = None


_USUAL = Choice({})


def choices_of(
    wheel: WheelFile,
    sdist: Sequence[Entry],
    uploaded: str,
    requires_python: str,
    pythons: Iterable[str],
    *,
    legacy: bool = False,
) -> dict[str, list[Choice]]:
    """The choices of each kind of guess, the likeliest first; none of ``python`` where none here can have built it.

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
    return {
        "umask": _umasks(wheel),
        "modes": _modes(wheel, sdist),
        "system": _systems(wheel),
        "universal": _universal(wheel),
        "python": [Choice({"python": each}, (Guess("python", each, why),)) for each, why in listed],
        "index time": _index_times(known, why, [each for each, _ in listed], legacy=legacy),
        "backend": _backends(wheel, known),
        "helper": _helpers(wheel, known, [each for each, _ in listed]),
        "clock": _clocks(wheel, _timed(wheel, sdist)),
    }


def _dated(wheel: WheelFile) -> str:
    """When a wheel of unknown upload was there at the latest, as its members tell; empty where they don't."""
    times = [entry.mtime for entry in wheel.entries if entry.mtime not in _FIXED_TIMES]
    if not times:
        return ""
    return datetime.fromtimestamp(seconds_of(max(times)) + _DAY, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _index_times(when: str, why: str, pythons: Sequence[str], *, legacy: bool) -> list[Choice]:
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
    found = [Choice({"index_time": each}, (Guess("index time", each, why),)) for each, why in listed.items()]
    now = Guess("index time", "now", "the index has too little of what it had at the upload")
    return [*found, Choice({}, (now,))]


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
    return pairs + [pair for pair in licences if zone_of([pair]) is not None]


def _backends(wheel: WheelFile, uploaded: str) -> list[Choice]:
    """The backend, at the version that WHEEL names, called by a front end or by itself; else as the index had it."""
    evidence = f"WHEEL says Generator: {wheel.generator or 'nothing'}"
    said, version = _generator(wheel)
    if version is None:
        return [Choice({}, (Guess("backend", "the newest of its time", evidence),))]
    candidates = _GENERATORS.get(said, ((said, ""),))
    more: tuple[Requirement, ...] = ()
    if said == "bdist-wheel" and uploaded >= _OWN_BDIST_WHEEL:
        more = (Requirement("setuptools<70.1"),)  # a newer one would have called itself the generator
    pins = {name: (Requirement(f"{name}=={version}"), *more) for name, _ in candidates}
    called = [
        Choice({"pins": each}, (Guess("backend", ", ".join(map(str, each)), evidence),))
        for name, each in pins.items()
        if name != wheel.name  # a backend builds itself
    ]
    alone = [
        Choice(
            {"pins": pins[name], "tool": tool},
            (Guess("backend", f"{pins[name][0]} by itself, as {tool}", f"{evidence}; [build-system] gives another"),),
        )
        for name, tool in candidates
        if tool and (name, version) != (wheel.name, wheel.version)
    ]
    return [*called, *alone, Choice({}, (Guess("backend", "the newest of its time", evidence),))]


def _helpers(wheel: WheelFile, uploaded: str, pythons: Sequence[str]) -> list[Choice]:
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
        found.append(Choice(change, tuple(guesses), version))
    return found


def _generator(wheel: WheelFile) -> tuple[str, Version | None]:
    """What WHEEL calls its generator, normalised, and the version; nothing where it is said in another way."""
    found = _GENERATOR.fullmatch(wheel.generator)
    with suppress(ValueError):
        if found:
            return canonicalize_name(found.group(1)), Version(found.group(2))
    return "", None


def _clocks(wheel: WheelFile, pairs: Sequence[tuple[Entry, Entry]]) -> list[Choice]:
    """What the build took for the time: an epoch, or its files' own times in some time zone."""
    times = Counter(entry.mtime for entry in wheel.entries)
    zone = zone_of(pairs)
    guesses = [Guess("clock", "no SOURCE_DATE_EPOCH", _why_own(zone, times))]
    timezone = "UTC"
    if named := named_zone(pairs):
        timezone = named
        why = "members are as far from the sdist's times as there, in summer and in winter"
        guesses.append(Guess("time zone", named, why))
    elif zone:
        timezone = posix_zone(zone)
        guesses.append(Guess("time zone", timezone, f"members are {zone} s apart from the sdist's times"))
    own = Choice({"timezone": timezone}, tuple(guesses))
    common = times.most_common(1)[0][0]
    why = f"{times[common]} of {times.total()} members"
    epoch = Choice({"epoch": epoch_of(common, pairs)}, (Guess("clock", f"SOURCE_DATE_EPOCH of {common}Z", why),))
    return [own, epoch] if common in _FIXED_TIMES or len(times) > 1 else [epoch, own]


def _why_own(zone: int | None, times: Counter[str]) -> str:
    if zone is not None:
        return "members have the times of the sdist's files"
    return f"members have {len(times)} times" if len(times) > 1 else "no other evidence"


def _umasks(wheel: WheelFile) -> list[Choice]:
    """The umask: what it left of the mode of a file that every build writes anew; then other usual ones."""
    written = next((entry for entry in wheel.entries if entry.name == f"{wheel.dist_info}/WHEEL"), None)
    mode = written.mode & 0o777 if written else 0
    # A mode of 600 is that of a temporary file, whatever the umask.
    shown = 0o666 & ~mode if mode & 0o640 == 0o640 else 0o022
    evidence = f"WHEEL has mode {mode:03o}"
    return [
        Choice({"umask": umask}, (Guess("umask", f"{umask:03o}", evidence),))
        for umask in dict.fromkeys((shown, 0o022, 0o002, 0o077, 0o027))
    ]


def _modes(wheel: WheelFile, sdist: Sequence[Entry]) -> list[Choice]:
    """Which modes the source's files had: 644 and 755, or the sdist's own."""
    kept = [
        (inner, other)
        for inner, other in _pairs(wheel, sdist, licences=True)
        if other.mode & 0o777 not in (0o644, 0o755)
    ]
    same = [inner for inner, other in kept if inner.mode & 0o777 == other.mode & 0o777]
    evidence = f"{same[0].name} has mode {same[0].mode & 0o777:03o}, as in the sdist" if same else "no other evidence"
    own = Choice({"own_modes": True}, (Guess("modes", "the sdist's own", evidence),))
    if not kept:
        return [_USUAL]
    return [own, _USUAL] if 2 * len(same) > len(kept) else [_USUAL, own]


def _systems(wheel: WheelFile) -> list[Choice]:
    if any(entry.create_system for entry in wheel.entries):
        return [_USUAL]
    guess = Guess("zip entries", "as Python writes them on Windows", "all of them name FAT as the creating system")
    return [Choice({"startup": _AS_ON_WINDOWS}, (guess,)), _USUAL]


def _universal(wheel: WheelFile) -> list[Choice]:
    if len({tag.interpreter for tag in wheel.tags}) < 2:
        return [_USUAL]
    guess = Guess(
        "universal", "bdist_wheel --universal", "the tags are for Python 2 and 3, and the source doesn't say so"
    )
    return [_USUAL, Choice({"home": (_UNIVERSAL,)}, (guess,))]


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
