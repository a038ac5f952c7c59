#!/usr/bin/env python3
"""A Sigstore of one's own for the tests, on loopback: what the public one does, with keys that live as long as it does.

One server has it all: a certificate authority (Fulcio) with a certificate transparency log, a signature log with the
interfaces of Rekor v1 and v2, a time stamping authority (RFC 3161), and an issuer of identity tokens that answers as
GitHub Actions does. It is as strict as the real ones: tokens, proofs of possession and signatures are checked, so that
a client that gets them wrong fails here too. Needs the packages that come with the client, sigstore.

    stack.py FOLDER [--port N]     serve until interrupted; the folder gets trust_config.json, trusted_root.json,
                                   signing_config.json, token.jwt and environment (what a CI job would have)

Sources: fulcio.proto and Fulcio's docs/oid-info.md; RFC 6962 (3.2, 2.1); Rekor's openapi.yaml and types; rekor-tiles'
CLIENTS.md; C2SP's tlog-checkpoint; RFC 3161, RFC 5652 and RFC 5816 for time stamps.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import secrets
import shlex
import struct
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import jwt
import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "example/wheels/.github/workflows/release.yml@refs/tags/v1"
#: How long a certificate is good, as Fulcio's are.
LIFETIME = timedelta(minutes=10)
#: Since when the authorities and logs are trusted: far enough back for bundles of another day.
SINCE = datetime(2020, 1, 1, tzinfo=UTC)
_FULCIO = "1.3.6.1.4.1.57264.1."


class Refused(Exception):
    """What a client asked for isn't right; the server answers with a status and this."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def b64(data: bytes) -> str:
    """Base64 as JSON has it."""
    return base64.b64encode(data).decode()


def digest(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def der(tag: int, *parts: bytes) -> bytes:
    """One value in DER."""
    body = b"".join(parts)
    size = len(body)
    if size < 128:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + body


def der_parts(data: bytes) -> list[bytes]:
    """The values inside a constructed one, each with its head."""
    _, body, _ = _der_split(data)
    found = []
    while body:
        head, content, rest = _der_split(body)
        found.append(head + content)
        body = rest
    return found


def _der_split(data: bytes) -> tuple[bytes, bytes, bytes]:
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start])
    if len(data) < start + size:
        raise Refused(400, "cut short")
    return data[:start], data[start : start + size], data[start + size :]


def der_oid(dotted: str) -> bytes:
    """An object identifier in DER."""
    first, second, *rest = map(int, dotted.split("."))
    out = bytearray()
    for number in (40 * first + second, *rest):
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.append(0x80 | number & 0x7F)
        out += bytes(reversed(septets))
    return der(0x06, bytes(out))


def der_integer(number: int) -> bytes:
    """A number in DER, which isn't negative."""
    return der(0x02, number.to_bytes(number.bit_length() // 8 + 1))


class Key:
    """A P-256 key of a service."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.der = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.id = digest(self.der)

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256, in DER."""
        return self.private.sign(message, ec.ECDSA(SHA256()))


def _usage(**allowed: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{**dict.fromkeys(every.split(), False), **allowed})


class Authority:
    """A certificate authority: a root that certifies leaves itself."""

    def __init__(self, name: str) -> None:
        self.key = Key()
        self.name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sigstore for tests"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        start = self.start(self.name, self.key.private.public_key(), SINCE, SINCE + timedelta(days=36500))
        self.certificate = (
            start.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(self.key.private, SHA256())
        )

    def start(self, subject: x509.Name, public: Any, since: datetime, until: datetime) -> x509.CertificateBuilder:
        """What all certificates have."""
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.private.public_key()), critical=False
            )
        )


