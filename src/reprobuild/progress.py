"""What a long operation tells whoever started it. The library itself never prints."""

import time
from typing import Protocol

#: Seconds between two words about work of many small parts.
_PACE = 2.0


class Observer(Protocol):
    """Receives the progress of one operation, from one thread at a time."""

    def step(self, message: str) -> None:
        """A new step has begun; ``message`` is a short phrase for a person."""

    def line(self, text: str) -> None:
        """A line of output of a program that was started (a backend, a resolver)."""

    def warn(self, message: str) -> None:
        """Something the user should know although the operation goes on."""


class Silent:
    """The observer of somebody who doesn't want to know."""

    def step(self, message: str) -> None:
        """Ignore it."""

    def line(self, text: str) -> None:
        """Ignore it."""

    def warn(self, message: str) -> None:
        """Ignore it."""


SILENT: Observer = Silent()


class Paced:
    """Tells an observer about work of many parts: of the big ones each, of the others now and then."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._last = time.monotonic()

    def part(self, message: str, *, big: bool = False) -> None:
        """A part has begun."""
        now = time.monotonic()
        if big or now - self._last >= _PACE:
            self._last = now
            self._observer.step(message)


def size_text(size: int) -> str:
    """A number of bytes in words, such as ``4.2 GiB``."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.1f} {unit}" if unit != "bytes" else f"{size} bytes"
