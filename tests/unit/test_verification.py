import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reprobuild import attest, verification
from reprobuild.advisories import Severity
from reprobuild.bundle import Bundle, pae, with_key
from reprobuild.compare import Level
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, EvidenceRefused
from reprobuild.keys import PrivateKey
from reprobuild.policy import Audit, Identity, Policy
from reprobuild.sign import KeySigner
from reprobuild.verification import Signed, _utf8_string, accept, require, verify

SUBJECT, OTHER = Digest.of_bytes(b"the artifact"), Digest.of_bytes(b"another")
ALICE, BOB, CAROL, MALLORY = (PrivateKey.generate(kind) for kind in ("ed25519", "p256", "ed25519", "ed25519"))
TRUSTED = (ALICE.public, BOB.public, CAROL.public)
BASE = "docker://registry.example.org/base/debian:12@sha256:" + "b" * 64


def descriptor(digest=SUBJECT, name="demo.whl"):
    return attest.descriptor({digest.algorithm: digest.hex}, name=name)


def provenance(subject=SUBJECT, *, base=BASE, builder=None):
    made = attest.provenance(
        descriptor(subject),
        build_type="https://example.org/build/v1",
        external={},
        internal={},
        dependencies=[
            {"uri": "https://example.org/source", "annotations": {"role": "source"}},
            *([{"uri": base, "annotations": {"role": "base"}}] if base else []),
        ],
        builder_version={},
    )
    if builder is not None:
        made["predicate"]["runDetails"]["builder"]["id"] = builder
    return made


def rebuild(subject=SUBJECT, rebuilt=SUBJECT, level="identical", varied=()):
    return attest.rebuild(
        descriptor(subject),
        record=attest.descriptor({"sha256": "0" * 64}),
        rebuilt=descriptor(rebuilt),
        level=level,
        varied=varied,
        environment={},
        builder_version={},
    )


def signed(key, statement):
    return KeySigner(key).sign(statement)


def signed_bytes(key, payload, kind="application/vnd.in-toto+json"):
    """A bundle of anything."""
    bundle = json.loads(with_key(payload, key.sign(pae(kind, payload)), key.public.hint))
    bundle["dsseEnvelope"]["payloadType"] = kind
    return json.dumps(bundle).encode()


def check(*bundles, subject=SUBJECT, **policy):
    evidence = [(f"{number}.json", raw) for number, raw in enumerate(bundles)]
    return verify(subject, evidence, Policy(**{"keys": TRUSTED, **policy}))


def failed(found):
    return {each.name for each in found.checks if not each.passed}


def with_payload(raw, **changes):
    """Another statement under the same signature."""
    bundle = json.loads(raw)
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload = attest.encode({**statement, **changes})
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(bundle).encode()


# --- one bundle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [ALICE, BOB])
def test_what_somebody_trusted_says_of_the_artifact_counts(key):
    found = check(signed(key, provenance()))
    assert found.passed
    assert not found.refused
    (statement,) = found.accepted
    assert (statement.signer, statement.trusted_as, statement.time) == (key.public.id, key.public.id, None)
    assert statement.statement == Digest.of_bytes(attest.encode(provenance()))
    assert statement.predicate == provenance()["predicate"]
    require(found)


def test_nothing_is_there():
    found = check()
    assert failed(found) == {"signature"}
    assert "There is no evidence beside it" in found.checks[0].text
    with pytest.raises(EvidenceRefused, match=f"signature: no trusted statement speaks for {SUBJECT}"):
        require(found)


def test_a_policy_that_trusts_nobody_is_met_by_nothing():
    assert not check(signed(ALICE, provenance()), keys=()).passed


