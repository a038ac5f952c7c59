"""An audit as SARIF 2.1.0, the format in which code hosts and editors take findings. Pure values.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", and GitHub's notes on what it reads
of it (`security-severity`, `partialFingerprints`).
"""

import os
from collections.abc import Iterator
from urllib.parse import quote

from reprobuild import __version__
from reprobuild.advisories import Advisory, Severity
from reprobuild.attest import Json
from reprobuild.audit import Finding, Report, Source
from reprobuild.digest import Digest

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.LOW: "note", Severity.MEDIUM: "warning"}
#: Where no vector gives a number: the middle of what CVSS v3 calls so, and for what nobody weighed the top.
_NUMBERS = {
    Severity.LOW: "2.0",
    Severity.MEDIUM: "5.5",
    Severity.HIGH: "8.0",
    Severity.CRITICAL: "9.5",
    Severity.UNKNOWN: "10.0",
}
_FINGERPRINT = "reprobuildAudit/v1"


def log_of(report: Report) -> Json:
    """The whole document: a rule for each vulnerability, a result for each place where it is pinned."""
    worst: dict[str, Advisory] = {}
    for each in report.findings:
        known = worst.setdefault(each.advisory.id, each.advisory)
        if each.advisory.severity.rank > known.severity.rank:
            worst[each.advisory.id] = each.advisory
    order = {name: number for number, name in enumerate(sorted(worst))}
    driver = {
        "name": "reprobuild audit",
        "semanticVersion": __version__,
        "informationUri": "https://reprobuild.dev/audit",
        "rules": [_rule(worst[name]) for name in sorted(worst)],
    }
    results = [
        _result(each, source, line, order[each.advisory.id]) for each in report.findings for source, line in each.where
    ]
    run = {"tool": {"driver": driver}, "invocations": [{"executionSuccessful": True}], "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(advisory: Advisory) -> Json:
    names = ", ".join(sorted(advisory.names))
    return {
        "id": advisory.id,
        "shortDescription": {"text": advisory.summary or advisory.id},
        "fullDescription": {"text": f"{advisory.summary or advisory.id} ({names})"},
        "help": {"text": f"Known as {names}. Severity: {advisory.severity}."},
        "defaultConfiguration": {"level": _LEVELS.get(advisory.severity, "error")},
        "properties": {
            "security-severity": max(
                (each.score for each in advisory.scores), key=float, default=_NUMBERS[advisory.severity]
            ),
            "tags": ["security", "vulnerability"],
        },
    }


def _result(finding: Finding, source: Source, line: int, rule: int) -> Json:
    advisory = finding.advisory
    mended = f"fixed in {', '.join(map(str, advisory.fixed))}" if advisory.fixed else "no fixed version is known"
    place: Json = {"artifactLocation": {"uri": quote(os.fsencode(source.name))}}
    if source.is_file:
        place["region"] = {"startLine": line}
    # Without the line: a pin that moves within its lock is the same finding.
    same = "\n".join((advisory.id, str(advisory.package), source.name))
    also = f", also {', '.join(advisory.aliases)}" if advisory.aliases else ""
    result: Json = {
        "ruleId": advisory.id,
        "ruleIndex": rule,
        "level": _LEVELS.get(advisory.severity, "error"),
        "message": {"text": f"{advisory.package} has {advisory.id} ({advisory.severity}){also}: {mended}."},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {_FINGERPRINT: Digest.of_bytes(os.fsencode(same)).hex},
    }
    if suppressions := list(_suppressions(finding)):
        result["suppressions"] = suppressions
    return result


def _suppressions(finding: Finding) -> Iterator[Json]:
    if finding.ignored:
        names = ", ".join(sorted(finding.advisory.names))
        until = f"{finding.ignored.reason} (until {finding.ignored.expires}; {finding.ignored.id} covers {names})"
        yield {"kind": "external", "status": "accepted", "justification": until}