class Fulcio:
    """Certifies, for some minutes, that a key is of whoever an identity token is about."""

    #: Claims of GitHub's tokens, with the extension that each goes to and what is put before it.
    CLAIMS = (
        ("event_name", 20, ""),
        ("sha", 13, ""),
        ("repository", 12, "https://github.com/"),
        ("ref", 14, ""),
        ("job_workflow_ref", 9, "https://github.com/"),
        ("job_workflow_sha", 10, ""),
        ("runner_environment", 11, ""),
        ("repository_id", 15, ""),
        ("repository_owner", 16, "https://github.com/"),
        ("repository_owner_id", 17, ""),
        ("workflow_ref", 18, "https://github.com/"),
        ("workflow_sha", 19, ""),
        ("repository_visibility", 22, ""),
    )

    def __init__(self) -> None:
        self.authority = Authority("fulcio")
        self.ct = Key()

    def certify(self, public: Any, claims: Json, at: datetime) -> x509.Certificate:
        """A certificate with the promise of the transparency log in it (RFC 6962, 3.2 and 3.3)."""
        if "job_workflow_ref" in claims:
            name: x509.GeneralName = x509.UniformResourceIdentifier(f"https://github.com/{claims['job_workflow_ref']}")
        elif "email" in claims:
            name = x509.RFC822Name(claims["email"])
        else:
            name = x509.UniformResourceIdentifier(claims["sub"])
        since = at.replace(microsecond=0)
        builder = (
            self.authority.start(x509.Name([]), public, since, since + LIFETIME)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        )
        extensions = [(1, claims["iss"].encode()), (8, der(0x0C, claims["iss"].encode()))]
        extensions += [
            (number, der(0x0C, f"{prefix}{claims[claim]}".encode()))
            for claim, number, prefix in self.CLAIMS
            if claim in claims
        ]
        for number, value in sorted(extensions):
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_FULCIO}{number}"), value)
            builder = builder.add_extension(unknown, critical=False)
        unlogged = builder.sign(self.authority.key.private, SHA256()).tbs_certificate_bytes
        promises = der(0x04, self._promise(unlogged, since))
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), promises)
        return builder.add_extension(extension, critical=False).sign(self.authority.key.private, SHA256())

    def _promise(self, unlogged: bytes, at: datetime) -> bytes:
        stamp = int(at.timestamp() * 1000)
        size = len(unlogged).to_bytes(3)
        signed = struct.pack("!BBQH", 0, 0, stamp, 1) + self.authority.key.id + size + unlogged + b"\0\0"
        signature = self.ct.sign(signed)
        one = b"\0" + self.ct.id + struct.pack("!QHBBH", stamp, 0, 4, 3, len(signature)) + signature
        return struct.pack("!HH", len(one) + 2, len(one)) + one


class Log:
    """An append-only log of entries (RFC 6962, 2.1) with signed checkpoints."""

    def __init__(self, origin: str, signer: str) -> None:
        self.key = Key()
        self._origin, self._signer = origin, signer
        # Some clients take the index 0 for one that is missing.
        self._leaves = [digest(b"\0the first leaf")]
        self._lock = threading.Lock()

    def append(self, body: bytes) -> tuple[int, int, bytes, list[bytes], str]:
        """Log an entry: its index, the size and the root of the tree, the audit path, and the checkpoint."""
        with self._lock:
            self._leaves.append(digest(b"\0" + body))
            leaves = list(self._leaves)
        index, root = len(leaves) - 1, _root(leaves)
        return index, len(leaves), root, _path(index, leaves), self._checkpoint(len(leaves), root)

    def _checkpoint(self, size: int, root: bytes) -> str:
        note = f"{self._origin}\n{size}\n{b64(root)}\n"
        return f"{note}\n— {self._signer} {b64(self.key.id[:4] + self.key.sign(note.encode()))}\n"


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    left = _left(leaves)
    return digest(b"\1" + _root(leaves[:left]) + _root(leaves[left:]))


def _path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    left = _left(leaves)
    if index < left:
        return [*_path(index, leaves[:left]), _root(leaves[left:])]
    return [*_path(index - left, leaves[left:]), _root(leaves[:left])]


