"""What lies beside an artifact: which of it is found, kept and held against a policy."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from reprobuild import attest, policy, verification
from reprobuild.bundle import BUNDLE_LIMIT, BUNDLE_MEDIA_TYPE
from reprobuild.cli import app, attesting, secrets
from reprobuild.compare import Level, Verdict
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, DigestMismatch, ExitCode, RecordUnusable, RegistryFailed, SigningFailed
from reprobuild.image import publish, signed
from reprobuild.image.archive import Registries
from reprobuild.image.store import InLayout, images_of
from reprobuild.keys import PrivateKey
from reprobuild.oci.layout import Layout, write_archive
from reprobuild.oci.model import (
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from reprobuild.oci.reference import Reference
from reprobuild.policy import Policy
from reprobuild.sign import KeySigner

ALICE, BOB = (KeySigner(PrivateKey.generate()) for _ in range(2))
TRUSTED = Policy(keys=(ALICE.key.public, BOB.key.public))
OTHER_TYPE = "https://example.org/predicate"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def statement(digest, kind=attest.PROVENANCE_TYPE, **predicate):
    return {
        "_type": attest.STATEMENT_TYPE,
        "subject": [attest.descriptor({"sha256": digest.hex}, name="it")],
        "predicateType": kind,
        "predicate": predicate,
    }


@pytest.fixture
def wheel(tmp_path):
    """A file with its record beside it."""
    path = tmp_path / "demo.whl"
    path.write_bytes(b"a wheel")
    record = statement(Digest.of_bytes(b"a wheel"))
    (tmp_path / "demo.whl.intoto.json").write_bytes(attest.encode(record))
    return path


@pytest.fixture
def sign(tmp_path):
    def sign(artifact, signer=ALICE, content=None):
        file = None
        if content is not None:
            file = tmp_path / "given.json"
            file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return signed.sign(str(artifact), signer, Registries(), tmp_path, file)

    return sign


@pytest.fixture
def verify(tmp_path):
    def verify(artifact, wanted=TRUSTED, **more):
        return [each for _, each in signed.verify(str(artifact), wanted, Registries(), tmp_path, **more)]

    return verify


# --- files ---------------------------------------------------------------------------------------------


def test_bundles_of_several_signers_lie_beside_each_other(wheel, sign, verify):
    (first,) = sign(wheel)
    assert first == f"{wheel}.sigstore.json"
    (second,) = sign(wheel, BOB)
    assert second == f"{wheel}.provenance.{BOB.name}.sigstore.json"
    assert sign(wheel) == (first,)
    assert sign(wheel, BOB) == (second,)
    (found,) = verify(wheel)
    assert {each.signer for each in found.accepted} == {ALICE.key.public.id, BOB.key.public.id}


def test_other_statements_have_names_of_their_own(wheel, sign):
    about = Digest.of_file(wheel)
    short = attest.short_name(OTHER_TYPE)
    assert sign(wheel, content=statement(about, OTHER_TYPE)) == (f"{wheel}.{short}.{ALICE.name}.sigstore.json",)
    assert sign(wheel, content=statement(about, attest.REBUILD_TYPE)) == (
        f"{wheel}.rebuild.{ALICE.name}.sigstore.json",
    )


@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "write"])
def test_what_has_the_usual_name_already_is_left_alone(wheel, sign, make):
    taken = wheel.with_name(f"{wheel.name}.sigstore.json")
    if make == "write":
        taken.write_bytes(b"somebody else's")
    else:
        getattr(os, make)(taken)
    (place,) = sign(wheel)
    assert place == f"{wheel}.provenance.{ALICE.name}.sigstore.json"
    assert make != "write" or taken.read_bytes() == b"somebody else's"


def test_which_files_are_beside_one(wheel, sign, verify):
    (place,) = sign(wheel)
    for name in ("demo.whl2.sigstore.json", "other.whl.sigstore.json", "demo.whl.json", "demo.whlsigstore.json"):
        wheel.with_name(name).write_bytes(b"not mine")
    wheel.with_name("demo.whl.folder.sigstore.json").mkdir()
    os.mkfifo(wheel.with_name("demo.whl.pipe.sigstore.json"))
    wheel.with_name("demo.whl.large.sigstore.json").write_bytes(b" " * (BUNDLE_LIMIT + 1))
    (found,) = verify(wheel)
    assert [each.where for each in found.accepted] == [place]
    (large,) = found.refused
    assert "has more than" in large


def test_only_so_many_are_looked_at(wheel, monkeypatch):
    monkeypatch.setattr(signed, "_MOST_BUNDLES", 3)
    for number in range(5):
        wheel.with_name(f"demo.whl.{number}.sigstore.json").write_bytes(b"{}")
    (artifact,) = signed.artifacts(str(wheel), Registries(), wheel.parent)
    told, *read = artifact.evidence()
    assert [raw for _, raw in read] == [b"{}"] * 3
    assert told == ("each bundle after the first 3, of 5,", b"")


def test_a_bundle_that_can_not_be_read_hides_no_other(wheel, sign, verify, monkeypatch):
    (place,) = sign(wheel)
    bad = wheel.with_name("demo.whl.bad.sigstore.json")
    bad.write_bytes(b"{}")
    usual = type(wheel).open

    def refuse(path, *arguments, **more):
        if path == bad:
            raise PermissionError(13, "Permission denied")
        return usual(path, *arguments, **more)

    monkeypatch.setattr(type(wheel), "open", refuse)
    (found,) = verify(wheel)
    assert [each.where for each in found.accepted] == [place]
    assert "Permission denied" in found.refused[0]


def test_bundles_that_are_named(wheel, sign, verify, tmp_path):
    (place,) = sign(wheel)
    moved = (tmp_path / place).rename(tmp_path / "elsewhere.json")
    assert not verify(wheel)[0].passed
    assert verify(wheel, more=[moved])[0].passed
    with pytest.raises(BadInput, match="can't be read"):
        verify(wheel, more=[tmp_path / "nothing"])


def test_a_policy_counts_only_whom_it_names(wheel, sign, verify):
    sign(wheel)
    assert not verify(wheel, Policy(keys=(BOB.key.public,)))[0].passed


@pytest.mark.parametrize(
    "part",
    [b"NaN", b"1e999", b"1180591620717411303424", b'"\\ud800"', b'{"\\ud800": 1}', b'{"a": 1, "a": 2}'],
)
def test_a_statement_that_would_be_written_otherwise_is_not_signed(wheel, sign, part):
    text = json.dumps(statement(Digest.of_file(wheel), a="HERE")).encode().replace(b'"HERE"', part)
    with pytest.raises(RecordUnusable, match="can't be signed"):
        sign(wheel, content=text)


def test_a_statement_about_something_else_is_not_signed(wheel, sign):
    with pytest.raises(RecordUnusable, match="about something else"):
        sign(wheel, content=statement(Digest.of_bytes(b"other")))
    wheel.write_bytes(b"changed")
    with pytest.raises(RecordUnusable, match="about something else"):
        sign(wheel)


@pytest.mark.parametrize("change", [{"_type": "https://in-toto.io/Statement/v2"}, {"subject": []}, {"predicate": 1}])
def test_what_is_no_statement_is_not_signed(wheel, sign, change):
    with pytest.raises(RecordUnusable, match="not an in-toto Statement v1"):
        sign(wheel, content={**statement(Digest.of_file(wheel)), **change})


class Publisher:
    """Signs as somebody who publishes."""

    name, key = "id-0", ALICE.key

    def sign(self, statement):
        return ALICE.sign(statement)

    def attestation(self, path):
        return b"for the index"


@pytest.mark.parametrize(("name", "made"), [("a.whl", True), ("a.tar.gz", True), ("a.bin", False)])
def test_what_goes_to_an_index_gets_an_attestation(tmp_path, sign, name, made):
    path = tmp_path / name
    path.write_bytes(b"x")
    places = sign(path, Publisher(), statement(Digest.of_bytes(b"x")))
    assert (f"{path}.publish.attestation" in places) == made
    assert path.with_name(f"{name}.publish.attestation").exists() == made


@pytest.mark.parametrize("name", [f"registry.example.org/app@sha256:{'0' * 64}", "registry.example.org/app:a b"])
def test_where_nothing_can_be_pushed(name):
    with pytest.raises(BadInput):
        signed.reference_of(name)


# --- images --------------------------------------------------------------------------------------------


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "image", create=True)


def put_image(layout, architecture="amd64", content=b"a layer"):
    layer = layout.put_document(OCI_LAYER, content)
    config = {"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": []}}
    manifest = Manifest.make(layout.put_document(OCI_CONFIG, canonical_json(config)), [layer])
    return layout.put_document(OCI_MANIFEST, manifest.raw)


def on(descriptor, platform):
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, platform)


def put_index(layout, *entries):
    return layout.put_document(OCI_INDEX, Index.make(entries).raw)


def attach(layout, subject, raw, kind=OTHER_TYPE):
    manifest, blobs = signed.referrer_of(raw, kind, subject)
    InLayout(layout).keep(
        Descriptor(OCI_MANIFEST, manifest.descriptor.digest, len(manifest.raw), artifact_type=BUNDLE_MEDIA_TYPE),
        (*blobs, (manifest.descriptor, manifest.raw)),
    )


def test_each_platform_has_to_be_signed(layout, verify):
    one, two = put_image(layout), put_image(layout, "arm64")
    layout.add(put_index(layout, on(one, AMD64), on(two, ARM64)))
    attach(layout, one, ALICE.sign(statement(one.digest)))
    assert [each.passed for each in verify(layout.folder)] == [True, False]
    done = CliRunner().invoke(app.cli, ["verify", str(layout.folder), "--key", str(public(layout)), "--json"])
    assert done.exit_code == ExitCode.NOT_VERIFIED
    assert json.loads(done.stdout)["passed"] is False
    attach(layout, two, BOB.sign(statement(two.digest)))
    assert [each.passed for each in verify(layout.folder)] == [True, True]


def public(layout):
    path = layout.folder.parent / "alice.pub"
    path.write_bytes(ALICE.key.public.pem)
    return path


@pytest.mark.parametrize("nested", [False, True])
def test_an_image_without_a_platform_is_one_too(layout, verify, nested):
    """Container runtimes run it where its config says so."""
    good, hidden = put_image(layout), put_image(layout, "arm64", b"another layer")
    entry = put_index(layout, on(hidden, ARM64)) if nested else hidden
    layout.add(put_index(layout, entry, on(good, AMD64)))
    attach(layout, good, ALICE.sign(statement(good.digest)))
    assert [each.passed for each in verify(layout.folder)] == [True, False]


def test_an_artifact_in_an_index_is_no_image(layout):
    good, empty = put_image(layout), layout.put_document(OCI_EMPTY, b"{}")
    artifact = layout.put_document(OCI_MANIFEST, Manifest.make(empty, [], artifact_type="text/x").raw)
    other = Descriptor.of("text/x", b"never read")
    top = put_index(layout, artifact, other, on(good, AMD64), good)
    assert [each.manifest.descriptor.digest for each in images_of(InLayout(layout), top, "it", every=True)] == [
        good.digest
    ]


@pytest.mark.parametrize("command", ["audit", "sbom", "sign --key KEY", "pull-evidence", "push", "diff"])
def test_a_damaged_manifest_has_the_exit_code_that_is_documented(layout, reprobuild, command):
    image = put_image(layout)
    layout.add(image)
    path = layout.path_of(image.digest)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    key = layout.folder.parent / "alice.key"
    ALICE.key.save(key)
    name, *more = command.replace("KEY", str(key)).split()
    more += {"push": ["127.0.0.1:1/demo:1"], "diff": [str(layout.folder)]}.get(name, [])
    reprobuild(name, layout.folder, *more, code=ExitCode.DIGEST_MISMATCH)


def test_evidence_of_one_image_is_none_of_another(layout, verify):
    one, two = put_image(layout), put_image(layout, content=b"another layer")
    layout.add(one)
    attach(layout, one, ALICE.sign(statement(two.digest)))
    attach(layout, two, ALICE.sign(statement(one.digest)))
    (found,) = verify(layout.folder)
    assert not found.passed
    assert len(found.refused) == 1
    assert "another artifact" in found.refused[0]


def test_what_can_not_be_a_bundle_counts_for_nothing(layout, verify):
    image = put_image(layout)
    layout.add(image)
    for layers in ([], [Descriptor.of("x", b"gone")], [Descriptor("x", image.digest, BUNDLE_LIMIT + 1)], [image] * 2):
        made = Manifest.make(
            layout.put_document(OCI_EMPTY, b"{}"), layers, subject=image, artifact_type=BUNDLE_MEDIA_TYPE
        )
        kept = layout.put_document(OCI_MANIFEST, made.raw)
        layout.add(Descriptor(OCI_MANIFEST, kept.digest, kept.size, artifact_type=BUNDLE_MEDIA_TYPE))
    assert not verify(layout.folder)[0].passed
    attach(layout, image, ALICE.sign(statement(image.digest)))
    (found,) = verify(layout.folder)
    assert found.passed
    assert "lacks the blob" in found.refused[0]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def swap(path):
    path.write_bytes(path.read_bytes().replace(b"bundle", b"elbnub"))


DAMAGES = {"cut": cut, "changed": swap, "gone": Path.unlink, "a folder": lambda path: (path.unlink(), path.mkdir())}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_referrer_counts_for_nothing_and_hides_no_other(layout, verify, damage):
    """Whoever may write beside an image could deny it otherwise."""
    image = put_image(layout)
    layout.add(image)
    attach(layout, image, ALICE.sign(statement(image.digest)))
    (broken,) = layout.referrers(image.digest)
    damage(layout.path_of(broken.descriptor.digest))
    (found,) = verify(layout.folder)
    assert not found.passed
    (why,) = found.refused
    assert why.startswith(f"the referrer {broken.descriptor.digest} (")
    assert why.endswith("can't be used: nothing of it was read.")
    attach(layout, image, BOB.sign(statement(image.digest)))
    (found,) = verify(layout.folder)
    assert [each.signer for each in found.accepted] == [BOB.key.public.id]
    assert found.passed
    assert found.refused == (why,)


@pytest.fixture
def pushed(layout, served):
    """An image in a registry, signed by Alice and Bob, whose list of referrers is a tag: its name, and the two."""
    image = put_image(layout)
    layout.add(image)
    for each in (ALICE, BOB):
        attach(layout, image, each.sign(statement(image.digest)))
    referrers = [each.descriptor.digest for each in layout.referrers(image.digest)]
    publish.push(str(layout.folder), [Reference.parse(f"{served.host}/app:1")], Registries(), layout.folder.parent)
    return f"{served.host}/app:1", image.digest, referrers


def broken_in(served, digest):
    served.manifests["app", str(digest)] = (OCI_MANIFEST, b'{"schemaVersion": 2}')


def refused_by(served, digest):
    served.answer("GET", f"manifests/{digest}", 403, times=9)


def gone_from(served, digest):
    del served.manifests["app", str(digest)]


@pytest.mark.parametrize("damage", [broken_in, refused_by, gone_from])
def test_a_damaged_referrer_in_a_registry_counts_for_nothing(pushed, served, verify, damage):
    name, _, (alice, bob) = pushed
    (found,) = verify(name)
    assert (len(found.accepted), found.refused) == (2, ())
    damage(served, alice)
    (found,) = verify(name)
    assert [each.signer for each in found.accepted] == [BOB.key.public.id]
    assert found.passed
    assert [f"the referrer {alice} (" in each for each in found.refused] == [True]
    damage(served, bob)
    (found,) = verify(name)
    assert not found.passed
    assert len(found.refused) == 2


def test_a_list_of_referrers_that_is_none_hides_no_bundle_that_is_named(pushed, served, verify, tmp_path):
    name, digest, _ = pushed
    served.manifests["app", f"sha256-{digest.hex}"] = (OCI_INDEX, b'{"mediaType": "x/y"}')
    assert not verify(name)[0].passed
    bundle = tmp_path / "named.sigstore.json"
    bundle.write_bytes(ALICE.sign(statement(digest)))
    (found,) = verify(name, more=[bundle])
    assert found.passed
    assert "what lists the referrers (" in found.refused[0]


def test_a_registry_that_does_not_answer_is_no_verdict(pushed, served, verify):
    name, _, _ = pushed
    served.answer("GET", "referrers/", 403)
    with pytest.raises(RegistryFailed):
        verify(name)


def test_a_damaged_layer_makes_all_evidence_worthless(layout, verify):
    image = put_image(layout)
    layout.add(image)
    attach(layout, image, ALICE.sign(statement(image.digest)))
    (layer,) = Manifest.read(layout.read(image), "it").layers
    layout.path_of(layer.digest).write_bytes(b"A layer")
    with pytest.raises(DigestMismatch):
        verify(layout.folder)


def test_a_signature_is_kept_beside_an_image(layout, sign, verify):
    image = put_image(layout)
    layout.add(put_index(layout, on(image, AMD64)))
    (place,) = sign(layout.folder, content=statement(image.digest))
    (found,) = layout.referrers(image.digest)
    assert place == f"oci:{layout.folder}@{found.descriptor.digest}"
    assert found.annotations[signed.BUNDLE_PREDICATE] == attest.PROVENANCE_TYPE
    assert found.subject == image  # without its platform
    assert verify(layout.folder)[0].passed


def test_bundles_of_each_platform_lie_beside_an_archive(layout, tmp_path, sign, verify):
    image = put_image(layout)
    path = tmp_path / "image.tar"
    with path.open("wb") as stream:
        write_archive(layout, image, {}, stream)
    sign(path, content=statement(image.digest))
    (place,) = sign(path, content=statement(image.digest, OTHER_TYPE))
    assert f".{image.digest.hex[:12]}.{ALICE.name}.sigstore.json" in place
    (found,) = verify(path)
    assert len(found.accepted) == 2


# --- the command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool]\nreprobuild = 3", "has no [tool.reprobuild.policy]"),
        ("tool = [1]", "has no [tool.reprobuild.policy]"),
        ("[tool.reprobuild]\npolicy = [1]", "has no [tool.reprobuild.policy]"),
        ("a = " + "[" * 20_000, "is not TOML"),
        ("a = ", "is not TOML"),
    ],
)
def test_what_is_no_policy(wheel, text, words):
    (wheel.parent / "pyproject.toml").write_text(text)
    done = CliRunner().invoke(app.cli, ["verify", str(wheel), "--project", str(wheel.parent)])
    assert isinstance(done.exception, BadInput)
    assert words in done.exception.reason


def test_keys_of_a_policy_are_relative_to_its_file(wheel, sign, tmp_path, monkeypatch):
    sign(wheel)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "alice.pub").write_bytes(ALICE.key.public.pem)
    (folder / "policy.toml").write_text('keys = ["alice.pub"]')
    monkeypatch.chdir(tmp_path)
    command = ["verify", "demo.whl", "--policy", "policies/policy.toml"]
    assert CliRunner().invoke(app.cli, command).exit_code == ExitCode.OK
    assert CliRunner().invoke(app.cli, [*command, "--key", "policies/alice.pub"]).exit_code == ExitCode.USAGE
    wheel.write_bytes(b"another")
    assert CliRunner().invoke(app.cli, command).exit_code == ExitCode.NOT_VERIFIED


def test_evidence_that_can_not_be_read_is_not_written(layout, tmp_path):
    image = put_image(layout)
    layout.add(image)
    for number in range(2):
        attach(layout, image, b"bundle %d" % number)
    gone = layout.referrers(image.digest)[0].layers[0]
    layout.path_of(gone.digest).unlink()
    output = tmp_path / "evidence"
    done = CliRunner().invoke(app.cli, ["pull-evidence", str(layout.folder), "-o", str(output), "--json"])
    assert [each["file"] is None for each in json.loads(done.stdout)["evidence"]] == [True, False]
    assert [each.read_bytes() for each in output.iterdir()] == [b"bundle 1"]


def test_bundles_that_are_fetched_are_numbered_for_each_image(layout, tmp_path):
    one, two = put_image(layout), put_image(layout, "arm64")
    layout.add(put_index(layout, on(one, AMD64), on(two, ARM64)))
    for image, count in ((one, 3), (two, 2)):
        for number in range(count):
            attach(layout, image, b"%d of %s" % (number, image.digest.hex.encode()))
    output = tmp_path / "evidence"
    done = CliRunner().invoke(app.cli, ["pull-evidence", str(layout.folder), "-o", str(output), "--json"])
    named = [f"{one.digest.hex[:12]}.{number}.sigstore.json" for number in range(3)]
    named += [f"{two.digest.hex[:12]}.{number}.sigstore.json" for number in range(2)]
    listed = json.loads(done.stdout)["evidence"]
    assert [Path(each["file"]).name for each in listed] == named
    assert sorted(each.name for each in output.iterdir()) == sorted(named)
    read = {(output / name).read_bytes() for name in named}
    assert len(read) == len(named)
    assert [each["about"] for each in listed] == [str(one.digest)] * 3 + [str(two.digest)] * 2


@pytest.mark.parametrize(("words", "version"), [([], 1), (["--rekor-version", "1"], 1), (["--rekor-version", "2"], 2)])
def test_the_version_of_the_log_is_handed_on(wheel, monkeypatch, words, version):
    asked = []

    def keyless(*given, **more):
        asked.append((given, more))
        return ALICE

    monkeypatch.setattr(secrets, "keyless", keyless)
    trust = str(wheel.parent / "trust.json")
    assert CliRunner().invoke(app.cli, ["sign", str(wheel), "--trust-config", trust, *words]).exit_code == 0
    ((given, more),) = asked
    assert given == (None, Path(trust))
    assert more["rekor"] == version


@pytest.mark.parametrize(
    "words", [["verify", "--key", "PUB"], ["publish", "--key", "PUB", "--publish-url", "http://x/"]]
)
@pytest.mark.parametrize("named", [True, False])
def test_the_root_of_trust_is_handed_on(layout, make_wheel, monkeypatch, words, named):
    path, key, trusted = make_wheel(layout.folder), public(layout), []

    def held(*_, trust, **__):
        trusted.append(trust)
        raise BadInput("far enough")

    monkeypatch.setattr(verification, "verify", held)
    root = layout.folder / "trusted_root.json"
    command = [*(str(key) if word == "PUB" else word for word in words), str(path)]
    done = CliRunner().invoke(app.cli, [*command, *(["--trusted-root", str(root)] if named else [])])
    assert "far enough" in str(done.exception)
    assert trusted == [root if named else None]


def test_a_policy_that_accepts_what_nobody_compared(tmp_path):
    with pytest.raises(BadInput, match="level can't be not-comparable"):
        policy.read(
            {"identities": [{"identity": "a", "issuer": "b"}], "level": "not-comparable", "rebuilds": 1}, "it", tmp_path
        )


def a_new_one():
    return secrets.new_passphrase(wanted=True)


@pytest.mark.parametrize(("ask", "twice"), [(secrets.passphrase, False), (a_new_one, True)])
def test_a_passphrase_is_not_shown_when_it_is_asked_for(monkeypatch, ask, twice):
    asked = []

    def prompt(text, **how):
        asked.append(how)
        return "typed"

    monkeypatch.delenv(secrets.PASSPHRASE, raising=False)
    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr("sys.stdin", Terminal(there=True))
    assert ask() == "typed"
    assert asked == [{"hide_input": True, "err": True, **({"confirmation_prompt": True} if twice else {})}]
    monkeypatch.setattr("sys.stdin", Terminal(there=False))
    with pytest.raises(SigningFailed, match="no terminal to ask"):
        ask()
    monkeypatch.setenv(secrets.PASSPHRASE, "set")
    assert ask() == "set"


class Terminal:
    """Standard input, which is one or isn't."""

    def __init__(self, *, there):
        self._there = there

    def isatty(self):
        return self._there


