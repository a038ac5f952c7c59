"""Signed statements about an artifact against a policy. Fails closed: what isn't proved counts for nothing.

A statement counts when its bundle's signature is of somebody whom the policy trusts, and one of its subjects has the
digest of the artifact's real bytes. Anybody may put further bundles beside an artifact, so one that is refused makes
nothing fail by itself; it is named, and the policy has to be met by the others.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reprobuild import attest
from reprobuild.advisories import Severity
from reprobuild.bundle import STATEMENT_MEDIA_TYPE, Bundle, refused, strict_json
from reprobuild.compare import Level
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, EvidenceRefused, ToolMissing, shown
from reprobuild.policy import PREDICATES, Audit, Identity, Policy

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier

#: in-toto's statements; cosign writes the older one.
_STATEMENTS = (attest.STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1")
#: How far clocks are apart.
_SKEW = timedelta(minutes=10)
ADD = "Add it to `identities` or `github`, if you trust it."
_SOUND = "Ask whoever signed it for a sound bundle, or for the root of trust that it was signed under."
_AUDIT = "Audit it again: `reprobuild audit … --attest KEY`."
#: What signs a statement of each type.
_MAKERS = {
    attest.PROVENANCE_TYPE: "`reprobuild sign`",
    attest.REBUILD_TYPE: "`reprobuild verify-… --attest KEY`",
    attest.AUDIT_TYPE: "`reprobuild audit … --attest KEY`",
    PREDICATES["sbom"]: "`reprobuild sbom … --attest KEY`",
}
_ROOT = "If it was signed with a private instance of Sigstore, name its --trusted-root; else ask for a sound bundle."
_PROVENANCES = (attest.PROVENANCE_TYPE, "https://slsa.dev/provenance/v0.2")
#: Fulcio's extensions with the repository whose job it was, and with the issuer: as DER, and as it was before (fulcio,
#: docs/oid-info.md).
_REPOSITORY = "1.3.6.1.4.1.57264.1.12"
_ISSUER, _OLD_ISSUER = "1.3.6.1.4.1.57264.1.8", "1.3.6.1.4.1.57264.1.1"


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement that counts.

    Attributes:
        signer: who signed: a key's digest, or subject and issuer of a certificate.
        trusted_as: the entry of the policy that trusts the signer: a key's digest, or a pattern and an issuer.
        time: when, to some minutes, if a certificate says so.
        statement: the digest of what was signed.
    """

    where: str
    signer: str
    trusted_as: str
    time: datetime | None
    statement: Digest
    predicate_type: str
    predicate: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the policy asks for.

    Attributes:
        remedy: what would make it pass; empty where it does.
    """

    name: str
    passed: bool
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of holding evidence against a policy.

    Attributes:
        refused: what doesn't count, and why.
        notes: what a person should know all the same.
    """

    subject: Digest
    checks: tuple[Check, ...]
    accepted: tuple[Signed, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all of the policy is met."""
        return bool(self.checks) and all(each.passed for each in self.checks)


def verify(
    subject: Digest,
    evidence: Iterable[tuple[str, bytes]],
    policy: Policy,
    *,
    trust: Path | None = None,
    now: datetime | None = None,
) -> Verification:
    """Hold bundles against a policy.

    Args:
        subject: the SHA-256 of the artifact's bytes, as they are here.
        evidence: bundles, each with what messages call it.
        trust: a TrustedRoot or ClientTrustConfig of Sigstore; none means the public instance's, as it is known here.

    Raises:
        BadInput: ``trust`` is none, and a bundle has a certificate.
    """
    client = SigstoreClient(trust)
    accepted: list[Signed] = []
    why: list[str] = []
    remedy = ""
    for where, raw in evidence:
        try:
            accepted.append(accept(Bundle.read(raw, where), subject, policy, client))
        except (EvidenceRefused, ToolMissing) as error:
            why.append(error.reason)
            remedy = remedy or error.remedy
    now = now or datetime.now(UTC)
    fresh, stale = _by_age(accepted, policy, now)
    checks = list(_checks(subject, fresh, policy, [*why, *stale], remedy))
    if policy.audit:
        checks.append(_audited(fresh, policy.audit, now))
    return Verification(subject, tuple(checks), tuple(fresh), (*why, *stale), tuple(_warnings(subject, fresh, policy)))


def accept(bundle: Bundle, subject: Digest, policy: Policy, client: "SigstoreClient") -> Signed:
    """What a bundle says, when it counts.

    Raises:
        EvidenceRefused: its signature is of nobody trusted, it isn't a statement, or is about something else.
        ToolMissing: it has a certificate, and there is no Sigstore client here.
        BadInput: it has a certificate, and there is no root of trust.
    """
    if bundle.payload_type != STATEMENT_MEDIA_TYPE:
        raise refused(bundle.where, f"its payload is {shown(bundle.payload_type)!r}, no in-toto statement")
    if bundle.hint is None:
        signer, trusted_as, time = by_certificate(bundle, policy.identities, client)
    else:
        signer = trusted_as = _by_key(bundle, policy)
        time = None
    statement = _statement(bundle)
    if not any(_is_about(each, subject) for each in statement["subject"]):
        raise refused(
            bundle.where,
            f"it is about another artifact: none of its subjects has {subject}",
            "Don't move evidence from one artifact to another; sign this one.",
        )
    signed = Digest.of_bytes(bundle.payload)
    return Signed(bundle.where, signer, trusted_as, time, signed, statement["predicateType"], statement["predicate"])


def _by_key(bundle: Bundle, policy: Policy) -> str:
    if not policy.keys:
        raise refused(bundle.where, "it is signed with a key, and the policy trusts no keys", "Add the key to `keys`.")
    for key in policy.keys:  # the hint is the signer's word
        if key.verifies(bundle.signature, bundle.signed):
            return key.id
    if any(key.hint == bundle.hint for key in policy.keys):
        raise refused(bundle.where, "it names a trusted key, whose signature it doesn't have: it was changed")
    raise refused(bundle.where, "no trusted key signed it", "Add the signer's public key to `keys`, if you trust it.")


def _statement(bundle: Bundle) -> dict[str, Any]:
    try:
        found = strict_json(bundle.payload)
    except (ValueError, RecursionError) as error:
        raise refused(bundle.where, f"its statement is not JSON ({shown(error)})") from error
    if not isinstance(found, dict) or found.get("_type") not in _STATEMENTS:
        raise refused(bundle.where, "what it signs is no in-toto statement")
    subjects = found.get("subject")
    if not isinstance(subjects, list) or not subjects or not all(isinstance(each, dict) for each in subjects):
        raise refused(bundle.where, "its statement names no subject")
    if not isinstance(found.get("predicateType"), str) or not isinstance(found.get("predicate"), dict):
        raise refused(bundle.where, "its statement has no predicate")
    return found


def _is_about(descriptor: dict[str, Any], subject: Digest) -> bool:
    digests = descriptor.get("digest")
    return isinstance(digests, dict) and digests.get(subject.algorithm) == subject.hex


# --- what the policy asks for --------------------------------------------------------------------------


def _checks(
    subject: Digest, found: Sequence[Signed], policy: Policy, why: Sequence[str], remedy: str
) -> Iterator[Check]:
    found = [each for each in found if not _speaks_against(each, subject, policy)]
    # Whoever looked for known vulnerabilities, and may have found some, doesn't say that it is what it should be.
    signers = sorted({each.signer for each in found if each.predicate_type != attest.AUDIT_TYPE})
    if signers:
        yield Check("signature", True, f"signed by {', '.join(signers)}")
    else:
        reason = f" {why[0]}" if why else " There is no evidence beside it."
        yield Check(
            "signature",
            False,
            f"no trusted statement speaks for {subject}.{reason}",
            remedy or "`reprobuild sign` makes one.",
        )
    for wanted in policy.predicates:
        there = any(each.predicate_type == wanted for each in found)
        text = f"a trusted statement of the type {wanted}"
        made = f"{_MAKERS.get(wanted, '`reprobuild sign … --statement FILE`')} makes one."
        yield Check("predicate", there, text if there else f"there isn't {text}", "" if there else made)
    if policy.builders:
        yield _builders(found, policy)
    if policy.bases:
        yield _bases(found, policy)
    if policy.rebuilds:
        yield _rebuilds(subject, found, policy)


def _provenances(found: Sequence[Signed]) -> list[Signed]:
    return [each for each in found if each.predicate_type in _PROVENANCES]


def _builders(found: Sequence[Signed], policy: Policy) -> Check:
    said = {_builder_of(each.predicate) for each in _provenances(found)}
    strange = sorted(said - set(policy.builders))
    if not said:
        return Check("builder", False, "no trusted provenance names a builder", "`reprobuild sign` signs it.")
    if strange:
        return Check(
            "builder", False, f"built by {shown(strange[0])!r}, whom the policy doesn't name", "Add it to `builders`."
        )
    return Check("builder", True, f"built by {', '.join(sorted(said))}")


def _builder_of(predicate: dict[str, Any]) -> str:
    details = predicate.get("runDetails", predicate)  # v0.2 has it further up
    builder = details.get("builder") if isinstance(details, dict) else None
    return str(builder.get("id", "")) if isinstance(builder, dict) else ""


def _bases(found: Sequence[Signed], policy: Policy) -> Check:
    named = [sorted(_bases_of(each.predicate)) for each in _provenances(found)]
    if not any(named):
        return Check("base", False, "no trusted provenance names a base image", "`reprobuild sign` signs it.")
    strange = [base for bases in named for base in bases if not policy.admits_base(base)]
    if strange:
        return Check(
            "base", False, f"it starts from {shown(strange[0])!r}, which `bases` doesn't allow", "Use an allowed base."
        )
    return Check("base", True, f"it starts from {', '.join(sorted({base for bases in named for base in bases}))}")


def _bases_of(predicate: dict[str, Any]) -> Iterator[str]:
    definition = predicate.get("buildDefinition")
    listed = definition.get("resolvedDependencies") if isinstance(definition, dict) else None
    for each in listed if isinstance(listed, list) else ():
        annotations = each.get("annotations") if isinstance(each, dict) else None
        if isinstance(annotations, dict) and annotations.get("role") == "base":
            yield str(each.get("uri", "")).removeprefix("docker://")


def _rebuilds(subject: Digest, found: Sequence[Signed], policy: Policy) -> Check:
    votes = [each for each in found if each.predicate_type == attest.REBUILD_TYPE and _agrees(each, subject, policy)]
    voters = {each.trusted_as for each in votes}
    count = len(voters) if policy.distinct else len({each.statement for each in votes})
    of = f"{count} of the {policy.rebuilds} rebuilds that the policy asks for say {policy.level}"
    if count >= policy.rebuilds:
        return Check("rebuilds", True, f"{of}: {', '.join(sorted(voters))}")
    twice = " (one signer counts once)" if policy.distinct and len(votes) > len(voters) else ""
    return Check("rebuilds", False, of + twice, "Have it rebuilt by others: `reprobuild verify-… --attest KEY`.")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an audit says; each part raises ValueError where it can't be read.

    Attributes:
        found: the name of each vulnerability that wasn't ignored, with how severe it is.
        ignored: the same of the others, with the reason.
    """

    signer: str
    finished: datetime
    packages: int
    found: tuple[tuple[str, Severity], ...]
    ignored: tuple[tuple[str, Severity, str], ...]

    @classmethod
    def of(cls, signed: Signed) -> "_Outcome":
        """Raises: ValueError, KeyError, TypeError, AttributeError, OverflowError: it isn't a statement of an audit."""
        said = signed.predicate
        finished = datetime.fromisoformat(said["metadata"]["scanFinishedOn"])
        packages = said[attest.AUDIT_COVERAGE]["packages"]
        if finished.tzinfo is None or type(packages) is not int:
            raise ValueError("no time zone, or no number of packages")
        finished = finished.astimezone(UTC)
        found: list[tuple[str, Severity]] = []
        ignored: list[tuple[str, Severity, str]] = []
        for each in said["scanner"]["result"]:
            severity = _severity_in(each)
            reasons = [note["ignored"] for note in each.get("annotations", []) if "ignored" in note]
            if reasons:
                ignored.append((str(each["id"]), severity, str(reasons[0])))
            else:
                found.append((str(each["id"]), severity))
        return cls(signed.signer, finished, packages, tuple(found), tuple(ignored))


def _severity_in(result: dict[str, Any]) -> Severity:
    """By the word that reprobuild writes; a result without one is of unknown severity."""
    words = [each["score"] for each in result["severity"] if each.get("method") == attest.AUDIT_SEVERITY]
    return Severity(words[0]) if len(words) == 1 else Severity.UNKNOWN


def _audited(found: Sequence[Signed], wanted: Audit, now: datetime) -> Check:
    """The newest trusted audit decides: an older one, cleaner or not, says less about today."""
    outcomes = []
    for each in found:
        if each.predicate_type == attest.AUDIT_TYPE and attest.AUDIT_COVERAGE in each.predicate:
            try:
                outcomes.append(_Outcome.of(each))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                text = f"the audit in {each.where} can't be read, and it may be the newest"
                return Check("audit", False, text, "Take it away, and audit it again.")
    if not outcomes:
        return Check("audit", False, "no trusted audit says what it asked about", _AUDIT)
    newest = max(each.finished for each in outcomes)
    last = [each for each in outcomes if each.finished == newest]
    if objection := next(_objections(last, newest, wanted, now), None):
        return Check("audit", False, *objection)
    ignored = (
        f"; ignored: {shown(name)} ({severity}): {shown(why)}" for e in last for name, severity, why in e.ignored
    )
    signers = ", ".join(sorted({each.signer for each in last}))
    text = (
        f"{min(each.packages for each in last)} packages were asked about on {newest:%Y-%m-%d %H:%M} UTC by {signers}"
    )
    return Check("audit", True, text + "".join(ignored))


def _objections(last: Sequence[_Outcome], newest: datetime, wanted: Audit, now: datetime) -> Iterator[tuple[str, str]]:
    """What a policy has against the newest audits, each with its remedy."""
    if newest - now > _SKEW:
        yield "the newest audit was finished after this machine's clock: one of the two must be wrong", _AUDIT
    if now - newest > wanted.max_age:
        yield f"the newest audit is of {newest:%Y-%m-%d %H:%M} UTC, too long ago", _AUDIT
    if not all(each.packages > 0 for each in last):
        yield "the newest audit asked about no package", _AUDIT
    mend = "Have it mended, and audit it again."
    for name, severity, why in (one for each in last for one in each.ignored):
        if not wanted.ignores:
            text = f"the newest audit ignores {shown(name)} ({severity}): {shown(why)}"
            yield f"{text}; the policy has ignores = false", mend
    found = sorted((one for each in last for one in each.found), key=lambda one: -one[1].rank)
    bad = [one for one in found if not wanted.bears(one[1])]
    for name, severity in bad[:1]:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        most = f"{wanted.max_severity} at most" if wanted.max_severity else "none"
        yield f"the newest audit found {shown(name)} ({severity}){more}; the policy bears {most}", mend


def _agrees(vote: Signed, subject: Digest, policy: Policy) -> bool:
    """Whether a rebuild came to the level; ``identical`` has to show in the digests, too."""
    try:
        level = Level(str(vote.predicate.get("level")))
    except ValueError:
        return False
    rebuilt = vote.predicate.get("rebuilt")
    same = isinstance(rebuilt, dict) and _is_about(rebuilt, subject)
    return policy.level.accepts(level) and same == (level is Level.IDENTICAL)


def _speaks_against(signed: Signed, subject: Digest, policy: Policy) -> bool:
    """Whether a statement says of the artifact that something is wrong with it, so that it can't speak for it."""
    if signed.predicate_type == attest.REBUILD_TYPE:
        return not _agrees(signed, subject, policy)
    return signed.predicate_type == attest.SUMMARY_TYPE and signed.predicate.get("verificationResult") != "PASSED"


def _warnings(subject: Digest, found: Sequence[Signed], policy: Policy) -> Iterator[str]:
    for each in found:
        if _speaks_against(each, subject, policy):
            key, did = (
                ("level", "made it again")
                if each.predicate_type == attest.REBUILD_TYPE
                else ("verificationResult", "verified it")
            )
            yield f"{each.signer} {did} and doesn't vouch for it: {shown(each.predicate.get(key))!r}"


def _by_age(found: Sequence[Signed], policy: Policy, now: datetime) -> tuple[list[Signed], list[str]]:
    if policy.max_age is None:
        return list(found), []
    fresh, stale = [], []
    for each in found:
        if each.time is None:
            stale.append(f"{each.where} can't be used: nothing says when it was signed, and the policy has a max-age.")
        elif each.time - now > _SKEW:
            stale.append(f"{each.where} can't be used: it was signed after this machine's clock, which must be wrong.")
        elif now - each.time > policy.max_age:
            stale.append(f"{each.where} can't be used: it was signed on {each.time:%Y-%m-%d}, too long ago.")
        else:
            fresh.append(each)
    return fresh, stale


# --- certificates --------------------------------------------------------------------------------------


class SigstoreClient:
    """The client of Sigstore, which checks certificates, logs and time stamps; it is loaded when a bundle needs it."""

    def __init__(self, trust: Path | None = None) -> None:
        """Args: trust: as in :func:`verify`."""
        self._trust = trust

    @property
    def private(self) -> bool:
        """Whether the root of trust is named."""
        return self._trust is not None

    @cached_property
    def verifier(self) -> "Verifier":
        """Its part that verifies.

        Raises:
            ToolMissing: it isn't installed.
            BadInput: there is no root of trust.
        """
        try:
            from sigstore.models import ClientTrustConfig, TrustedRoot  # noqa: PLC0415 - an extra, and slow
            from sigstore.verify import Verifier  # noqa: PLC0415
        except ImportError as error:
            raise ToolMissing(
                "A bundle has a certificate, and there is no Sigstore client here.",
                "Install reprobuild[sigstore] instead of reprobuild.",
            ) from error
        where = self._trust or "The root of trust of the public instance"
        try:
            if self._trust is None:
                # That it isn't brought up to date, which is asked for, would be warned of on the terminal.
                logging.getLogger("sigstore").addHandler(logging.NullHandler())
                return Verifier(trusted_root=ClientTrustConfig.production(offline=True).trusted_root)
            raw = self._trust.read_bytes()
            if "signingConfig" in strict_json(raw):
                return Verifier(trusted_root=ClientTrustConfig.from_json(raw.decode()).trusted_root)
            return Verifier(trusted_root=TrustedRoot.from_file(str(self._trust)))
        except OSError as error:
            raise BadInput(f"{where} can't be read: {error.strerror}.") from error
        except Exception as error:  # the library raises many kinds for a malformed file
            raise BadInput(
                f"{where} is no root of trust of Sigstore: {shown(error)}.",
                "It is a file trusted_root.json, or a ClientTrustConfig.",
            ) from error


class _Named:
    """Takes any certificate, and keeps who it names, and since when: the client checks all else."""

    subjects: tuple[str, ...] = ()
    issuer = repository = ""
    since: datetime | None = None

    def verify(self, cert: "Certificate") -> None:
        """Called by the client when the certificate is of its authority."""
        from cryptography.x509 import (  # noqa: PLC0415 - slow, and seldom needed
            ExtensionNotFound,
            ObjectIdentifier,
            RFC822Name,
            SubjectAlternativeName,
            UniformResourceIdentifier,
        )

        names = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
        found = [*names.get_values_for_type(RFC822Name), *names.get_values_for_type(UniformResourceIdentifier)]
        self.subjects = tuple(map(str, found))
        self.since = cert.not_valid_before_utc

        def extension(oid: str) -> bytes:
            try:
                value: Any = cert.extensions.get_extension_for_oid(ObjectIdentifier(oid)).value
            except ExtensionNotFound:
                return b""
            return bytes(value.value)

        new, old = extension(_ISSUER), extension(_OLD_ISSUER)
        self.issuer = _utf8_string(new) if new else old.decode(errors="replace")
        self.repository = _utf8_string(extension(_REPOSITORY))


def _utf8_string(der: bytes) -> str:
    """A DER UTF8String; empty where it is something else."""
    if len(der) < 2 or der[0] != 0x0C:
        return ""
    head = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    size = int.from_bytes(der[2:head]) if der[1] & 0x80 else der[1]
    return der[head:].decode(errors="replace") if len(der) == head + size else ""


def by_certificate(
    bundle: Bundle, identities: Sequence[Identity], client: SigstoreClient
) -> tuple[str, str, datetime | None]:
    """Who signed without a key, the entry of those that are trusted which admits them, and when.

    The time is the certificate's first, some minutes before the signature: the log's and the time stamps' are in parts
    of the bundle of which the client doesn't say which it found true.

    Raises:
        EvidenceRefused, ToolMissing, BadInput: as :func:`accept`.
    """
    if not identities:
        raise refused(
            bundle.where, "it is signed by an identity, and the policy trusts none", "Add it to `identities`."
        )
    verifier, named = client.verifier, _Named()
    from sigstore.models import Bundle as TheirBundle  # noqa: PLC0415 - an extra, and slow

    try:
        theirs = TheirBundle.from_json(attest.encode(bundle.document))
        kind, payload = verifier.verify_dsse(theirs, named)
    except Exception as error:  # whatever a hostile bundle makes the client raise, it doesn't count
        why = shown(error) or type(error).__name__
        remedy = _SOUND if client.private else _ROOT
        raise refused(bundle.where, f"Sigstore's client refuses it: {why}", remedy) from error
    if (kind, payload) != (bundle.payload_type, bundle.payload):
        raise refused(bundle.where, "two readers see two payloads in it")
    for trusted in identities:
        for subject in named.subjects:
            if trusted.admits(subject, named.issuer, named.repository):
                return f"{subject} ({named.issuer})", str(trusted), named.since
    if any(each.admits(subject, named.issuer, each.repository) for each in identities for subject in named.subjects):
        source = shown(named.repository or "no repository that it names")
        raise refused(bundle.where, f"the workflow is trusted, but a job of {source} called it", ADD)
    if any(each.admits(subject, each.issuer, each.repository) for each in identities for subject in named.subjects):
        issuer = shown(named.issuer or "nobody")
        raise refused(bundle.where, f"its signer is trusted, but not as {issuer} says", ADD)
    who = f"{', '.join(named.subjects) or 'nobody'} ({named.issuer or 'no issuer'})"
    raise refused(bundle.where, f"it is signed by {shown(who)}, who isn't trusted here", ADD)


def require(verification: Verification) -> None:
    """Raise unless the policy is met.

    Raises:
        EvidenceRefused: it isn't; the first reason is named.
    """
    for check in verification.checks:
        if not check.passed:
            raise EvidenceRefused(f"{check.name}: {check.text}", check.remedy)
