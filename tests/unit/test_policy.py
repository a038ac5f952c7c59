from datetime import timedelta

import pytest

from reprobuild.advisories import Severity
from reprobuild.compare import Level
from reprobuild.errors import BadInput
from reprobuild.keys import PrivateKey
from reprobuild.policy import PREDICATES, Audit, Identity, Policy, of_this_job, read

WHO = {"identity": "release@example.org", "issuer": "https://accounts.example.org"}
OTHER = {**WHO, "identity": "second@example.org"}


def policy(folder=None, **settings):
    return read({"identities": [WHO], **settings}, "policy.toml", folder)


@pytest.fixture
def keys(tmp_path):
    """Two public keys in files."""
    made = [PrivateKey.generate(kind) for kind in ("ed25519", "p256")]
    for number, key in enumerate(made):
        (tmp_path / f"{number}.pub").write_bytes(key.public.pem)
    return [key.public for key in made]


def test_everything_that_can_be_said(tmp_path, keys):
    table = {
        "keys": ["0.pub", str(tmp_path / "1.pub")],
        "identities": [WHO],
        "github": {"repository": "example/wheels", "workflow": "release.yml", "ref": "refs/tags/*"},
        "predicates": ["provenance", "sbom", "https://example.org/own"],
        "builders": ["https://example.org/builder"],
        "level": "metadata",
        "rebuilds": 2,
        "distinct": False,
        "max-age": "30d",
        "bases": ["registry.example.org/*"],
        "audit": {"max-age": "7d", "max-severity": "medium", "ignores": False},
    }
    assert read(table, "policy.toml", tmp_path) == Policy(
        keys=tuple(keys),
        identities=(
            Identity("release@example.org", "https://accounts.example.org"),
            Identity(
                "https://github.com/example/wheels/.github/workflows/release.yml@refs/tags/*",
                "https://token.actions.githubusercontent.com",
                "https://github.com/example/wheels",
            ),
        ),
        predicates=(PREDICATES["provenance"], PREDICATES["sbom"], "https://example.org/own"),
        builders=("https://example.org/builder",),
        level=Level.METADATA,
        rebuilds=2,
        distinct=False,
        max_age=timedelta(days=30),
        bases=("registry.example.org/*",),
        audit=Audit(timedelta(days=7), Severity.MEDIUM, ignores=False),
    )


