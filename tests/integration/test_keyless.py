"""Signing as an identity and verifying it, with the real client of Sigstore against a Sigstore of one's own."""

import base64
import copy
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reprobuild import attest, sign
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, ExitCode, SigningFailed
from reprobuild.policy import Identity, Policy
from reprobuild.policy import read as read_policy
from reprobuild.sign import keyless
from reprobuild.verification import verify

GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/example/wheels/.github/workflows/release.yml@refs/tags/v1"
ARTIFACT = b"the bytes of a wheel"
SUBJECT = Digest.of_bytes(ARTIFACT)
STATEMENT = attest.provenance(
    attest.descriptor({"sha256": SUBJECT.hex}, name="demo.whl"),
    build_type="https://example.org/build/v1",
    external={},
    internal={},
    dependencies=[],
    builder_version={},
)
PAYLOAD = attest.encode(STATEMENT)
POLICY = Policy(identities=(Identity(WORKFLOW, GITHUB),))


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def check(sigstore_stack):
    """Hold a bundle, as JSON or bytes, against a policy that trusts the workflow."""

    def run(bundle, policy=POLICY, subject=SUBJECT, **how):
        raw = bundle if isinstance(bundle, bytes) else json.dumps(bundle).encode()
        return verify(subject, [("b.json", raw)], policy, trust=sigstore_stack.trusted_root, **how)

    return run


# --- signing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rekor", [1, 2])
def test_what_is_signed_verifies_here_and_with_the_clients_own_command(sigstore_stack, check, tmp_path, rekor):
    signer = keyless(sigstore_stack.token(), sigstore_stack.trust_config, interactive=False, rekor=rekor)
    raw = signer.sign(STATEMENT)
    (entry,) = json.loads(raw)["verificationMaterial"]["tlogEntries"]
    assert entry["kindVersion"]["kind"] == {1: "dsse", 2: "hashedrekord"}[rekor]
    found = check(raw)
    assert found.passed
    assert [each.signer for each in found.accepted] == [f"{WORKFLOW} ({GITHUB})"]

    bundle, artifact = tmp_path / "b.json", tmp_path / "demo.whl"
    bundle.write_bytes(raw)
    artifact.write_bytes(ARTIFACT)
    command = [sys.executable, "-m", "sigstore", "--trust-config", sigstore_stack.trust_config, "verify", "identity"]
    command += ["--cert-identity", WORKFLOW, "--cert-oidc-issuer", GITHUB, "--bundle", bundle, artifact]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (judged.returncode, "OK:" in judged.stdout + judged.stderr) == (0, True), judged.stderr
    artifact.write_bytes(b"another")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_a_ci_job_signs_without_being_told_how(sigstore_stack, check, monkeypatch):
    for name, value in sigstore_stack.ci_environment().items():
        monkeypatch.setenv(name, value)
    signer = keyless(None, sigstore_stack.trust_config, interactive=False)
    assert check(signer.sign(STATEMENT)).passed


def test_a_package_index_gets_an_attestation_of_its_own_kind(sigstore_stack, tmp_path):
    from pypi_attestations import Attestation, Distribution  # noqa: PLC0415 - slow
    from sigstore.errors import VerificationError  # noqa: PLC0415 - slow
    from sigstore.models import TrustedRoot  # noqa: PLC0415 - slow
    from sigstore.verify import Verifier  # noqa: PLC0415 - slow
    from sigstore.verify.policy import Identity as Named  # noqa: PLC0415 - slow

    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(ARTIFACT)
    signer = keyless(sigstore_stack.token(), sigstore_stack.trust_config, interactive=False)
    raw = signer.attestation(wheel) or b""
    verifier = Verifier(trusted_root=TrustedRoot.from_file(str(sigstore_stack.trusted_root)))
    who = Named(identity=WORKFLOW, issuer=GITHUB)
    _, payload = verifier.verify_dsse(Attestation.model_validate_json(raw).to_bundle(), who)
    statement = json.loads(payload)
    assert statement["predicateType"].endswith("/attestations/publish/v1")
    assert statement["subject"] == [{"name": wheel.name, "digest": {"sha256": Distribution.from_file(wheel).digest}}]
    document = json.loads(raw)
    signature = bytearray(base64.b64decode(document["envelope"]["signature"]))
    signature[-1] ^= 1
    document["envelope"]["signature"] = base64.b64encode(signature).decode()
    with pytest.raises(VerificationError):
        verifier.verify_dsse(Attestation.model_validate(document).to_bundle(), who)


