"""Publishing to a real index on loopback: what is refused, what arrives, and what a second run does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild import process
from reprobuild.errors import ExitCode, NotPublishable
from reprobuild.places import Target
from reprobuild.policy import Identity, of_this_job
from reprobuild.publish import Demand, Published
from reprobuild.publish import publish as publish_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Ended, MakeWheel, Projects
    from tests.index.server import Index
    from tests.sigstore.stack import Stack

USER = "uploader"
NAMES = ["with_hatchling-1.0-py3-none-any.whl", "with_hatchling-1.0.tar.gz"]
WORKFLOW = "https://github.com/example/wheels/.github/workflows/release.yml@refs/tags/v1"
GITHUB = "https://token.actions.githubusercontent.com"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def _released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"folder": tmp_path_factory.mktemp("released") / "project"}


@pytest.fixture
def released(_released: dict[str, Path], project: Projects, reprobuild: Cli, tmp_path: Path) -> Path:
    """A checkout with its wheel and sdist in dist/, built once, and here a copy of its own."""
    if not _released["folder"].exists():
        folder = project("with-hatchling", _released["folder"])
        reprobuild("wheel", cwd=folder)
        reprobuild("sdist", cwd=folder)
    copy = tmp_path / "released"
    shutil.copytree(_released["folder"], copy, symlinks=True)
    return copy


@pytest.fixture
def publish(reprobuild: Cli, index: Index) -> Callable[..., Ended]:
    """`reprobuild publish` to the index, with the right login."""

    def run(
        cwd: Path, *arguments: str | Path, code: int = 0, env: dict[str, str] | None = None, check: bool = True
    ) -> Ended:
        where = ["--publish-url", index.url, *(["--check-url", index.simple] if check else [])]
        login = index.environment if env is None else env
        return reprobuild("publish", *where, *arguments, cwd=cwd, env=login, code=code)

    return run


def published(index: Index) -> list[str]:
    return sorted(path.name for path in index.packages.iterdir())


def test_what_is_made_again_arrives_and_installs_from_there(
    released: Path, publish: Callable[..., Ended], index: Index, tmp_path: Path
) -> None:
    done = publish(released, "--json").json
    assert [(each["status"], each["proof"], each["level"]) for each in done["files"]] == [
        ("uploaded", "made-again", "identical")
    ] * 2
    assert published(index) == NAMES
    for name in NAMES:
        assert (index.packages / name).read_bytes() == (released / "dist" / name).read_bytes()
    assert [each.fields["sha256_digest"] for each in index.uploads] == [
        [each["digest"].removeprefix("sha256:")] for each in done["files"]
    ]
    # A second run has nothing to do, and needs no login for it.
    again = publish(released, env={})
    assert again.stdout.count("already there, same digest") == 2
    assert len(index.uploads) == 2

    wheel = done["files"][0]["digest"]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"with-hatchling==1.0 --hash={wheel}\n")
    options = ["--index-url", index.simple, "--no-deps", "--require-hashes", "-r", str(requirements)]
    pip = [sys.executable, "-m", "pip", "install", "--isolated", "--no-cache-dir", "--target", str(tmp_path / "pip")]
    subprocess.run([*pip, *options], check=True, capture_output=True, timeout=120)
    uv = [str(process.find("uv")), "pip", "install", "--no-config", "--no-cache", "--target", str(tmp_path / "uv")]
    subprocess.run([*uv, "--python", sys.executable, *options], check=True, capture_output=True, timeout=120)
    for tool in ("pip", "uv"):
        assert (tmp_path / tool / "with_hatchling" / "__init__.py").is_file()


def test_a_dry_run_checks_all_and_uploads_nothing(released: Path, publish: Callable[..., Ended], index: Index) -> None:
    done = publish(released, "--dry-run", env={})
    assert done.stdout.count("would upload") == done.stdout.count("identical, made again just now") == 2
    assert index.uploads == []
    assert "POST /" not in index.asked


def test_a_file_that_cannot_be_made_again_stops_all(
    project: Projects, publish: Callable[..., Ended], reprobuild: Cli, index: Index
) -> None:
    other = project("embedded-clock")
    reprobuild("sdist", cwd=other)
    reprobuild("wheel", cwd=other)
    (wheel,) = (other / "dist").glob("*.whl")
    refused = publish(other, code=ExitCode.NOT_PUBLISHABLE)
    assert refused.stderr.count("came out payload (clock); identical is asked for") == 2  # each is named
    assert f"{wheel.name} was made again and came out payload" in refused.stderr
    assert index.uploads == []
    assert publish(other, wheel, "--require", "payload").stdout.startswith("uploaded")


def test_nothing_goes_out_that_nobody_has_verified(released: Path, publish: Callable[..., Ended], index: Index) -> None:
    (released / "dist" / f"{NAMES[0]}.intoto.json").unlink()
    refused = publish(released, code=ExitCode.NOT_PUBLISHABLE)
    assert f"{NAMES[0]} was not verified" in refused.stderr
    assert index.uploads == []
    told = publish(released, "--require", "unsafe-unverified")
    assert told.stdout.count("not verified") == 2
    assert published(index) == NAMES


def test_a_wheel_that_was_changed_after_its_build_is_refused(
    released: Path, publish: Callable[..., Ended], index: Index, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    forged = make_wheel(tmp_path, name="with_hatchling")
    shutil.copyfile(forged, released / "dist" / NAMES[0])
    refused = publish(released, code=ExitCode.NOT_PUBLISHABLE)
    assert "changed after the build" in refused.stderr or "is about" in refused.stderr
    assert index.uploads == []


# --- votes ---------------------------------------------------------------------------------------------


@pytest.fixture
def voted(released: Path, reprobuild: Cli, tmp_path: Path) -> Path:
    """A policy that asks for one rebuild, which is signed; the wheel and the sdist have it."""
    reprobuild("keys", "new", tmp_path / "alice.key")
    for name, command in zip(NAMES, ("verify-wheel", "verify-sdist"), strict=True):
        reprobuild(command, released / "dist" / name, "--attest", tmp_path / "alice.key", cwd=released)
    policy = tmp_path / "policy.toml"
    policy.write_text('keys = ["alice.pub"]\nrebuilds = 1\n')
    return policy


def test_votes_are_enough_and_nothing_is_made_again(
    released: Path, voted: Path, publish: Callable[..., Ended], index: Index, reprobuild: Cli, tmp_path: Path
) -> None:
    for name in NAMES:
        assert reprobuild("verify", released / "dist" / name, "--policy", voted, "--json").json["passed"]
        (released / "dist" / f"{name}.intoto.json").unlink()  # without a record nothing could be made again
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(released / "dist", elsewhere / "dist")
    done = publish(elsewhere, "--policy", voted, "--json").json
    assert [(each["status"], each["proof"]) for each in done["files"]] == [("uploaded", "votes")] * 2
    assert published(index) == NAMES


def test_a_signature_without_a_rebuild_is_no_vote(
    released: Path, publish: Callable[..., Ended], index: Index, reprobuild: Cli, tmp_path: Path
) -> None:
    reprobuild("keys", "new", tmp_path / "alice.key")
    for name in NAMES:
        reprobuild("sign", released / "dist" / name, "--key", tmp_path / "alice.key")
    refused = publish(released, "--key", tmp_path / "alice.pub", code=ExitCode.NOT_PUBLISHABLE)
    assert "0 of the 1 rebuilds" in refused.stderr
    assert all(f"{name} is not verified under the policy" in refused.stderr for name in NAMES)
    assert index.uploads == []


def test_votes_of_others_do_not_count(
    released: Path, voted: Path, publish: Callable[..., Ended], index: Index, reprobuild: Cli, tmp_path: Path
) -> None:
    reprobuild("keys", "new", tmp_path / "bob.key")
    refused = publish(released, "--key", tmp_path / "bob.pub", code=ExitCode.NOT_PUBLISHABLE)
    assert "not verified under the policy" in refused.stderr
    assert index.uploads == []


def test_the_policy_of_the_project_counts_without_being_named(
    released: Path, publish: Callable[..., Ended], index: Index
) -> None:
    with (released / "pyproject.toml").open("a") as stream:
        stream.write('\n[tool.reprobuild.policy]\nkeys = ["nobody.pub"]\nrebuilds = 1\n')
    assert "nobody.pub" in publish(released, code=ExitCode.BAD_INPUT).stderr
    assert index.uploads == []


# --- the index -----------------------------------------------------------------------------------------


def test_another_file_of_the_same_name_stops_all(
    released: Path, publish: Callable[..., Ended], index: Index, make_wheel: MakeWheel
) -> None:
    make_wheel(index.packages, name="with_hatchling")
    there = hashlib.sha256((index.packages / NAMES[0]).read_bytes()).hexdigest()
    refused = publish(released, code=ExitCode.PUBLISH_FAILED)
    assert f"Nothing was uploaded: {NAMES[0]} is on the index with sha256:{there}" in refused.stderr
    assert index.uploads == []


def test_a_run_that_was_broken_off_is_completed_by_the_next(
    released: Path, publish: Callable[..., Ended], index: Index
) -> None:
    with index.failing("502 Bad Gateway", "the disk is on fire", after=1):
        failed = publish(released, code=ExitCode.PUBLISH_FAILED)
    assert "502" in failed.stderr
    assert "the disk is on fire" in failed.stderr
    assert published(index) == NAMES[:1]
    done = publish(released, "--json").json
    assert [each["status"] for each in done["files"]] == ["already-there", "uploaded"]
    assert published(index) == NAMES


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        ("400 Bad Request", "<html><body><h1>No</h1><p>the   name is taken</p></body></html>", "the name is taken"),
        ("403 Forbidden", "you may not", "you may not"),
        ("409 Conflict", "it is there", "--check-url"),
        ("503 Service Unavailable", "later", "Run it again"),
    ],
)
def test_the_words_of_an_index_that_refuses_are_shown(
    released: Path, publish: Callable[..., Ended], index: Index, status: str, text: str, says: str
) -> None:
    with index.failing(status, text):
        failed = publish(released, "--require", "unsafe-unverified", code=ExitCode.PUBLISH_FAILED)
    assert status.split(maxsplit=1)[0] in failed.stderr
    assert says in failed.stderr
    assert "<p>" not in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_index_that_is_down(released: Path, reprobuild: Cli) -> None:
    down = ["--publish-url", "http://127.0.0.1:9/", "--require", "unsafe-unverified"]
    env = {"UV_PUBLISH_TOKEN": "pypi-planted-secret", "UV_HTTP_RETRIES": "0"}
    failed = reprobuild("publish", *down, cwd=released, env=env, code=ExitCode.PUBLISH_FAILED)
    assert "http://127.0.0.1:9/ didn't take all files" in failed.stderr
    failed = reprobuild("publish", *down, "--check-url", "http://127.0.0.1:9/simple/", cwd=released, env=env, code=29)
    assert "Nothing was uploaded" in failed.stderr


def test_an_index_of_uvs_configuration(released: Path, reprobuild: Cli, index: Index) -> None:
    with (released / "pyproject.toml").open("a") as stream:
        stream.write(
            f'\n[[tool.uv.index]]\nname = "internal"\nurl = "{index.simple}"\npublish-url = "{index.url}"\n'
            "explicit = true\n"
        )
    command = ["publish", "--index", "internal", "--require", "unsafe-unverified"]
    assert reprobuild(*command, cwd=released, env=index.environment).stdout.count("uploaded") == 2
    assert reprobuild(*command, cwd=released).stdout.count("already there") == 2
    unknown = reprobuild("publish", "--index", "other", cwd=released, code=ExitCode.BAD_INPUT)
    assert "It knows internal" in unknown.stderr


# --- secrets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("echoed", [True, False])
def test_no_secret_is_ever_shown(
    released: Path, publish: Callable[..., Ended], index: Index, reprobuild: Cli, *, echoed: bool
) -> None:
    secret = "planted-secret-4f1d"
    env = {"UV_PUBLISH_USERNAME": "uploader", "UV_PUBLISH_PASSWORD": secret}
    options = ["--require", "unsafe-unverified", "--verbose", "--json"]
    if echoed:
        with index.failing("403 Forbidden", f"the password {secret} is wrong"):
            failed = publish(released, *options, env=env, code=ExitCode.PUBLISH_FAILED)
        assert "the password … is wrong" in failed.stderr
    else:
        failed = publish(released, *options, env=env, code=ExitCode.PUBLISH_FAILED)
    assert "UV_PUBLISH_TOKEN" in failed.stderr
    assert secret not in failed.stderr + failed.stdout


def test_a_login_in_a_url_is_refused_or_hidden(released: Path, reprobuild: Cli, index: Index) -> None:
    secret = "planted-secret-77aa"
    url = index.url.replace("://", f"://uploader:{secret}@")
    refused = reprobuild("publish", "--publish-url", url, cwd=released, code=ExitCode.USAGE)
    assert "holds a credential" in refused.stderr
    env = {"UV_PUBLISH_URL": url, "UV_PUBLISH_CHECK_URL": index.simple}
    failed = reprobuild(
        "publish", "--require", "unsafe-unverified", "-v", cwd=released, env=env, code=ExitCode.PUBLISH_FAILED
    )
    assert "403" in failed.stderr
    for text in (refused.stderr, refused.stdout, failed.stderr, failed.stdout):
        assert secret not in text


def arguments_of_uv(folder: Path, *command: str, cwd: Path, env: dict[str, str], code: int = 0) -> str:
    """All arguments that a command gives uv, and what it says itself."""
    seen = folder / "seen"
    spy = folder / "bin" / "uv"
    spy.parent.mkdir(exist_ok=True)
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nexec {process.find("uv")} "$@"\n')
    spy.chmod(0o755)
    script = (
        "import sys; from pathlib import Path; from reprobuild import process, cli; found = process.find\n"
        f"process.find = lambda name: Path({str(spy)!r}) if name == 'uv' else found(name)\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return seen.read_text() + done.stdout + done.stderr


def test_no_secret_is_an_argument_of_uv(released: Path, tmp_path: Path) -> None:
    """What a program's arguments are, everybody on the machine may read."""
    command = ["publish", "--publish-url", "http://127.0.0.1:9/", "--require", "unsafe-unverified"]
    env = {"UV_PUBLISH_TOKEN": "planted-secret-91c3"}
    seen = arguments_of_uv(tmp_path, *command, cwd=released, env=env, code=ExitCode.PUBLISH_FAILED)
    assert "publish" in seen
    assert "planted-secret-91c3" not in seen