def _left(leaves: list[bytes]) -> int:
    """How many are in the left half: the largest power of two that isn't all."""
    return 1 << (len(leaves) - 1).bit_length() - 1


class Rekor:
    """The log of signatures, with both interfaces; each has a log and a key of its own."""

    def __init__(self, netloc: str) -> None:
        host = netloc.partition(":")[0]
        self.v1 = Log(f"{netloc} - 1", netloc)
        self.v2 = Log(host, host)

    def entry_v1(self, proposed: Json, at: datetime) -> Json:
        """The answer of version 1: the promise of the log, with a time, and the proof of inclusion."""
        kinds = {"dsse": self._dsse, "hashedrekord": self._hashedrekord}
        if proposed.get("kind") not in kinds or proposed.get("apiVersion") != "0.0.1":
            raise Refused(400, "this kind of entry is unknown here")
        spec = kinds[proposed["kind"]](proposed["spec"])
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": proposed["kind"], "spec": spec})
        index, size, root, path, checkpoint = self.v1.append(body)
        entry: Json = {
            "body": b64(body),
            "integratedTime": int(at.timestamp()),
            "logID": self.v1.key.id.hex(),
            "logIndex": index,
        }
        promise = self.v1.key.sign(rfc8785.dumps(entry))
        entry["verification"] = {
            "signedEntryTimestamp": b64(promise),
            "inclusionProof": {
                "logIndex": index,
                "treeSize": size,
                "rootHash": root.hex(),
                "hashes": [each.hex() for each in path],
                "checkpoint": checkpoint,
            },
        }
        leaf = digest(b"\0" + body).hex()
        return {f"{secrets.token_hex(8)}{leaf}": entry}

    def _dsse(self, spec: Json) -> Json:
        raw = spec["proposedContent"]["envelope"]
        envelope = json.loads(raw)
        payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        verifiers = spec["proposedContent"]["verifiers"]
        for signature, verifier in zip(envelope["signatures"], verifiers, strict=True):
            public = _public_of(base64.b64decode(verifier))
            _check(public, base64.b64decode(signature["sig"]), message)
        return {
            "envelopeHash": {"algorithm": "sha256", "value": digest(raw.encode()).hex()},
            "payloadHash": {"algorithm": "sha256", "value": digest(payload).hex()},
            "signatures": [
                {"signature": each["sig"], "verifier": verifier}
                for each, verifier in zip(envelope["signatures"], verifiers, strict=True)
            ],
        }

    def _hashedrekord(self, spec: Json) -> Json:
        public = _public_of(base64.b64decode(spec["signature"]["publicKey"]["content"]))
        hashed = bytes.fromhex(spec["data"]["hash"]["value"])
        _check(public, base64.b64decode(spec["signature"]["content"]), hashed, hashed=True)
        return spec

    def entry_v2(self, request: Json) -> Json:
        """The answer of version 2: the proof of inclusion alone, so that the time has to come from elsewhere."""
        asked = request["hashedRekordRequestV002"]
        signature = asked["signature"]
        public = _public_of(base64.b64decode(signature["verifier"]["x509Certificate"]["rawBytes"]))
        _check(public, base64.b64decode(signature["content"]), base64.b64decode(asked["digest"]), hashed=True)
        data = {"algorithm": "SHA2_256", "digest": asked["digest"]}
        spec = {"hashedRekordV002": {"data": data, "signature": signature}}
        body = rfc8785.dumps({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec})
        index, size, root, path, checkpoint = self.v2.append(body)
        return {
            "logIndex": str(index),
            "logId": {"keyId": b64(self.v2.key.id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "inclusionProof": {
                "logIndex": str(index),
                "treeSize": str(size),
                "rootHash": b64(root),
                "hashes": [b64(each) for each in path],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": b64(body),
        }


def _public_of(data: bytes) -> Any:
    """The key of a certificate in PEM or DER, or of a PEM file of a key."""
    if data.startswith(b"-----BEGIN CERTIFICATE"):
        return x509.load_pem_x509_certificate(data).public_key()
    if data.startswith(b"-----"):
        return load_pem_public_key(data)
    return x509.load_der_x509_certificate(data).public_key()


def _check(public: Any, signature: bytes, message: bytes, *, hashed: bool = False) -> None:
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(Prehashed(SHA256()) if hashed else SHA256()))
        elif hashed:
            raise Refused(400, "only ECDSA signs digests here")
        else:
            public.verify(signature, message)
    except InvalidSignature as error:
        raise Refused(400, "the signature doesn't verify") from error


class TimeStamps:
    """A time stamping authority."""

    def __init__(self) -> None:
        self.authority = Authority("time stamps")
        self.key = Key()
        public = self.key.private.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "time stamps")])
        self.certificate = (
            self.authority.start(name, public, SINCE, SINCE + timedelta(days=36000))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .sign(self.authority.key.private, SHA256())
        )

    def answer(self, request: bytes, at: datetime) -> bytes:
        """A TimeStampResp to a TimeStampReq."""
        parts = der_parts(request)  # version, messageImprint, and then by their tags
        nonce = b"".join(part for part in parts[2:] if part[0] == 0x02)
        wants_certificate = any(part == b"\x01\x01\xff" for part in parts[2:])
        info = der(
            0x30,
            der_integer(1),
            der_oid("1.3.6.1.4.1.57264.2"),
            parts[1],
            der_integer(secrets.randbits(63)),
            der(0x18, at.strftime("%Y%m%d%H%M%SZ").encode()),
            nonce,
        )
        return der(0x30, der(0x30, der_integer(0)), self._signed(info, with_certificate=wants_certificate))

    def _signed(self, info: bytes, *, with_certificate: bool) -> bytes:
        """CMS SignedData (RFC 5652) with the certificate's digest among the signed attributes (RFC 5816)."""
        kind, sha256 = der_oid("1.2.840.113549.1.9.16.1.4"), der(0x30, der_oid("2.16.840.1.101.3.4.2.1"))
        raw = self.certificate.public_bytes(Encoding.DER)
        attributes = {
            "1.2.840.113549.1.9.3": kind,
            "1.2.840.113549.1.9.4": der(0x04, digest(info)),
            "1.2.840.113549.1.9.16.2.47": der(0x30, der(0x30, der(0x30, der(0x04, digest(raw))))),
        }
        signed = b"".join(sorted(der(0x30, der_oid(oid), der(0x31, value)) for oid, value in attributes.items()))
        signer = der(
            0x30,
            der_integer(1),
            der(0x30, self.certificate.issuer.public_bytes(), der_integer(self.certificate.serial_number)),
            sha256,
            der(0xA0, signed),
            der(0x30, der_oid("1.2.840.10045.4.3.2")),
            der(0x04, self.key.sign(der(0x31, signed))),
        )
        content = der(
            0x30,
            der_integer(3),
            der(0x31, sha256),
            der(0x30, kind, der(0xA0, der(0x04, info))),
            der(0xA0, raw) if with_certificate else b"",
            der(0x31, signer),
        )
        return der(0x30, der_oid("1.2.840.113549.1.7.2"), der(0xA0, content))


