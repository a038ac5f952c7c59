"""Statements about artifacts: in-toto Statement v1 and SLSA Provenance v1, as plain values. No I/O.

Sources: in-toto attestation framework, "Statement v1"; SLSA v1.0, "Provenance".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, RecordUnusable

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
#: docs/build-types/wheel-v1.md says what the parameters of this build type mean.
WHEEL_BUILD_TYPE = "https://reprobuild.dev/build-types/wheel/v1"
#: docs/build-types/sdist-v1.md says the same of sdists.
SDIST_BUILD_TYPE = "https://reprobuild.dev/build-types/sdist/v1"
#: docs/build-types/image-v1.md says the same of images.
IMAGE_BUILD_TYPE = "https://reprobuild.dev/build-types/image/v1"
#: docs/predicates/rebuild-v1.md says what a statement of this type claims.
REBUILD_TYPE = "https://reprobuild.dev/predicates/rebuild/v1"
#: SLSA v1.0, "Verification Summary Attestation".
SUMMARY_TYPE = "https://slsa.dev/verification_summary/v1"
#: in-toto attestation framework, "Vulnerabilities" v0.2.
AUDIT_TYPE = "https://in-toto.io/attestation/vulns/v0.2"
#: The field of its predicate with what was asked about: docs/predicates/audit-v1.md says what is in it.
AUDIT_COVERAGE = "https://reprobuild.dev/predicates/audit/v1"
#: What it calls the word for how severe something is, beside the scores of CVSS.
AUDIT_SEVERITY = "https://reprobuild.dev/severity"
BUILDER = "https://reprobuild.dev/builders/local/v1"

Json = dict[str, Any]


def descriptor(digests: Mapping[str, str], *, name: str = "", uri: str = "", annotations: Json | None = None) -> Json:
    """An in-toto ResourceDescriptor; ``digests`` maps algorithm names to hex digits."""
    parts: Json = {"digest": dict(digests)}
    optional = {"name": name, "uri": uri, "annotations": annotations}
    return parts | {key: value for key, value in optional.items() if value}


def provenance(
    subject: Json,
    *,
    build_type: str,
    external: Json,
    internal: Json,
    dependencies: Sequence[Json],
    builder_version: Mapping[str, str],
) -> Json:
    """A Statement v1 with SLSA Provenance v1. It holds no clock: the same inputs give the same statement."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": external,
                "internalParameters": internal,
                "resolvedDependencies": list(dependencies),
            },
            "runDetails": {"builder": {"id": BUILDER, "version": dict(builder_version)}},
        },
    }


def rebuild(
    subject: Json,
    *,
    record: Json,
    rebuilt: Json,
    level: str,
    varied: Sequence[str],
    environment: Json,
    builder_version: Mapping[str, str],
) -> Json:
    """A Statement v1 that somebody made an artifact again: what came out, from what, and in which surroundings.

    Args:
        subject: descriptor of the artifact that was given.
        record: descriptor of the provenance that said how to make it.
        rebuilt: descriptor of what was made.
        level: of the comparison (:class:`reprobuild.compare.Level`).
        varied: what was other than at the first build.
        environment: where it was made: platform, Python, sandbox.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": REBUILD_TYPE,
        "predicate": {
            "level": level,
            "rebuilt": rebuilt,
            "record": record,
            "varied": list(varied),
            "environment": environment,
            "builder": {"id": BUILDER, "version": dict(builder_version)},
        },
    }


def audit(
    subject: Json, *, scanner: Json, results: Sequence[Json], coverage: Json, started: str, finished: str
) -> Json:
    """A Statement v1 that somebody asked which vulnerabilities are known of what is in an artifact.

    It is the one statement that needs a clock: an audit says what was known at some time.

    Args:
        scanner: who looked, and in which database: ``uri``, ``version`` and ``db``.
        results: each with ``id``, ``severity`` and ``annotations``.
        coverage: how many packages were asked about, and where they are named.
        started, finished: RFC 3339 in UTC.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": AUDIT_TYPE,
        "predicate": {
            "scanner": {**scanner, "result": list(results)},
            "metadata": {"scanStartedOn": started, "scanFinishedOn": finished},
            AUDIT_COVERAGE: coverage,
        },
    }


def summary_of(statement: Json, *, verifier: str, time: str, policy: Json) -> Json:
    """A rebuild as a SLSA Verification Summary, for those who read nothing else.

    Args:
        statement: of :data:`REBUILD_TYPE`.
        verifier: a URI for who rebuilt.
        time: of the verification, RFC 3339 in UTC.
        policy: descriptor of what was asked for.
    """
    (subject,) = statement["subject"]
    said = statement["predicate"]
    passed = said["level"] == "identical" and said["rebuilt"]["digest"] == subject["digest"]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [subject],
        "predicateType": SUMMARY_TYPE,
        "predicate": {
            "verifier": {"id": verifier, "version": said["builder"]["version"]},
            "timeVerified": time,
            "resourceUri": subject.get("uri") or subject.get("name", ""),
            "policy": policy,
            "inputAttestations": [{"digest": said["record"]["digest"]}],
            "verificationResult": "PASSED" if passed else "FAILED",
            "verifiedLevels": ["REPRODUCED"] if passed else [],
            "slsaVersion": "1.0",
        },
    }


def short_name(text: str) -> str:
    """Twelve hex digits that stand for a longer text in the name of a file."""
    return Digest.of_bytes(text.encode()).hex[:12]


def encode(statement: Json) -> bytes:
    """The bytes that get written, and later signed: canonical JSON."""
    return canonical_json(statement)


