"""The search among hypotheses about the environment that made a published wheel. No I/O.

What differs after one try decides which guess the next one changes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from reprobuild.difference import Difference, Level
from reprobuild.guesses import Choice, Guess

if TYPE_CHECKING:
    from packaging.version import Version

#: How many hypotheses are worth a build.
MOST_TRIES = 12
#: The same where something differs that hardly any can mend: to find out about the rest.
MOST_HOPELESS_TRIES = 4
#: Causes of differences that hardly any environment mends, and of those that none does.
_HOPELESS = frozenset(("not-in-sdist", "not-as-in-sdist", "repaired"))
_UNMENDABLE = frozenset(("not-in-sdist", "repaired"))


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


_Point = tuple[int, ...]  # for each kind of guess, the position of its choice


class Search:
    """The hypotheses about a wheel, each chosen by what came of those before.

    It starts with the likeliest of each kind of guess. What differs then says which kinds are worth changing: first
    one at a time from the best try so far, then two.
    """

    def __init__(self, kinds: Mapping[str, Sequence[Choice]]) -> None:
        """Take in the choices of each kind of guess, as :func:`reprobuild.guesses.choices_of` gives them."""
        self._kinds = kinds
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

    def _choice(self, point: _Point, name: str) -> Choice:
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
