"""A registry in memory whose behaviour a test can script, one request at a time."""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from reprobuild.digest import Digest


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Fault:
    """What a server does, once or a few times, instead of the right thing.

    Attributes:
        answer: a status, headers and a body instead of the right ones.
        cut_after: bytes of the right answer's body after which the connection is closed.
        cut_body_after: bytes of the request's body after which the connection is closed; they are kept.
        alter: changes the right answer's body.
        pause: seconds between two bytes of the right answer's body, or before the answer.
        ignore_range: whether the whole is sent where a part was asked for.
    """

    method: str
    pattern: str
    times: int = 1
    answer: tuple[int, dict[str, str], bytes] | None = None
    cut_after: int | None = None
    cut_body_after: int | None = None
    alter: Callable[[bytes], bytes] | None = None
    pause: float = 0
    ignore_range: bool = False
    lose_answer: bool = False


@dataclass
class FakeRegistry:
    """What it holds, what it was asked, and how it misbehaves; `files` are plain ones, by their paths."""

    port: int
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    mounts: bool = True
    referrers_api: bool = False
    tokens: dict[str, str] = field(default_factory=dict)
    challenge: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    @property
    def url(self):
        return f"http://{self.host}"

    def hold(self, repository, data):
        self.blobs.setdefault(repository, {})[str(Digest.of_bytes(data))] = data

    def hold_manifest(self, repository, media_type, raw, *tags):
        for name in (str(Digest.of_bytes(raw)), *tags):
            self.manifests[repository, name] = (media_type, raw)

    def fail(self, method, pattern, **how):
        self.faults.append(Fault(method, pattern, **how))

    def answer(self, method, pattern, status, body=b"", times=1, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.fail(method, pattern, answer=(status, named, body), times=times)

    def asked_for(self, method, pattern=""):
        return [each for each in self.asked if each.method == method and re.search(pattern, each.path)]

    def fault_for(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


def _error(status, code):
    body = json.dumps({"errors": [{"code": code, "message": code.replace("_", " ").lower()}]}).encode()
    return status, {"Content-Type": "application/json"}, body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def known(self):
        assert isinstance(self.server, _Server)
        return self.server.known

    def handle_one(self):
        known = self.known
        parts = urlsplit(self.path)
        fault = known.fault_for(self.command, self.path) or Fault("", "")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length if fault.cut_body_after is None else fault.cut_body_after)
        asked = Asked(self.command, self.path, parse_qs(parts.query), dict(self.headers.items()), body)
        known.asked.append(asked)
        if fault.answer:
            status, headers, content = fault.answer
            return self.reply(status, headers, content, Fault("", ""))
        status, headers, content = self.right_answer(asked, parts.path, fault)
        if fault.cut_body_after is not None or fault.lose_answer:
            return self.hang_up()
        return self.reply(status, headers, content, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815 - the names that the base class calls

    def hang_up(self):
        self.close_connection = True
        self.connection.close()

    def reply(self, status, headers, content, fault):
        content = fault.alter(content) if fault.alter else content
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = content if fault.cut_after is None else content[: fault.cut_after]
        try:
            if fault.pause:
                for number in range(len(sent)):
                    self.wfile.write(sent[number : number + 1])
                    time.sleep(fault.pause)
            else:
                self.wfile.write(sent)
        except OSError:
            self.close_connection = True
        if fault.cut_after is not None:
            self.close_connection = True

    def right_answer(self, asked, path, fault):  # noqa: PLR0911 - one for each kind of path
        known = self.known
        if path in known.files:
            return self.part(asked, known.files[path], fault)
        if known.challenge and not self.welcome(asked):
            return 401, {"WWW-Authenticate": known.challenge}, _error(401, "UNAUTHORIZED")[2]
        found = re.fullmatch(r"/v2/(.+?)/(manifests|blobs|tags|referrers)/(.*)", path)
        if not found:
            return _error(404, "UNSUPPORTED")
        repository, kind, rest = found.groups()
        if kind == "manifests":
            return self.manifest(asked, repository, rest)
        if kind == "tags":
            names = sorted(tag for where, tag in known.manifests if where == repository and ":" not in tag)
            return 200, {}, json.dumps({"name": repository, "tags": names}).encode()
        if kind == "referrers":
            return _error(404, "UNSUPPORTED")
        if rest.startswith("uploads/"):
            return self.upload(asked, repository, rest.removeprefix("uploads/"))
        return self.blob(asked, repository, rest, fault)

    def welcome(self, asked):
        return asked.headers.get("Authorization", "") in self.known.tokens

    def manifest(self, asked, repository, name):
        known = self.known
        if asked.method == "PUT":
            digest = str(Digest.of_bytes(asked.body))
            parts = json.loads(asked.body)
            blobs = [parts[key] for key in ("config",) if key in parts] + parts.get("layers", [])
            if not all(blob["digest"] in known.blobs.get(repository, {}) for blob in blobs):
                return _error(400, "MANIFEST_BLOB_UNKNOWN")
            if not all((repository, each["digest"]) in known.manifests for each in parts.get("manifests", [])):
                return _error(400, "MANIFEST_UNKNOWN")
            known.hold_manifest(repository, asked.headers["Content-Type"], asked.body, name)
            return 201, {"Docker-Content-Digest": digest}, b""
        if (repository, name) not in known.manifests:
            return _error(404, "MANIFEST_UNKNOWN")
        media_type, raw = known.manifests[repository, name]
        return 200, {"Content-Type": media_type, "Docker-Content-Digest": str(Digest.of_bytes(raw))}, raw

    def blob(self, asked, repository, digest, fault):
        data = self.known.blobs.get(repository, {}).get(digest)
        if data is None:
            return _error(404, "BLOB_UNKNOWN")
        return self.part(asked, data, fault)

    def part(self, asked, data, fault):
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("Range", ""))
        if not wanted or fault.ignore_range:
            return 200, {}, data
        first = int(wanted[1])
        if first >= len(data):
            return _error(416, "RANGE_INVALID")
        return 206, {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}, data[first:]

    def upload(self, asked, repository, name):  # noqa: PLR0911 - one for each verb
        known = self.known
        if asked.method == "POST":
            source = asked.query.get("from", [""])[0]
            digest = asked.query.get("mount", [""])[0]
            if known.mounts and digest in known.blobs.get(source, {}):
                known.blobs.setdefault(repository, {})[digest] = known.blobs[source][digest]
                return 201, {"Location": f"/v2/{repository}/blobs/{digest}"}, b""
            with known.lock:
                name = secrets.token_hex(8)
                known.uploads[name] = bytearray()
            return 202, {"Location": f"/v2/{repository}/blobs/uploads/{name}?state=s"}, b""
        if name not in known.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        held = known.uploads[name]
        if asked.method == "PATCH":
            first = int(asked.headers.get("Content-Range", "0-").partition("-")[0])
            if first != len(held):
                return _error(416, "BLOB_UPLOAD_INVALID")
            held += asked.body
        where = {"Location": f"/v2/{repository}/blobs/uploads/{name}?state=s", "Range": f"0-{max(0, len(held) - 1)}"}
        if asked.method == "GET":
            return 204, where, b""
        if asked.method == "DELETE":
            del known.uploads[name]
            return 204, {}, b""
        if asked.method == "PUT":
            digest = asked.query["digest"][0]
            held += asked.body
            if str(Digest.of_bytes(bytes(held))) != digest:
                return _error(400, "DIGEST_INVALID")
            known.hold(repository, bytes(held))
            del known.uploads[name]
            return 201, {"Location": f"/v2/{repository}/blobs/{digest}"}, b""
        return 202, where, b""

    def log_message(self, *arguments):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    known: FakeRegistry

    def handle_error(self, request, client_address):
        """Say nothing of a connection that the client gave up."""


@pytest.fixture
def make_registry(monkeypatch, tmp_path):
    """Makes a registry on a port of this machine; no proxy, and no credentials of this machine's user."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    running = []

    def make(context=None):
        server = _Server(("127.0.0.1", 0), _Handler)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.known = known = FakeRegistry(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return known

    yield make
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def served(make_registry):
    return make_registry()
