"""Compare two files: the raw SHA-256 is the verdict, and everything else says why it isn't the same.

Nothing is normalised in order to pass. The level says how deep the difference goes, the differences
say where it is, and the causes say what to do about it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reprobuild.archive import Archive, Names, archive_kind, open_archive
from reprobuild.binary import first_difference
from reprobuild.causes import CAUSES, Cause, Hint
from reprobuild.contents import archive_differences, compression_difference, stream_differences
from reprobuild.difference import Difference, Level
from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.progress import SILENT, Observer, size_text

__all__ = ["CAUSES", "Cause", "Difference", "Findings", "Hint", "Level", "Verdict", "causes_json", "compare"]

_KEPT_FRAMING = 5  # differences kept of one field, such as the time of every entry
_KEPT_CONTENT = 200
_SLOW = 1 << 30  # bytes that take seconds to hash


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    Attributes:
        left_size, right_size: bytes.
        differences: those that are worth showing.
        omitted: for each field, how many more there are of it.
        reason: why the two can't be compared; empty when they can.
        wheels: whether the two are wheels, which get installed.
    """

    level: Level
    left: Digest
    right: Digest
    left_size: int
    right_size: int
    differences: tuple[Difference, ...] = ()
    omitted: tuple[tuple[str, int], ...] = ()
    reason: str = ""
    wheels: bool = False

    @property
    def causes(self) -> tuple[str, ...]:
        """The distinct causes: of the deepest level first, consequences last."""
        order: dict[str, tuple[bool, int]] = {}
        for difference in self.differences:
            if difference.cause:
                rank = (difference.follows, -difference.level.rank)
                order[difference.cause] = min(rank, order.get(difference.cause, rank))
        return tuple(sorted(order, key=lambda cause: order[cause]))

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return {
            "level": str(self.level),
            "left": {"digest": str(self.left), "size": self.left_size},
            "right": {"digest": str(self.right), "size": self.right_size},
            "reason": self.reason,
            "differences": [
                {
                    "path": list(difference.path),
                    "field": difference.field,
                    "left": difference.left,
                    "right": difference.right,
                    "cause": difference.cause,
                    "follows": difference.follows,
                    "level": str(difference.level),
                }
                for difference in self.differences
            ],
            "omitted": dict(self.omitted),
            "causes": causes_json(self.causes),
        }


def causes_json(names: Iterable[str]) -> list[dict[str, str]]:
    """Some causes as plain JSON values: each with its name, summary and remedy."""
    return [{"name": name, "summary": CAUSES[name].summary, "remedy": CAUSES[name].remedy} for name in names]


def compare(left: Path, right: Path, *, hints: Sequence[Hint] = (), observer: Observer = SILENT) -> Verdict:
    """Compare two files, and explain what differs.

    Args:
        hints: values known to differ between the two builds, which then are recognised in content.

    Raises:
        BadInput: a file is missing, or is a damaged or unsafe archive and the two aren't identical.
    """
    for path in (left, right):
        if not path.is_file():
            raise BadInput(f"{path} is not a file.", "Name two files that exist.")
    sizes = (left.stat().st_size, right.stat().st_size)
    if sum(sizes) >= _SLOW:
        observer.step(f"hashing {size_text(sum(sizes))}")
    # Hashing releases the interpreter lock, so two threads halve the time for large files.
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(Digest.of_file, (left, right))
    identical = Verdict(Level.IDENTICAL, one, two, *sizes)
    if one == two:
        return identical
    kinds = (_kind(left), _kind(right))
    if kinds[0] != kinds[1]:
        reason = f"{left} is {_words(kinds[0])}, {right} is {_words(kinds[1])}"
        return replace(identical, level=Level.NOT_COMPARABLE, reason=reason)
    found, wheels = Findings(), False
    with ExitStack() as stack:
        if kinds[0] is None:
            x, y = (stack.enter_context(path.open("rb")) for path in (left, right))
            found.extend(stream_differences(x, y, "", hints))
        else:
            # Comparing never unpacks anything, so the links of a tar may lead where they like.
            names: Names = "portable" if kinds[0] == "zip" else "posix"
            a, b = (stack.enter_context(open_archive(p, names=names)) for p in (left, right))
            wheels = kinds[0] == "zip" and _is_wheel(a) and _is_wheel(b)
            found.extend(_levelled(archive_differences(a, b, hints, observer=observer), is_wheel=wheels))
    if not found.differences:
        found.extend([_framing(left, right, kinds[0] or "")])
    return replace(
        identical,
        level=found.level,
        differences=tuple(_excused(found.differences)),
        omitted=found.omitted,
        wheels=wheels,
    )


def _kind(path: Path) -> str | None:
    kind = archive_kind(path)
    if kind != "zip" and path.suffix in (".whl", ".zip"):
        with open_archive(path):
            pass  # it raises: what claims to be a zip and isn't one is damaged, not different
    return kind


def _words(kind: str | None) -> str:
    return "not an archive" if kind is None else f"a {kind} file"


def _is_wheel(archive: Archive) -> bool:
    return any(re.fullmatch(r"[^/]+\.dist-info/WHEEL", entry.name) for entry in archive.entries)


def _levelled(differences: Iterable[Difference], *, is_wheel: bool) -> Iterator[Difference]:
    for each in differences:
        if is_wheel and _in_dist_info(each) and each.level is Level.PAYLOAD:
            yield replace(each, level=Level.METADATA)
        else:
            yield each


def _in_dist_info(difference: Difference) -> bool:
    return bool(difference.path) and difference.path[0].split("/")[0].endswith(".dist-info")


def _excused(differences: Sequence[Difference]) -> Iterator[Difference]:
    """What another version of the backend puts into dist-info isn't left over from an old build."""
    versions = any(each.cause == "backend-version" for each in differences)
    for each in differences:
        excused = versions and each.cause == "missing-file" and _in_dist_info(each)
        yield replace(each, cause=None) if excused else each


def _framing(left: Path, right: Path, kind: str) -> Difference:
    with left.open("rb") as one, right.open("rb") as two:
        if compression := compression_difference(one, two, kind):
            return compression
        at, a, b = first_difference(one, two)
    return Difference((), f"bytes at {at:#x}", a, b, level=Level.CONTAINER)


class Findings:
    """Differences, of which it keeps a few of each field and cause, and counts the rest."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.level = Level.IDENTICAL
        self._counts: Counter[tuple[str, str | None, Level]] = Counter()

    def extend(self, differences: Iterable[Difference]) -> None:
        """Take in some more."""
        for each in differences:
            self.level = max(self.level, each.level, key=lambda level: level.rank)
            key = (_family(each.field), each.cause, each.level)
            self._counts[key] += 1
            if self._counts[key] <= _kept(each.level):
                self.differences.append(each)

    @property
    def omitted(self) -> tuple[tuple[str, int], ...]:
        """For each field, how many more there were."""
        more: Counter[str] = Counter()
        for (name, _, level), count in self._counts.items():
            more[name] += max(0, count - _kept(level))
        return tuple(sorted((name, count) for name, count in more.items() if count))


def _kept(level: Level) -> int:
    return _KEPT_FRAMING if level is Level.CONTAINER else _KEPT_CONTENT


def _family(name: str) -> str:
    return "bytes" if name.startswith("bytes at") else re.sub(r" \d+$", "", name)
