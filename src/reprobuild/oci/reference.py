"""Names of images as people write them: ``name:tag@sha256:…``.

Sources: the grammar of the distribution project's reference package, and its rules for names without a registry.
"""

import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from reprobuild.digest import Digest
from reprobuild.errors import BadInput, shown

#: What a name without a registry means, and where names of one part live there.
_DEFAULT, _OFFICIAL = "docker.io", "library"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
#: Characters of registry and repository together.
_NAME_LIMIT = 255
_REMEDY = "Write it like name:tag, registry.example.org/team/name:tag or name@sha256:<64 hex digits>."


@dataclass(frozen=True, order=True, slots=True)
class Reference:
    """An image in a registry.

    Attributes:
        registry: host name and port, as written; ``docker.io`` where none was.
        repository: the path in the registry.
        tag: empty where none was written.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[REGISTRY/]REPOSITORY[:TAG][@DIGEST]``; the first part is a registry if it has a dot or a colon.

        Raises:
            BadInput: it is something else.
        """
        if "://" in text:
            raise BadInput("An image's name has no scheme such as https://.", _REMEDY)  # nor is a URL to be shown
        name, at, digest = text.partition("@")
        registry, slash, repository = name.partition("/")
        if not slash or not (set(registry) & {".", ":"} or registry == "localhost" or registry != registry.lower()):
            registry, repository = _DEFAULT, name
        repository, colon, tag = repository.partition(":")
        if registry in {_DEFAULT, f"index.{_DEFAULT}"}:
            registry = _DEFAULT
            repository = repository if "/" in repository else f"{_OFFICIAL}/{repository}"
        if not _REPOSITORY.fullmatch(repository) or not _is_registry(registry):
            upper = " Repositories are in lower case." if repository != repository.lower() else ""
            raise BadInput(f"{shown(text)!r} is not an image's name.{upper}", _REMEDY)
        if len(registry) + len(repository) >= _NAME_LIMIT:
            raise BadInput(
                f"{shown(text)!r} is too long for an image's name.", f"{_NAME_LIMIT} characters are allowed."
            )
        if re.fullmatch("[0-9a-f]{64}", name):
            raise BadInput(f"{name} looks like a digest and names no image.", f"Write NAME@sha256:{name[:8]}….")
        if colon and not _TAG.fullmatch(tag):
            raise BadInput(f"{shown(tag)!r} is not a tag.", "A tag has up to 128 letters, digits, _, . and -.")
        return cls(registry, repository, tag, Digest.parse(digest) if at else None)

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, else the tag, else ``latest``."""
        return str(self.digest or self.tag or "latest")

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is this machine."""
        return is_loopback(self.registry)

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def is_loopback(registry: str) -> bool:
    """Whether a host, with or without a port, is this machine by its name or address alone."""
    host = registry if registry.count(":") > 1 else registry.partition(":")[0]
    host = host.partition("]")[0].removeprefix("[")
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def _is_registry(registry: str) -> bool:
    if not _REGISTRY.fullmatch(registry):
        return False
    address, bracket, port = registry.rpartition("]")
    with suppress(ValueError):
        if bracket:
            ipaddress.IPv6Address(address[1:])
        number = (port if bracket else registry).rpartition(":")[2] if ":" in (port if bracket else registry) else "1"
        return 0 < int(number) < 1 << 16
    return False