class Issuer:
    """Says who somebody is."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        #: What a CI job shows to get a token.
        self.request_token = secrets.token_urlsafe(24)

    def token(self, claims: Json, seconds: int = 600) -> str:
        """A token; its life can be over already."""
        now = int(datetime.now(UTC).timestamp())
        times = {"iat": now - 1200, "nbf": now - 1200, "exp": now + seconds}
        return jwt.encode({"aud": "sigstore", **times, **claims}, self._key, algorithm="RS256")

    def claims(self, token: str) -> Json:
        """What a token says, if it is one of this issuer's and still good."""
        try:
            found: Json = jwt.decode(token, self._key.public_key(), algorithms=["RS256"], audience="sigstore")
        except jwt.PyJWTError as error:
            raise Refused(401, "There was an error processing the identity token") from error
        return found


def github(workflow: str = WORKFLOW) -> Json:
    """Claims of a job of GitHub Actions."""
    repository, _, rest = workflow.partition("/.github/")
    ref = rest.partition("@")[2]
    return {
        "iss": GITHUB,
        "sub": f"repo:{repository}:ref:{ref}",
        "event_name": "push",
        "sha": "0123456789" * 4,
        "repository": repository,
        "repository_id": "1",
        "repository_owner": repository.partition("/")[0],
        "repository_owner_id": "2",
        "repository_visibility": "public",
        "ref": ref,
        "job_workflow_ref": workflow,
        "job_workflow_sha": "0123456789" * 4,
        "workflow_ref": workflow,
        "workflow_sha": "0123456789" * 4,
        "runner_environment": "github-hosted",
    }