def test_a_wheel_is_signed_with_both(sigstore_stack, reprobuild, project):
    where = project("with-hatchling")
    reprobuild("wheel", where)
    (wheel,) = (where / "dist").glob("*.whl")
    env = {**sigstore_stack.ci_environment(), "NO_PROXY": "*"}
    made = reprobuild("sign", wheel, "--trust-config", sigstore_stack.trust_config, "--json", env=env).json
    assert made["bundles"] == [f"{wheel}.sigstore.json", f"{wheel}.publish.attestation"]
    policy = where.parent / "policy.toml"
    policy.write_text(f'identities = [{{ identity = "{WORKFLOW}", issuer = "{GITHUB}" }}]\n')
    command = ["verify", wheel, "--policy", policy, "--trusted-root", sigstore_stack.trusted_root]
    assert reprobuild(*command, "--json").json["passed"]
    policy.write_text(f'identities = [{{ identity = "{WORKFLOW}x", issuer = "{GITHUB}" }}]\n')
    assert "who isn't trusted here" in reprobuild(*command, code=25).stdout


def test_a_job_of_others_that_calls_the_workflow_is_not_the_repository(sigstore_stack, check, tmp_path):
    """The subject of the certificate names the workflow that was called, whoever called it."""
    policy = read_policy({"github": {"repository": "example/wheels"}}, "it", tmp_path)
    claims = sys.modules["sigstore_stack"].github()
    for repository, words in (("example/wheels", ""), ("mallory/thief", "a job of https://github.com/mallory/thief")):
        token = sigstore_stack.token({**claims, "repository": repository})
        raw = keyless(token, sigstore_stack.trust_config, interactive=False).sign(STATEMENT)
        found = check(raw, policy)
        assert found.passed == (not words)
        assert words in "".join(found.refused)


def test_signers_have_names_of_their_own(sigstore_stack):
    names = {
        keyless(sigstore_stack.token(claims), sigstore_stack.trust_config, interactive=False).name
        for claims in (sigstore_stack.person("a@example.org"), sigstore_stack.person("b@example.org"))
    }
    assert len(names) == 2
    assert all(name.startswith("id-") and len(name) == 15 for name in names)


def test_a_person_signs_too(sigstore_stack, check):
    claims = sigstore_stack.person("someone@example.org", "https://accounts.example.org")
    raw = keyless(sigstore_stack.token(claims), sigstore_stack.trust_config, interactive=False).sign(STATEMENT)
    assert check(raw, Policy(identities=(Identity("*@example.org", "https://accounts.example.org"),))).passed
    assert not check(raw, POLICY).passed


def _refused(sign, *secrets):
    """The message with which signing fails, which holds none of some secrets."""
    with pytest.raises(SigningFailed) as caught:
        sign()
    words = f"{caught.value.reason} {caught.value.remedy} {caught.value!r}"
    pieces = [secret[at : at + 16] for secret in secrets for at in range(max(1, len(secret) - 15))]
    assert not [piece for piece in pieces if piece in words], words
    assert caught.value.__cause__ is None
    # What the client raised may quote the token.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.reason


def test_a_token_that_has_expired(sigstore_stack):
    token = sigstore_stack.token(seconds=-60)
    said = _refused(lambda: keyless(token, sigstore_stack.trust_config, interactive=False), token)
    assert said == "There is no identity to sign with: the identity token has expired."