def test_an_empty_passphrase_protects_nothing(monkeypatch):
    monkeypatch.setenv(secrets.PASSPHRASE, "")
    with pytest.raises(SigningFailed, match="is empty"):
        a_new_one()
    assert secrets.new_passphrase(wanted=False) == ""


def test_a_token_is_read_without_its_line_end(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(secrets, "keyless", lambda *given, **how: asked.append((given, how)))
    monkeypatch.setattr("sys.stdin", Terminal(there=False))
    (tmp_path / "token").write_text("a.b.c\n")
    monkeypatch.setenv(secrets.TOKEN, "")
    secrets.signer_of(None, tmp_path / "token", None, 2)
    secrets.signer_of(None, None, None, 1)
    assert asked == [
        (("a.b.c", None), {"interactive": False, "rekor": 2}),
        ((None, None), {"interactive": False, "rekor": 1}),
    ]
    (tmp_path / "token").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="can't be read"):
        secrets.signer_of(None, tmp_path / "token", None, 1)


@pytest.mark.parametrize("level", [Level.IDENTICAL, Level.PAYLOAD])
def test_a_vote_says_what_came_out(level):
    left, right = Digest.of_bytes(b"given"), Digest.of_bytes(b"made")
    verdict = Verdict(Level.PAYLOAD, left, right, 1, 1)
    vote = attesting.vote_of("demo.whl", verdict, level, {"sha256": "0" * 64}, ["hostname"], "bubblewrap")
    assert vote["subject"] == [{"name": "demo.whl", "digest": {"sha256": left.hex}}]
    said = vote["predicate"]
    assert (said["level"], said["rebuilt"]["digest"]) == (level, {"sha256": right.hex})
    assert (said["record"]["digest"], said["varied"]) == ({"sha256": "0" * 64}, ["hostname"])


