"""Signing, voting and verifying with the command line: wheels here, images in a real registry."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from reprobuild.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli, Git, Projects

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
POLICY = """\
keys = ["a.pub", "b.pub"]
predicates = ["provenance", "rebuild"]
builders = ["https://reprobuild.dev/builders/local/v1"]
rebuilds = 2
"""
#: Planted where a careless program would pick them up, and searched for in everything that was written.
SECRETS = {
    "environment": "s3cret-of-the-environment",
    "passphrase": "s3cret-passphrase",
    "netrc": "s3cret-of-netrc",
    "docker": "s3cret-of-docker",
    "index": "s3cret-of-the-index",
}


@pytest.fixture
def keys(tmp_path: Path, reprobuild: Cli) -> Path:
    """A folder with the keys of two people, one of them under a passphrase, and a policy that wants both."""
    folder = tmp_path / "keys"
    reprobuild("keys", "new", folder / "a.key")
    reprobuild("keys", "new", folder / "b.key", "--type", "p256", "--passphrase", env=passphrase())
    (folder / "policy.toml").write_text(POLICY)
    return folder


def passphrase() -> dict[str, str]:
    return {"REPROBUILD_KEY_PASSPHRASE": SECRETS["passphrase"]}


def valid(name: str, statement: Any) -> bool:
    """Whether a statement has the published schema."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    return not [error.message for error in Draft202012Validator(schema).iter_errors(statement)]


def signed_in(bundle: Path) -> Any:
    """The statement in a bundle."""
    return json.loads(base64.b64decode(json.loads(bundle.read_text())["dsseEnvelope"]["payload"]))


def another_machine(folder: Path) -> dict[str, str]:
    """Another HOME and another cache."""
    folder.mkdir()
    return {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "REPROBUILD_CACHE_DIR": str(folder / "c")}


def failed(said: Any) -> set[str]:
    """The names of the checks that failed, of a verification's JSON."""
    return {check["name"] for one in said["artifacts"] for check in one["checks"] if not check["passed"]}


def test_a_wheel_that_two_have_made_again(project: Projects, keys: Path, reprobuild: Cli, tmp_path: Path) -> None:
    where = project("with-hatchling")
    reprobuild("wheel", where)
    (wheel,) = (where / "dist").glob("*.whl")
    policy: list[str | Path] = ["--policy", keys / "policy.toml", "--json"]
    said = reprobuild("verify", wheel, *policy, code=ExitCode.NOT_VERIFIED).json
    assert failed(said) == {"signature", "predicate", "builder", "rebuilds"}
    reprobuild("sign", wheel, "--key", keys / "a.key")
    assert wheel.with_name(f"{wheel.name}.sigstore.json").is_file()
    assert failed(reprobuild("verify", wheel, *policy, code=ExitCode.NOT_VERIFIED).json) == {"predicate", "rebuilds"}
    assert valid("wheel-v1", signed_in(wheel.with_name(f"{wheel.name}.sigstore.json")))
    for _ in range(2):  # one signer counts once
        vote = reprobuild("verify-wheel", wheel, "--project", where, "--attest", keys / "a.key", "--json").json
        assert vote["level"] == "identical"
        again = Path(vote["attested"])
        assert valid("rebuild-v1", signed_in(again))
        shutil.copy(again, again.with_name(f"{wheel.name}.copy.sigstore.json"))
    assert failed(reprobuild("verify", wheel, *policy, code=ExitCode.NOT_VERIFIED).json) == {"rebuilds"}
    env = passphrase()
    reprobuild("verify-wheel", wheel, "--project", where, "--attest", keys / "b.key", env=env)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(where / "dist", elsewhere)
    said = reprobuild("verify", elsewhere / wheel.name, *policy, env=another_machine(tmp_path / "home")).json
    assert said["passed"]
    assert len({each["signer"] for each in said["artifacts"][0]["accepted"]}) == 2
    other = elsewhere / f"other-{wheel.name}"
    (elsewhere / wheel.name).rename(other)
    for bundle in list(elsewhere.glob("*.sigstore.json")):
        bundle.rename(elsewhere / f"other-{bundle.name}")
    other.write_bytes(other.read_bytes() + b"more")
    said = reprobuild("verify", other, *policy, code=ExitCode.NOT_VERIFIED).json
    assert all("another artifact" in why for why in said["artifacts"][0]["refused"])