STATEMENT = provenance()
REFUSED = {
    "payload": (with_payload(signed(ALICE, STATEMENT), predicate={}), "was changed"),
    "subject": (with_payload(signed(ALICE, STATEMENT), subject=[descriptor(OTHER)]), "was changed"),
    "predicate type": (with_payload(signed(ALICE, STATEMENT), predicateType="x"), "was changed"),
    "signature": (with_key(attest.encode(STATEMENT), b"\0" * 64, ALICE.public.hint), "was changed"),
    "wrong key": (signed(MALLORY, STATEMENT), "no trusted key signed it"),
    "wrong key, and a hint of the right one": (
        with_key(attest.encode(STATEMENT), MALLORY.sign(b"x"), ALICE.public.hint),
        "names a trusted key, whose signature it doesn't have",
    ),
    "signed without its type": (
        with_key(attest.encode(STATEMENT), ALICE.sign(attest.encode(STATEMENT)), ALICE.public.hint),
        "was changed",
    ),
    "replayed": (signed(ALICE, provenance(OTHER)), "it is about another artifact"),
    "payload type": (signed_bytes(ALICE, b"{}", "text/plain"), "its payload is 'text/plain', no in-toto statement"),
    "type that can't be written": (signed_bytes(ALICE, b"{}", "a\x1b[2J"), "no in-toto statement"),
    "no JSON": (signed_bytes(ALICE, b"x"), "its statement is not JSON"),
    "two readers": (signed_bytes(ALICE, b'{"_type": 1, "_type": 2}'), "its statement is not JSON"),
    "depth": (signed_bytes(ALICE, b"[" * 50_000), "its statement is not JSON"),
    "half a surrogate pair": (signed_bytes(ALICE, b'"\\ud800"'), "its statement is not JSON"),
    "a list": (signed_bytes(ALICE, b"[]"), "no in-toto statement"),
    "another type": (signed(ALICE, {**STATEMENT, "_type": "https://in-toto.io/Statement/v2"}), "no in-toto statement"),
    "no subject": (signed(ALICE, {**STATEMENT, "subject": []}), "names no subject"),
    "a subject that is none": (signed(ALICE, {**STATEMENT, "subject": [*STATEMENT["subject"], 1]}), "names no subject"),
    "subjects that are none": (signed(ALICE, {**STATEMENT, "subject": {"0": 1}}), "names no subject"),
    "no digest": (signed(ALICE, {**STATEMENT, "subject": [{"name": "x"}]}), "another artifact"),
    "a digest that is none": (signed(ALICE, {**STATEMENT, "subject": [{"digest": SUBJECT.hex}]}), "another artifact"),
    "a digest in capitals": (
        signed(ALICE, {**STATEMENT, "subject": [{"digest": {"sha256": SUBJECT.hex.upper()}}]}),
        "another artifact",
    ),
    "an algorithm in capitals": (
        signed(ALICE, {**STATEMENT, "subject": [{"digest": {"SHA256": SUBJECT.hex}}]}),
        "another artifact",
    ),
    "another algorithm": (
        signed(ALICE, {**STATEMENT, "subject": [{"digest": {"gitCommit": SUBJECT.hex}}]}),
        "another artifact",
    ),
    "no predicate": (signed(ALICE, {k: v for k, v in STATEMENT.items() if k != "predicate"}), "has no predicate"),
    "a predicate that is none": (signed(ALICE, {**STATEMENT, "predicate": []}), "has no predicate"),
    "a type that is none": (signed(ALICE, {**STATEMENT, "predicateType": None}), "has no predicate"),
    "no bundle": (b"x", "it is not JSON"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_count(why):
    raw, words = REFUSED[why]
    found = check(raw)
    assert not found.passed
    assert not found.accepted
    assert len(found.refused) == 1
    assert words in found.refused[0]
    assert found.refused[0] in found.checks[0].text  # so that whoever sees the check sees why
    assert found.refused[0].isprintable()


def test_what_is_refused_makes_nothing_fail_by_itself():
    """Anybody can put something beside an artifact."""
    found = check(*(raw for raw, _ in REFUSED.values()), signed(BOB, provenance()))
    assert found.passed
    assert len(found.refused) == len(REFUSED)


def test_the_older_statements_of_cosign_count():
    assert check(signed(ALICE, {**provenance(), "_type": "https://in-toto.io/Statement/v0.1"})).passed


def test_one_of_many_subjects():
    many = [descriptor(Digest.of_bytes(b"%d" % number)) for number in range(5000)]
    assert check(signed(ALICE, {**provenance(), "subject": [*many, descriptor()]})).passed
    assert not check(signed(ALICE, {**provenance(), "subject": many})).passed


def test_a_hint_decides_nothing():
    payload = attest.encode(provenance())
    signature = ALICE.sign(pae("application/vnd.in-toto+json", payload))
    for hint in ("", "x", BOB.public.hint, MALLORY.public.hint):
        found = check(with_key(payload, signature, hint))
        assert [each.signer for each in found.accepted] == [ALICE.public.id]


def test_a_key_is_not_enough_for_a_policy_of_identities():
    policy = {"keys": (), "identities": (Identity("a@example.org", "https://accounts.example.org"),)}
    found = check(signed(ALICE, provenance()), **policy)
    assert "signed with a key, and the policy trusts no keys" in found.refused[0]
    assert not found.passed


def test_a_bundle_with_a_certificate_and_no_root_of_trust(tmp_path):
    bundle = json.loads(signed(ALICE, provenance()))
    bundle["verificationMaterial"] = {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}
    evidence = [("b", json.dumps(bundle).encode())]
    policy = Policy(identities=(Identity("a@example.org", "https://accounts.example.org"),))
    with pytest.raises(BadInput, match="can't be read"):
        verify(SUBJECT, evidence, policy, trust=tmp_path / "none.json")
    # Where nothing needs it, it isn't looked for.
    assert check(signed(ALICE, provenance()), identities=policy.identities).passed


# --- what a policy asks for ----------------------------------------------------------------------------


def test_predicates_that_have_to_be_there():
    wanted = (attest.PROVENANCE_TYPE, attest.REBUILD_TYPE)
    assert check(signed(ALICE, provenance()), signed(ALICE, rebuild()), predicates=wanted).passed
    found = check(signed(ALICE, provenance()), signed(MALLORY, rebuild()), predicates=wanted)
    assert failed(found) == {"predicate"}
    assert f"there isn't a trusted statement of the type {attest.REBUILD_TYPE}" in found.checks[2].text
    assert "`reprobuild verify-… --attest KEY`" in found.checks[2].remedy


@pytest.mark.parametrize(
    ("wanted", "command"),
    [
        (attest.PROVENANCE_TYPE, "`reprobuild sign`"),
        (attest.AUDIT_TYPE, "`reprobuild audit … --attest KEY`"),
        ("https://cyclonedx.org/bom", "`reprobuild sbom … --attest KEY`"),
        ("https://example.org/review/v1", "`reprobuild sign … --statement FILE`"),
    ],
)
def test_a_predicate_that_is_missing_is_told_with_what_makes_it(wanted, command):
    found = check(signed(ALICE, rebuild()), predicates=(wanted,))
    assert [each.remedy for each in found.checks if each.name == "predicate"] == [f"{command} makes one."]


def test_builders():
    said = signed(ALICE, provenance(builder="https://example.org/b"))
    assert check(said, builders=("https://example.org/b",)).passed
    found = check(said, builders=("https://example.org/other",))
    assert "built by 'https://example.org/b', whom the policy doesn't name" in found.checks[1].text
    assert failed(check(signed(ALICE, rebuild()), builders=("https://example.org/b",))) == {"builder"}
    # Each that counts has to name one of them.
    two = check(said, signed(BOB, provenance(builder="https://example.org/other")), builders=("https://example.org/b",))
    assert failed(two) == {"builder"}
    older = {"predicateType": "https://slsa.dev/provenance/v0.2", "predicate": {"builder": {"id": "https://b"}}}
    assert check(signed(ALICE, {**provenance(), **older}), builders=("https://b",)).passed


@pytest.mark.parametrize("predicate", [{}, {"runDetails": 1}, {"runDetails": {"builder": []}}, {"builder": {"id": 1}}])
def test_builders_that_are_none(predicate):
    assert failed(check(signed(ALICE, {**provenance(), "predicate": predicate}), builders=("x",))) == {"builder"}


@pytest.mark.parametrize(
    ("patterns", "passed"),
    [
        (("registry.example.org/base/debian:12@*",), True),
        (("registry.example.org/*/debian:12@*",), True),
        (("registry.example.org/**",), True),
        (("registry.example.org/*",), False),
        (("**/debian:12",), False),
        (("registry.example.org/base/debian:12",), False),
    ],
)
def test_bases(patterns, passed):
    assert check(signed(ALICE, provenance()), bases=patterns).passed is passed


def test_no_base_is_named():
    found = check(signed(ALICE, provenance(base="")), bases=("**",))
    assert failed(found) == {"base"}
    other = signed(BOB, provenance(base="docker://elsewhere.example.org/x"))
    both = check(signed(ALICE, provenance()), other, bases=("registry.example.org/**",))
    assert "it starts from 'elsewhere.example.org/x', which" in both.checks[1].text


@pytest.mark.parametrize(
    "definition", [None, [], {}, {"resolvedDependencies": 1}, {"resolvedDependencies": [1, {"annotations": 2}]}]
)
def test_dependencies_that_are_none(definition):
    statement = {**provenance(), "predicate": {"buildDefinition": definition}}
    assert failed(check(signed(ALICE, statement), bases=("**",))) == {"base"}


# --- votes ---------------------------------------------------------------------------------------------


def test_as_many_rebuilds_as_the_policy_asks_for():
    votes = [signed(key, rebuild()) for key in (ALICE, BOB, CAROL)]
    assert check(*votes[:2], rebuilds=2).passed
    assert check(*votes, rebuilds=3).passed
    found = check(votes[0], rebuilds=2)
    assert failed(found) == {"rebuilds"}
    assert "1 of the 2 rebuilds that the policy asks for say identical" in found.checks[1].text
    assert not check(signed(ALICE, provenance()), rebuilds=1).passed


def test_one_signer_does_not_vote_twice():
    votes = [signed(ALICE, rebuild(varied=[name])) for name in ("umask", "time")]
    found = check(*votes, rebuilds=2)
    assert len(found.accepted) == 2
    assert "1 of the 2 rebuilds that the policy asks for say identical (one signer counts once)" in found.checks[1].text
    assert not found.passed
    assert check(*votes, rebuilds=2, distinct=False).passed


def test_one_statement_is_one_vote_however_often_it_is_there():
    vote = signed(ALICE, rebuild())
    spelled = json.dumps(json.loads(vote), indent=1).encode()
    assert not check(vote, vote, spelled, rebuilds=2, distinct=False).passed


def test_one_key_that_is_trusted_twice_votes_once():
    votes = [signed(ALICE, rebuild(varied=[name])) for name in ("umask", "time")]
    assert not check(*votes, keys=(ALICE.public, ALICE.public), rebuilds=2).passed


@pytest.mark.parametrize(
    "vote",
    [
        pytest.param(rebuild(level="payload", rebuilt=OTHER), id="differs"),
        pytest.param(rebuild(rebuilt=OTHER), id="says identical, and names another digest"),
        pytest.param(rebuild(level="metadata"), id="says that it differs, and names the same digest"),
        pytest.param(rebuild(level="Identical"), id="a level in capitals"),
        pytest.param(rebuild(level=["identical"]), id="a level that is none"),
        pytest.param(rebuild(subject=OTHER, rebuilt=SUBJECT), id="of another artifact"),
        pytest.param({**rebuild(), "predicate": {"level": "identical"}}, id="no digest"),
        pytest.param({**rebuild(), "predicate": {"level": "identical", "rebuilt": 1}}, id="a digest that is none"),
        pytest.param({**rebuild(), "predicateType": "https://example.org/rebuild"}, id="another type"),
    ],
)
def test_votes_that_do_not_count(vote):
    found = check(signed(ALICE, rebuild()), signed(BOB, vote), rebuilds=2)
    assert failed(found) == {"rebuilds"}
    assert check(signed(ALICE, rebuild()), signed(BOB, vote), signed(CAROL, rebuild()), rebuilds=2).passed


def test_strangers_do_not_vote():
    assert not check(signed(ALICE, rebuild()), signed(MALLORY, rebuild()), rebuilds=2).passed


@pytest.mark.parametrize("wanted", Level)
@pytest.mark.parametrize("said", Level)
def test_the_level_that_rebuilds_came_to(wanted, said):
    vote = rebuild(level=said.value, rebuilt=SUBJECT if said is Level.IDENTICAL else OTHER)
    assert check(signed(ALICE, vote), level=wanted, rebuilds=1).passed is wanted.accepts(said)


def test_who_speaks_against_an_artifact_does_not_speak_for_it():
    against = signed(ALICE, rebuild(level="payload", rebuilt=OTHER))
    found = check(against)
    assert failed(found) == {"signature"}
    assert found.notes == (f"{ALICE.public.id} made it again and doesn't vouch for it: 'payload'",)
    assert failed(check(against, predicates=(attest.REBUILD_TYPE,))) == {"signature", "predicate"}
    both = check(against, signed(BOB, provenance()))
    assert both.passed
    assert both.notes  # one who disagrees doesn't veto, but a person hears of it


@pytest.mark.parametrize("result", ["FAILED", "passed", None])
def test_a_summary_that_says_no(result):
    policy, time = attest.descriptor({"sha256": "0" * 64}), "2026-01-01T00:00:00Z"
    summary = attest.summary_of(rebuild(), verifier="https://example.org/v", time=time, policy=policy)
    assert check(signed(ALICE, summary), predicates=(attest.SUMMARY_TYPE,)).passed
    summary["predicate"]["verificationResult"] = result
    found = check(signed(ALICE, summary), predicates=(attest.SUMMARY_TYPE,))
    assert failed(found) == {"signature", "predicate"}
    assert "verified it and doesn't vouch for it" in found.notes[0]


def test_a_key_says_nothing_of_when():
    found = check(signed(ALICE, provenance()), max_age=timedelta(days=1))
    assert failed(found) == {"signature"}
    assert "nothing says when it was signed, and the policy has a max-age" in found.refused[0]


def test_the_order_of_the_evidence_changes_nothing():
    votes = [signed(key, rebuild()) for key in (ALICE, BOB)]
    evidence = [*votes, signed(MALLORY, provenance()), signed(CAROL, provenance())]
    how = {"rebuilds": 2, "builders": (attest.BUILDER,), "predicates": (attest.PROVENANCE_TYPE,)}
    assert check(*evidence, **how).checks == check(*reversed(evidence), **how).checks


@pytest.mark.parametrize(
    ("der", "text"),
    [
        ("0c026162", "ab"),
        ("0c00", ""),
        ("0c8180" + "61" * 128, "a" * 128),
        ("0c820080" + "61" * 128, "a" * 128),
        ("0c036162", ""),
        ("0c01616263", ""),
        ("13026162", ""),
        ("0c", ""),
        ("", ""),
        ("0cff", ""),
    ],
)
def test_issuers_in_der(der, text):
    assert _utf8_string(bytes.fromhex(der)) == text


def test_the_remedy_is_of_what_was_refused():
    (found,) = check(signed(MALLORY, provenance())).checks
    assert found.remedy == "Add the signer's public key to `keys`, if you trust it."
    (found,) = check().checks
    assert found.remedy == "`reprobuild sign` makes one."


# --- what certificates say -----------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ANYBODY = Identity("*@example.org", "https://accounts.example.org")


def certified(monkeypatch, *found, **policy):
    """What comes of statements that were signed with certificates: (who, under which entry, when)."""

    def accept(bundle, subject, policy, client):
        who, entry, when = found[int(bundle.where)]
        said = rebuild()
        digest = Digest.of_bytes(bundle.where.encode())
        return Signed(bundle.where, who, entry, when, digest, said["predicateType"], said["predicate"])

    monkeypatch.setattr(verification, "accept", accept)
    evidence = [(str(number), signed(ALICE, rebuild())) for number in range(len(found))]
    return verify(SUBJECT, evidence, Policy(identities=(ANYBODY,), **policy), now=NOW)


def test_all_whom_one_entry_trusts_count_once(monkeypatch):
    """Whoever may make up accounts could vote as often as they like."""
    voters = [("a@example.org", str(ANYBODY), NOW), ("b@example.org", str(ANYBODY), NOW)]
    assert failed(certified(monkeypatch, *voters, rebuilds=2)) == {"rebuilds"}
    assert certified(monkeypatch, *voters, rebuilds=2, distinct=False).passed


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(0), ""),
        (timedelta(days=1), ""),
        (timedelta(days=1, seconds=1), "too long ago"),
        (-timedelta(minutes=10), ""),
        (-timedelta(minutes=11), "after this machine's clock"),
    ],
)
def test_how_old_a_statement_may_be(monkeypatch, age, words):
    found = certified(monkeypatch, ("a@example.org", "a", NOW - age), max_age=timedelta(days=1))
    assert found.passed == (not words)
    assert bool(found.refused) == bool(words)
    assert words in "".join(found.refused)