def test_a_token_that_expires_before_it_is_used(sigstore_stack, monkeypatch):
    token = sigstore_stack.token()
    signer = keyless(token, sigstore_stack.trust_config, interactive=False)
    monkeypatch.setattr(signer.token, "in_validity_period", lambda: False)
    assert _refused(lambda: signer.sign(STATEMENT), token) == "Sigstore didn't sign: the identity token has expired."


def test_a_token_that_is_none(sigstore_stack):
    said = _refused(lambda: keyless("not.a.token", sigstore_stack.trust_config, interactive=False), "not.a.token")
    assert "malformed" in said


def test_a_token_of_somebody_else(sigstore_stack):
    token = type(sigstore_stack.issuer)().token(sigstore_stack.github())
    signer = keyless(token, sigstore_stack.trust_config, interactive=False)
    said = _refused(lambda: signer.sign(STATEMENT), token)
    assert "the certificate authority (Fulcio) answered 401" in said
    assert "error processing the identity token" in said


def test_an_answer_that_quotes_the_token(sigstore_stack):
    token = sigstore_stack.token()
    signer = keyless(token, sigstore_stack.trust_config, interactive=False)
    with sigstore_stack.failing("/signingCert", 500, f"can't read {token}"):
        assert "answered 500: " in _refused(lambda: signer.sign(STATEMENT), token)


def test_a_client_that_quotes_the_token(sigstore_stack, monkeypatch):
    token = sigstore_stack.token()

    def fail(given):
        raise ValueError(f"can't read {given}")

    monkeypatch.setattr("sigstore.oidc.IdentityToken", fail)
    said = _refused(lambda: keyless(token, sigstore_stack.trust_config, interactive=False), token)
    assert said == "There is no identity to sign with: can't read …."


@pytest.mark.parametrize("rekor", [1, 2])
def test_a_log_that_is_out_of_order(sigstore_stack, rekor):
    token = sigstore_stack.token()
    signer = keyless(token, sigstore_stack.trust_config, interactive=False, rekor=rekor)
    with sigstore_stack.failing("/log/entries", 503, "try later"):
        said = _refused(lambda: signer.sign(STATEMENT), token)
    assert "the log (Rekor) answered 503" in said
    assert "try later" in said


@pytest.mark.parametrize(("service", "name"), [("ca", "certificate authority (Fulcio)"), ("rekor", "log (Rekor)")])
def test_a_service_that_is_down(sigstore_stack, service, name):
    token = sigstore_stack.token()
    trust = sigstore_stack.configuration(f"no-{service}.json", **{service: "http://127.0.0.1:9"})
    signer = keyless(token, trust, interactive=False)
    assert f"the {name} can't be reached at http://127.0.0.1:9/" in _refused(lambda: signer.sign(STATEMENT), token)


@contextmanager
def slow(answer=b"", pause=0.2):
    """A server that takes what it is asked, and says a byte of its answer now and then, or nothing ever."""
    over = threading.Event()

    def serve(connection):
        with connection, suppress(OSError):
            connection.recv(65536)
            for byte in answer:
                connection.sendall(bytes([byte]))
                if over.wait(pause):
                    return
            over.wait()

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize("answer", [b"", DRIP], ids=["silent", "dripping"])
@pytest.mark.parametrize(("service", "rekor"), [("ca", 1), ("rekor", 1), ("rekor", 2), ("tsa", 2)])
def test_a_service_that_never_answers(sigstore_stack, monkeypatch, service, rekor, answer):
    monkeypatch.setattr(sign, "_LONGEST", 1.5)
    token = sigstore_stack.token()
    with slow(answer) as url:
        trust = sigstore_stack.configuration(f"slow-{service}.json", **{service: url})
        signer = keyless(token, trust, interactive=False, rekor=rekor)
        said = _refused(lambda: signer.sign(STATEMENT), token)
    assert said == "Sigstore didn't sign: its services didn't answer within 1.5 seconds."


