"""What a long operation tells whoever started it. The library itself never prints."""

from typing import Protocol


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
