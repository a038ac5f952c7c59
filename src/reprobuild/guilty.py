"""Which sets of changes alter an outcome: group testing with as few trials as it takes, and no I/O.

It rests on one assumption: a change doesn't undo what another one does. So whatever alters the outcome still does when
more is changed, and what doesn't alter it still doesn't when less is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Group = frozenset[str]
#: Tries several groups of changes, each on its own: whether the outcome is another one than with nothing changed.
Trial = Callable[[Sequence[Group]], Sequence[bool]]
#: Up to this size a group is tried one by one: halving it would cost as much.
_SMALL = 4


@dataclass(frozen=True, slots=True)
class Found:
    """The smallest sets of changes that alter the outcome.

    Attributes:
        sets: each in the order of the given names, single ones first.
        complete: False when the search was given up, so that there may be more.
    """

    sets: tuple[tuple[str, ...], ...]
    complete: bool = True


class _GivenUp(Exception):
    """The limit was reached."""


class _Known:
    """What trials have shown, and what follows from that without another one."""

    def __init__(self, trial: Trial, everything: Group, limit: int) -> None:
        self._trial = trial
        self._left = limit
        self._altering = {everything}
        self._harmless: set[Group] = {frozenset()}

    def alter(self, groups: Sequence[Group]) -> list[bool]:
        """Whether each of these alters the outcome; those that must be tried are tried together."""
        wanted = [group for group in dict.fromkeys(groups) if self._inferred(group) is None]
        self._left -= len(wanted)
        if self._left < 0:
            raise _GivenUp
        if wanted:
            for group, altered in zip(wanted, self._trial(wanted), strict=True):
                (self._altering if altered else self._harmless).add(group)
        return [bool(self._inferred(group)) for group in groups]

    def _inferred(self, group: Group) -> bool | None:
        if any(group >= each for each in self._altering):
            return True
        return False if any(group <= each for each in self._harmless) else None


def find(names: Sequence[str], trial: Trial, *, suspects: Iterable[str] = (), limit: int = 60) -> Found:
    """All the smallest sets of changes that alter the outcome, which is known to be altered by all together.

    Single ones come first: suspects each alone and the rest at once; a guilty rest is halved, or tried one by one where
    that is no dearer. What is left without the single ones is tried once more, and if it still alters the outcome, some
    changes matter only together: these are found by divide and conquer (QuickXplain, Junker 2004), and all of them by
    taking out each member of a set that was found (hitting sets, Reiter 1987).

    Args:
        suspects: names that are likely to be guilty.
        limit: the most trials; after it what has been found is all that is reported.
    """
    known = _Known(trial, frozenset(names), limit)
    found: list[tuple[str, ...]] = []
    complete = True
    try:
        for name in _singles(names, known, frozenset(suspects)):
            found.append((name,))  # noqa: PERF401 - what was found stays when the search is given up
        rest = [name for name in names if (name,) not in found]
        for each in _together(rest, known):
            found.append(each)  # noqa: PERF402 - the same
    except _GivenUp:
        complete = False
    place = {name: at for at, name in enumerate(names)}
    found.sort(key=lambda each: (len(each) > 1, [place[name] for name in each]))
    return Found(tuple(found), complete)


def _singles(names: Sequence[str], known: _Known, suspects: Group) -> Iterable[str]:
    groups = [tuple(names)]
    likely = [name for name in names if name in suspects]
    if likely and len(likely) < len(names):
        groups = [*((name,) for name in likely), tuple(name for name in names if name not in suspects)]
    while groups:
        altering = [
            group
            for group, altered in zip(groups, known.alter([frozenset(group) for group in groups]), strict=True)
            if altered
        ]
        yield from (group[0] for group in altering if len(group) == 1)
        larger = [group for group in altering if len(group) > 1]
        if len(larger) == 1 and len(larger[0]) > _SMALL:
            middle = (len(larger[0]) + 1) // 2
            groups = [larger[0][:middle], larger[0][middle:]]
        else:
            groups = [(name,) for group in larger for name in group]


def _together(names: Sequence[str], known: _Known) -> Iterable[tuple[str, ...]]:
    found: list[Group] = []
    seen: set[Group] = set()
    waiting = [frozenset(names)]
    while waiting:
        seen.update(waiting)
        following: list[Group] = []
        for group, altered in zip(waiting, known.alter(waiting), strict=True):
            if not altered:
                continue
            smallest = next((each for each in found if each <= group), None)
            if smallest is None:
                smallest = frozenset(_smallest([name for name in names if name in group], known))
                found.append(smallest)
                yield tuple(name for name in names if name in smallest)
            following += [group - {name} for name in smallest]
        waiting = [group for group in dict.fromkeys(following) if group not in seen]


def _smallest(names: list[str], known: _Known, beside: Group = frozenset(), *, enough: bool = False) -> list[str]:
    """A smallest part of some names that, together with others, alters the outcome; all of them together do."""
    if enough and known.alter([beside])[0]:
        return []
    if len(names) == 1:
        return names
    one, two = names[: len(names) // 2], names[len(names) // 2 :]
    second = _smallest(two, known, beside.union(one), enough=True)
    first = _smallest(one, known, beside.union(second), enough=bool(second))
    return [*first, *second]