# --- trusted publishing --------------------------------------------------------------------------------


def test_a_job_that_the_index_trusts_needs_no_secret(
    released: Path, reprobuild: Cli, tls_index: Index, sigstore_stack: Stack
) -> None:
    seen: list[str] = []

    def believes(token: str) -> bool:
        seen.append(token)
        return bool(sigstore_stack.issuer.claims(token)["repository"] == "example/wheels")

    tls_index.believes = believes
    env = {**sigstore_stack.ci_environment(), "GITHUB_ACTIONS": "true", "NO_PROXY": "*"}
    command = ["publish", "--publish-url", tls_index.url, "--check-url", tls_index.simple]
    options = ["--require", "unsafe-unverified", "--trusted-publishing", "always", "--verbose"]
    told = reprobuild(*command, *options, cwd=released, env=env)
    assert told.stdout.count("uploaded") == 2
    assert [each.user for each in tls_index.uploads] == ["__token__"] * 2
    assert len(seen) == 1
    assert seen[0] not in told.stderr + told.stdout
    assert "minted-" not in told.stderr + told.stdout


def test_a_job_that_the_index_does_not_trust(
    released: Path, reprobuild: Cli, tls_index: Index, sigstore_stack: Stack
) -> None:
    env = {**sigstore_stack.ci_environment(), "GITHUB_ACTIONS": "true", "NO_PROXY": "*"}
    command = ["publish", "--publish-url", tls_index.url, "--check-url", tls_index.simple]
    options = ["--require", "unsafe-unverified", "--trusted-publishing", "always"]
    failed = reprobuild(*command, *options, cwd=released, env=env, code=ExitCode.PUBLISH_FAILED)
    assert "no publisher here is trusted with that token" in failed.stderr
    assert "a CI job that the index trusts" in failed.stderr
    assert tls_index.uploads == []


