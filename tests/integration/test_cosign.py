"""cosign as the judge of what is signed here, and what cosign signs; where it verifies, it has no network at all."""

import base64
import json

import pytest

from reprobuild import attest
from reprobuild.digest import Digest
from reprobuild.keys import PrivateKey, PublicKey
from reprobuild.policy import Identity, Policy
from reprobuild.sign import KeySigner, keyless
from reprobuild.verification import verify

GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/example/wheels/.github/workflows/release.yml@refs/tags/v1"
ARTIFACT = b"the bytes of a wheel"
SUBJECT = Digest.of_bytes(ARTIFACT)
TYPE = attest.PROVENANCE_TYPE
NO_ROOT = json.dumps({"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"})


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "demo.whl"
    path.write_bytes(ARTIFACT)
    return path


def statement(predicate_type=TYPE, digest=SUBJECT):
    made = attest.provenance(
        attest.descriptor({"sha256": digest.hex}, name="demo.whl"),
        build_type="https://example.org/build/v1",
        external={},
        internal={},
        dependencies=[],
        builder_version={},
    )
    return {**made, "predicateType": predicate_type}


def judge(cosign, bundle, artifact, *how, kind=TYPE, code=0):
    """Let cosign verify a bundle; with ``code`` 1 it has to refuse it."""
    path = artifact.parent / "judged.json"
    path.write_bytes(bundle)
    older = ["--new-bundle-format"] if cosign.older else []
    return cosign("verify-blob-attestation", "--bundle", path, "--type", kind, *older, *how, artifact, code=code).stderr


def by_key(cosign, public, folder):
    """The options for a bundle that is signed with a key."""
    (folder / "key.pub").write_bytes(public.pem)
    how = ["--key", folder / "key.pub", "--insecure-ignore-tlog"]
    if cosign.older:  # else it asks the public instance for its root
        (folder / "no-root.json").write_text(NO_ROOT)
        how += ["--trusted-root", folder / "no-root.json"]
    return how


def tampered(bundle):
    """A bundle with one thing changed, and what that is."""
    found = json.loads(bundle)
    envelope = found["dsseEnvelope"]
    payload = json.loads(base64.b64decode(envelope["payload"]))

    def with_envelope(**changes):
        return json.dumps({**found, "dsseEnvelope": {**envelope, **changes}}).encode()

    def with_payload(**changes):
        return with_envelope(payload=base64.b64encode(attest.encode({**payload, **changes})).decode())

    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[-1] ^= 1
    yield "subject", with_payload(subject=[{"name": "x", "digest": {"sha256": "0" * 64}}])
    yield "predicate type", with_payload(predicateType="https://example.org/other")
    yield "predicate", with_payload(predicate={**payload["predicate"], "more": True})
    yield "signature", with_envelope(signatures=[{"sig": base64.b64encode(signature).decode()}])
    yield "payload type", with_envelope(payloadType="application/json")


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_cosign_takes_what_a_key_signed_here_and_nothing_else(cosign, artifact, tmp_path, kind):
    key, other = PrivateKey.generate(kind), PrivateKey.generate(kind)
    bundle = KeySigner(key).sign(statement())
    policy = Policy(keys=(key.public,))
    how = by_key(cosign, key.public, tmp_path)
    assert "Verified OK" in judge(cosign, bundle, artifact, *how)
    assert verify(SUBJECT, [("b", bundle)], policy).passed
    for what, changed in tampered(bundle):
        judge(cosign, changed, artifact, *how, code=1)
        assert not verify(SUBJECT, [("b", changed)], policy).accepted, what
    if not cosign.older:  # which doesn't look at the type in such a bundle
        judge(cosign, bundle, artifact, *how, kind="https://example.org/other", code=1)
    judge(cosign, bundle, artifact, *by_key(cosign, other.public, tmp_path), code=1)
    artifact.write_bytes(b"another")
    judge(cosign, bundle, artifact, *by_key(cosign, key.public, tmp_path), code=1)


