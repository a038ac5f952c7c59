"""SARIF as the standard has it. The schema here is the part of the published one that concerns what is written."""

from datetime import UTC, date, datetime

import pytest
from jsonschema import Draft202012Validator
from packaging.version import Version

from reprobuild.advisories import Advisory, Package, Score, Service, Severity
from reprobuild.audit import Finding, Pinned, Report, Source
from reprobuild.digest import Digest
from reprobuild.project import Ignore
from reprobuild.sarif import log_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)
JINJA = Package.of("jinja2", Version("3.1.4"))
LOCK = Source("images/my image/requirements.txt", Digest.of_bytes(b"1"), (Pinned(JINJA, 7),))
RECORD = Source("the record of x.whl", Digest.of_bytes(b"2"), (Pinned(JINJA),), is_file=False)


def shape(required, **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def listed(items, **more):
    return {"type": "array", "items": items, **more}


WORDS = {"type": "string", "minLength": 1}
NUMBER = {"type": "string", "pattern": r"^(10\.0|[0-9]\.[0-9])$"}
MESSAGE = shape(["text"], text=WORDS)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
URI = {"type": "string", "pattern": r"^[A-Za-z0-9._~:/%+-]+$"}
#: SARIF 2.1.0, sections 3.13 to 3.59.
SCHEMA = shape(
    ["version", "runs"],
    **{"$schema": {"const": "https://json.schemastore.org/sarif-2.1.0.json"}},
    version={"const": "2.1.0"},
    runs=listed(
        shape(
            ["tool", "results"],
            tool=shape(
                ["driver"],
                driver=shape(
                    ["name"],
                    name=WORDS,
                    semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                    informationUri=URI,
                    rules=listed(
                        shape(
                            ["id"],
                            id=WORDS,
                            shortDescription=MESSAGE,
                            fullDescription=MESSAGE,
                            help=MESSAGE,
                            defaultConfiguration=shape([], level=LEVEL),
                            properties=shape([], tags=listed(WORDS, uniqueItems=True), **{"security-severity": NUMBER}),
                        ),
                        uniqueItems=True,
                    ),
                ),
            ),
            invocations=listed(shape(["executionSuccessful"], executionSuccessful={"type": "boolean"})),
            results=listed(
                shape(
                    ["message"],
                    ruleId=WORDS,
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=LEVEL,
                    message=MESSAGE,
                    locations=listed(
                        shape(
                            ["physicalLocation"],
                            physicalLocation=shape(
                                ["artifactLocation"],
                                artifactLocation=shape(["uri"], uri=URI),
                                region=shape(["startLine"], startLine={"type": "integer", "minimum": 1}),
                            ),
                        ),
                        minItems=1,
                    ),
                    partialFingerprints={"type": "object", "additionalProperties": WORDS},
                    suppressions=listed(
                        shape(
                            ["kind"],
                            kind={"enum": ["inSource", "external"]},
                            status={"enum": ["accepted", "underReview", "rejected"]},
                            justification=WORDS,
                        )
                    ),
                )
            ),
        ),
        minItems=1,
    ),
)


def finding(name="CVE-1", severity=Severity.HIGH, where=((LOCK, 7),), ignored=None, **more):
    return Finding(Advisory(JINJA, name, ("GHSA-1",), (Version("3.1.6"),), "", severity, **more), where, ignored)


def log(*findings):
    made = log_of(Report((LOCK, RECORD), findings, (), Service(), "2.10", NOW, NOW))
    Draft202012Validator.check_schema(SCHEMA)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(made)] == []
    (run,) = made["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    return rules, run["results"]


@pytest.mark.parametrize("severities", [(Severity.LOW, Severity.CRITICAL), (Severity.CRITICAL, Severity.LOW)])
def test_a_rule_is_as_bad_as_its_worst_result(severities):
    (rule,), _ = log(*(finding(severity=each) for each in severities))
    assert rule["defaultConfiguration"]["level"] == "error"
    assert rule["properties"]["security-severity"] == "9.5"


def test_a_lock_whose_name_is_no_text_has_an_address_too():
    odd = Source("req\udcff.txt", Digest.of_bytes(b"1"), (Pinned(JINJA, 7),))
    _, (result,) = log(finding(where=((odd, 7),)))
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "req%FF.txt"}


def test_nothing_found_is_a_document_too():
    assert log() == ([], [])


def test_each_place_of_a_vulnerability_is_a_result():
    ((rule,), (first, second)) = log(finding(where=((LOCK, 7), (RECORD, 0))))
    assert (rule["id"], rule["properties"]["security-severity"]) == ("CVE-1", "8.0")
    assert first["message"]["text"] == "jinja2 3.1.4 has CVE-1 (high), also GHSA-1: fixed in 3.1.6."
    (place,) = first["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "images/my%20image/requirements.txt"},
        "region": {"startLine": 7},
    }
    assert "region" not in second["locations"][0]["physicalLocation"]
    assert first["partialFingerprints"] != second["partialFingerprints"]


def test_a_pin_that_moves_within_its_lock_stays_the_same_result():
    results = [log(finding(where=((LOCK, line),)))[1][0] for line in (7, 8)]
    assert results[0]["partialFingerprints"] == results[1]["partialFingerprints"]
    assert results[0] != results[1]


def test_what_is_ignored_is_suppressed_with_its_reason():
    (_, (plain, quiet)) = log(finding(), finding("CVE-2", ignored=Ignore("CVE-2", "it can't be", date(2026, 12, 31))))
    assert "suppressions" not in plain
    assert quiet["suppressions"] == [
        {
            "kind": "external",
            "status": "accepted",
            "justification": "it can't be (until 2026-12-31; CVE-2 covers CVE-2, GHSA-1)",
        }
    ]


@pytest.mark.parametrize(
    ("severity", "level", "number"),
    [
        ("low", "note", "2.0"),
        ("medium", "warning", "5.5"),
        ("high", "error", "8.0"),
        ("critical", "error", "9.5"),
        ("unknown", "error", "10.0"),
    ],
)
def test_levels(severity, level, number):
    ((rule,), (result,)) = log(finding(severity=Severity(severity)))
    assert (result["level"], rule["defaultConfiguration"]["level"]) == (level, level)
    assert rule["properties"]["security-severity"] == number


def test_the_highest_score_counts():
    scores = (Score("CVSS_V4", "9.3", "v", Severity.CRITICAL), Score("CVSS_V3", "10.0", "v", Severity.CRITICAL))
    ((rule,), _) = log(finding(severity=Severity.CRITICAL, scores=scores))
    assert rule["properties"]["security-severity"] == "10.0"
