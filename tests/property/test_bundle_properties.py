import base64
import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild import attest
from reprobuild.bundle import BUNDLE_MEDIA_TYPE, Bundle
from reprobuild.digest import Digest
from reprobuild.errors import EvidenceRefused
from reprobuild.keys import PrivateKey
from reprobuild.policy import Identity, Policy
from reprobuild.sign import KeySigner
from reprobuild.verification import verify

SUBJECT = Digest.of_bytes(b"the artifact")
STATEMENT = {
    "_type": attest.STATEMENT_TYPE,
    "subject": [{"digest": {"sha256": SUBJECT.hex}}],
    "predicateType": "https://example.org/p",
    "predicate": {"a": 1},
}
KEYS = {kind: PrivateKey.generate(kind) for kind in ("ed25519", "p256")}
BUNDLES = {kind: KeySigner(key).sign(STATEMENT) for kind, key in KEYS.items()}
POLICY = Policy(keys=tuple(key.public for key in KEYS.values()))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
BASE64 = st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode())


def only_the_truth(raw, kind):
    """A bundle is refused, or says exactly what was signed, by whom it was signed."""
    found = verify(SUBJECT, [("b", raw)], POLICY)
    assert len(found.accepted) + len(found.refused) == 1
    for each in found.accepted:
        assert each.signer == KEYS[kind].public.id
        assert each.statement == Digest.of_bytes(attest.encode(STATEMENT))
        assert (each.predicate_type, each.predicate) == ("https://example.org/p", {"a": 1})
    return bool(found.accepted)


def test_one_changed_byte_never_makes_another_statement():
    """Every byte, in six ways: those that are taken still say the same, such as another hint."""
    for kind, raw in BUNDLES.items():
        taken = 0
        for position in range(len(raw)):
            for flipped in (1, 2, 4, 16, 32, 128):
                changed = bytearray(raw)
                changed[position] ^= flipped
                taken += only_the_truth(bytes(changed), kind)
        assert 0 < taken < len(raw) * 2


@given(st.sampled_from(sorted(BUNDLES)), st.data())
def test_no_edit_makes_another_statement(kind, data):
    raw = BUNDLES[kind]
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(raw))] * 2)))
    only_the_truth(raw[:start] + data.draw(st.binary(max_size=20)) + raw[end:], kind)


@given(st.sampled_from(sorted(BUNDLES)), st.data())
def test_no_other_value_makes_another_statement(kind, data):
    document = json.loads(BUNDLES[kind])
    held = document
    while True:
        keys = sorted(held) if isinstance(held, dict) else list(range(len(held)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(held[key], dict | list) or not held[key] or data.draw(st.booleans()):
            break
        held = held[key]
    held[key] = data.draw(JSON | BASE64)
    only_the_truth(json.dumps(document).encode("utf-8", "surrogatepass"), kind)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(raw):
    with suppress(EvidenceRefused):
        Bundle.read(raw, "b")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(STATEMENT, JSON)), st.sampled_from(sorted(KEYS)))
def test_any_statement_of_somebody_trusted_is_read_or_refused(parts, kind):
    """A signer may sign anything: it is a statement about the artifact, or it doesn't count."""
    policy = Policy(keys=POLICY.keys, rebuilds=1, builders=("x",), bases=("**",), predicates=(attest.PROVENANCE_TYPE,))
    for predicate_type in (attest.PROVENANCE_TYPE, attest.REBUILD_TYPE, attest.SUMMARY_TYPE):
        statement = {**STATEMENT, "predicateType": predicate_type, **parts}
        try:
            raw = KeySigner(KEYS[kind]).sign(statement)
        except (TypeError, ValueError):  # no JSON
            return
        verify(SUBJECT, [("b", raw)], policy)


@settings(max_examples=30, deadline=None)  # the first one loads the client
@given(JSON, JSON, st.sampled_from(["certificate", "x509CertificateChain"]))
def test_any_certificate_is_read_or_refused(sigstore_stack, certificate, entries, name):
    bundle = {
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": {name: certificate, "tlogEntries": entries},
        "dsseEnvelope": json.loads(BUNDLES["p256"])["dsseEnvelope"],
    }
    policy = Policy(identities=(Identity("**", "https://accounts.example.org"),))
    raw = json.dumps(bundle).encode("utf-8", "surrogatepass")
    found = verify(SUBJECT, [("b", raw)], policy, trust=sigstore_stack.trusted_root)
    assert not found.accepted
    assert len(found.refused) == 1
