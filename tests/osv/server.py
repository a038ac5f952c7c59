"""A server on loopback that answers as OSV's API does, from a folder of advisories in OSV's format.

By hand, until it is interrupted: ``python tests/osv/server.py FOLDER --port 0``; its first line is its URL, and
``reprobuild audit --osv-url URL/v1/query`` asks it. The folder is read anew for each request, so that an advisory can
be put there, or taken away, while it runs. ``--fail MODE`` or ``--fail MODE@/v1/vulns`` breaks its answers.

Source: OSV API v1 (query, querybatch, vulns) and the OSV schema's rules for ``versions`` and ``ranges``. Like some
servers, and unlike the public one, it gives withdrawn advisories too: a client has to look.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Json = dict[str, Any]
MODES = ("500", "404", "cut", "text", "null", "list", "slow", "page")
_SLOW = 30.0  # seconds, unless the server ends before


class Advisories:
    """A folder of advisories, one in a file ``ID.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Json]:
        """Every advisory there, in the order of the files' names."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))]

    def named(self, name: str) -> Json | None:
        """The one with an id."""
        return next((each for each in self.all() if each["id"] == name), None)

    def about(self, query: Json) -> list[Json]:
        """Those that affect one version of a package: ``{package: {name, ecosystem}, version}``."""
        package = query["package"]
        if package["ecosystem"] != "PyPI":
            return []
        return [each for each in self.all() if affects(each, package["name"], query["version"])]


def affects(advisory: Json, name: str, version: str) -> bool:
    """Whether a version is among the versions, or in one of the ranges, of an advisory (OSV schema, "Evaluation")."""
    for each in advisory.get("affected", ()):
        package = each["package"]
        if package["ecosystem"] == "PyPI" and canonicalize_name(package["name"]) == canonicalize_name(name):
            ranges = (each for each in each.get("ranges", ()) if each["type"] == "ECOSYSTEM")
            if version in each.get("versions", ()) or any(_within(one["events"], version) for one in ranges):
                return True
    return False


def _within(events: list[Json], text: str) -> bool:
    try:
        version = Version(text)
    except InvalidVersion:
        return False

    def bound(event: Json) -> tuple[Version, str]:
        ((kind, value),) = event.items()
        return Version("0.dev0" if value == "0" else value), kind

    inside = False
    for at, kind in sorted(map(bound, events), key=lambda pair: pair[0]):
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


class Osv:
    """A running server.

    Attributes:
        url: without a path.
        failing: a path, or the folder of one → how its answers break, one of :data:`MODES`; empty where all is well.
        asked: the path and the body of each request.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.advisories = Advisories(folder)
        self.url = url
        self.failing: dict[str, str] = {}
        self.asked: list[tuple[str, Any]] = []
        self.ending = threading.Event()

    @property
    def query_url(self) -> str:
        """What ``--osv-url`` takes."""
        return f"{self.url}/v1/query"

    def mode(self, path: str) -> str:
        """How a path's answers break."""
        return next((self.failing[each] for each in self.failing if f"{path}/".startswith(f"{each.rstrip('/')}/")), "")

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        self.asked.append((path, body))
        if path == "/v1/query":
            found = self.advisories.about(body)
            return 200, {"vulns": found} if found else {}
        if path == "/v1/querybatch":
            return 200, {"results": [self._short(each) for each in body["queries"]]}
        name = path.removeprefix("/v1/vulns/")
        advisory = self.advisories.named(name) if name != path else None
        return (200, advisory) if advisory else (404, {"code": 5, "message": "Bug not found."})

    def _short(self, query: Json) -> Json:
        found = [{"id": each["id"], "modified": each["modified"]} for each in self.advisories.about(query)]
        return {"vulns": found} if found else {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        """One request."""
        assert isinstance(self.server, _Server)
        osv = self.server.osv
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = osv.mode(self.path)
        try:
            status, answer = osv.answer(self.path, json.loads(raw) if raw else None)
        except (ValueError, KeyError, TypeError) as error:
            status, answer = 400, {"code": 3, "message": repr(error)}
        if mode == "slow":
            osv.ending.wait(_SLOW)
        self._send(*_broken(mode, status, answer), cut=mode == "cut")

    do_GET = do_POST = handle_one  # noqa: N815 - the names that the base class calls

    def _send(self, status: int, content: bytes, *, cut: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) + (64 if cut else 0)))
        self.end_headers()
        with suppress(OSError):  # whoever asked may have gone
            self.wfile.write(content)
        self.close_connection = cut

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def _broken(mode: str, status: int, answer: Any) -> tuple[int, bytes]:
    """An answer, as a server gives it with which something is wrong."""
    if mode in ("500", "404"):
        return int(mode), b'{"code": 13, "message": "out of order"}'
    if mode == "page" and isinstance(answer, dict):
        answer = {"results": [{"next_page_token": "abc"} for _ in answer.get("results", [])]}
    content = {"text": b"<html>back soon</html>", "null": b"null", "list": b"[]"}.get(mode)
    return status, content or json.dumps(answer).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    osv: Osv


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[Osv]:
    """Run it; 0 means any free port."""
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.osv = Osv(folder, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.osv
        finally:
            server.osv.ending.set()
            server.shutdown()
            thread.join()


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fail", action="append", default=[], metavar="MODE[@PATH]", help=f"one of {', '.join(MODES)}")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt), running(options.folder, options.port) as osv:
        for each in options.fail:
            mode, _, path = each.partition("@")
            if mode not in MODES:
                parser.error(f"there is no way to fail {mode!r}")
            osv.failing[path or "/"] = mode
        sys.stdout.write(f"{osv.url}\n")
        sys.stdout.flush()
        while True:
            time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