# --- attestations --------------------------------------------------------------------------------------


def test_attestations_arrive_and_verify(
    released: Path, publish: Callable[..., Ended], index: Index, reprobuild: Cli, sigstore_stack: Stack
) -> None:
    from pypi_attestations import Attestation  # noqa: PLC0415 - slow
    from sigstore.models import TrustedRoot  # noqa: PLC0415 - slow
    from sigstore.verify import Verifier  # noqa: PLC0415 - slow
    from sigstore.verify.policy import Identity  # noqa: PLC0415 - slow

    env = {**sigstore_stack.ci_environment(), "NO_PROXY": "*"}
    for name in NAMES:
        reprobuild("sign", released / "dist" / name, "--trust-config", sigstore_stack.trust_config, env=env)
    trust = ["--trusted-root", sigstore_stack.trusted_root, "--signer", WORKFLOW, GITHUB]
    done = publish(released, "--require", "unsafe-unverified", *trust, "--json")
    assert [(each["attestations"], each["attestedBy"]) for each in done.json["files"]] == [
        (1, f"{WORKFLOW} ({GITHUB})")
    ] * 2
    assert done.stderr.count("lists no attestation of it") == 2  # pypiserver takes none
    verifier = Verifier(trusted_root=TrustedRoot.from_file(str(sigstore_stack.trusted_root)))
    who = Identity(identity=WORKFLOW, issuer=GITHUB)
    for upload in index.uploads:
        (one,) = upload.attestations
        _, payload = verifier.verify_dsse(Attestation.model_validate(one).to_bundle(), who)
        digest = hashlib.sha256(upload.content).hexdigest()
        assert json.loads(payload)["subject"] == [{"name": upload.filename, "digest": {"sha256": digest}}]


