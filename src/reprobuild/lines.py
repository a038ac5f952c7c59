"""Where two texts differ: their lines, aligned, and what a block of them shows as a whole."""

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

from reprobuild.causes import Hint, cause_of, same_items
from reprobuild.difference import Difference, quoted_pair

_LINES = 20  # differing lines that are quoted of one member
_MATCHED_LINES = 500  # differing lines that are aligned; the work grows with the square


def text_differences(left: str, right: str, name: str, hints: Sequence[Hint]) -> Iterator[Difference]:
    """The first lines that differ between two texts."""
    if left.replace("\r\n", "\n") == right.replace("\r\n", "\n"):
        counts = [f"{text.count(chr(13) + chr(10))} lines end in CRLF" for text in (left, right)]
        yield Difference((), "line endings", counts[0], counts[1], "line-endings")
        return
    pairs = _line_pairs(left.split("\n"), right.split("\n"))
    whole = _block_cause([a for _, a, _ in pairs if a is not None], [b for _, _, b in pairs if b is not None], name)

    def cause(a: str | None, b: str | None) -> str | None:
        if whole or a is None or b is None:
            return whole
        return _line_cause(a, b, name) or cause_of(a, b, hints)

    for number, a, b in pairs[:_LINES]:
        x, y = quoted_pair("absent" if a is None else a, "absent" if b is None else b)
        yield Difference((), f"line {number}", x, y, cause(a, b))
    if len(pairs) > _LINES:
        more = f"{len(pairs) - _LINES} more lines differ"
        causes = (cause(a, b) for _, a, b in pairs[_LINES:_MATCHED_LINES])
        yield Difference((), "more lines", more, more, next((c for c in causes if c), None))


def _line_pairs(a: list[str], b: list[str]) -> list[tuple[int, str | None, str | None]]:
    """(line number on the left, or on the right if it is only there; left line; right line)."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    ours, theirs = a[start : len(a) - end], b[start : len(b) - end]
    if len(ours) == len(theirs) or max(len(ours), len(theirs)) > _MATCHED_LINES:
        blocks = [("replace", 0, len(ours), 0, len(theirs))]
    else:
        matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
        blocks = [block for block in matcher.get_opcodes() if block[0] != "equal"]
    return [
        (start + 1 + (i if x is not None else j) + offset, x, y)
        for _, i, i_end, j, j_end in blocks
        for offset, (x, y) in enumerate(zip_longest(ours[i:i_end], theirs[j:j_end]))
        if x != y
    ]


def _block_cause(ours: list[str], theirs: list[str], name: str) -> str | None:
    """The cause that a block of lines shows only as a whole: its order."""
    if len(ours) > 1 and Counter(ours) == Counter(theirs):
        return "set-order" if name.endswith(".dist-info/METADATA") else "file-order"
    return "set-order" if same_items("\n".join(ours), "\n".join(theirs)) else None


def _line_cause(a: str, b: str, name: str) -> str | None:
    for member, field, cause in (
        (".dist-info/WHEEL", "Generator:", "backend-version"),
        (".dist-info/METADATA", "Metadata-Version:", "metadata-version"),
    ):
        if name.endswith(member) and a.startswith(field) and b.startswith(field):
            return cause
    return None
