"""The published schemas hold for the published examples, and for nothing that lacks a part of one."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from reprobuild import attest
from reprobuild.attest import WheelRecord

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
#: Of statements, which have a version; that of the settings is held against the code in test_settings_schema.py.
NAMES = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*-v[0-9]*.schema.json"))


def validator(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def example(name):
    return json.loads((SCHEMAS / f"{name}.example.json").read_text())


def test_each_type_has_a_schema_and_an_example():
    assert NAMES
    assert sorted(path.name.removesuffix(".example.json") for path in SCHEMAS.glob("*.example.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_valid(name):
    assert [error.message for error in validator(name).iter_errors(example(name))] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_example_of_another_type_is_not(name):
    others = [other for other in NAMES if other != name]
    assert [other for other in others if validator(name).is_valid(example(other))] == []


def required(value, schema, path=()):
    """The path of each key that a schema asks for, as far as plain objects go."""
    for key in schema.get("required", ()):
        yield (*path, key)
    for key, inner in schema.get("properties", {}).items():
        if isinstance(value, dict) and key in value:
            yield from required(value[key], inner, (*path, key))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_it_asks_for_may_be_missing(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    paths = list(required(example(name), schema))
    assert len(paths) > 10
    for path in paths:
        cut = copy.deepcopy(example(name))
        table = cut
        for key in path[:-1]:
            table = table[key]
        del table[path[-1]]
        assert not validator(name).is_valid(cut), path


def test_the_example_of_a_wheel_is_a_record():
    record = WheelRecord(attest.encode(example("wheel-v1")), "the example")
    assert record.dependency("source")


def test_what_is_written_for_a_rebuild_has_the_schema():
    said = example("rebuild-v1")
    predicate = said["predicate"]
    made = attest.rebuild(
        said["subject"][0],
        record=predicate["record"],
        rebuilt=predicate["rebuilt"],
        level=predicate["level"],
        varied=predicate["varied"],
        environment=predicate["environment"],
        builder_version=predicate["builder"]["version"],
    )
    assert made == said


def test_what_is_written_for_an_audit_has_the_schema():
    said = example("audit-v1")
    predicate = said["predicate"]
    scanner = dict(predicate["scanner"])
    made = attest.audit(
        said["subject"][0],
        results=scanner.pop("result"),
        scanner=scanner,
        coverage=predicate[attest.AUDIT_COVERAGE],
        started=predicate["metadata"]["scanStartedOn"],
        finished=predicate["metadata"]["scanFinishedOn"],
    )
    assert made == said


@pytest.mark.parametrize(
    ("level", "same", "result"),
    [("identical", True, "PASSED"), ("identical", False, "FAILED"), ("container", True, "FAILED")],
)
def test_a_rebuild_as_a_summary(level, same, result):
    said = example("rebuild-v1")
    said["predicate"]["level"] = level
    if not same:
        said["predicate"]["rebuilt"]["digest"]["sha256"] = "0" * 64
    policy = {"uri": "https://example.org/policy", "digest": {"sha256": "1" * 64}}
    summary = attest.summary_of(said, verifier="https://example.org/us", time="2026-01-01T00:00:00Z", policy=policy)
    assert summary["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert summary["predicate"]["verificationResult"] == result
    assert summary["predicate"]["verifiedLevels"] == (["REPRODUCED"] if result == "PASSED" else [])
    assert summary["predicate"]["inputAttestations"] == [{"digest": said["predicate"]["record"]["digest"]}]
    assert summary["predicate"]["policy"] == policy