def test_an_identity_provider_that_never_answers(sigstore_stack, monkeypatch):
    monkeypatch.setattr(sign, "_LONGEST", 1.5)
    with slow() as url:
        trust = sigstore_stack.configuration("slow-oidc.json", oidc=url)
        assert "within 1.5 seconds" in _refused(lambda: keyless(None, trust, interactive=True))
        for name, value in sigstore_stack.ci_environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{url}/oidc/token?x=y")
        said = _refused(lambda: keyless(None, sigstore_stack.trust_config, interactive=False))
    assert said == "There is no identity to sign with: its services didn't answer within 1.5 seconds."


def test_a_command_ends_though_a_service_never_answers(sigstore_stack, tmp_path):
    """Nothing that still waits keeps the program alive."""
    artifact, statement = tmp_path / "demo.bin", tmp_path / "statement.json"
    artifact.write_bytes(ARTIFACT)
    statement.write_bytes(PAYLOAD)
    script = "import reprobuild.sign as sign; sign._LONGEST = 1.5; from reprobuild import cli; cli.main()"
    with slow() as url:
        trust = sigstore_stack.configuration("slow-all.json", ca=url)
        command = ["sign", artifact, "--statement", statement, "--trust-config", trust]
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, command)],
            env={**os.environ, "REPROBUILD_IDENTITY_TOKEN": sigstore_stack.token()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitCode.SIGNING_FAILED, done.stderr
    assert "didn't answer within 1.5 seconds" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [artifact, statement]


def test_a_log_without_times_needs_the_time_stamps(sigstore_stack):
    token = sigstore_stack.token()
    trust = sigstore_stack.configuration("no-tsa.json", tsa="http://127.0.0.1:9")
    signer = keyless(token, trust, interactive=False, rekor=2)
    assert "signed timestamp" in _refused(lambda: signer.sign(STATEMENT), token)


def test_a_job_that_may_not_have_a_token(sigstore_stack, monkeypatch):
    for name, value in sigstore_stack.ci_environment().items():
        monkeypatch.setenv(name, value)
    secret = "s3cret-of-the-job"
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", secret)
    said = _refused(lambda: keyless(None, sigstore_stack.trust_config, interactive=False), secret)
    assert "code=403" in said
    with sigstore_stack.failing("/oidc/token", 500, f"can't read {secret}"):
        said = _refused(lambda: keyless(None, sigstore_stack.trust_config, interactive=False), secret)
    assert "code=500" in said
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    said = _refused(lambda: keyless(None, sigstore_stack.trust_config, interactive=False))
    assert "insufficient OIDC token permissions" in said


def test_nobody_is_there(sigstore_stack):
    said = _refused(lambda: keyless(None, sigstore_stack.trust_config, interactive=False))
    assert said == "There is no identity to sign with: no token, no CI job that offers one, and nobody to log in."


def test_an_identity_provider_that_is_down(sigstore_stack):
    trust = sigstore_stack.configuration("no-oidc.json", oidc="http://127.0.0.1:9")
    said = _refused(lambda: keyless(None, trust, interactive=True))
    assert "the identity provider can't be reached" in said


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"mediaType": "x"}'])
def test_an_instance_that_is_none(sigstore_stack, tmp_path, content):
    (tmp_path / "trust.json").write_text(content)
    token = sigstore_stack.token()
    with pytest.raises(BadInput, match="no ClientTrustConfig") as caught:
        keyless(token, tmp_path / "trust.json", interactive=False)
    assert token not in f"{caught.value} {caught.value.remedy}"
    bundle = json.dumps(sigstore_stack.bundle(PAYLOAD)).encode()
    with pytest.raises(BadInput, match="no root of trust"):
        verify(SUBJECT, [("b.json", bundle)], POLICY, trust=tmp_path / "trust.json")


def test_no_log_of_any_library_has_the_token(sigstore_stack, caplog):
    token = sigstore_stack.token()
    with caplog.at_level(logging.DEBUG):
        keyless(token, sigstore_stack.trust_config, interactive=False).sign(STATEMENT)
    assert "log/entries" in caplog.text
    assert token not in caplog.text


