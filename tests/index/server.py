#!/usr/bin/env python3
"""A package index of one's own for the tests, on loopback: a real pypiserver behind a recorder.

Whoever uploads has to log in; reading is free. As larger indexes do, it also mints tokens for the jobs of a CI that
show who they are (trusted publishing), where it is told whose identity tokens to believe. Uploads are kept as they
came, and some can be made to fail.

    server.py FOLDER [--port N]     serve until interrupted; prints its URL and then the file of credentials,
                                    FOLDER/environment (to be sourced). Packages lie in FOLDER/packages.

Sources: the legacy upload interface of Warehouse (docs, "Upload API"), PEP 740 (the field ``attestations``), and its
"Trusted Publishers" (``/_/oidc/``). pypiserver reads htpasswd files only with another package, so the login is checked
here, by its own hook for that.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import logging
import secrets
import shlex
import ssl
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its web framework reads forms with what Python 3.13 doesn't have any more,
    import pypiserver  # type: ignore[import-untyped]
# and adds an importer for its own plug-ins, of a kind that Python warns of at each later import.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "pypiserver.bottle_wrapper.bottle"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from email.message import Message

Environ = dict[str, Any]
USER = "uploader"


@dataclass(frozen=True)
class Upload:
    """One request to upload, as it came.

    Attributes:
        fields: of the form, without the file.
        filename: of the file that is uploaded.
        status: of the answer.
        user: who logged in, or tried to.
    """

    fields: dict[str, list[str]]
    filename: str
    content: bytes = field(repr=False)
    status: int
    user: str

    @property
    def attestations(self) -> list[Any]:
        """The attestations of PEP 740, as JSON has them."""
        return [each for text in self.fields.get("attestations", []) for each in json.loads(text)]


@dataclass
class Fault:
    """What to answer instead of taking a file in.

    Attributes:
        after: how many uploads are taken in before.
        times: how many fail then; -1 for all.
    """

    status: str
    text: str
    after: int = 0
    times: int = -1


@dataclass
class Index:
    """The index: where it is, who may upload, and what was.

    Attributes:
        url: with a slash at the end; uploads go there.
        packages: the folder with the files.
        believes: whether an identity token is one of a publisher who is trusted here.
        audience: whom an identity token has to be for; what the issuer of the tests' Sigstore gives.
        asked: the methods and paths of all requests.
    """

    url: str
    packages: Path
    password: str = field(default_factory=lambda: f"pw-{secrets.token_urlsafe(18)}", repr=False)
    uploads: list[Upload] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fault: Fault | None = None
    audience: str = "sigstore"
    believes: Callable[[str], bool] = lambda _: False
    _minted: set[str] = field(default_factory=set, repr=False)

    @property
    def simple(self) -> str:
        """Where installers look."""
        return f"{self.url}simple/"

    @property
    def environment(self) -> dict[str, str]:
        """What tells uv how to log in."""
        return {"UV_PUBLISH_USERNAME": USER, "UV_PUBLISH_PASSWORD": self.password}

    @contextmanager
    def failing(self, status: str, text: str = "out of order", *, after: int = 0, times: int = -1) -> Iterator[None]:
        """Answer uploads with a status, such as ``503 Service Unavailable``."""
        self.fault = Fault(status, text, after, times)
        try:
            yield
        finally:
            self.fault = None

    def admits(self, user: str, password: str) -> bool:
        """Whether somebody may upload: by the password, or as ``__token__`` with a token that was minted here."""
        if user == "__token__":
            return password in self._minted
        return user == USER and hmac.compare_digest(password.encode(), self.password.encode())

    def trusted_publishing(self, path: str, body: bytes) -> tuple[str, Any] | None:
        """Answer of the interface that gives tokens to CI jobs; None for another path."""
        if path == "/_/oidc/audience":
            return "200 OK", {"audience": self.audience}
        if path != "/_/oidc/mint-token":
            return None
        if not self.believes(json.loads(body)["token"]):
            return "422 Unprocessable Entity", {"message": "no publisher here is trusted with that token"}
        token = f"minted-{secrets.token_urlsafe(18)}"
        self._minted.add(token)
        return "200 OK", {"success": True, "token": token}

    def fails_now(self) -> Fault | None:
        """The fault, if the next upload is one to fail."""
        if self.fault is None or self.fault.times == 0:
            return None
        if self.fault.after > 0:
            self.fault.after -= 1
            return None
        self.fault.times -= 1
        return self.fault


@dataclass
class _Recorder:
    """A WSGI application around pypiserver's."""

    index: Index
    inner: Callable[[Environ, Any], Iterable[bytes]]

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        self.index.asked.append(f"{environ['REQUEST_METHOD']} {path}")
        if environ["REQUEST_METHOD"] != "POST" and not path.startswith("/_/"):
            return self.inner(environ, start)
        body = _body(environ)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(body), str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        if answer := self.index.trusted_publishing(path, body):
            return _answer(start, answer[0], json.dumps(answer[1]), "application/json")
        states: list[str] = []

        def note(status: str, headers: Any, error: Any = None) -> Any:
            states.append(status)
            return start(status, headers, error)

        user, _ = _login(environ)
        if fault := self.index.fails_now():
            result: Iterable[bytes] = _answer(note, fault.status, fault.text, "text/plain")
        else:
            result = list(self.inner(environ, note))
        if upload := _upload(environ.get("CONTENT_TYPE", ""), body, int(states[0].split()[0]), user):
            self.index.uploads.append(upload)
        return result


