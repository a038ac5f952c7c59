"""HTTP as registries need it: what was dropped is tried again, redirects keep secrets at home, nothing waits for ever.

Nothing here knows what a manifest is. Source for the statuses that are tried again: RFC 9110 and RFC 6585.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from reprobuild import process
from reprobuild.errors import BadInput, DigestMismatch, RegistryFailed, redacted, words_of
from reprobuild.oci.reference import is_loopback

T = TypeVar("T")
#: Makes the bytes of a request's body anew for each try.
Body = Callable[[], Iterator[bytes]]

_TRIES = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between two tries
_LONGEST_ASKED = 300.0  # seconds that a server may ask to be left alone
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = 5
#: What OpenSSL says where trying again is no use.
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "certificate verify failed", "wrong version number")
_PIECE = 1 << 18
#: Bytes that a body is sent in at once: the time limit of connecting holds for each.
_SENT_PIECE = 1 << 16
#: A body that brings fewer bytes in as many seconds as a connection may be silent counts as dropped.
_SLOWEST = 1 << 10
#: Bytes that have to come before earlier drops are forgotten, so that tries end.
_PROGRESS = 1 << 20
_RETRY_LATER = "The registry or the network is overloaded: try again later. What was transferred is not lost."


class Dropped(RegistryFailed):
    """A try that may succeed the next time: no connection, one that broke, or a server that is busy.

    Attributes:
        wait: seconds that the server asked for; None where it didn't.
    """

    def __init__(self, reason: str, remedy: str = _RETRY_LATER, wait: float | None = None) -> None:
        super().__init__(reason, remedy)
        self.wait = wait


@dataclass(frozen=True)
class Sent:
    """The body of a request, of a known length.

    Attributes:
        make: its bytes, made anew for each try.
        size: how many they are.
        what: its name in messages.
    """

    make: Body
    size: int
    what: str

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[memoryview]:
        left = self.size
        try:
            for chunk in self.make():
                process.go_on()
                left -= len(chunk)
                if left < 0:
                    break
                view = memoryview(chunk)
                yield from (view[at : at + _SENT_PIECE] for at in range(0, len(view), _SENT_PIECE))
        except Dropped as error:  # of another server, which has been asked often enough
            raise RegistryFailed(error.reason, error.remedy) from error
        except OSError as error:  # else it would be taken for this connection's
            raise BadInput(f"{self.what} can't be read: {error.strerror or error}.") from error
        if left:
            raise BadInput(f"{self.what} doesn't have the promised size.", "Somebody is changing it: try again.")


class Answer:
    """What a server answered; its body is read as it comes."""

    def __init__(self, response: Any, url: str, where: str, clock: Callable[[], float], silence: float) -> None:  # noqa: ANN401
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self._response = response
        self._where = where
        self._clock = clock
        self._silence = silence

    @cached_property
    def location(self) -> str:
        """Where the server points, as an absolute URL; empty if nowhere."""
        named = self.headers.get("Location", "")
        return self.pointed(named) if named else ""

    def pointed(self, named: str) -> str:
        """A URL that the answer names, which may be a relative one."""
        with suppress(ValueError):
            return urljoin(self.url, named)
        return ""

    def pieces(self) -> Iterator[bytes]:
        """The body as the server sends it, which may be compressed.

        Raises:
            Dropped: the connection broke, was silent for too long, or is too slow to ever end.
        """
        import urllib3  # noqa: PLC0415 - slow to import

        begun, came = self._clock(), 0
        while True:
            process.go_on()
            try:
                piece = self._response.raw.read1(_PIECE, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Dropped(f"{self._where}: the connection broke: {type(error).__name__}.") from error
            if not piece:
                return
            came += len(piece)
            if self._clock() - begun > self._silence:
                if came < _SLOWEST:
                    raise Dropped(f"{self._where}: the server sends less than {_SLOWEST} bytes in {self._silence:g} s.")
                begun, came = self._clock(), 0
            yield piece

    def start(self, limit: int) -> bytes:
        """The body, or of a longer one a little more than so many bytes."""
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                break
        return bytes(found)

    def close(self) -> None:
        """Give the connection back if the body was short or read, else end it."""
        with suppress(Dropped, ValueError):
            if int(self.headers.get("Content-Length", _PIECE)) < _PIECE:
                self.start(_PIECE)
        self._response.close()


class Tries:
    """Counts the failures in a row of one piece of work, and waits after each."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._failures = 0
        self._came = 0

    def progress(self, size: int) -> None:
        """So many bytes went well."""
        self._came += size
        if self._came >= _PROGRESS:
            self._failures = self._came = 0

    def failed(self, drop: Dropped) -> None:
        """Wait, or where it was the last try raise what happened."""
        self._failures += 1
        if self._failures >= _TRIES or (drop.wait or 0) > _LONGEST_ASKED:
            raise drop
        growing = min(_FIRST_WAIT * 2 ** (self._failures - 1), _LONGEST_WAIT)
        jitter = growing * random.uniform(0.5, 1)  # noqa: S311 - so that many clients don't come back at once
        self._sleep(max(jitter, drop.wait or 0))