class Client:
    """Sigstore's, to which any bundle is sound."""

    def __init__(self, subject, issuer, payload=None):
        self.verifier = self
        self._found = subject, issuer, payload

    def verify_dsse(self, bundle, named):
        subject, named.issuer, payload = self._found
        named.subjects, named.since = (subject,), NOW
        return "application/vnd.in-toto+json", attest.encode(STATEMENT) if payload is None else payload


def certificate_bundle():
    bundle = json.loads(signed(ALICE, STATEMENT))
    bundle["verificationMaterial"] = {"certificate": {}}
    return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    ("subject", "issuer", "payload", "words"),
    [
        ("a@example.org", ANYBODY.issuer, None, ""),
        ("a@example.org", "https://evil.example.net", None, "trusted, but not as https://evil.example.net says"),
        ("a@example.org", "", None, "trusted, but not as nobody says"),
        ("a@example.net", ANYBODY.issuer, None, "who isn't trusted here"),
        ("a@example.org", ANYBODY.issuer, b"{}", "two readers see two payloads"),
    ],
)
def test_whom_a_certificate_names(monkeypatch, subject, issuer, payload, words):
    models = pytest.importorskip("sigstore.models")
    monkeypatch.setattr(models.Bundle, "from_json", lambda _: None)
    bundle, policy = Bundle.read(certificate_bundle(), "it"), Policy(identities=(ANYBODY,))
    client: Any = Client(subject, issuer, payload)
    if words:
        with pytest.raises(EvidenceRefused, match=words):
            accept(bundle, SUBJECT, policy, client)
        return
    found = accept(bundle, SUBJECT, policy, client)
    assert (found.trusted_as, found.time) == (str(ANYBODY), NOW)
    assert found.signer == f"{subject} ({issuer})"