def test_by_hand(tmp_path):
    """The stack as a script, for whoever tries things out."""
    script = Path(__file__).parents[1] / "sigstore" / "stack.py"
    command = [sys.executable, script, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        token = (tmp_path / "token.jwt").read_text()
        bundle = keyless(token, tmp_path / "trust_config.json", interactive=False).sign(STATEMENT)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert verify(SUBJECT, [("b", bundle)], POLICY, trust=tmp_path / "trusted_root.json").passed
    assert "export ACTIONS_ID_TOKEN_REQUEST_URL=" in (tmp_path / "environment").read_text()


# --- what is refused -----------------------------------------------------------------------------------


def _changed(text, at=20):
    """Base64 of almost the same bytes."""
    raw = bytearray(base64.b64decode(text))
    raw[at] ^= 1
    return base64.b64encode(raw).decode()


def _entry(bundle):
    return bundle["verificationMaterial"]["tlogEntries"][0]


def _payload(bundle):
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["buildDefinition"]["buildType"] = "https://example.org/build/v2"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(attest.encode(statement)).decode()


def _signature(bundle):
    signature = bundle["dsseEnvelope"]["signatures"][0]
    signature["sig"] = _changed(signature["sig"])


def _certificate(bundle):
    held = bundle["verificationMaterial"]["certificate"]
    held["rawBytes"] = _changed(held["rawBytes"], -100)


def _log_body(bundle):
    body = json.loads(base64.b64decode(_entry(bundle)["canonicalizedBody"]))
    body["note"] = "more"
    _entry(bundle)["canonicalizedBody"] = base64.b64encode(attest.encode(body)).decode()


def _log_time(bundle):
    _entry(bundle)["integratedTime"] = str(int(_entry(bundle)["integratedTime"]) + 60)


def _log_promise(bundle):
    promise = _entry(bundle)["inclusionPromise"]
    promise["signedEntryTimestamp"] = _changed(promise["signedEntryTimestamp"])


def _checkpoint(bundle):
    checkpoint = _entry(bundle)["inclusionProof"]["checkpoint"]
    note, _, line = checkpoint["envelope"].rpartition(" ")
    checkpoint["envelope"] = f"{note} {_changed(line)}\n"


def _proof(bundle):
    proof = _entry(bundle)["inclusionProof"]
    proof["hashes"] = [_changed(each) for each in proof["hashes"]]


def _no_entry(bundle):
    bundle["verificationMaterial"]["tlogEntries"] = []


TAMPERED = {
    "payload": (_payload, "DSSE: invalid signature"),
    "signature": (_signature, "signature"),
    "certificate": (_certificate, "certificate"),
    "log body": (_log_body, "inclusion proof"),
    "log time": (_log_time, "invalid inclusion promise"),
    "log promise": (_log_promise, "invalid inclusion promise"),
    "checkpoint": (_checkpoint, "checkpoint: invalid signature"),
    "inclusion proof": (_proof, "inclusion proof contains invalid root hash"),
    "no log entry": (_no_entry, "expected exactly one log entry"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_is_refused(sigstore_stack, check, what):
    change, words = TAMPERED[what]
    sound = sigstore_stack.bundle(PAYLOAD)
    assert check(sound).passed
    changed = copy.deepcopy(sound)
    change(changed)
    found = check(changed)
    assert not found.passed
    assert not found.accepted
    assert words.lower() in found.refused[0].lower()


@pytest.mark.parametrize("rekor", [1, 2])
def test_parts_of_two_bundles_make_none(sigstore_stack, check, rekor):
    one, two = (sigstore_stack.bundle(PAYLOAD, rekor=rekor) for _ in range(2))
    for part in ("certificate", "tlogEntries"):
        mixed = copy.deepcopy(one)
        mixed["verificationMaterial"][part] = two["verificationMaterial"][part]
        assert check(one).passed
        assert not check(mixed).accepted, part
    mixed = {**one, "dsseEnvelope": two["dsseEnvelope"]}
    assert not check(mixed).accepted


@pytest.mark.parametrize("rekor", [1, 2])
def test_one_changed_byte_never_makes_another_statement(sigstore_stack, check, rekor):
    raw = json.dumps(sigstore_stack.bundle(PAYLOAD, rekor=rekor)).encode()
    refused = 0
    for position in range(0, len(raw), 23):
        changed = bytearray(raw)
        changed[position] ^= 1
        found = check(bytes(changed))
        refused += not found.accepted
        for each in found.accepted:  # a digit of a number that nothing rests on
            assert (each.signer, each.statement) == (f"{WORKFLOW} ({GITHUB})", Digest.of_bytes(PAYLOAD))
    assert refused > len(raw) // 23 * 0.9


def test_another_identity(sigstore_stack, check):
    bundle = sigstore_stack.bundle(PAYLOAD, sigstore_stack.github("example/other/.github/workflows/a.yml@refs/heads/x"))
    (why,) = check(bundle).refused
    assert "signed by https://github.com/example/other/.github/workflows/a.yml@refs/heads/x" in why
    assert "who isn't trusted here" in why


def test_another_issuer(sigstore_stack, check):
    claims = {**sigstore_stack.github(), "iss": "https://evil.example.org"}
    (why,) = check(sigstore_stack.bundle(PAYLOAD, claims)).refused
    assert "its signer is trusted, but not as https://evil.example.org says" in why


def test_another_instance_of_sigstore(sigstore_stack, check, tmp_path):
    stranger = type(sigstore_stack)(tmp_path, sigstore_stack.url)
    bundle = stranger.bundle(PAYLOAD)
    assert verify(SUBJECT, [("b", json.dumps(bundle).encode())], POLICY, trust=stranger.trusted_root).passed
    assert not check(bundle).accepted


def test_a_policy_without_identities(sigstore_stack, check):
    (why,) = check(sigstore_stack.bundle(PAYLOAD), Policy()).refused
    assert "signed by an identity, and the policy trusts none" in why


def test_replayed_for_another_artifact(sigstore_stack, check):
    bundle = sigstore_stack.bundle(PAYLOAD)
    (why,) = check(bundle, subject=Digest.of_bytes(b"another")).refused
    assert "it is about another artifact" in why


def test_signed_after_the_certificate_had_ended(sigstore_stack, check):
    at = datetime.now(UTC) - timedelta(days=3)
    assert check(sigstore_stack.bundle(PAYLOAD, certified=at, logged=at + timedelta(minutes=9))).passed
    for logged in (at + timedelta(minutes=11), at - timedelta(minutes=1)):
        (why,) = check(sigstore_stack.bundle(PAYLOAD, certified=at, logged=logged)).refused
        assert "certificate" in why
    for stamped in (at + timedelta(minutes=11), at - timedelta(minutes=1)):
        for rekor in (1, 2):
            bundle = sigstore_stack.bundle(PAYLOAD, certified=at, stamped=stamped, rekor=rekor)
            assert not check(bundle).accepted


def test_signed_too_long_ago(sigstore_stack, check):
    policy = Policy(identities=POLICY.identities, max_age=timedelta(days=30))
    for rekor in (1, 2):
        old = sigstore_stack.bundle(PAYLOAD, certified=datetime.now(UTC) - timedelta(days=31), rekor=rekor)
        assert check(old).passed
        found = check(old, policy)
        assert "too long ago" in found.refused[0]
        assert not found.passed
        new = sigstore_stack.bundle(PAYLOAD, certified=datetime.now(UTC) - timedelta(days=29), rekor=rekor)
        assert check(new, policy).passed
        assert "clock" in check(new, policy, now=datetime.now(UTC) - timedelta(days=60)).refused[0]


@pytest.mark.parametrize("spelling", ["integratedTime", "integrated_time"])
def test_a_time_that_no_log_vouches_for_makes_nothing_younger(sigstore_stack, check, spelling):
    """The client passes over a log's time without a promise, and so has whoever asks how old it is."""
    policy = Policy(identities=POLICY.identities, max_age=timedelta(days=30))
    old = sigstore_stack.bundle(PAYLOAD, certified=datetime.now(UTC) - timedelta(days=31), rekor=2)
    _entry(old)[spelling] = str(int(datetime.now(UTC).timestamp()))
    assert check(old).passed
    assert "too long ago" in check(old, policy).refused[0]


def test_a_workflow_on_two_refs_is_one_voter(sigstore_stack, check):
    vote = attest.encode(
        attest.rebuild(
            STATEMENT["subject"][0],
            record=attest.descriptor({"sha256": "0" * 64}),
            rebuilt=attest.descriptor({"sha256": SUBJECT.hex}),
            level="identical",
            varied=[],
            environment={},
            builder_version={},
        )
    )
    workflow = "example/wheels/.github/workflows/release.yml@refs/tags/"
    votes = [sigstore_stack.bundle(vote, sigstore_stack.github(f"{workflow}{tag}")) for tag in ("v1", "v2")]
    evidence = [(str(number), json.dumps(each).encode()) for number, each in enumerate(votes)]
    every = Identity("https://github.com/example/wheels/**", GITHUB)
    other = Identity("https://github.com/example/others/**", GITHUB)
    trust = sigstore_stack.trusted_root
    found = verify(SUBJECT, evidence, Policy(identities=(every, other), rebuilds=2), trust=trust)
    assert len(found.accepted) == 2
    assert not found.passed
    assert "one signer counts once" in found.checks[-1].text
    exact = tuple(Identity(f"https://github.com/{workflow}{tag}", GITHUB) for tag in ("v1", "v2"))
    assert verify(SUBJECT, evidence, Policy(identities=exact, rebuilds=2), trust=trust).passed


@pytest.mark.parametrize("name", ["sigstore.models", "sigstore.verify"])
def test_no_client_is_here(sigstore_stack, check, monkeypatch, name):
    bundle = sigstore_stack.bundle(PAYLOAD)
    monkeypatch.setitem(sys.modules, name, None)
    found = check(bundle)
    assert not found.passed
    assert "no Sigstore client here" in found.refused[0]


def test_older_bundles_have_chains(sigstore_stack, check):
    bundle = sigstore_stack.bundle(PAYLOAD)
    material = bundle["verificationMaterial"]
    material["x509CertificateChain"] = {"certificates": [material.pop("certificate")]}
    bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"
    assert check(bundle).passed
    bundle["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert not check(bundle).accepted


def test_an_instance_whose_file_is_missing(tmp_path):
    with pytest.raises(BadInput, match="can't be read"):
        keyless(None, tmp_path / "none.json", interactive=False)


def test_nobody_asks_the_public_instance_for_nothing(monkeypatch):
    """Without an identity that is what is missing, whether or not the network is there."""

    def fail(**how):
        pytest.fail("the public instance was asked")

    monkeypatch.setattr("sigstore.models.ClientTrustConfig.production", fail)
    with pytest.raises(SigningFailed, match="no token, no CI job"):
        keyless(None, None, interactive=False)


def test_a_vote_in_a_private_instance(sigstore_stack, reprobuild, project):
    where = project("with-hatchling")
    reprobuild("wheel", where)
    (wheel,) = (where / "dist").glob("*.whl")
    env = {**sigstore_stack.ci_environment(), "NO_PROXY": "*"}
    command = ["verify-wheel", wheel, "--project", where, "--attest", "keyless"]
    vote = reprobuild(*command, "--trust-config", sigstore_stack.trust_config, "--json", env=env).json["attested"]
    assert ".rebuild.id-" in vote


def test_two_workflows_of_one_repository_do_not_write_over_each_others_votes(sigstore_stack):
    names = {
        keyless(
            sigstore_stack.token(sigstore_stack.github(f"example/wheels/.github/workflows/{workflow}@refs/tags/v1")),
            sigstore_stack.trust_config,
            interactive=False,
        ).name
        for workflow in ("release.yml", "vote.yml", "vote.yml")
    }
    assert len(names) == 2