class Transport:
    """Asks servers over connections that are kept, from any number of threads.

    Args:
        plain: whether http without TLS was asked for.
        connecting: seconds to connect, and to get rid of 64 KiB.
        silence: seconds that a server may be silent.
    """

    def __init__(
        self,
        *,
        plain: bool,
        connecting: float = 30,
        silence: float = 60,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.clock = clock
        self._plain = plain
        self._timeout = connecting, silence
        self._sleep = sleep or _sleep

    @cached_property
    def _session(self) -> Any:  # noqa: ANN401 - requests is imported lazily
        from http.cookiejar import DefaultCookiePolicy  # noqa: PLC0415 - slow to import

        import requests  # noqa: PLC0415 - the same
        from requests.adapters import HTTPAdapter  # noqa: PLC0415 - the same

        session = requests.Session()
        session.auth = _unchanged  # else requests takes what netrc has, and puts it over what was asked for
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=16))
        return session

    def tries(self) -> Tries:
        """A new count of failures."""
        return Tries(self._sleep)

    def wait(self, seconds: float) -> None:
        """Let time pass, for others to be done."""
        self._sleep(seconds)

    def persist(self, attempt: Callable[[], T]) -> T:
        """What an attempt gives that may be repeated as often as needed.

        Raises:
            Dropped: the last one failed too.
        """
        tries = self.tries()
        while True:
            try:
                return attempt()
            except Dropped as drop:
                tries.failed(drop)

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        where: str,
        *,
        headers: Mapping[str, str],
        authorization: str = "",
        body: bytes | Sent | None = None,
        follow: bool = True,
        slow: bool = False,
    ) -> Iterator[Answer]:
        """One try at a request; the answer is closed at the end of the block.

        Args:
            where: what messages begin with.
            authorization: a header for this URL's server alone.
            follow: whether redirects are followed.
            slow: whether the server may need minutes for it.

        Raises:
            Dropped: it may go well the next time.
            RegistryFailed: it won't.
        """
        origin = origin_of(url)
        for _ in range(_REDIRECTS):
            self._check(url, origin, where)
            own = {"Authorization": authorization} if authorization and origin_of(url) == origin else {}
            answer = self._send(method, url, where, {**headers, **own}, body, slow=slow)
            try:
                if not (follow and answer.status in {301, 302, 303, 307, 308} and answer.location):
                    _check_busy(answer, where)
                    yield answer
                    return
                if method not in {"GET", "HEAD"} and answer.status not in {307, 308}:
                    raise RegistryFailed(f"{where}: the server answered {answer.status} to {method}.")
                url = answer.location
            finally:
                answer.close()
        raise RegistryFailed(f"{where}: there were more than {_REDIRECTS} redirects.")

    def _check(self, url: str, origin: tuple[str, str, int | None], where: str) -> None:
        """Refuse what isn't HTTP, and http where https was begun with."""
        scheme, host, _ = origin_of(url)
        if scheme == "https" or (scheme == "http" and origin[0] == "http" and (self._plain or is_loopback(host))):
            return
        raise RegistryFailed(
            f"{where}: it would go on at {redacted(url)}, which is not https.",
            "Ask whoever runs the registry; plain http is used only where you ask for it, and on this machine.",
        )

    def _send(
        self, method: str, url: str, where: str, headers: Mapping[str, str], body: bytes | Sent | None, *, slow: bool
    ) -> Answer:
        import requests  # noqa: PLC0415 - slow to import

        process.go_on()
        connecting, silence = self._timeout
        host = urlsplit(url).hostname or ""
        try:
            response = self._session.request(
                method,
                url,
                data=body,
                headers={"Accept-Encoding": "identity", "User-Agent": "reprobuild", **headers},
                verify=os.environ.get("SSL_CERT_FILE") or True,  # a session's own would give way to CURL_CA_BUNDLE
                timeout=(connecting, silence * 5 if slow else silence),
                allow_redirects=False,
                stream=True,
                proxies={"no_proxy": host} if is_loopback(host) else None,
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            if any(sign in str(error) for sign in _UNTRUSTED):
                raise RegistryFailed(
                    f"{where}: the server's certificate is not trusted, or it doesn't speak TLS.",
                    "Name the authority's certificates in SSL_CERT_FILE, or ask for plain http if it has none.",
                ) from error
            whose = " from the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
            raise Dropped(
                f"{where}: no answer{whose}: {words_of(error)}.",
                "Check the registry's name, the network and the proxy.",
            ) from error
        except (OSError, ValueError) as error:  # also where SSL_CERT_FILE names nothing
            raise RegistryFailed(
                f"{where}: it can't be asked: {type(error).__name__}.", "Check the name, SSL_CERT_FILE and the proxy."
            ) from error
        return Answer(response, url, where, self.clock, silence)


def resumed(
    ask: Callable[[Mapping[str, str]], AbstractContextManager[Answer]],
    size: int,
    where: str,
    tries: Tries,
    offset: int = 0,
) -> Iterator[bytes]:
    """A file of a known size, from an offset on; after a broken connection it goes on where that broke.

    Args:
        ask: one try at a request with some headers; an answer may be 200, 206 or 416.
        where: what messages begin with.

    Raises:
        Dropped: the last try failed too.
        DigestMismatch: there is more than that.
        And what ``ask`` raises.
    """
    while offset < size:
        try:
            for piece in _rest(ask, size, where, offset):
                offset += len(piece)
                tries.progress(len(piece))
                yield piece
        except Dropped as drop:
            tries.failed(drop)


def _rest(
    ask: Callable[[Mapping[str, str]], AbstractContextManager[Answer]], size: int, where: str, offset: int
) -> Iterator[bytes]:
    """One try at the bytes from an offset on; never more than there are."""
    with ask({"Range": f"bytes={offset}-"} if offset else {}) as answer:
        if answer.status == 416:
            raise Dropped(f"{where}: it has only {offset} of {size} bytes there.")
        first = _first_byte(answer, where)
        if first > offset:
            raise Dropped(f"{where}: byte {offset} was asked for, and {first} came.")
        place = first
        for piece in answer.pieces():
            place += len(piece)
            if place > size:
                raise DigestMismatch(f"{where}: more than the promised {size} bytes came.")
            if place > offset:  # a server that knows no ranges begins at the start
                yield piece[max(0, len(piece) - (place - offset)) :]
                offset = place
        if place < size:
            raise Dropped(f"{where}: it ended after {place} of {size} bytes.")


def _first_byte(answer: Answer, where: str) -> int:
    if answer.status != 206:
        return 0
    found = re.match(r"bytes (\d{1,19})-", answer.headers.get("Content-Range", ""))
    if not found:
        raise Dropped(f"{where}: a part of it came without a word which one.")
    return int(found[1])


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Whom a URL talks to: scheme, host and port."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return "", "", None


def _check_busy(answer: Answer, where: str) -> None:
    if answer.status in _BUSY:
        wait = _seconds(answer.headers.get("Retry-After", ""))
        asked = f" and asks to be left alone for {wait:g} s" if wait else ""
        raise Dropped(f"{where}: the server answered {answer.status}{asked}.", wait=wait)


def _seconds(text: str) -> float | None:
    """Retry-After, which is a number of seconds or a date."""
    with suppress(ValueError, TypeError, OverflowError):
        return float(int(text))
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def _unchanged(request: T) -> T:
    return request


def _sleep(seconds: float) -> None:
    """Sleep, unless whoever wanted the work has left."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        process.go_on()
        time.sleep(min(left, 0.2))
