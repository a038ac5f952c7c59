"""What a comparison reports: levels and differences, with a short quotation of each side."""

from dataclasses import dataclass
from enum import StrEnum

from reprobuild.errors import ExitCode

_QUOTED = 96  # characters


class Level(StrEnum):
    """How two files compare, best first."""

    IDENTICAL = "identical"
    CONTAINER = "container"
    METADATA = "metadata"
    PAYLOAD = "payload"
    NOT_COMPARABLE = "not-comparable"

    @property
    def rank(self) -> int:
        """0 for the best level."""
        return list(Level).index(self)

    @property
    def exit_code(self) -> ExitCode:
        """The code that a comparison ends with when nothing but identical is accepted."""
        return _EXIT_CODES[self]

    def accepts(self, found: "Level") -> bool:
        """Whether a user who accepts this level accepts what was found: never not-comparable."""
        return found is not Level.NOT_COMPARABLE and found.rank <= self.rank


_EXIT_CODES = {
    Level.IDENTICAL: ExitCode.OK,
    Level.CONTAINER: ExitCode.DIFFERS_CONTAINER,
    Level.METADATA: ExitCode.DIFFERS_METADATA,
    Level.PAYLOAD: ExitCode.DIFFERS_PAYLOAD,
    Level.NOT_COMPARABLE: ExitCode.NOT_COMPARABLE,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two files differ.

    Attributes:
        path: from the outside in: member, member of that, section; empty for the file itself.
        field: what differs there: ``time``, ``mode``, ``order``, ``line 12``, ``section``, ...
        left, right: a short quotation of each side.
        cause: a key of :data:`reprobuild.causes.CAUSES`, or None when there isn't enough evidence for one.
        follows: whether it is only a consequence of another difference.
        level: how deep this difference goes.
    """

    path: tuple[str, ...]
    field: str
    left: str
    right: str
    cause: str | None = None
    follows: bool = False
    level: Level = Level.PAYLOAD


def quoted_pair(a: str, b: str) -> tuple[str, str]:
    """Both texts from a little before their first difference on."""
    at = next((i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1]), min(len(a), len(b)))  # noqa: B905 - the shorter one decides
    start = max(0, at - _QUOTED // 2) if max(len(a), len(b)) > _QUOTED else 0
    mark = "..." if start else ""
    return mark + quoted(a[start:]), mark + quoted(b[start:])


def quoted(value: object) -> str:
    """As much of a value as a report shows."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
