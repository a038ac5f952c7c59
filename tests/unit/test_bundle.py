import base64
import hashlib
import json

import pytest

from reprobuild import attest, bundle
from reprobuild.bundle import BUNDLE_MEDIA_TYPE, STATEMENT_MEDIA_TYPE, Bundle, pae, strict_json
from reprobuild.errors import EvidenceRefused
from reprobuild.keys import PrivateKey
from reprobuild.sign import KeySigner

#: RFC 8032, 7.1, test 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
STATEMENT = attest.provenance(
    attest.descriptor({"sha256": "0" * 64}, name="demo.whl"),
    build_type="https://example.org/build/v1",
    external={"ä": 1},
    internal={},
    dependencies=[],
    builder_version={},
)


@pytest.fixture
def fixed_key(tmp_path):
    """The same Ed25519 key everywhere."""
    pkcs8 = bytes.fromhex("302e020100300506032b657004220420") + SEED  # RFC 8410, 7
    text = base64.b64encode(pkcs8).decode()
    (tmp_path / "k.key").write_text(f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    (tmp_path / "k.key").chmod(0o600)
    return PrivateKey.load(tmp_path / "k.key", lambda: "")


def sound():
    return json.loads(KeySigner(PrivateKey.generate()).sign(STATEMENT))


def changed(where, value):
    """A sound bundle with one value changed; ``where`` is a path, such as a/0/b. ``...`` takes it away."""
    document = sound()
    *path, last = (int(part) if part.isdigit() else part for part in where.split("/"))
    held = document
    for part in path:
        held = held[part]
    if value is ...:
        del held[last]
    else:
        held[last] = value
    return json.dumps(document).encode()


def test_the_encoding_that_is_signed_is_the_standards():
    """The example of DSSE's protocol.md."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("ä", b"\0") == b"DSSEv1 2 \xc3\xa4 1 \0"


def test_the_same_key_signs_the_same_statement_to_the_same_bytes(fixed_key):
    raw = KeySigner(fixed_key).sign(STATEMENT)
    shuffled = dict(reversed(STATEMENT.items()))
    assert raw == KeySigner(fixed_key).sign(shuffled)
    assert KeySigner(fixed_key).name == "key-deb2ded39dc2"
    assert hashlib.sha256(raw).hexdigest() == "6cba4bbd88ea281158f513b945455eee2dfb74077b7dcebcdc732a8bf3d3c996"


def test_p256_signs_the_same_statement_to_the_same_bytes():
    key = PrivateKey.generate("p256")
    assert KeySigner(key).sign(STATEMENT) == KeySigner(key).sign(STATEMENT)


def test_what_is_written_is_read():
    key = PrivateKey.generate()
    read = Bundle.read(KeySigner(key).sign(STATEMENT), "b")
    assert (read.payload_type, read.payload) == (STATEMENT_MEDIA_TYPE, attest.encode(STATEMENT))
    assert read.hint == key.public.hint
    assert key.public.verifies(read.signature, read.signed)


def test_a_bundle_has_just_what_cosign_takes():
    document = sound()
    assert document["mediaType"] == BUNDLE_MEDIA_TYPE
    assert set(document) == {"mediaType", "verificationMaterial", "dsseEnvelope"}
    assert document["verificationMaterial"].keys() == {"publicKey", "tlogEntries", "timestampVerificationData"}
    assert [each.keys() for each in document["dsseEnvelope"]["signatures"]] == [{"sig"}]


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("mediaType", "text/plain", "its media type is 'text/plain', no Sigstore bundle's"),
        ("mediaType", None, "its media type is 'None'"),
        ("mediaType", ["x"], "its media type is"),
        ("mediaType", f"{BUNDLE_MEDIA_TYPE}\x1b[2J", "no Sigstore bundle's"),
        ("dsseEnvelope", ..., "it signs a file itself and no statement about it"),
        ("dsseEnvelope", [], "it signs a file itself"),
        ("verificationMaterial", ..., "no verification material"),
        ("verificationMaterial", "x", "no verification material"),
        ("verificationMaterial/publicKey", ..., "either a public key's hint or a certificate"),
        ("verificationMaterial/publicKey", None, "either a public key's hint or a certificate"),
        ("verificationMaterial/certificate", {"rawBytes": "AA=="}, "either a public key's hint or a certificate"),
        ("verificationMaterial/certificate", None, "either a public key's hint or a certificate"),
        ("verificationMaterial/x509CertificateChain", {}, "either a public key's hint or a certificate"),
        ("verificationMaterial/publicKey", [], "the hint of its public key is no text"),
        ("verificationMaterial/publicKey/hint", 1, "the hint of its public key is no text"),
        ("dsseEnvelope/signatures", ..., "exactly one signature"),
        ("dsseEnvelope/signatures", [], "exactly one signature"),
        ("dsseEnvelope/signatures", [{"sig": "AA=="}] * 2, "exactly one signature"),
        ("dsseEnvelope/signatures", {"sig": "AA=="}, "exactly one signature"),
        ("dsseEnvelope/signatures/0", "AA==", "exactly one signature"),
        ("dsseEnvelope/signatures/0/sig", ..., "it has no sig"),
        ("dsseEnvelope/signatures/0/sig", "", "its sig is empty"),
        ("dsseEnvelope/signatures/0/sig", "A", "its sig is not base64"),
        ("dsseEnvelope/signatures/0/sig", "AA==\n", "its sig is not base64"),
        ("dsseEnvelope/signatures/0/sig", "_-==", "its sig is not base64"),
        ("dsseEnvelope/signatures/0/sig", "ä", "its sig is not base64"),
        ("dsseEnvelope/payload", ..., "it has no payload"),
        ("dsseEnvelope/payload", "", "its payload is empty"),
        ("dsseEnvelope/payload", {}, "it has no payload"),
        ("dsseEnvelope/payloadType", ..., "it has no payloadType"),
        ("dsseEnvelope/payloadType", 7, "it has no payloadType"),
    ],
)
def test_what_is_no_bundle(where, value, words):
    with pytest.raises(EvidenceRefused) as caught:
        Bundle.read(changed(where, value), "b.json")
    assert caught.value.reason.startswith("b.json can't be used: ")
    assert words in caught.value.reason
    assert caught.value.reason.isprintable()
    assert caught.value.remedy


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"mediaType": 1, "mediaType": 1}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"mediaType": "x"}'.encode("utf-16"),
        '{"mediaType": "x"}'.encode("utf-32"),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_read_by_none(raw):
    with pytest.raises(EvidenceRefused):
        Bundle.read(raw, "b")
    if raw not in {b"[]", b"null"}:
        with pytest.raises((ValueError, RecursionError)):
            strict_json(raw)


def test_a_bundle_can_not_be_of_any_size(monkeypatch):
    raw = KeySigner(PrivateKey.generate()).sign(STATEMENT)
    monkeypatch.setattr(bundle, "BUNDLE_LIMIT", len(raw))
    Bundle.read(raw, "b")
    with pytest.raises(EvidenceRefused, match="more than"):
        Bundle.read(raw + b" ", "b")


def test_what_strangers_wrote_does_not_reach_the_terminal():
    with pytest.raises(EvidenceRefused) as caught:
        Bundle.read(b"{", "a\x1b]0;name\x07.json")
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_older_spellings_of_the_media_type(version):
    Bundle.read(changed("mediaType", f"application/vnd.dev.sigstore.bundle+json;version={version}"), "b")


def test_a_key_id_and_other_additions_change_nothing():
    key = PrivateKey.generate()
    document = json.loads(KeySigner(key).sign(STATEMENT))
    document["dsseEnvelope"]["signatures"][0]["keyid"] = "x"
    document["more"] = [1.5, {}]
    read = Bundle.read(json.dumps(document).encode(), "b")
    assert key.public.verifies(read.signature, read.signed)
