"""Signed statements: DSSE envelopes in Sigstore bundles, as plain values. No I/O, and no trust in what is read.

Sources: DSSE v1.0 ("protocol"), the Sigstore bundle format v0.3 (protobuf-specs, sigstore_bundle.proto).
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from reprobuild.digest import canonical_json
from reprobuild.errors import EvidenceRefused, shown

#: The payload type of every statement (in-toto attestation framework, "Envelope").
STATEMENT_MEDIA_TYPE = "application/vnd.in-toto+json"
BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
#: What verifies: the three versions differ in where the certificate is.
_READ = (
    BUNDLE_MEDIA_TYPE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
)
#: Bytes of a bundle, at most, as of any document in a registry; provenance of a large image has some hundred kB.
BUNDLE_LIMIT = 4 << 20
_AGAIN = "Ask whoever signed it for a sound bundle, or sign again."


def pae(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature is made over (pre-authentication encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signed payload with what is needed to check it.

    Attributes:
        where: what messages call it.
        signature: over :func:`pae` of the two.
        hint: of the public key, as the signer wrote it: nothing may rest on it. None for a certificate.
        document: all of it, as JSON, for the client that knows certificates and logs.
    """

    where: str
    payload_type: str
    payload: bytes
    signature: bytes
    hint: str | None
    document: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: bytes, where: str) -> "Bundle":
        """Read a bundle's JSON; nothing of it is verified.

        Raises:
            EvidenceRefused: it isn't a bundle with one signed statement.
        """
        document = _document(raw, where)
        if document.get("mediaType") not in _READ:
            raise refused(where, f"its media type is {shown(document.get('mediaType'))!r}, no Sigstore bundle's")
        envelope, material = document.get("dsseEnvelope"), document.get("verificationMaterial")
        if not isinstance(envelope, dict):
            raise refused(where, "it signs a file itself and no statement about it (there is no DSSE envelope)")
        if not isinstance(material, dict):
            raise refused(where, "it has no verification material")
        signatures = envelope.get("signatures")
        if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
            raise refused(where, "it doesn't have exactly one signature")
        return cls(
            where,
            _text(envelope, "payloadType", where),
            _binary(envelope, "payload", where),
            _binary(signatures[0], "sig", where),
            _hint(material, where),
            document,
        )

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return pae(self.payload_type, self.payload)


def with_key(payload: bytes, signature: bytes, hint: str) -> bytes:
    """A bundle of a statement that a local key signed, in canonical JSON: the same inputs give the same bytes.

    Args:
        hint: of the public key (:attr:`reprobuild.keys.PublicKey.hint`).
    """
    return canonical_json(
        {
            "mediaType": BUNDLE_MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": hint},
                "tlogEntries": [],
                "timestampVerificationData": {"rfc3161Timestamps": []},
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": STATEMENT_MEDIA_TYPE,
                # Without a keyid: cosign refuses one that isn't empty.
                "signatures": [{"sig": base64.b64encode(signature).decode()}],
            },
        }
    )


def of_attestation(raw: bytes, where: str) -> Bundle:
    """What a package index takes beside a file (PEP 740), as the bundle that it was made of; nothing is verified.

    Raises:
        EvidenceRefused: it is no attestation of version 1.
    """
    document = _document(raw, where)
    envelope, material = document.get("envelope"), document.get("verification_material")
    if document.get("version") != 1 or not isinstance(envelope, dict) or not isinstance(material, dict):
        raise refused(where, "it is no attestation of PEP 740")

    def base64_in(table: dict[str, Any], key: str) -> str:  # its encoder breaks lines
        return _text(table, key, where).replace("\n", "")

    made = {
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": {
            "certificate": {"rawBytes": base64_in(material, "certificate")},
            "tlogEntries": material.get("transparency_entries"),
        },
        "dsseEnvelope": {
            "payload": base64_in(envelope, "statement"),
            "payloadType": STATEMENT_MEDIA_TYPE,
            "signatures": [{"sig": base64_in(envelope, "signature")}],
        },
    }
    return Bundle.read(json.dumps(made).encode(), where)


def refused(where: str, why: str, remedy: str = _AGAIN) -> EvidenceRefused:
    """The refusal of a bundle: ``why`` follows a colon."""
    # Both may be a stranger's words, and a terminal obeys control characters.
    reason = "".join(char if char.isprintable() else "�" for char in f"{where} can't be used: {why}.")
    return EvidenceRefused(reason, remedy)


def strict_json(raw: bytes) -> Any:  # noqa: ANN401 - JSON
    """A JSON document that all readers read alike: UTF-8, no key twice, only numbers and characters that exist.

    Raises:
        ValueError, RecursionError: it isn't one.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return found

    document = json.loads(raw.decode(), object_pairs_hook=once)
    # NaN, what is too large for a number, and half a surrogate pair are read, but can't be written.
    json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    return document


def _document(raw: bytes, where: str) -> dict[str, Any]:
    if not raw:
        raise refused(where, "nothing of it was read")
    if len(raw) > BUNDLE_LIMIT:
        raise refused(where, f"it has more than {BUNDLE_LIMIT >> 20} MiB")
    try:
        document = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise refused(where, f"it is not JSON ({shown(error)})") from error
    if not isinstance(document, dict):
        raise refused(where, "it is not a JSON object")
    return document


def _hint(material: dict[str, Any], where: str) -> str | None:
    key = material.get("publicKey")
    certificates = [name for name in ("certificate", "x509CertificateChain") if name in material]
    if (key is None) == (not certificates) or len(certificates) > 1:
        raise refused(where, "it has to have either a public key's hint or a certificate")
    if key is None:
        return None
    hint = key.get("hint", "") if isinstance(key, dict) else None
    if not isinstance(hint, str):
        raise refused(where, "the hint of its public key is no text")
    return hint


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise refused(where, f"it has no {key}")
    return value


def _binary(table: dict[str, Any], key: str, where: str) -> bytes:
    text = _text(table, key, where)
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise refused(where, f"its {key} is not base64") from error
    if not found:
        raise refused(where, f"its {key} is empty")
    return found
