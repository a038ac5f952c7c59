"""What `publish` asks uv, what it shows of its answers, and where it looks."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from reprobuild import places, process, publish, rebuild, verification
from reprobuild.cli import publish as cli
from reprobuild.cli.publish import publish as command
from reprobuild.difference import Level
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, EvidenceRefused, NotPublishable
from reprobuild.keys import PrivateKey
from reprobuild.places import Target, publishing
from reprobuild.policy import Identity, Policy
from reprobuild.progress import SILENT
from reprobuild.verification import Check, Verification

INDEXES = """
[[tool.uv.index]]
name = "internal"
url = "https://reader:planted-reader@index.example.org/simple/"
publish-url = "https://writer:planted-writer@index.example.org/upload/"

[[tool.uv.index]]
name = "mirror"
url = "https://mirror.example.org/simple/"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    (tmp_path / "pyproject.toml").write_text(INDEXES)
    return tmp_path


@pytest.mark.parametrize("variable", ["UV_PUBLISH_URL", "UV_PUBLISH_CHECK_URL"])
@pytest.mark.parametrize("host", ["[bad", "ho\u2100st", "host:port"])
def test_an_address_that_is_malformed_is_refused_in_words(project, monkeypatch, variable, host):
    monkeypatch.setenv(variable, f"https://writer:planted-writer@{host}/")
    with pytest.raises(BadInput, match="malformed") as caught:
        publishing(project)
    assert "planted" not in caught.value.reason


@pytest.mark.parametrize("option", ["--publish-url", "--check-url"])
def test_an_argument_that_is_malformed_is_a_mistake_of_usage(option):
    ended = CliRunner().invoke(command, ["x.whl", option, "https://writer:planted-writer@[bad/"])
    assert ended.exit_code == 2
    assert f"{option} is no URL" in ended.output
    assert "planted" not in ended.output


def test_a_named_index_has_both_addresses(project):
    target = publishing(project, "internal")
    assert target.variables == {"UV_PUBLISH_INDEX": "internal"}
    assert target.url == "https://index.example.org/upload/"
    assert target.listing == places.Place(
        "https://index.example.org/simple/", flat=False, credentials=("reader", "planted-reader")
    )
    assert "planted-writer" in target.hidden
    assert "planted" not in repr(target)


@pytest.mark.parametrize("name", ["mirror", "absent"])
def test_an_index_that_nothing_can_be_published_to(project, name):
    with pytest.raises(BadInput, match=name) as caught:
        publishing(project, name)
    assert caught.value.remedy == "It knows internal."


def test_a_url_goes_before_variables_and_these_before_settings(project, monkeypatch):
    (project / "pyproject.toml").write_text(
        '[tool.uv]\npublish-url = "https://a.example.org/"\ncheck-url = "https://a.example.org/simple/"\n'
    )
    found = publishing(project)
    assert (found.url, found.listing and found.listing.url) == (
        "https://a.example.org/",
        "https://a.example.org/simple/",
    )
    monkeypatch.setenv("UV_PUBLISH_URL", "https://b.example.org/")
    monkeypatch.setenv("UV_PUBLISH_INDEX", "internal")
    assert publishing(project, publish_url="https://c.example.org/").url == "https://c.example.org/"
    monkeypatch.delenv("UV_PUBLISH_INDEX")
    assert publishing(project).url == "https://b.example.org/"


def test_the_index_of_a_variable(project, monkeypatch):
    monkeypatch.setenv("UV_PUBLISH_INDEX", "internal")
    assert publishing(project).variables == {"UV_PUBLISH_INDEX": "internal"}


def test_uvs_default_is_looked_at_too(project):
    from pypi_simple import PYPI_SIMPLE_ENDPOINT  # noqa: PLC0415 - slow

    target = publishing(project)
    assert (target.variables, target.url) == ({}, "")
    assert target.listing
    assert target.listing.url == PYPI_SIMPLE_ENDPOINT
    assert publishing(project, publish_url="https://c.example.org/").listing is None


def test_uv_gets_the_identity_of_a_job_and_nothing_that_contradicts(monkeypatch):
    given = {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://x.example.org",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
        "PYPI_ID_TOKEN": "t",
        "UV_PUBLISH_TOKEN": "t",
    }
    away = {"UV_PUBLISH_URL": "x", "UV_PUBLISH_INDEX": "x", "AWS_SECRET_ACCESS_KEY": "x", "GITHUB_TOKEN": "x"}
    for name, value in {**given, **away}.items():
        monkeypatch.setenv(name, value)
    env = publish._environment(Target({"UV_PUBLISH_CHECK_URL": "y"}, "", None))
    assert given.items() <= env.items()
    assert not away.keys() & env.keys()
    assert env["UV_PUBLISH_CHECK_URL"] == "y"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one\n   two", "one two"),
        ("<html><head><title>t</title><style>x {y}</style></head><body>a <b>b</b>\n c</body></html>", "a b c"),
        ("Server says: <HTML><script>1 < 2</script>no</HTML>", "Server says: no"),
        ("a < b", "a < b"),
    ],
)
def test_a_page_in_words(text, words):
    assert publish._words(text) == words


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Server returned status code 401 Unauthorized.", "UV_PUBLISH_TOKEN"),
        ("Missing credentials for: https://x.example.org/", "UV_KEYRING_PROVIDER"),
        ("Server returned status code 409 Conflict.", "--check-url"),
        ("Server returned status code 500 Oh.", "That needs --check-url"),
    ],
)
def test_a_refusal_has_its_remedy_and_no_secret(said, remedy):
    target = Target({}, "https://x.example.org/", None)
    error = publish._refused(f"Publishing\nerror: hunter22 {said}", ["hunter22"], target)
    assert error.reason == f"https://x.example.org/ didn't take all files: … {said}"
    assert remedy in error.remedy