def test_what_is_not_said():
    found = policy()
    assert (found.rebuilds, found.distinct, found.level, found.max_age) == (0, True, Level.IDENTICAL, None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reblids": 2}, "no setting 'reblids'"),
        ({"max_age": "1d"}, "no setting 'max_age'"),
        ({"keys": "0.pub"}, "keys has to be a list"),
        ({"keys": []}, "keys is empty"),
        ({"keys": [1]}, "each of keys has to be a text"),
        ({"keys": [""]}, "each of keys has to be a text, and not empty"),
        ({"keys": ["none.pub"]}, "policy.toml: /"),
        ({"keys": ["a\0b"]}, "is no path"),
        ({"identities": []}, "identities is empty"),
        ({"identities": ["x"]}, "each of identities has to be a table"),
        ({"identities": [{"identity": "x"}]}, "an identity has the texts"),
        ({"identities": [{**WHO, "more": "x"}]}, "an identity has the texts"),
        ({"identities": [{**WHO, "issuer": ""}]}, "an identity has the texts"),
        ({"identities": [{**WHO, "issuer": 1}]}, "an identity has the texts"),
        ({"github": "example/wheels"}, "github has to be a table"),
        ({"github": {"workflow": "x"}}, "github has the texts"),
        ({"github": {"repository": "example/wheels", "branch": "x"}}, "github has the texts"),
        ({"github": {"repository": 1}}, "github has the texts"),
        ({"github": {"repository": "example"}}, "'example' is not owner/name"),
        ({"github": {"repository": "*/wheels"}}, "is not owner/name"),
        ({"github": {"repository": "**"}}, "is not owner/name"),
        ({"github": {"repository": "example/wheels/../other"}}, "is not owner/name"),
        ({"predicates": []}, "predicates is empty"),
        ({"predicates": [1]}, "each of predicates has to be a text"),
        ({"builders": {}}, "builders has to be a list"),
        ({"builders": []}, "builders is empty"),
        ({"bases": [""]}, "each of bases has to be a text, and not empty"),
        ({"predicates": ["provenanc"]}, "no predicate 'provenanc'"),
        ({"level": "same"}, "no level 'same'"),
        ({"level": "identical"}, "level says what rebuilds have to come to, and none is asked for"),
        ({"level": 1}, "level has to be a text"),
        ({"rebuilds": "2"}, "rebuilds has to be a number"),
        ({"rebuilds": True}, "rebuilds has to be a number"),
        ({"rebuilds": -1}, "from 0 to 1000"),
        ({"rebuilds": 1001}, "from 0 to 1000"),
        ({"rebuilds": 2}, "asks for 2 distinct rebuilds, and trusts 1"),
        ({"rebuilds": 2, "identities": [WHO, dict(WHO)]}, "asks for 2 distinct rebuilds, and trusts 1"),
        ({"distinct": "no"}, "distinct has to be true or false"),
        ({"distinct": 0}, "distinct has to be true or false"),
        ({"max-age": "1"}, "not a time such as"),
        ({"max-age": "0d"}, "not a time such as"),
        ({"max-age": "-1d"}, "not a time such as"),
        ({"max-age": "1d "}, "not a time such as"),
        ({"max-age": "9999999d"}, "not a time such as"),
        ({"max-age": 30}, "max-age has to be a text"),
        ({"audit": "7d"}, "audit has to be a table"),
        ({"audit": {}}, "audit has no max-age"),
        ({"audit": {"max-age": "7"}}, "audit: max-age is not a time such as"),
        ({"audit": {"max-age": "7d", "severity": "high"}}, "audit: there is no setting 'severity'"),
        ({"audit": {"max-age": "7d", "max-severity": "High"}}, "audit: there is no severity 'High'"),
        ({"audit": {"max-age": "7d", "max-severity": "unknown"}}, "audit: there is no severity 'unknown'"),
        ({"audit": {"max-age": "7d", "ignores": "no"}}, "audit: ignores has to be true or false"),
    ],
)
def test_what_can_not_be_said(tmp_path, settings, words):
    with pytest.raises(BadInput) as caught:
        policy(tmp_path, **settings)
    assert words in caught.value.reason


def test_nobody_is_trusted(tmp_path):
    with pytest.raises(BadInput, match="trusts nobody"):
        read({"rebuilds": 1}, "policy.toml", tmp_path)


def test_one_key_in_two_files_is_one_rebuilder(tmp_path, keys):
    (tmp_path / "again.pub").write_bytes(keys[0].pem)
    with pytest.raises(BadInput, match="trusts 1"):
        read({"keys": ["0.pub", "again.pub"], "rebuilds": 2}, "policy.toml", tmp_path)
    assert read({"keys": ["0.pub", "1.pub"], "rebuilds": 2}, "policy.toml", tmp_path).rebuilds == 2
    assert read({"keys": ["0.pub"], "identities": [WHO], "rebuilds": 2}, "policy.toml", tmp_path).rebuilds == 2
    assert policy(identities=[WHO, OTHER], rebuilds=2).rebuilds == 2
    assert policy(rebuilds=2, distinct=False).rebuilds == 2


