"""What `reprobuild push` leaves in a registry, as other tools see it: cosign verifies it, oras and cosign list it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.conftest import Cli, Cosign, Git, Projects

TYPE = "slsaprovenance1"
PROVENANCE = "https://slsa.dev/provenance/v1"
REBUILD = "https://reprobuild.dev/predicates/rebuild/v1"


@pytest.fixture
def pushed(
    project: Projects,
    base_image: Callable[[str], str],
    git: Git,
    reprobuild: Cli,
    repository: str,
    tmp_path: Path,
) -> str:
    """An image by its digest, with a record, its signature and a signed rebuild beside it."""
    where = project("with-hatchling")
    folder = where / "images" / "app"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(f"FROM {base_image('busybox')}\nCOPY pyproject.toml /srv/\n")
    settings = where / "pyproject.toml"
    table = '\n[tool.reprobuild.images.app]\nproject = false\nplatform = "x86_64-manylinux_2_28"\n'
    settings.write_text(settings.read_text() + table)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--message", "An image")
    for name in ("signing", "other"):
        reprobuild("keys", "new", tmp_path / f"{name}.key")
    layout = tmp_path / "layout"
    reprobuild("image", "app", where, "-o", f"oci:{layout}")
    reprobuild("sign", layout, "--key", tmp_path / "signing.key")
    reprobuild("verify-image", layout, "--project", where, "--attest", tmp_path / "signing.key")
    made = reprobuild("push", layout, f"{repository}:1", "--cosign-att", "--json").json
    return f"{repository}@{made['digest']}"


def by_key(cosign: Cosign, tmp_path: Path, name: str = "signing") -> list[str | Path]:
    """The options with which cosign asks nobody but the registry."""
    return ["--key", tmp_path / f"{name}.pub", "--insecure-ignore-tlog", "--allow-http-registry"]


@pytest.mark.parametrize("kind", [TYPE, REBUILD])
def test_cosign_verifies_what_was_pushed(pushed: str, cosign: Cosign, kind: str, tmp_path: Path) -> None:
    command: list[str | Path] = ["verify-attestation", "--type", kind]
    done = cosign(*command, *by_key(cosign, tmp_path), pushed, online=True, code=0)
    digest = pushed.rpartition(":")[2]
    assert digest in done.stdout or "payload" in done.stdout
    assert cosign(*command, *by_key(cosign, tmp_path, "other"), pushed, online=True, code=1).stderr
    cosign("verify-attestation", "--type", "cyclonedx", *by_key(cosign, tmp_path), pushed, online=True, code=1)


def test_cosign_lists_it(pushed: str, cosign: Cosign) -> None:
    said = cosign("tree", "--allow-http-registry", pushed, online=True, code=0)
    digest = pushed.rpartition(":")[2]
    _, attached, rest = said.stdout.partition(f"sha256-{digest}.att")
    assert attached
    assert rest.partition("via OCI referrer")[0].count("🍒") == 2
    if not cosign.older:
        assert {f"{kind} artifacts" in rest for kind in (PROVENANCE, REBUILD, "application/vnd.in-toto+json")} == {True}


def test_oras_lists_it(pushed: str, tools: Mapping[str, str]) -> None:
    command = [
        "oras",
        "discover",
        "--plain-http",
        "--format",
        "json",
        "--distribution-spec",
        "v1.1-referrers-tag",
        pushed,
    ]
    done = subprocess.run(command, env=os.environ | tools, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: Any = json.loads(done.stdout)
    listed = found.get("referrers") or found["manifests"]
    types = sorted(each["artifactType"] for each in listed)
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert types == [bundle, bundle, "application/vnd.in-toto+json"]
    predicates = {each["annotations"].get("dev.sigstore.bundle.predicateType") for each in listed}
    assert REBUILD in predicates
