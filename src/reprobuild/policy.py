"""What evidence a user wants before an artifact is used: a policy, as TOML has it, checked when it is read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from reprobuild.advisories import Severity
from reprobuild.compare import Level
from reprobuild.errors import BadInput, shown
from reprobuild.keys import PublicKey

_DURATION = re.compile(r"([1-9][0-9]{0,5})([hdw])")
#: Somebody owns it: a pattern for the owner would trust everybody.
_REPOSITORY = re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9_.*-]+")
_GITHUB, _GITHUB_ISSUER = "https://github.com", "https://token.actions.githubusercontent.com"
_HOURS = {"h": 1, "d": 24, "w": 168}
_KINDS = {str: "a text", int: "a number", bool: "true or false", list: "a list", dict: "a table"}
#: Names for the predicate types that are meant most.
PREDICATES = {
    "audit": "https://in-toto.io/attestation/vulns/v0.2",
    "provenance": "https://slsa.dev/provenance/v1",
    "rebuild": "https://reprobuild.dev/predicates/rebuild/v1",
    "sbom": "https://cyclonedx.org/bom",
    "vsa": "https://slsa.dev/verification_summary/v1",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who may sign without a key: the certificate's subject and the issuer of the token behind it.

    Attributes:
        subject: ``*`` stands for any text without ``/``, ``**`` for any.
        repository: of the job that signed, as a URI, or a pattern; empty for any. The subject alone doesn't tell: it
            names a workflow that others' jobs may call.
    """

    subject: str
    issuer: str
    repository: str = ""

    def admits(self, subject: str, issuer: str, repository: str = "") -> bool:
        """Whether a certificate's are meant."""
        if self.repository and not _pattern(self.repository).fullmatch(repository):
            return False
        return issuer == self.issuer and bool(_pattern(self.subject).fullmatch(subject))

    def __str__(self) -> str:
        return f"{self.subject} ({self.issuer})"


@dataclass(frozen=True, slots=True)
class Audit:
    """What has to have come out when somebody asked for known vulnerabilities, and how long ago that may be.

    Attributes:
        max_age: since the audit was finished, as whoever signed it says.
        max_severity: of the worst that may be there; None for nothing at all.
        ignores: whether what the auditor ignored may be left out.
    """

    max_age: timedelta
    max_severity: Severity | None = None
    ignores: bool = True

    def bears(self, severity: Severity) -> bool:
        """Whether a vulnerability may be there. What nobody has weighed may not."""
        return self.max_severity is not None and severity.rank <= self.max_severity.rank


@dataclass(frozen=True, slots=True)
class Policy:
    """What has to be there; whatever is empty isn't asked for.

    Attributes:
        keys: who may sign with a key.
        identities: who may sign without.
        predicates: types of which a trusted statement has to be there.
        builders: the ``builder.id`` that provenance may name.
        level: what rebuilds must have come to.
        rebuilds: how many signers have to have made the artifact again.
        distinct: whether each key and each entry of ``identities`` counts once, however many it signed with or matches.
            Always, unless it is given as false; then each different statement counts.
        max_age: since a statement was signed; a key alone says nothing of when, so that it then needs a certificate.
        bases: patterns of the images that an image may start from, as provenance names them; ``*`` as in identities.
        audit: None where nobody has to have asked for known vulnerabilities.
    """

    keys: tuple[PublicKey, ...] = ()
    identities: tuple[Identity, ...] = ()
    predicates: tuple[str, ...] = ()
    builders: tuple[str, ...] = ()
    level: Level = Level.IDENTICAL
    rebuilds: int = 0
    distinct: bool = True
    max_age: timedelta | None = None
    bases: tuple[str, ...] = ()
    audit: Audit | None = None

    def admits_base(self, name: str) -> bool:
        """Whether an image may start from another."""
        return any(_pattern(each).fullmatch(name) for each in self.bases)


def read(table: Mapping[str, Any], where: str, folder: Path) -> Policy:
    """A policy from the table ``[tool.reprobuild.policy]``, or from a file that is one.

    Args:
        where: for messages.
        folder: what the paths of keys are relative to.

    Raises:
        BadInput: a setting is unknown, of the wrong type, or would ask for nothing although it is there.
    """
    known = {each.name.replace("_", "-") for each in fields(Policy)} | {"github"}
    if unknown := sorted(table.keys() - known):
        raise BadInput(f"{where}: there is no setting {shown(unknown[0])!r}.", f"It has {', '.join(sorted(known))}.")
    identities = tuple(_identity(each, where) for each in _list(table, "identities", dict, where))
    if "github" in table:  # one workflow, or a list of them
        several = isinstance(table["github"], list)
        workflows = _list(table, "github", dict, where) if several else [_of(table, "github", dict, where)]
        identities += tuple(_github(each, where) for each in workflows)
    keys = tuple(_key(folder, each, where) for each in _list(table, "keys", str, where))
    if not (keys or identities):
        raise BadInput(
            f"{where} trusts nobody: it names neither keys nor identities.", 'Add keys = ["FILE.pub"], or identities.'
        )
    rebuilds = _of(table, "rebuilds", int, where, 0)
    if not 0 <= rebuilds <= 1000:
        raise BadInput(f"{where}: rebuilds has to be a number from 0 to 1000.")
    distinct = _of(table, "distinct", bool, where, True)
    if distinct and rebuilds > (trusted := len({*(each.id for each in keys), *identities})):
        raise BadInput(
            f"{where} asks for {rebuilds} distinct rebuilds, and trusts {trusted}, so that it can never be met.",
            "Add keys or identities: each one counts once.",
        )
    try:
        level = Level(_of(table, "level", str, where, "identical"))
    except ValueError as error:
        raise BadInput(
            f"{where}: there is no level {shown(table['level'])!r}.", f"It is one of {', '.join(Level)}."
        ) from error
    if "level" in table and not rebuilds:
        raise BadInput(
            f"{where}: level says what rebuilds have to come to, and none is asked for.", "Add rebuilds = 1."
        )
    if level is Level.NOT_COMPARABLE:
        raise BadInput(f"{where}: level can't be {level}, which nobody accepts.", "Leave it out for identical.")
    return Policy(
        keys,
        identities,
        tuple(_predicate(each, where) for each in _list(table, "predicates", str, where)),
        tuple(_list(table, "builders", str, where)),
        level,
        rebuilds,
        distinct,
        _age(table, where),
        tuple(_list(table, "bases", str, where)),
        _audit(_of(table, "audit", dict, where), where) if "audit" in table else None,
    )