def test_without_a_client_certificates_do_not_count(monkeypatch):
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    found = verify(
        SUBJECT,
        [("certificate", certificate_bundle()), ("key", signed(ALICE, STATEMENT))],
        Policy(keys=TRUSTED, identities=(ANYBODY,)),
    )
    assert found.passed
    assert "no Sigstore client here" in found.refused[0]


@pytest.mark.parametrize("said", [rebuild(level="payload"), rebuild(rebuilt=OTHER)])
def test_a_summary_of_what_differs_does_not_vouch_for_it(said):
    """Both the level and the digests have to say so."""
    policy = attest.descriptor({"sha256": "0" * 64})
    summary = attest.summary_of(said, verifier="https://example.org/v", time="2026-01-01T00:00:00Z", policy=policy)
    assert summary["predicate"]["verificationResult"] == "FAILED"
    assert summary["predicate"]["verifiedLevels"] == []


# --- audits ---------------------------------------------------------------------------------------------

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
WEEK = Audit(timedelta(days=7))


def audit(*results, age=timedelta(hours=1), packages=3, subject=SUBJECT):
    finished = (NOON - age).isoformat()
    return attest.audit(
        descriptor(subject),
        scanner={"uri": "https://example.org/scanner", "db": {"lastUpdate": finished}},
        results=results,
        coverage={"packages": packages, "sources": []},
        started=finished,
        finished=finished,
    )