@pytest.mark.parametrize("rekor", [1, 2])
def test_cosign_takes_what_an_identity_signed_here(cosign, artifact, sigstore_stack, rekor):
    signer = keyless(sigstore_stack.token(), sigstore_stack.trust_config, interactive=False, rekor=rekor)
    bundle = signer.sign(statement())
    root = ["--trusted-root", sigstore_stack.trusted_root]
    how = [*root, "--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", GITHUB]
    if rekor == 2 and cosign.older:
        judge(cosign, bundle, artifact, *how, code=1)  # why 1 is what is signed with
        return
    assert "Verified OK" in judge(cosign, bundle, artifact, *how)
    policy = Policy(identities=(Identity(WORKFLOW, GITHUB),))
    for what, changed in tampered(bundle):
        judge(cosign, changed, artifact, *how, code=1)
        assert not verify(SUBJECT, [("b", changed)], policy, trust=sigstore_stack.trusted_root).accepted, what
    stranger = [*root, "--certificate-identity", WORKFLOW, "--certificate-oidc-issuer", "https://accounts.example.org"]
    judge(cosign, bundle, artifact, *stranger, code=1)


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_what_cosign_signs_with_a_key_verifies_here(cosign, artifact, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("COSIGN_PASSWORD", "of a test")
    monkeypatch.chdir(tmp_path)
    if kind == "ed25519":
        PrivateKey.generate(kind).save(tmp_path / "own.key")
        cosign("import-key-pair", "--key", tmp_path / "own.key", "--output-key-prefix", "cosign", "--yes")
    else:
        cosign("generate-key-pair")
    public = PublicKey.load(tmp_path / "cosign.pub")
    assert len(public.der) == {"ed25519": 44, "p256": 91}[kind]
    bundle = _attested(cosign, artifact, "--key", tmp_path / "cosign.key")
    assert b"https://in-toto.io/Statement/v0.1" in base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])
    if kind == "ed25519" and not cosign.older:
        # It signs with Ed25519ph, and verifies as Ed25519 says: it refuses what it made itself.
        judge(cosign, bundle, artifact, *by_key(cosign, public, tmp_path), kind="https://example.org/made", code=1)
        assert not verify(SUBJECT, [("b", bundle)], Policy(keys=(public,))).accepted
        return
    judge(cosign, bundle, artifact, *by_key(cosign, public, tmp_path), kind="https://example.org/made")
    policy = Policy(keys=(public,), predicates=("https://example.org/made",))
    found = verify(SUBJECT, [("b", bundle)], policy)
    assert found.passed
    assert found.accepted[0].predicate == {"made": "by cosign"}
    for what, changed in tampered(bundle):
        judge(cosign, changed, artifact, *by_key(cosign, public, tmp_path), kind="https://example.org/made", code=1)
        assert not verify(SUBJECT, [("b", changed)], policy).accepted, what
    assert not verify(Digest.of_bytes(b"another"), [("b", bundle)], policy).accepted


def _attested(cosign, artifact, *how):
    """What cosign makes of a predicate, without the log."""
    folder = artifact.parent
    (folder / "predicate.json").write_text('{"made": "by cosign"}')
    how = (*how, "--new-bundle-format") if cosign.older else (*how, "--use-signing-config=false")
    what = ["--predicate", folder / "predicate.json", "--type", "https://example.org/made"]
    cosign("attest-blob", "--yes", "--tlog-upload=false", *what, *how, "--bundle", folder / "made.json", artifact)
    return (folder / "made.json").read_bytes()


@pytest.mark.parametrize("rekor", [1, 2])
@pytest.mark.parametrize("cosign", ["COSIGN"], indirect=True)  # the older takes its services from no file
def test_what_cosign_signs_as_an_identity_verifies_here(cosign, artifact, sigstore_stack, rekor):
    folder = artifact.parent
    services = json.loads((sigstore_stack.folder / "signing_config.json").read_text())
    services["rekorTlogUrls"] = [each for each in services["rekorTlogUrls"] if each["majorApiVersion"] == rekor]
    (folder / "services.json").write_text(json.dumps(services))
    (folder / "predicate.json").write_text('{"made": "by cosign"}')
    (folder / "token").write_text(sigstore_stack.token())
    command = ["attest-blob", "--yes", "--predicate", folder / "predicate.json"]
    command += ["--type", "https://example.org/made", "--signing-config", folder / "services.json"]
    command += ["--trusted-root", sigstore_stack.trusted_root, "--identity-token", folder / "token"]
    cosign(*command, "--bundle", folder / "made.json", artifact, online=True)
    bundle = (folder / "made.json").read_bytes()
    policy = Policy(identities=(Identity(WORKFLOW, GITHUB),))
    found = verify(SUBJECT, [("b", bundle)], policy, trust=sigstore_stack.trusted_root)
    assert found.passed, found.refused
    for what, changed in tampered(bundle):
        assert not verify(SUBJECT, [("b", changed)], policy, trust=sigstore_stack.trusted_root).accepted, what
