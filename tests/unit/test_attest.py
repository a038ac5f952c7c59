import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprobuild import attest
from reprobuild.attest import WheelRecord, descriptor, encode, provenance
from reprobuild.digest import Digest
from reprobuild.errors import ExitCode, RecordUnusable

WHEEL = Digest.of_bytes(b"the wheel")
LOCK = Digest.of_bytes(b"the lock")


def statement():
    return provenance(
        descriptor({"sha256": WHEEL.hex}, name="demo-1.0-py3-none-any.whl"),
        build_type=attest.WHEEL_BUILD_TYPE,
        external={"backend": "own.backend", "sourceDateEpoch": 1},
        internal={"zlib": "1.3"},
        dependencies=[
            descriptor({"sha256": LOCK.hex}, name="constraints.txt", annotations={"role": "lock"}),
            descriptor({"gitCommit": "0" * 40}, uri="git+ssh://host/demo", annotations={"role": "source"}),
            *(
                descriptor({"sha256": Digest.of_bytes(name).hex}, annotations={"role": "build-requirement"})
                for name in (b"a", b"b")
            ),
        ],
        builder_version={"reprobuild": "0.1.0"},
    )


def read(value):
    return WheelRecord(spelled(value), "demo.whl.intoto.json")


def spelled(value):
    """The bytes of a record; for what canonical JSON has no word, other bytes."""
    try:
        return encode(value)
    except (TypeError, ValueError):
        return json.dumps(value).encode()


def changed(path, value):
    """The statement with one thing in it replaced; with ``...`` it is taken out."""
    copied = copy.deepcopy(statement())
    at = copied
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copied