def vulnerability(severity="high", name="CVE-1", ignored=""):
    notes = {"package": "jinja2"} | ({"ignored": ignored, "expires": "2026-12-31"} if ignored else {})
    return {
        "id": name,
        "severity": [{"method": "CVSS_V3", "score": "9.9"}, {"method": attest.AUDIT_SEVERITY, "score": severity}],
        "annotations": [notes],
    }


def audited(*statements, wanted=WEEK, key=BOB):
    """What verifying an artifact with provenance and these audits says of the audits."""
    evidence = [("p.json", signed(ALICE, provenance()))]
    evidence += [(f"{n}.json", signed(key, each)) for n, each in enumerate(statements)]
    found = verify(SUBJECT, evidence, Policy(keys=TRUSTED, audit=wanted), now=NOON)
    assert failed(found) <= {"audit"}
    return found.checks[-1]


def test_a_young_audit_that_found_nothing_is_enough():
    check = audited(audit())
    assert (check.name, check.passed) == ("audit", True)
    assert check.text == f"3 packages were asked about on 2026-06-01 11:00 UTC by {BOB.public.id}"


def test_a_time_of_another_zone_is_told_in_utc():
    (check, late) = (
        audited(changed(metadata__scanFinishedOn=time)) for time in ("2026-06-01T20:00+09:00", "2026-05-01T20:00+09:00")
    )
    assert "on 2026-06-01 11:00 UTC" in check.text
    assert "of 2026-05-01 11:00 UTC, too long ago" in late.text