def person(email: str = "someone@example.org", issuer: str = "https://accounts.example.org") -> Json:
    """Claims of somebody who logged in."""
    return {"iss": issuer, "sub": email, "email": email, "email_verified": True}


@dataclass
class Fault:
    """What a service answers instead."""

    path: str
    status: int
    message: str


@dataclass
class Stack:
    """The services, while they run.

    Attributes:
        folder: where the files for clients lie.
        url: of all of them.
        faults: what goes wrong now; see :meth:`failing`.
        asked: paths that were asked for.
    """

    folder: Path
    url: str
    github = staticmethod(github)
    person = staticmethod(person)

    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make keys, and write the files."""
        self.fulcio, self.rekor = Fulcio(), Rekor(urlsplit(self.url).netloc)
        self.time_stamps, self.issuer = TimeStamps(), Issuer()
        self.folder.mkdir(parents=True, exist_ok=True)
        root = self._trusted_root()
        (self.folder / "trusted_root.json").write_text(json.dumps(root, indent=1))
        (self.folder / "signing_config.json").write_text(json.dumps(self._signing_config(), indent=1))
        self.configuration("trust_config.json")

    @property
    def trust_config(self) -> Path:
        """A ClientTrustConfig with everything."""
        return self.folder / "trust_config.json"

    @property
    def trusted_root(self) -> Path:
        """What verifying needs of that."""
        return self.folder / "trusted_root.json"

    def configuration(self, name: str, **urls: str) -> Path:
        """Write a ClientTrustConfig; ``ca``, ``rekor``, ``tsa`` and ``oidc`` are URLs other than the right ones."""
        document = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self._trusted_root(),
            "signingConfig": self._signing_config(**urls),
        }
        path = self.folder / name
        path.write_text(json.dumps(document, indent=1))
        return path

    def token(self, claims: Json | None = None, seconds: int = 600) -> str:
        """An identity token, by default of a job of GitHub Actions."""
        return self.issuer.token(claims or github(), seconds)

    def ci_environment(self) -> dict[str, str]:
        """The variables by which a job of GitHub Actions gets its token."""
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.issuer.request_token,
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/oidc/token?api-version=2.0",
        }

    @contextmanager
    def failing(self, path: str, status: int, message: str = "out of order") -> Iterator[None]:
        """Let a service answer with an error: ``path`` is a part of what is asked for."""
        fault = Fault(path, status, message)
        self.faults.append(fault)
        try:
            yield
        finally:
            self.faults.remove(fault)

    def bundle(
        self,
        payload: bytes,
        claims: Json | None = None,
        *,
        payload_type: str = "application/vnd.in-toto+json",
        certified: datetime | None = None,
        logged: datetime | None = None,
        stamped: datetime | None = None,
        rekor: int = 1,
    ) -> Json:
        """A sound bundle of some bytes, made without a client, at any times; Rekor 1 needs no stamp."""
        certified = certified or datetime.now(UTC)
        key = Key()
        certificate = self.fulcio.certify(key.private.public_key(), claims or github(), certified)
        kind = payload_type.encode()
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = key.sign(message)
        envelope = {"payload": b64(payload), "payloadType": payload_type, "signatures": [{"sig": b64(signature)}]}
        raw = certificate.public_bytes(Encoding.DER)
        if rekor == 1:
            verifier = b64(certificate.public_bytes(Encoding.PEM))
            proposed = {"envelope": json.dumps(envelope), "verifiers": [verifier]}
            answer = self.rekor.entry_v1(
                {"kind": "dsse", "apiVersion": "0.0.1", "spec": {"proposedContent": proposed}}, logged or certified
            )
            entry = _as_bundled(next(iter(answer.values())))
        else:
            verifier_v2 = {"x509Certificate": {"rawBytes": b64(raw)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
            signed = {"content": b64(signature), "verifier": verifier_v2}
            asked = {"digest": b64(digest(message)), "signature": signed}
            entry = self.rekor.entry_v2({"hashedRekordRequestV002": asked})
        stamps = []
        if stamped or rekor == 2:
            imprint = der(0x30, der(0x30, der_oid("2.16.840.1.101.3.4.2.1")), der(0x04, digest(signature)))
            request = der(0x30, der_integer(1), imprint, b"\x01\x01\xff")
            stamps = [{"signedTimestamp": b64(self.time_stamps.answer(request, stamped or certified))}]
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(raw)},
                "tlogEntries": [entry],
                "timestampVerificationData": {"rfc3161Timestamps": stamps},
            },
            "dsseEnvelope": envelope,
        }

    def answer(self, path: str, query: dict[str, list[str]], authorization: str, body: bytes) -> tuple[str, bytes]:
        """What a service says: the content's type, and the content.

        Raises:
            Refused: it says no.
        """
        now = datetime.now(UTC)
        self.asked.append(path)
        for fault in self.faults:
            if fault.path in path:
                raise Refused(fault.status, fault.message)
        if path == "/oidc/token":
            return _json(self._ci_token(query, authorization))
        if path == "/.well-known/openid-configuration":
            ends = {"authorization_endpoint": f"{self.url}/auth", "token_endpoint": f"{self.url}/token"}
            return _json({"issuer": self.url, **ends})
        if path == "/api/v1/timestamp":
            return "application/timestamp-reply", self.time_stamps.answer(body, now)
        services = {
            "/api/v2/signingCert": lambda asked: self._certificate(asked, authorization, now),
            "/api/v1/log/entries": lambda asked: self.rekor.entry_v1(asked, now),
            "/api/v2/log/entries": self.rekor.entry_v2,
        }
        if path not in services:
            raise Refused(404, "there is no such thing")
        return _json(services[path](json.loads(body)))

    def _ci_token(self, query: dict[str, list[str]], authorization: str) -> Json:
        kind, _, shown = authorization.partition(" ")  # clients spell the first in any case (RFC 9110, 11.1)
        if (kind.lower(), shown) != ("bearer", self.issuer.request_token) or query.get("audience") != ["sigstore"]:
            raise Refused(403, "the job may not have a token")
        return {"value": self.token()}

    def _certificate(self, asked: Json, authorization: str, now: datetime) -> Json:
        token = authorization.removeprefix("Bearer ") or asked["credentials"]["oidcIdentityToken"]
        claims = self.issuer.claims(token)
        if "certificateSigningRequest" in asked:
            request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
            if not request.is_signature_valid:
                raise Refused(400, "the request isn't signed with its key")
            public: Any = request.public_key()
        else:
            public = load_pem_public_key(asked["publicKeyRequest"]["publicKey"]["content"].encode())
            proof = base64.b64decode(asked["publicKeyRequest"]["proofOfPossession"])
            _check(public, proof, (claims["email"] if "email" in claims else claims["sub"]).encode())
        leaf = self.fulcio.certify(public, claims, now)
        chain = [each.public_bytes(Encoding.PEM).decode() for each in (leaf, self.fulcio.authority.certificate)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def _trusted_root(self) -> Json:
        since = {"start": SINCE.strftime("%Y-%m-%dT%H:%M:%SZ")}

        def log(key: Key, url: str) -> Json:
            public = {"rawBytes": b64(key.der), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": {"keyId": b64(key.id)}}

        def authority(*chain: x509.Certificate) -> Json:
            certificates = [{"rawBytes": b64(each.public_bytes(Encoding.DER))} for each in chain]
            subject = {"organization": "sigstore for tests", "commonName": "tests"}
            return {"subject": subject, "uri": self.url, "certChain": {"certificates": certificates}, "validFor": since}

        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor.v1.key, self.url), log(self.rekor.v2.key, self.url)],
            "certificateAuthorities": [authority(self.fulcio.authority.certificate)],
            "ctlogs": [log(self.fulcio.ct, f"{self.url}/ct")],
            "timestampAuthorities": [
                authority(self.time_stamps.certificate, self.time_stamps.authority.certificate),
            ],
        }

    def _signing_config(self, **urls: str) -> Json:
        def service(url: str, version: int = 1) -> Json:
            since = {"start": SINCE.strftime("%Y-%m-%dT%H:%M:%SZ")}
            return {"url": url, "majorApiVersion": version, "validFor": since, "operator": "tests"}

        rekor = urls.get("rekor", self.url)
        return {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service(urls.get("ca", self.url))],
            "oidcUrls": [service(urls.get("oidc", self.url))],
            "rekorTlogUrls": [service(rekor, 2), service(rekor, 1)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [service(urls.get("tsa", f"{self.url}/api/v1/timestamp"))],
            "tsaConfig": {"selector": "ANY"},
        }


def _json(document: Json) -> tuple[str, bytes]:
    return "application/json", json.dumps(document).encode()


def _as_bundled(entry: Json) -> Json:
    """An answer of Rekor 1 as bundles have it."""
    proof = entry["verification"]["inclusionProof"]
    return {
        "logIndex": str(entry["logIndex"]),
        "logId": {"keyId": b64(bytes.fromhex(entry["logID"]))},
        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
        "integratedTime": str(entry["integratedTime"]),
        "inclusionPromise": {"signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]},
        "inclusionProof": {
            "logIndex": str(proof["logIndex"]),
            "rootHash": b64(bytes.fromhex(proof["rootHash"])),
            "treeSize": str(proof["treeSize"]),
            "hashes": [b64(bytes.fromhex(each)) for each in proof["hashes"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        },
        "canonicalizedBody": entry["body"],
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        """One request."""
        assert isinstance(self.server, _Server)
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # As the real ones answer; not all clients take any success for one.
        status = 201 if parts.path.startswith(("/api/v1/", "/api/v2/log")) else 200
        authorization = self.headers.get("Authorization", "")
        try:
            kind, content = self.server.stack.answer(parts.path, parse_qs(parts.query), authorization, body)
        except Refused as error:
            status, (kind, content) = error.status, _json({"code": error.status, "message": str(error)})
        except (ValueError, KeyError, TypeError, IndexError) as error:
            status, (kind, content) = 400, _json({"code": 400, "message": repr(error)})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if parts.path == "/api/v1/log/entries" and status == 201:
            self.send_header("ETag", next(iter(json.loads(content))))  # the entry's name, which some look up by it
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = handle_one  # noqa: N815 - the names that the base class calls

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stack: Stack


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[Stack]:
    """Run it; 0 means any free port."""
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.stack = Stack(folder, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.stack
        finally:
            server.shutdown()
            thread.join()


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with running(options.folder, options.port) as stack, suppress(KeyboardInterrupt):
        (options.folder / "token.jwt").write_text(stack.token(seconds=86400))
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in stack.ci_environment().items()]
        (options.folder / "environment").write_text("".join(lines))
        sys.stdout.write(f"{stack.url}\n")
        sys.stdout.flush()
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