def test_a_long_answer_is_cut():
    error = publish._refused(f"error: {'x ' * 5000}", [], Target({}, "", None))
    assert len(error.reason) < 2100


def test_what_was_checked_is_what_is_uploaded(make_wheel, tmp_path, monkeypatch):
    """Whoever changes the file after the check changes nothing."""
    wheel = make_wheel(tmp_path / "dist")
    checked = wheel.read_bytes()
    sent: list[bytes] = []

    def prove(copy, demand, observer):
        wheel.write_bytes(b"changed meanwhile")
        return Level.IDENTICAL

    def upload(copies, *_):
        sent.extend(copy.path.read_bytes() for copy in copies)
        return frozenset()

    monkeypatch.setattr(publish, "_proved", prove)
    monkeypatch.setattr(publish, "_upload", upload)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (done,) = publish.publish([wheel], Target({}, "", None), publish.Demand(), scratch=scratch)
    assert sent == [checked]
    assert (done.digest, done.status) == (Digest.of_bytes(checked), "uploaded")


def test_two_files_of_one_name(make_wheel, tmp_path):
    wheels = [make_wheel(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(BadInput, match="same name"):
        publish.publish(wheels, Target({}, "", None), publish.Demand(), scratch=tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "/", "x" * 300 + ".whl", "pipe.whl", "folder.tar.gz", "gone.whl"])
def test_what_is_no_file_is_refused_before_anything_is_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.whl")  # reading it would never end
    Path("folder.tar.gz").mkdir()
    with pytest.raises(BadInput, match="is not a file that ends in"):
        publish.publish([Path(name)], Target({}, "", None), publish.Demand(), scratch=tmp_path / "scratch")


# --- what is checked is what goes out -------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path):
    """A file in the private folder, whose original was changed since."""
    name, version = NormalizedName("demo"), Version("1.0")
    original, own = tmp_path / "demo-1.0.tar.gz", tmp_path / "own" / "demo-1.0.tar.gz"
    own.parent.mkdir()
    own.write_bytes(b"checked")
    original.write_bytes(b"changed")
    return publish._Copy(original, own, Digest.of_bytes(b"checked"), name, version, None)


def test_what_is_made_again_is_the_copy(copied, monkeypatch):
    seen = []

    def verify(path, *_, **__):
        seen.append(path)
        return SimpleNamespace(level=Level.IDENTICAL, causes=())

    monkeypatch.setattr(rebuild, "verify", verify)
    assert publish._proved(copied, publish.Demand(), SILENT) is Level.IDENTICAL
    assert seen == [copied.path]


def test_what_came_out_worse_than_asked_for_is_refused(copied, monkeypatch):
    outcome = SimpleNamespace(level=Level.CONTAINER, causes=("mtime",))
    monkeypatch.setattr(rebuild, "verify", lambda *_, **__: outcome)
    with pytest.raises(NotPublishable, match=r"came out container \(mtime\); identical is asked for"):
        publish._proved(copied, publish.Demand(), SILENT)
    assert publish._proved(copied, publish.Demand(Level.PAYLOAD), SILENT) is Level.CONTAINER


def test_what_is_uploaded_is_the_copy(copied, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(process, "run", lambda argv, **_: seen.extend(argv))
    publish._upload([copied], Target({}, "", None), tmp_path, "", SILENT)
    assert seen == ["uv", "publish", copied.path]


@pytest.mark.parametrize(
    ("asked", "policy", "wanted"),
    [
        (Level.IDENTICAL, Policy(rebuilds=2, level=Level.PAYLOAD), (Level.IDENTICAL, 2)),
        (Level.PAYLOAD, Policy(rebuilds=1, level=Level.CONTAINER), (Level.CONTAINER, 1)),
        (Level.METADATA, Policy(), (Level.METADATA, 1)),
    ],
)
def test_votes_are_about_the_copy_and_have_the_stricter_level(copied, monkeypatch, asked, policy, wanted):
    seen = []

    def verify(subject, _evidence, policy, **_):
        seen.append((subject, policy.level, policy.rebuilds))
        return Verification(subject, (Check("rebuilds", True, ""),), (), ())

    monkeypatch.setattr(verification, "verify", verify)
    assert publish._proved(copied, publish.Demand(asked, policy), SILENT) is wanted[0]
    assert seen == [(copied.digest, *wanted)]


def test_what_is_hidden_is_of_the_upload_and_of_every_index(project, monkeypatch):
    monkeypatch.setenv("UV_PUBLISH_PASSWORD", "planted-password")
    hidden = publish._hidden(publishing(project, "internal"), project)
    assert {"planted-password", "planted-writer", "planted-reader"} <= set(hidden)


@pytest.mark.parametrize(
    ("name", "command"), [("demo-1.0-py3-none-any.whl", "verify-wheel"), ("demo-1.0.tar.gz", "verify-sdist")]
)
def test_what_no_policy_vouches_for_is_told_with_each_remedy(tmp_path, name, command):
    """Of an sdist too, which no `verify-wheel` takes, and of what isn't missing a rebuild alone."""
    path = tmp_path / name
    path.write_bytes(b"x")
    policy = Policy(keys=(PrivateKey.generate().public,), predicates=("https://cyclonedx.org/bom",))
    copy = publish._Copy(path, path, Digest.of_bytes(b"x"), canonicalize_name("demo"), Version("1.0"), None)
    with pytest.raises(NotPublishable) as refused:
        publish._voted(copy, Level.IDENTICAL, policy, None)
    assert f"`reprobuild {command} --attest KEY`" in refused.value.remedy
    assert "`reprobuild sbom … --attest KEY`" in refused.value.remedy


def test_whose_attestations_go_along(monkeypatch):
    """Who is named, else whom the policy trusts, else this job's repository, else nobody."""
    trusted = (Identity("a@example.org", "https://accounts.example.org"),)
    assert cli._signers(None, None) == ()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/demo")
    for policy in (None, Policy(keys=(PrivateKey.generate().public,))):
        assert [each.repository for each in cli._signers(None, policy)] == ["https://github.com/acme/demo"]
    assert cli._signers(None, Policy(identities=trusted)) == trusted
    named = ("b@example.org", "https://accounts.example.org")
    assert cli._signers(named, Policy(identities=trusted)) == (Identity(*named),)


@pytest.mark.parametrize("signer", [("", "https://accounts.example.org"), ("a@example.org", ""), ("", "")])
def test_a_signer_of_whom_a_variable_is_not_set_is_a_mistake_of_usage(signer):
    ended = CliRunner().invoke(command, ["x.whl", "--signer", *signer])
    assert ended.exit_code == 2
    assert "one of them is empty" in ended.output


def test_whoever_signed_instead_is_named_with_what_to_do(copied, monkeypatch):
    """No policy was asked, and adding somebody to one would change nothing beside --signer."""
    beside = copied.path.with_name("demo-1.0.tar.gz.publish.attestation")
    beside.write_text("{}")

    def by_certificate(*_):
        raise EvidenceRefused("it is signed by b@example.org, who isn't trusted here.", verification.ADD)

    monkeypatch.setattr(verification, "by_certificate", by_certificate)
    monkeypatch.setattr(publish, "of_attestation", lambda *_: None)
    client = verification.SigstoreClient(None)
    with pytest.raises(NotPublishable) as refused:
        publish._attested(replace(copied, attestation=beside), [Identity("a@example.org", "https://x")], client)
    assert refused.value.remedy.startswith("If that is who should sign, name it with --signer IDENTITY ISSUER.")
    assert "identities" not in refused.value.remedy


def test_a_file_without_a_record_is_named_as_it_was_given(copied):
    with pytest.raises(NotPublishable) as refused:
        publish._proved(copied, publish.Demand(), SILENT)
    assert str(copied.original) in refused.value.reason
    assert str(copied.path.parent) not in refused.value.reason


def test_what_does_not_count_is_told_once(copied, monkeypatch):
    check = Check("signature", False, "no trusted statement. a.json can't be used: it is unsigned.")
    refused = ("a.json can't be used: it is unsigned.", "b.json can't be used: it is no bundle.")
    found = Verification(copied.digest, (check,), (), refused)
    monkeypatch.setattr(verification, "verify", lambda *_, **__: found)
    with pytest.raises(NotPublishable) as error:
        publish._voted(copied, Level.IDENTICAL, Policy(), None)
    assert error.value.reason == (
        "demo-1.0.tar.gz is not verified under the policy: signature: no trusted statement. "
        "a.json can't be used: it is unsigned (b.json can't be used: it is no bundle)."
    )


@pytest.mark.parametrize(
    ("url", "where"), [("https://index.example.org/", "to https://index.example.org/"), ("", "to uv's default index")]
)
def test_a_dry_run_says_where_it_would_go(url, where):
    """Where nothing is configured it is the public index, which few want by mistake."""
    name, version = NormalizedName("demo"), Version("1.0")
    done = publish.Published(
        Path("demo.whl"), Digest.of_bytes(b"x"), name, version, "would-upload", "made-again", Level.IDENTICAL, 0
    )
    assert cli._line(done, Target({}, url, None)).endswith(f"(identical, made again just now, {where})")