@pytest.mark.parametrize(
    ("pattern", "subject", "admitted"),
    [
        ("a@example.org", "a@example.org", True),
        ("a@example.org", "A@example.org", False),
        ("a@example.org", "a@example.org.evil.org", False),
        ("a@example.org", "aa@example.org", False),
        ("a@example.org", "a@exampleXorg", False),
        ("a@example.org", "a@example.org\n", False),
        ("*@example.org", "a@example.org", True),
        ("*@example.org", "@example.org", True),
        ("*@example.org", "a/b@example.org", False),
        ("*@example.org", "a@example.org@evil.org", False),
        ("https://github.com/o/*/.github/workflows/r.yml@*", "https://github.com/o/a/.github/workflows/r.yml@v1", True),
        (
            "https://github.com/o/*/.github/workflows/r.yml@*",
            "https://github.com/o/a/b/.github/workflows/r.yml@v1",
            False,
        ),
        (
            "https://github.com/o/a/.github/workflows/r.yml@refs/tags/*",
            "https://github.com/o/a/.github/workflows/r.yml@refs/tags/a/b",
            False,
        ),
        (
            "https://github.com/o/a/.github/workflows/r.yml@**",
            "https://github.com/o/a/.github/workflows/r.yml@refs/tags/a/b",
            True,
        ),
        ("a?", "ab", False),
        ("[ab]", "a", False),
        ("a.c", "abc", False),
        ("**", "a/b\nc", True),
        ("***", "a/b", True),
    ],
)
def test_patterns(pattern, subject, admitted):
    issuer = "https://accounts.example.org"
    assert Identity(pattern, issuer).admits(subject, issuer) is admitted
    assert not Identity(pattern, issuer).admits(subject, f"{issuer}/")
    assert Policy(bases=(pattern,)).admits_base(subject) is admitted


def test_a_repository_on_github():
    (_, found) = policy(github={"repository": "example/wheels"}).identities
    issuer = "https://token.actions.githubusercontent.com"
    here = "https://github.com/example/wheels"
    start = f"{here}/.github/workflows/"
    assert found.admits(f"{start}any.yml@refs/heads/a/b", issuer, here)
    assert not found.admits(f"{start}any.yml@refs/heads/a/b", issuer, "https://github.com/mallory/wheels")
    assert not found.admits(f"{start}any.yml@refs/heads/a/b", issuer, "")
    assert not found.admits(f"{start}deep/any.yml@refs/heads/a", issuer, here)
    assert not found.admits("https://github.com/example/wheels2/.github/workflows/any.yml@refs/heads/a", issuer, here)
    assert not found.admits(f"{start}any.yml@refs/heads/a", "https://gitlab.com", here)


def test_no_base_is_allowed_where_none_is_named():
    assert not Policy().admits_base("x")


@pytest.mark.parametrize(
    ("said", "borne"),
    [
        ("none", []),
        ("low", ["low"]),
        ("high", ["low", "medium", "high"]),
        ("critical", ["low", "medium", "high", "critical"]),
    ],
)
def test_what_an_audit_may_have_found(said, borne):
    found = policy(audit={"max-age": "7d", "max-severity": said}).audit
    assert [str(each) for each in Severity if found.bears(each)] == borne


def test_an_audit_has_to_be_clean_where_nothing_else_is_said():
    assert policy(audit={"max-age": "7d"}).audit == Audit(timedelta(days=7), None, ignores=True)


JOB = {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "acme/demo"}


def test_whose_job_this_is():
    found = of_this_job(JOB)
    assert found is not None
    workflow = "https://github.com/other/shared/.github/workflows/sign.yml@refs/tags/v1"  # that a job may call
    issuer = "https://token.actions.githubusercontent.com"
    assert found.admits(workflow, issuer, "https://github.com/acme/demo")
    assert not found.admits(workflow, issuer, "https://github.com/acme/demo2")
    assert not found.admits(workflow, issuer)
    assert not found.admits(workflow, "https://accounts.example.org", "https://github.com/acme/demo")


@pytest.mark.parametrize(
    "change",
    [
        {"GITHUB_ACTIONS": ""},
        {"GITHUB_REPOSITORY": "acme/*"},
        {"GITHUB_REPOSITORY": "acme"},
        {"GITHUB_SERVER_URL": "https://git.example.org"},
    ],
)
def test_what_is_no_job_of_a_repository(change):
    assert of_this_job({**JOB, **change}) is None