def test_a_rebuild_that_differs_is_no_vote(project: Projects, keys: Path, reprobuild: Cli) -> None:
    where = project("embedded-clock")
    reprobuild("wheel", where)
    (wheel,) = (where / "dist").glob("*.whl")
    command: list[str | Path] = ["verify-wheel", wheel, "--project", where, "--no-explain", "--attest"]
    for name in ("a.key", "b.key"):
        assert reprobuild(*command, keys / name, env=passphrase(), code=None).code != 0
    policy: list[str | Path] = ["--policy", keys / "policy.toml", "--json"]
    said = reprobuild("verify", wheel, *policy, code=ExitCode.NOT_VERIFIED).json
    assert "rebuilds" in failed(said)
    assert len(said["artifacts"][0]["notes"]) == 2
    assert all("made it again" in note for note in said["artifacts"][0]["notes"])


def test_the_same_key_signs_to_the_same_bytes(project: Projects, keys: Path, reprobuild: Cli) -> None:
    where = project("with-hatchling")
    reprobuild("wheel", where)
    (wheel,) = (where / "dist").glob("*.whl")
    found = set()
    for _ in range(2):
        (place,) = reprobuild("sign", wheel, "--key", keys / "a.key", "--json").json["bundles"]
        found.add(Path(place).read_bytes())
        Path(place).unlink()
    assert len(found) == 1


@pytest.fixture
def image(
    project: Projects, base_image: Callable[[str], str], git: Git, reprobuild: Cli, tmp_path: Path
) -> tuple[Path, Path]:
    """A small image in a layout, and its project."""
    where = project("with-hatchling")
    folder = where / "images" / "app"
    folder.mkdir(parents=True)
    base = base_image("busybox")
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY pyproject.toml /srv/\n")
    text = (where / "pyproject.toml").read_text()
    (where / "pyproject.toml").write_text(
        f'{text}\n[tool.reprobuild.images.app]\nproject = false\nplatform = "x86_64-manylinux_2_28"\n'
    )
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", "An image")
    layout = tmp_path / "layout"
    reprobuild("image", "app", where, "-o", f"oci:{layout}")
    return layout, where


def test_an_image_that_two_have_made_again(
    image: tuple[Path, Path], keys: Path, repository: str, reprobuild: Cli, tmp_path: Path
) -> None:
    layout, where = image
    reference = f"{repository}:1"
    reprobuild("sign", layout, "--key", keys / "a.key")
    assert "would push" in reprobuild("push", layout, reference, "--dry-run").stdout
    dry = reprobuild("push", layout, reference, "--dry-run", "--json").json
    assert dry["dryRun"]
    assert "sent" not in dry
    types = {"application/vnd.in-toto+json", "application/vnd.dev.sigstore.bundle.v0.3+json"}
    assert {each["artifactType"] for each in dry["evidence"]} == types
    reprobuild("verify", reference, "--key", keys / "a.pub", code=ExitCode.REGISTRY_FAILED)  # nothing went there
    first = reprobuild("push", layout, reference, "--json").json
    assert len(first["evidence"]) == 2  # the record and its signature
    assert reprobuild("push", layout, reference, "--json").json["sent"] == 0
    policy: list[str | Path] = ["--policy", keys / "policy.toml", "--json"]
    assert "rebuilds" in failed(reprobuild("verify", reference, *policy, code=ExitCode.NOT_VERIFIED).json)
    for name in ("a.key", "b.key"):
        command: list[str | Path] = ["verify-image", reference, "--project", where, "--attest", keys / name]
        reprobuild(*command, env=passphrase())
    away = another_machine(tmp_path / "home")
    assert reprobuild("verify", reference, *policy, env=away).json["passed"]
    listed = reprobuild("pull-evidence", reference, "-o", tmp_path / "evidence", "--json", env=away).json
    assert len(listed["evidence"]) == 3
    claimed = sorted(each["predicateType"] for each in listed["evidence"])
    assert claimed == ["https://reprobuild.dev/predicates/rebuild/v1"] * 2 + ["https://slsa.dev/provenance/v1"]
    told = [signed_in(each) for each in (tmp_path / "evidence").iterdir()]
    assert sorted(valid("image-v1", each) + 2 * valid("rebuild-v1", each) for each in told) == [1, 2, 2]
    # The bundles that were fetched serve for the image where it lies without them.
    plain = tmp_path / "plain"
    reprobuild("image", "app", where, "-o", f"oci:{plain}")
    bundles: list[str | Path] = [
        option for each in sorted((tmp_path / "evidence").iterdir()) for option in ("--bundle", each)
    ]
    assert reprobuild("verify", plain, *policy, *bundles, env=away).json["passed"]