def places(value, path=()):
    """The path of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from places(each, (*path, key))


# --- writing ---------------------------------------------------------------------------------------


def test_a_statement_has_the_shape_that_the_specifications_name():
    assert statement() == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "demo-1.0-py3-none-any.whl", "digest": {"sha256": WHEEL.hex}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": attest.WHEEL_BUILD_TYPE,
                "externalParameters": {"backend": "own.backend", "sourceDateEpoch": 1},
                "internalParameters": {"zlib": "1.3"},
                "resolvedDependencies": [
                    {"name": "constraints.txt", "digest": {"sha256": LOCK.hex}, "annotations": {"role": "lock"}},
                    {
                        "uri": "git+ssh://host/demo",
                        "digest": {"gitCommit": "0" * 40},
                        "annotations": {"role": "source"},
                    },
                    {"digest": {"sha256": Digest.of_bytes(b"a").hex}, "annotations": {"role": "build-requirement"}},
                    {"digest": {"sha256": Digest.of_bytes(b"b").hex}, "annotations": {"role": "build-requirement"}},
                ],
            },
            "runDetails": {"builder": {"id": attest.BUILDER, "version": {"reprobuild": "0.1.0"}}},
        },
    }


def test_the_same_inputs_give_the_same_bytes():
    """No clock, no random number, no order of insertion."""
    encoded = encode(statement())
    assert encoded == encode(dict(reversed(statement().items())))
    assert json.loads(encoded) == statement()
    assert not encoded.endswith(b"\n")


def test_a_descriptor_leaves_out_what_is_empty():
    assert descriptor({"sha256": "0"}, name="", uri="", annotations={}) == {"digest": {"sha256": "0"}}


def test_a_statement_shares_nothing_with_its_arguments():
    digests = {"sha256": "0"}
    made = descriptor(digests)
    digests["sha256"] = "1"
    assert made["digest"] == {"sha256": "0"}


# --- reading ---------------------------------------------------------------------------------------


def test_what_was_written_is_read():
    record = WheelRecord(encode(statement()), "x")
    assert (record.subject, record.subject_name) == (WHEEL, "demo-1.0-py3-none-any.whl")
    assert record.external["backend"] == "own.backend"
    assert record.internal == {"zlib": "1.3"}
    assert record.sha256(record.dependency("lock")) == LOCK
    assert record.digests(record.dependency("source")) == {"gitCommit": "0" * 40}
    assert record.text(record.dependency("source"), "uri") == "git+ssh://host/demo"
    assert len(record.dependencies("build-requirement")) == 2
    assert record.dependencies("absent") == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\xff", b"nonsense", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_not_json_is_no_record(data):
    with pytest.raises(RecordUnusable, match="demo is not JSON"):
        WheelRecord(data, "demo")


@pytest.mark.parametrize("value", [None, 1, "text", [], [statement()], {}, True])
def test_other_json_is_no_record(value):
    with pytest.raises(RecordUnusable, match="is not the record of a wheel build") as caught:
        read(value)
    assert caught.value.remedy
    assert caught.value.exit_code is ExitCode.RECORD_UNUSABLE


DEFINITION = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("_type",), ..., "not an in-toto Statement v1"),
        (("_type",), "https://in-toto.io/Statement/v0.1", "not an in-toto Statement v1"),
        (("_type",), ["https://in-toto.io/Statement/v1"], "not an in-toto Statement v1"),
        (("predicateType",), "https://slsa.dev/provenance/v0.2", "SLSA Provenance v1"),
        (("predicate",), [], "predicate.buildDefinition is missing or of the wrong type"),
        (DEFINITION, "x", "predicate.buildDefinition is missing or of the wrong type"),
        ((*DEFINITION, "buildType"), ..., "its build type is None"),
        ((*DEFINITION, "buildType"), {}, "its build type is {}"),
        ((*DEFINITION, "buildType"), "https://example.org/other", "its build type is 'https://example.org/other'"),
        ((*DEFINITION, "externalParameters"), None, "externalParameters is missing or of the wrong type"),
        ((*DEFINITION, "internalParameters"), [], "internalParameters is missing or of the wrong type"),
        ((*DEFINITION, "resolvedDependencies"), {}, "resolvedDependencies is missing or of the wrong type"),
        (("subject",), ..., "subject is missing or of the wrong type"),
        (("subject",), {"name": "x"}, "subject is missing or of the wrong type"),
        (("subject",), [], "exactly one subject"),
        (("subject",), [{}, {}], "exactly one subject"),
        (("subject",), ["x"], "exactly one subject"),
        (("subject", 0, "digest"), ..., "a descriptor has no digest"),
        (("subject", 0, "digest"), "sha256", "a descriptor has no digest"),
        (("subject", 0, "digest"), {"sha256": 5}, "a descriptor has no digest"),
        (("subject", 0, "digest"), {"sha256": "\x1b[2J"}, "a descriptor has no digest"),
        (("subject", 0, "digest"), {"sha 256": "0"}, "a descriptor has no digest"),
        (("subject", 0, "digest"), {"sha256": "\u0661" * 64}, "a descriptor has no digest"),
        (("subject", 0, "name"), ..., "it has no text 'name'"),
        (("predicate", "runDetails", "builder", "version"), [], "builder.version is missing or of the wrong type"),
        (("subject", 0, "digest"), {}, "a descriptor has no SHA-256"),
        (("subject", 0, "digest"), {"sha512": "0" * 128}, "a descriptor has no SHA-256"),
        (("subject", 0, "digest", "sha256"), "0" * 63, "a descriptor has no SHA-256"),
        (("subject", 0, "digest", "sha256"), WHEEL.hex.upper(), "a descriptor has no SHA-256"),
    ],
)
def test_a_malformed_record_is_refused_in_words(path, value, why):
    with pytest.raises(RecordUnusable) as caught:
        read(changed(path, value))
    assert why in caught.value.reason


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: data.replace(b":", b": ", 1),
        lambda data: json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode(),
        lambda data: data.replace(b'"_type":', b'"_type":"x","_type":', 1),
        lambda data: data.replace(b'"sourceDateEpoch":1', b'"sourceDateEpoch":1.0'),
        lambda data: data.replace(b'"sourceDateEpoch":1', b'"sourceDateEpoch":NaN'),
        lambda data: data.replace(b'"sourceDateEpoch":1', b'"sourceDateEpoch":1e400'),
        lambda data: data.replace(b'"sourceDateEpoch":1', b'"sourceDateEpoch":100000000000000000000'),
        lambda data: data.replace(b"own.backend", b"own\\u002ebackend"),
        lambda data: data.replace(b"own.backend", b"own.\\ud800"),
        lambda data: data.replace(b'"zlib"', b'"\\ud800"'),
        lambda data: data.decode().encode("utf-16"),
        lambda data: b"\xef\xbb\xbf" + data,
    ],
)
def test_a_statement_has_one_spelling(change):
    data = encode(statement())
    assert change(data) != data
    with pytest.raises(RecordUnusable, match=r"not JSON|not canonical JSON"):
        WheelRecord(change(data), "x")


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_a_digest_is_read_whatever_its_algorithm(algorithm, length):
    record = read(changed((*DEFINITION, "resolvedDependencies", 0, "digest"), {algorithm: "a" * length}))
    assert record.digest(record.dependency("lock")) == Digest(algorithm, "a" * length)


@pytest.mark.parametrize("digests", [{}, {"md5": "a" * 32}, {"sha256": "a"}, {"sha256": "a" * 64, "sha512": "a" * 128}])
def test_a_digest_is_one(digests):
    record = read(changed((*DEFINITION, "resolvedDependencies", 0, "digest"), digests))
    with pytest.raises(RecordUnusable, match="not just one digest"):
        record.digest(record.dependency("lock"))


@pytest.mark.parametrize("annotations", [..., None, [], "lock", {}, {"role": ["lock"]}])
def test_a_dependency_without_its_role_is_missing(annotations):
    record = read(changed((*DEFINITION, "resolvedDependencies", 0, "annotations"), annotations))
    with pytest.raises(RecordUnusable, match="names 0 dependencies of the role lock, not one"):
        record.dependency("lock")


def test_a_role_that_must_be_one_is_not_two():
    with pytest.raises(RecordUnusable, match="names 2 dependencies of the role build-requirement, not one"):
        read(statement()).dependency("build-requirement")


@pytest.mark.parametrize("value", [..., None, 5, ["x"], {}])
def test_a_text_must_be_one(value):
    record = read(changed((*DEFINITION, "resolvedDependencies", 1, "uri"), value))
    with pytest.raises(RecordUnusable, match="it has no text 'uri'"):
        record.text(record.dependency("source"), "uri")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(places(statement()))), JSON | st.just(...))
def test_whatever_stands_in_a_record_it_is_read_or_refused(path, value):
    with suppress(RecordUnusable):
        record = read(changed(path, value))
        assert isinstance(record.subject_name, str)
        for role in ("lock", "source", "build-requirement"):
            for each in record.dependencies(role):
                record.digests(each)
        record.text(record.dependency("source"), "uri")
        record.sha256(record.dependency("lock"))


@given(st.binary() | JSON.map(spelled))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(RecordUnusable):
        WheelRecord(data, "x")