@pytest.mark.parametrize("statements", [(audit(), audit(vulnerability())), (audit(vulnerability()), audit())])
def test_of_two_audits_of_one_moment_the_worse_counts(statements):
    assert "found CVE-1 (high)" in audited(*statements).text


def test_a_severity_that_is_given_twice_is_none():
    twice = vulnerability("low")
    twice["severity"].append({"method": attest.AUDIT_SEVERITY, "score": "critical"})
    check = audited(audit(twice), wanted=Audit(timedelta(days=7), Severity.CRITICAL))
    assert "found CVE-1 (unknown)" in check.text


def test_an_audit_that_is_too_old_for_all_statements_is_none():
    found = verify(
        SUBJECT,
        [("p", signed(ALICE, provenance())), ("a", signed(BOB, audit()))],
        Policy(keys=TRUSTED, audit=WEEK, max_age=timedelta(days=1)),
        now=NOON,
    )
    assert not found.checks[-1].passed  # nothing says when a key signed


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ([], "no trusted audit says what it asked about"),
        ([audit(subject=OTHER)], "no trusted audit says what it asked about"),
        ([audit(age=timedelta(days=7, seconds=1))], "of 2026-05-25 11:59 UTC, too long ago"),
        ([audit(age=-timedelta(hours=1))], "after this machine's clock"),
        ([audit(packages=0)], "asked about no package"),
        ([audit(vulnerability())], "found CVE-1 (high); the policy bears none"),
        ([audit(vulnerability("low"))], "found CVE-1 (low); the policy bears none"),
        ([audit(vulnerability("low"), vulnerability("critical", "CVE-2"))], "found CVE-2 (critical) and 1 more"),
        # Only the newest counts, whichever comes first.
        ([audit(), audit(vulnerability(), age=timedelta(0))], "found CVE-1"),
        ([audit(vulnerability(), age=timedelta(0)), audit()], "found CVE-1"),
        ([audit(vulnerability()), audit()], "found CVE-1"),
        ([audit(), audit(age=-timedelta(days=1))], "after this machine's clock"),
        ([audit(packages=0), audit()], "asked about no package"),
    ],
)
def test_what_is_wrong_with_audits(statements, words):
    check = audited(*statements)
    assert not check.passed
    assert words in check.text
    assert check.remedy