def test_a_damaged_layer_is_found_before_a_signature_counts(
    image: tuple[Path, Path], keys: Path, reprobuild: Cli
) -> None:
    layout, _ = image
    reprobuild("sign", layout, "--key", keys / "a.key")
    reprobuild("verify", layout, "--key", keys / "a.pub")
    index = json.loads((layout / "index.json").read_text())
    digest = next(each["digest"] for each in index["manifests"] if "artifactType" not in each).partition(":")[2]
    manifest = json.loads((layout / "blobs/sha256" / digest).read_text())
    layer = layout / "blobs/sha256" / manifest["layers"][-1]["digest"].partition(":")[2]
    data = bytearray(layer.read_bytes())
    data[-9] ^= 1
    layer.write_bytes(data)
    reprobuild("verify", layout, "--key", keys / "a.pub", code=ExitCode.DIGEST_MISMATCH)


def test_an_archive_has_its_evidence_beside_it(
    image: tuple[Path, Path], keys: Path, reprobuild: Cli, tmp_path: Path
) -> None:
    _, where = image
    archive = tmp_path / "image.tar"
    reprobuild("image", "app", where, "-o", f"oci-archive:{archive}")
    reprobuild("sign", f"oci-archive:{archive}", "--key", keys / "a.key")
    assert reprobuild("verify", archive, "--key", keys / "a.pub", "--json").json["passed"]
    reprobuild("verify", archive, "--key", keys / "b.pub", code=ExitCode.NOT_VERIFIED)


def test_no_secret_is_written_anywhere(
    image: tuple[Path, Path], keys: Path, repository: str, reprobuild: Cli, tmp_path: Path
) -> None:
    layout, where = image
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker/config.json").write_text(
        json.dumps({"auths": {"registry.example.org": {"username": "u", "password": SECRETS["docker"]}}})
    )
    netrc = home / ".netrc"
    netrc.write_text(f"machine example.org login u password {SECRETS['netrc']}\n")
    netrc.chmod(0o600)
    cache = tmp_path / "cache"
    env = {
        "HOME": str(home),
        "DOCKER_CONFIG": str(home / ".docker"),
        "NETRC": str(netrc),
        "MY_TOKEN": SECRETS["environment"],
        "UV_EXTRA_INDEX_URL": f"https://user:{SECRETS['index']}@127.0.0.1:9/simple",
        "REPROBUILD_CACHE_DIR": str(cache),
        "TMPDIR": str(tmp_path / "tmp"),
        **passphrase(),
    }
    (tmp_path / "tmp").mkdir()
    reference = f"{repository}:1"
    said = []
    for command in (
        ("sign", layout, "--key", keys / "b.key", "--verbose"),
        ("push", layout, reference, "--verbose"),
        ("verify-image", reference, "--project", where, "--attest", keys / "b.key", "--verbose"),
        ("verify", reference, "--key", keys / "b.pub", "--verbose"),
        ("pull-evidence", reference, "-o", tmp_path / "evidence"),
        ("sign", tmp_path / "nothing", "--key", keys / "b.key"),
        ("sign", layout, "--key", keys / "a.pub"),
        ("verify", "127.0.0.1:9/nowhere:1", "--key", keys / "b.pub"),
    ):
        ended = reprobuild(*command, env=env, code=None)
        said.append(ended.stdout + ended.stderr)
    written = "\n".join(said).encode()
    for folder in (layout, keys, cache, tmp_path / "tmp", tmp_path / "evidence", where):
        written += b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    found = [name for name, secret in SECRETS.items() if secret.encode() in written]
    assert found == []
    assert b"sha256:" in written  # or else nothing was searched