@pytest.fixture
def offered(make_wheel: MakeWheel, sigstore_stack: Stack, tmp_path: Path) -> Callable[..., tuple[Published, ...]]:
    """Publish a wheel with an attestation, but for the upload: of the workflow, or as it is changed."""
    wheel = make_wheel(tmp_path)

    def publish_it(
        signers: tuple[Identity, ...] = (Identity(WORKFLOW, GITHUB),),
        change: Callable[[dict[str, Any]], None] = lambda _: None,
        claims: dict[str, Any] | None = None,
        **said: Any,
    ) -> tuple[Published, ...]:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        subject = {"name": wheel.name, "digest": {"sha256": digest}}
        kind = "https://docs.example.org/attestations/publish/v1"
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject],
            "predicateType": kind,
            "predicate": None,
        }
        bundle = sigstore_stack.bundle(json.dumps({**statement, **said}).encode(), claims)
        material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
        attestation = {
            "version": 1,
            "verification_material": {
                "certificate": material["certificate"]["rawBytes"],
                "transparency_entries": material["tlogEntries"],
            },
            "envelope": {"statement": envelope["payload"], "signature": envelope["signatures"][0]["sig"]},
        }
        change(attestation)
        wheel.with_name(f"{wheel.name}.publish.attestation").write_text(json.dumps(attestation))
        scratch = tmp_path / uuid.uuid4().hex
        scratch.mkdir()
        demand = Demand(level=None, trust=sigstore_stack.trusted_root, signers=signers)
        return publish_files([wheel], Target({}, "", None), demand, scratch=scratch, dry_run=True)

    return publish_it