def test_who_votes(monkeypatch):
    asked = []
    monkeypatch.setattr(secrets, "signer_of", lambda key, *_: asked.append(key))
    for named in (None, "keyless", "a.key"):
        attesting.voter(named, None)
    assert asked == [None, Path("a.key")]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("found", ["secret", ""])
def test_a_key_gets_the_passphrase_that_is_there(tmp_path, monkeypatch, asked, found):
    if found:
        monkeypatch.setenv(secrets.PASSPHRASE, found)
    command = ["keys", "new", str(tmp_path / "a.key"), *(["--passphrase"] if asked else [])]
    done = CliRunner().invoke(app.cli, command)
    if asked and not found:
        assert isinstance(done.exception, SigningFailed)
        return
    assert done.exit_code == ExitCode.OK
    assert (b"ENCRYPTED" in (tmp_path / "a.key").read_bytes()) == bool(found)


def test_what_is_named_on_the_command_line_is_used(wheel, tmp_path):
    key = tmp_path / "a.key"
    ALICE.key.save(key)
    given = tmp_path / "given.json"
    given.write_bytes(attest.encode(statement(Digest.of_file(wheel), OTHER_TYPE)))
    command = ["sign", str(wheel), "--key", str(key), "--statement", str(given), "--json"]
    (place,) = json.loads(CliRunner().invoke(app.cli, command).stdout)["bundles"]
    moved = Path(place).rename(tmp_path / "moved.json")
    command = ["verify", str(wheel), "--key", str(tmp_path / "a.pub")]
    assert CliRunner().invoke(app.cli, command).exit_code == ExitCode.NOT_VERIFIED
    said = CliRunner().invoke(app.cli, [*command, "--bundle", str(moved), "--json"])
    assert said.exit_code == ExitCode.OK
    (found,) = json.loads(said.stdout)["artifacts"][0]["accepted"]
    assert found["predicateType"] == OTHER_TYPE


def test_a_statement_that_nobody_would_read_is_not_signed(wheel, sign):
    large = {**statement(Digest.of_bytes(b"a wheel")), "predicate": {"text": "x" * (BUNDLE_LIMIT * 7 // 8)}}
    with pytest.raises(BadInput, match="which nobody would read"):
        sign(wheel, content=large)
    assert not list(wheel.parent.glob("*.sigstore.json"))