def test_a_newer_audit_that_is_clean_takes_the_place_of_an_older_one():
    assert audited(audit(vulnerability("critical"), age=timedelta(days=2)), audit()).passed


def test_clocks_may_be_a_little_apart():
    assert audited(audit(age=-timedelta(minutes=9))).passed


@pytest.mark.parametrize(
    ("most", "severity", "passed"),
    [
        (Severity.MEDIUM, "medium", True),
        (Severity.MEDIUM, "high", False),
        (Severity.CRITICAL, "critical", True),
        (Severity.CRITICAL, "unknown", False),
    ],
)
def test_how_severe_what_an_audit_found_may_be(most, severity, passed):
    assert audited(audit(vulnerability(severity)), wanted=Audit(WEEK.max_age, most)).passed is passed


def test_what_was_ignored_is_shown_and_need_not_be_accepted():
    statement = audit(vulnerability(ignored="no template comes from outside"))
    check = audited(statement)
    assert check.passed
    assert check.text.endswith("; ignored: CVE-1 (high): no template comes from outside")
    check = audited(statement, wanted=Audit(WEEK.max_age, Severity.CRITICAL, ignores=False))
    assert not check.passed
    assert "ignores CVE-1 (high): no template comes from outside; the policy has ignores = false" in check.text


def test_a_stranger_s_audit_counts_for_nothing_and_hides_nothing():
    assert not audited(audit(), key=MALLORY).passed
    evidence = [("p", signed(ALICE, provenance())), ("a", signed(BOB, audit(vulnerability())))]
    evidence.append(("m", signed(MALLORY, audit(age=timedelta(0)))))
    found = verify(SUBJECT, evidence, Policy(keys=TRUSTED, audit=WEEK), now=NOON)
    assert "found CVE-1" in found.checks[-1].text