def test_an_attestation_of_whoever_is_to_sign_goes_along(offered: Callable[..., tuple[Published, ...]]) -> None:
    assert [each.attested_by for each in offered()] == [f"{WORKFLOW} ({GITHUB})"]
    job = of_this_job(
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "example/wheels",
        }
    )
    assert job
    assert offered((job,))[0].attested_by == f"{WORKFLOW} ({GITHUB})"


def _signature(attestation: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(attestation["envelope"]["signature"]))
    raw[-1] ^= 1
    attestation["envelope"]["signature"] = base64.b64encode(raw).decode()


def _unlogged(attestation: dict[str, Any]) -> None:
    attestation["verification_material"]["transparency_entries"] = []


def _another_version(attestation: dict[str, Any]) -> None:
    attestation["version"] = 2


def _no_certificate(attestation: dict[str, Any]) -> None:
    attestation["verification_material"]["certificate"] = base64.b64encode(b"none").decode()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"signers": ()}, "nothing says by whose it should be"),
        ({"signers": (Identity("someone@example.org", GITHUB),)}, "It should be of someone@example.org"),
        (
            {"signers": (Identity("**", GITHUB, "https://github.com/other/wheels"),)},
            "of https://github.com/other/wheels",
        ),
        ({"signers": (Identity(WORKFLOW, "https://accounts.example.org"),)}, f"but not as {GITHUB} says"),
        ({"change": _signature}, "Sigstore's client refuses it"),
        ({"change": _unlogged}, "Sigstore's client refuses it"),
        ({"change": _no_certificate}, "Sigstore's client refuses it"),
        ({"change": _another_version}, "no attestation of PEP 740"),
        ({"change": lambda attestation: attestation.clear()}, "no attestation of PEP 740"),
        ({"change": lambda attestation: attestation["envelope"].clear()}, "it has no statement"),
        ({"subject": [{"name": "demo-1.0-py3-none-any.whl", "digest": {"sha256": "0" * 64}}]}, "but the file has"),
        ({"subject": []}, "no attestation of PEP 740"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "says something else"),
    ],
)
def test_an_attestation_that_no_index_should_get_stops_all(
    offered: Callable[..., tuple[Published, ...]], how: dict[str, Any], says: str
) -> None:
    with pytest.raises(NotPublishable, match=re.escape(says)) as refused:
        offered(**how)
    assert "demo-1.0-py3-none-any.whl.publish.attestation" in refused.value.reason
    assert refused.value.remedy