def read_statement(data: bytes, where: str) -> Json:
    """A statement of any predicate type, checked for its shape alone.

    Raises:
        RecordUnusable: it isn't one.
    """
    try:
        statement = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordUnusable(f"{where} is not JSON: {error}.") from error
    subjects = statement.get("subject") if isinstance(statement, dict) else None
    sound = (
        isinstance(subjects, list)
        and subjects
        and all(isinstance(each, dict) and isinstance(each.get("digest"), dict) for each in subjects)
        and statement.get("_type") == STATEMENT_TYPE
        and isinstance(statement.get("predicateType"), str)
        and isinstance(statement.get("predicate"), dict)
    )
    if not sound:
        raise RecordUnusable(f"{where} is not an in-toto Statement v1.", "Name a statement about the artifact.")
    return dict(statement)


class Record:
    """The provenance of an artifact, read from a record and checked for its shape.

    Args:
        what: what the record is of, as a person says it.

    Raises:
        RecordUnusable: it isn't a provenance statement of a build type, in the bytes of :func:`encode`.
    """

    def __init__(self, data: bytes, where: str, build_type: str, what: str) -> None:
        self._where, self.what, self.build_type = where, what, build_type
        try:
            self.statement: Json = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RecordUnusable(f"{where} is not JSON: {error}.", f"Build the {what} again.") from error
        # One spelling for one statement: what two readers could read in two ways, such as a repeated key, is refused.
        if not _is_canonical(self.statement, data):
            raise self._wrong("it is not canonical JSON (RFC 8785)")
        definition = self._at("predicate", "buildDefinition", kind=dict)
        if self._at("_type") != STATEMENT_TYPE or self._at("predicateType") != PROVENANCE_TYPE:
            raise self._wrong("it is not an in-toto Statement v1 with SLSA Provenance v1")
        if definition.get("buildType") != build_type:
            raise self._wrong(f"its build type is {definition.get('buildType')!r}, not {build_type}")
        self.external: Json = self._at("predicate", "buildDefinition", "externalParameters", kind=dict)
        self.internal: Json = self._at("predicate", "buildDefinition", "internalParameters", kind=dict)
        self._dependencies = self._at("predicate", "buildDefinition", "resolvedDependencies", kind=list)
        subjects = self._at("subject", kind=list)
        if len(subjects) != 1 or not isinstance(subjects[0], dict):
            raise self._wrong("it doesn't have exactly one subject")
        self.subject_name = self.text(subjects[0], "name")
        self.subject = self.sha256(subjects[0])
        self.builder_version: Json = self._at("predicate", "runDetails", "builder", "version", kind=dict)

    def dependency(self, role: str) -> Json:
        """The one resolved dependency with a role, such as ``source``, ``lock`` or ``interpreter``."""
        found = self.dependencies(role)
        if len(found) != 1:
            raise self._wrong(f"it names {len(found)} dependencies of the role {role}, not one")
        return found[0]

    def dependencies(self, role: str) -> list[Json]:
        """The resolved dependencies with a role."""
        return [
            each
            for each in self._dependencies
            if isinstance(each, dict)
            and isinstance(each.get("annotations"), dict)
            and each["annotations"].get("role") == role
        ]

    def text(self, table: Json, key: str) -> str:
        """A string of one of the record's tables."""
        value = table.get(key)
        if not isinstance(value, str):
            raise self._wrong(f"it has no text {key!r}")
        return value

    def digests(self, part: Json) -> dict[str, str]:
        """A descriptor's DigestSet."""
        value = part.get("digest")
        if not isinstance(value, dict) or not all(_is_word(each) for each in (*value, *value.values())):
            raise self._wrong("a descriptor has no digest")
        return value

    def digest(self, part: Json) -> Digest:
        """The one digest of a descriptor, of whichever algorithm the lock has."""
        try:
            ((algorithm, value),) = self.digests(part).items()
            return Digest.parse(f"{algorithm}:{value}")
        except (ValueError, BadInput) as error:
            raise self._wrong("a descriptor has not just one digest") from error

    def sha256(self, part: Json) -> Digest:
        """A descriptor's SHA-256."""
        try:
            return Digest.parse(f"sha256:{self.digests(part).get('sha256', '')}")
        except BadInput as error:
            raise self._wrong("a descriptor has no SHA-256") from error

    def _at(self, *keys: str, kind: type = object) -> Any:  # noqa: ANN401 - JSON
        value: Any = self.statement
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, kind):
            raise self._wrong(f"{'.'.join(keys)} is missing or of the wrong type")
        return value

    def _wrong(self, why: str) -> RecordUnusable:
        what = self.what
        article = "a" if what == "wheel" else "an"
        return RecordUnusable(
            f"{self._where} is not the record of {article} {what} build: {why}.", f"Build the {what} again."
        )


class WheelRecord(Record):
    """The provenance of a wheel, of :data:`WHEEL_BUILD_TYPE`."""

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data, where, WHEEL_BUILD_TYPE, "wheel")


class SdistRecord(Record):
    """The provenance of an sdist, of :data:`SDIST_BUILD_TYPE`."""

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data, where, SDIST_BUILD_TYPE, "sdist")


class ImageRecord(Record):
    """The provenance of an image for one platform, of :data:`IMAGE_BUILD_TYPE`."""

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data, where, IMAGE_BUILD_TYPE, "image")


def _is_canonical(value: Json, data: bytes) -> bool:
    try:
        return encode(value) == data
    except (TypeError, ValueError, RecursionError):
        return False


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.isalnum() and value.isascii()