def _audit(table: Mapping[str, Any], where: str) -> Audit:
    where = f"{where}: audit"
    known = ("max-age", "max-severity", "ignores")
    if unknown := sorted(set(table) - set(known)):
        raise BadInput(f"{where}: there is no setting {shown(unknown[0])!r}.", f"It has {', '.join(known)}.")
    max_age = _age(table, where)
    if max_age is None:
        raise BadInput(f"{where} has no max-age: what was clean once says nothing of today.", 'Add max-age = "7d".')
    severities = {str(each): each for each in Severity if each is not Severity.UNKNOWN}
    worst = _of(table, "max-severity", str, where, "none")
    if worst != "none" and worst not in severities:
        raise BadInput(
            f"{where}: there is no severity {shown(worst)!r}.", f"It is one of none, {', '.join(severities)}."
        )
    return Audit(max_age, severities.get(worst), _of(table, "ignores", bool, where, True))


def _key(folder: Path, name: str, where: str) -> PublicKey:
    try:
        return PublicKey.load(folder / name)
    except BadInput as error:
        if Path(name).is_absolute():
            raise
        remedy = f"A key's path starts at the folder of the policy. {error.remedy}"
        raise BadInput(f"{where}: {error.reason}", remedy) from error


def _predicate(text: str, where: str) -> str:
    """A type's URI; without a colon it is none, but a name."""
    if text not in PREDICATES and ":" not in text:
        raise BadInput(
            f"{where}: there is no predicate {shown(text)!r}.", f"It is one of {', '.join(PREDICATES)}, or a whole URI."
        )
    return PREDICATES.get(text, text)


def _identity(table: Mapping[str, Any], where: str) -> Identity:
    if set(table) != {"identity", "issuer"} or not all(isinstance(each, str) and each for each in table.values()):
        raise BadInput(
            f"{where}: an identity has the texts identity and issuer.",
            'Such as {identity = "release@example.org", issuer = "https://accounts.example.org"}.',
        )
    return Identity(table["identity"], table["issuer"])


def _github(table: Mapping[str, Any], where: str) -> Identity:
    """A workflow of GitHub Actions, as the certificate's subject names it, in a job of the same repository."""
    allowed = {"repository", "workflow", "ref"}
    if "repository" not in table or not set(table) <= allowed or not all(isinstance(v, str) for v in table.values()):
        raise BadInput(f"{where}: github has the texts repository, workflow and ref.", 'repository = "owner/name"')
    if not _REPOSITORY.fullmatch(table["repository"]):
        raise BadInput(f"{where}: {shown(table['repository'])!r} is not owner/name.", "The owner can't be a pattern.")
    workflow, ref = table.get("workflow", "*"), table.get("ref", "**")
    source = f"{_GITHUB}/{table['repository']}"
    return Identity(f"{source}/.github/workflows/{workflow}@{ref}", _GITHUB_ISSUER, source)


def of_this_job(environment: Mapping[str, str]) -> Identity | None:
    """Any job of the repository whose job this is (GitHub Actions, "Variables"); None where it is none."""
    repository = environment.get("GITHUB_REPOSITORY", "")
    at_home = environment.get("GITHUB_ACTIONS") == "true" and environment.get("GITHUB_SERVER_URL") == _GITHUB
    if not at_home or "*" in repository or not _REPOSITORY.fullmatch(repository):
        return None
    return Identity("**", _GITHUB_ISSUER, f"{_GITHUB}/{repository}")


def _age(table: Mapping[str, Any], where: str) -> timedelta | None:
    if "max-age" not in table:
        return None
    found = _DURATION.fullmatch(_of(table, "max-age", str, where))
    if not found:
        raise BadInput(f"{where}: max-age is not a time such as 36h, 30d or 8w.")
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])


def _of(table: Mapping[str, Any], key: str, kind: type, where: str, default: Any = None) -> Any:  # noqa: ANN401 - TOML
    value = table.get(key, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadInput(f"{where}: {key} has to be {_KINDS[kind]}.")
    return value


def _list(table: Mapping[str, Any], key: str, kind: type, where: str) -> Sequence[Any]:
    found = _of(table, key, list, where, [])
    if key in table and not found:
        raise BadInput(f"{where}: {key} is empty, which would ask for nothing.", "Leave it out, or fill it.")
    if not all(isinstance(each, kind) and each for each in found):
        raise BadInput(f"{where}: each of {key} has to be {_KINDS[kind]}, and not empty.")
    return list(found)


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join({"*": "[^/]*", "**": ".*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)