def test_keys_are_for_their_owner(reprobuild: Cli, tmp_path: Path) -> None:
    key = tmp_path / "deep" / "release.key"
    made = reprobuild("keys", "new", key, "--json", umask=0o000).json
    assert key.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in Path(made["public"]).read_text()
    assert reprobuild("keys", "show", made["public"], "--json").json["id"] == made["id"]
    before = key.read_bytes()
    reprobuild("keys", "new", key, code=ExitCode.BAD_INPUT)
    assert key.read_bytes() == before
    reprobuild("keys", "show", key, code=ExitCode.BAD_INPUT)  # the private half isn't shown
    locked = tmp_path / "locked.key"
    reprobuild("keys", "new", locked, "--passphrase", env={"REPROBUILD_KEY_PASSPHRASE": "one"})
    assert b"ENCRYPTED" in locked.read_bytes()
    unasked = tmp_path / "unasked.key"  # who sets it doesn't want the key to lie there for all to use
    assert reprobuild("keys", "new", unasked, "--json", env={"REPROBUILD_KEY_PASSPHRASE": "one"}).json["encrypted"]
    assert b"ENCRYPTED" in unasked.read_bytes()
    wheel = tmp_path / "file.bin"
    wheel.write_bytes(b"x")
    for env in ({"REPROBUILD_KEY_PASSPHRASE": "two"}, {}):
        reprobuild("sign", wheel, "--key", locked, env=env, code=ExitCode.SIGNING_FAILED)
    os.chmod(key, 0o640)  # noqa: PTH101
    reprobuild("sign", wheel, "--key", key, code=ExitCode.SIGNING_FAILED)


def test_what_is_named_by_mistake(reprobuild: Cli, tmp_path: Path) -> None:
    reprobuild("keys", "new", tmp_path / "a.key")
    (tmp_path / "demo.whl").write_bytes(b"x")
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[tool.reprobuild.policy]\nkeys = ["a.pub"]\n')
    named: tuple[tuple[list[str | Path], str], ...] = (
        (["sign", tmp_path / "none.whl", "--key", tmp_path / "a.key"], "There is no file"),
        (["verify", tmp_path / "demo.whl", "--policy", pyproject], "is a pyproject.toml"),
        (["push", tmp_path / "demo.whl", "127.0.0.1:9/team/demo:1"], "is no image"),
        (["verify-wheel", tmp_path / "demo.whl", "--attest", tmp_path / "a.pub"], "a public key where a private one"),
    )
    for command, words in named:
        assert words in reprobuild(*command, code=ExitCode.BAD_INPUT).stderr
    attest: list[str | Path] = ["verify-wheel", tmp_path / "demo.whl", "--attest", tmp_path / "a.key"]
    assert "is for --attest keyless" in reprobuild(*attest, "--trust-config", pyproject, code=ExitCode.USAGE).stderr


def test_one_policy_for_the_wheel_and_the_image_of_a_project(reprobuild: Cli, tmp_path: Path) -> None:
    """`bases` is about images; a wheel of the same project starts from none."""
    reprobuild("keys", "new", tmp_path / "a.key")
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(b"x")
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": wheel.name, "digest": {"sha256": hashlib.sha256(b"x").hexdigest()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}},
    }
    (tmp_path / "s.json").write_text(json.dumps(statement))
    reprobuild("sign", wheel, "--key", tmp_path / "a.key", "--statement", tmp_path / "s.json")
    (tmp_path / "policy.toml").write_text('keys = ["a.pub"]\nbases = ["registry.example.org/*"]\n')
    assert reprobuild("verify", wheel, "--policy", tmp_path / "policy.toml", "--json").json["passed"]
    (listed,) = reprobuild("pull-evidence", wheel, "--json").json["evidence"]
    assert listed["predicateType"] == "https://slsa.dev/provenance/v1"