def changed(**parts):
    statement = audit()
    for path, value in parts.items():
        *way, last = path.split("__")
        table = statement["predicate"]
        for key in way:
            table = table[attest.AUDIT_COVERAGE if key == "coverage" else key]
        table[last] = value
    return statement


@pytest.mark.parametrize(
    "statement",
    [
        changed(metadata={}),
        changed(metadata__scanFinishedOn="yesterday"),
        changed(metadata__scanFinishedOn="2026-06-01T11:00:00"),
        changed(metadata__scanFinishedOn="0001-01-01T00:00:00+09:00"),
        changed(metadata__scanFinishedOn=3),
        changed(coverage__packages=True),
        changed(coverage__packages="3"),
        changed(scanner={}),
        changed(scanner__result=None),
        changed(scanner__result=["CVE-1"]),
        changed(scanner__result=[{"id": "CVE-1"}]),
        changed(scanner__result=[vulnerability("terrible")]),
        changed(scanner__result=[{**vulnerability(), "annotations": [["ignored"]]}]),
    ],
)
def test_an_audit_that_can_not_be_read_may_be_the_newest(statement):
    check = audited(audit(age=timedelta(0)), statement)
    assert not check.passed
    assert "1.json can't be read" in check.text


def test_an_audit_of_unknown_severity_is_the_worst():
    one = vulnerability()
    one["severity"] = one["severity"][:1]
    assert "CVE-1 (unknown)" in audited(audit(one), wanted=Audit(WEEK.max_age, Severity.CRITICAL)).text


def test_another_tools_statement_of_the_type_neither_meets_the_policy_nor_stands_in_its_way():
    other = audit(vulnerability(), age=timedelta(0))
    del other["predicate"][attest.AUDIT_COVERAGE]
    assert not audited(other).passed
    assert audited(other, audit()).passed


def test_an_audit_does_not_say_that_an_artifact_is_what_it_should_be():
    found = check(signed(ALICE, audit()), audit=Audit(timedelta(weeks=9999)), predicates=(attest.AUDIT_TYPE,))
    assert failed(found) == {"signature"}