def test_an_attestation_of_somebody_else_with_a_sound_signature_stops_all(
    offered: Callable[..., tuple[Published, ...]], sigstore_stack: Stack
) -> None:
    claims = sigstore_stack.github("mallory/thief/.github/workflows/release.yml@refs/tags/v1")
    with pytest.raises(NotPublishable, match="mallory/thief"):
        offered(claims=claims)


# --- what an index would refuse ------------------------------------------------------------------------


def test_metadata_that_an_index_would_refuse(
    publish: Callable[..., Ended], index: Index, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, metadata="Requires-Python: what?\nDescription-Content-Type: text/pdf\n")
    refused = publish(tmp_path, wheel, "--require", "unsafe-unverified", code=ExitCode.NOT_PUBLISHABLE)
    assert "requires-python" in refused.stderr
    assert "description-content-type" in refused.stderr
    assert index.uploads == []


def test_several_releases_in_one_folder(publish: Callable[..., Ended], make_wheel: MakeWheel, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        make_wheel(tmp_path / "dist", version=version)
    refused = publish(tmp_path, code=ExitCode.BAD_INPUT)
    assert "several releases: demo 1.0, demo 1.1" in refused.stderr
    assert "There is no wheel or sdist" in publish(tmp_path / "dist", code=ExitCode.BAD_INPUT).stderr


# --- logins that aren't variables ----------------------------------------------------------------------


@pytest.fixture
def keyring(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A keyring on PATH that knows the index's password, as uv asks one; what it was asked, in a file."""
    asked = tmp_path / "asked"
    program = tmp_path / "keyring-bin" / "keyring"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {asked}\n'
        f'case "$*" in "get {index.url}"*" {USER}") printf "%s\\n" {index.password} ;; *) exit 1 ;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return asked


@pytest.fixture
def wheel(make_wheel: MakeWheel, tmp_path: Path) -> Path:
    """What nobody needs to build."""
    return make_wheel(tmp_path / "dist")


def test_a_keyring_is_asked_for_the_password(
    wheel: Path, keyring: Path, publish: Callable[..., Ended], index: Index, tmp_path: Path
) -> None:
    env = {"UV_KEYRING_PROVIDER": "subprocess", "UV_PUBLISH_USERNAME": USER}
    options = ["--require", "unsafe-unverified", "--verbose"]
    done = publish(tmp_path, wheel, *options, env=env)
    assert done.stdout.startswith("uploaded")
    assert [(each.user, each.status) for each in index.uploads] == [(USER, 200)]
    assert keyring.read_text().splitlines() == [f"get {index.url} {USER}"]
    assert index.password not in done.stdout + done.stderr


def test_a_keyring_that_does_not_know_it(
    wheel: Path, keyring: Path, publish: Callable[..., Ended], index: Index, tmp_path: Path
) -> None:
    env = {"UV_KEYRING_PROVIDER": "subprocess", "UV_PUBLISH_USERNAME": "nobody"}
    failed = publish(tmp_path, wheel, "--require", "unsafe-unverified", env=env, code=ExitCode.PUBLISH_FAILED)
    assert keyring.read_text().splitlines()[0].endswith(" nobody")
    assert "UV_KEYRING_PROVIDER" in failed.stderr
    assert published(index) == []


@pytest.mark.parametrize("named", [True, False])
def test_netrc_knows_it(
    wheel: Path,
    publish: Callable[..., Ended],
    index: Index,
    tmp_path: Path,
    *,
    named: bool,
) -> None:
    netrc = (tmp_path if named else Path.home()) / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {index.password}\n")
    netrc.chmod(0o600)
    env = {"NETRC": str(netrc)} if named else {}
    options = ["--require", "unsafe-unverified", "--verbose"]
    with index.failing("403 Forbidden", f"the password {index.password} is wrong"):
        failed = publish(tmp_path, wheel, *options, env=env, code=ExitCode.PUBLISH_FAILED, check=False)
    assert "the password … is wrong" in failed.stderr
    assert index.password not in failed.stdout + failed.stderr
    done = publish(tmp_path, wheel, *options, env=env)
    assert done.stdout.startswith("uploaded")
    assert [(each.user, each.status) for each in index.uploads] == [(USER, 403), (USER, 200)]
    assert index.password not in done.stdout + done.stderr


def test_no_password_of_a_keyring_or_of_netrc_is_an_argument(
    wheel: Path, keyring: Path, index: Index, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {index.password}\n")
    netrc.chmod(0o600)
    for env in ({"UV_KEYRING_PROVIDER": "subprocess", "UV_PUBLISH_USERNAME": USER}, {"NETRC": str(netrc)}):
        command = ["publish", str(wheel), "--publish-url", index.url, "--require", "unsafe-unverified", "--verbose"]
        seen = arguments_of_uv(tmp_path, *command, cwd=tmp_path, env=env)
        assert "publish" in seen
        assert index.password not in seen
        (index.packages / wheel.name).unlink()
    assert [each.user for each in index.uploads] == [USER] * 2