def _answer(start: Any, status: str, text: str, kind: str) -> list[bytes]:
    data = text.encode()
    start(status, [("Content-Type", kind), ("Content-Length", str(len(data)))])
    return [data]


def _body(environ: Environ) -> bytes:
    """A request's body; wsgiref doesn't take chunks apart."""
    stream = environ["wsgi.input"]
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() != "chunked":
        found: bytes = stream.read(int(environ.get("CONTENT_LENGTH") or 0))
        return found
    pieces = []
    while size := int(stream.readline().split(b";")[0], 16):
        pieces.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(pieces)


def _login(environ: Environ) -> tuple[str, str]:
    kind, _, value = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if kind.lower() != "basic":
        return "", ""
    user, _, password = base64.b64decode(value).decode().partition(":")
    return user, password


def _upload(kind: str, body: bytes, status: int, user: str) -> Upload | None:
    """A form with a file; None for any other request."""
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    if not message.is_multipart():
        return None
    fields: dict[str, list[str]] = {}
    filename, content = "", b""
    parts: list[Message] = message.get_payload()  # type: ignore[assignment]  # it is multipart
    for part in parts:
        name = str(part.get_param("name", "", "content-disposition"))
        data: bytes = part.get_payload(decode=True)  # type: ignore[assignment]  # it isn't
        if name == "content":
            filename, content = part.get_filename() or "", data
        else:
            fields.setdefault(name, []).append(data.decode())
    return Upload(fields, filename, content, status, user)


class _Handler(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        super(WSGIServer, self).server_bind()  # HTTPServer's would ask
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()


def _certificate(folder: Path) -> Path:
    """A certificate that signs itself, for this machine alone, with its key behind it in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return path


@contextmanager
def running(folder: Path, port: int = 0, *, tls: bool = False) -> Iterator[Index]:
    """Run it.

    Args:
        port: 0 means any free one.
        tls: whether to speak https, as trusted publishing has to; certificate.pem in the folder is to be trusted.
    """
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    with _Server(("127.0.0.1", port), _Handler) as server:
        index = Index(f"http://127.0.0.1:{server.server_port}/", packages)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(_certificate(folder))
            server.socket = context.wrap_socket(server.socket, server_side=True)
            index.url = f"https://localhost:{server.server_port}/"
        inner = pypiserver.app(
            roots=[packages],
            authenticate=["update"],
            auther=index.admits,
            disable_fallback=True,
            hash_algo="sha256",
            welcome_msg="",
        )
        logging.getLogger("pypiserver").addHandler(logging.NullHandler())  # what it refuses is in the answers
        server.set_app(_Recorder(index, inner))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with running(options.folder.absolute(), options.port) as index, suppress(KeyboardInterrupt):
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in index.environment.items()]
        credentials = options.folder.absolute() / "environment"
        credentials.touch(mode=0o600)
        credentials.write_text("".join(lines))
        sys.stdout.write(f"{index.url}\n{credentials}\n")
        sys.stdout.flush()
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
