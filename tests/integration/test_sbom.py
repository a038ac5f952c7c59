"""Bills of materials of real locks, wheels and images, and what others make of them."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from reprobuild.digest import Digest
from reprobuild.wheelfile import read_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import Cli, Cosign, Git, MadeOnce, Projects

CYCLONEDX = "application/vnd.cyclonedx+json"
PREDICATE = "https://cyclonedx.org/bom"
REQUIRES = '["jinja2==3.1.6", "requests[socks]==2.32.5"]'
PROJECT = f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "demo"
version = "1.0"
requires-python = ">=3.11"
license = "MIT"
dependencies = {REQUIRES}

[tool.reprobuild]
exclude-newer = "2026-11-01"
"""


def document(path: Path) -> Any:
    """A document, once CycloneDX's own schema and reader have taken it."""
    text = path.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    again = Bom.from_json(found)  # type: ignore[attr-defined]
    assert {each.bom_ref.value for each in again.components} == {each["bom-ref"] for each in found["components"]}
    read = {each.ref.value: {to.value for to in each.dependencies_as_bom_refs()} for each in again.dependencies}
    assert read == {each["ref"]: set(each.get("dependsOn", ())) for each in found["dependencies"]}
    assert "timestamp" not in found["metadata"]
    return found


def by_name(found: Any) -> dict[str, Any]:
    return {each["name"]: each for each in found["components"]}


def edges(found: Any) -> set[tuple[str, str]]:
    """What depends on what, by name."""
    names = {each["bom-ref"]: each["name"] for each in (*found["components"], found["metadata"]["component"])}
    return {(names[each["ref"]], names[to]) for each in found["dependencies"] for to in each.get("dependsOn", ())}


def via(lock: str) -> set[tuple[str, str]]:
    """The same as uv says it in the comments of a lock."""
    found, name, told = set(), "", False
    for line in lock.splitlines():
        if pin := re.match(r"([a-z0-9-]+)==", line):
            name, told = pin[1], False
        elif said := re.match(r"    # via ?(.*)", line) or (told and re.match(r"    #   (.*)", line)):
            told = True
            if said[1]:
                found.add((said[1].split(" ")[0], name))
    return found


@pytest.fixture
def locked(tmp_path: Path, reprobuild: Cli, git: Git, made_once: MadeOnce) -> Path:
    """A project with its locks, which are made once in a test run, committed."""

    def lock(folder: Path) -> None:
        (folder / "src" / "demo").mkdir(parents=True)
        (folder / "src" / "demo" / "__init__.py").write_text("")
        (folder / "pyproject.toml").write_text(PROJECT)
        git(folder, "init", "--quiet")
        reprobuild("lock", cwd=folder)

    folder = tmp_path / "demo"
    shutil.copytree(made_once("locked-demo", lock), folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A project")
    return folder


def test_a_locks_graph_is_the_one_that_the_resolver_had(locked: Path, reprobuild: Cli) -> None:
    said = reprobuild("sbom", "--json", cwd=locked).json["sboms"]
    assert [each["sbom"] for each in said] == ["requirements.txt.cdx.json"]
    found = document(locked / "requirements.txt.cdx.json")
    wanted = via((locked / "requirements.txt").read_text())
    assert len(wanted) >= 7
    assert ("requests", "pysocks") in wanted  # which only the extra asks for
    assert edges(found) == wanted
    assert said[0]["dependencies"] == len(wanted)
    assert found["compositions"] == [
        {"aggregate": "complete", "dependencies": sorted(["project", *(c["purl"] for c in found["components"])])}
    ]
    jinja = by_name(found)["jinja2"]
    assert jinja["licenses"] == [{"license": {"acknowledgement": "declared", "name": "BSD License"}}]
    assert {file["hashes"][0]["alg"] for file in jinja["externalReferences"]} == {"SHA-256"}
    lock = (locked / "requirements.txt").read_text()
    hashes = {file["hashes"][0]["content"] for each in found["components"] for file in each["externalReferences"]}
    assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", lock))


def test_the_same_bytes_from_every_python_seed_and_folder(
    locked: Path, reprobuild: Cli, tmp_path: Path, projects_folder: Path
) -> None:
    reprobuild("sbom", "-o", tmp_path / "first.json", cwd=locked)
    moved = tmp_path / "elsewhere" / "demo"
    moved.parent.mkdir()
    locked.rename(moved)
    seen = set()
    source = Path(sys.modules["reprobuild"].__file__ or "").parents[1]
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    for python in pythons():
        for seed in ("1", "77"):
            out = tmp_path / f"{seed}.json"
            environment = {
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": f"{source}:{packages}",
                "TZ": "Asia/Tokyo",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            command = [python, "-m", "reprobuild", "sbom", "--offline", "--project", str(moved), "-o", str(out)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
            assert done.returncode == 0, done.stderr
            seen.add(out.read_bytes())
    assert seen == {(tmp_path / "first.json").read_bytes()}


def pythons() -> list[str]:
    """The interpreters of each minor version that is here and can load what is installed."""
    found = {sys.version_info[:2]: sys.executable}
    for path in (Path(pwd.getpwuid(os.getuid()).pw_dir) / ".pyenv").glob("versions/3.1[123].*/bin/python"):
        major, minor, *_ = path.parts[-3].split(".")
        found.setdefault((int(major), int(minor)), str(path))
    return list(found.values())


def test_offline_what_is_not_here_is_said_to_be_unknown(locked: Path, reprobuild: Cli, tmp_path: Path) -> None:
    empty = {"REPROBUILD_CACHE_DIR": str(tmp_path / "empty")}
    said = reprobuild("sbom", "--offline", "--json", cwd=locked, env=empty).json["sboms"][0]
    found = document(locked / "requirements.txt.cdx.json")
    refs = {each["bom-ref"] for each in found["components"]}
    assert said["unknown"] == len(refs) >= 8
    compositions = {each["aggregate"]: set(each["dependencies"]) for each in found["compositions"]}
    assert compositions == {"complete": {"project"}, "unknown": refs}
    assert {each["ref"] for each in found["dependencies"]} == {"project"}
    assert edges(found) == {("demo", "jinja2"), ("demo", "requests")}


def test_a_wheel_with_what_built_it_and_what_it_runs_with(locked: Path, reprobuild: Cli) -> None:
    made = Path(reprobuild("wheel", "--json", cwd=locked).json["wheel"])
    wheel = locked / made
    said = reprobuild("sbom", wheel, "--files", "--json", cwd=locked).json["sboms"][0]
    assert said["sbom"] == f"{wheel}.cdx.json"
    found = document(wheel.with_name(f"{wheel.name}.cdx.json"))
    subject = found["metadata"]["component"]
    assert subject["purl"] == "pkg:pypi/demo@1.0"
    assert subject["hashes"] == [{"alg": "SHA-256", "content": Digest.of_file(wheel).hex}]
    assert subject["licenses"] == [{"license": {"acknowledgement": "declared", "id": "MIT"}}]
    content = {
        name: Digest.of_bytes(zipfile.ZipFile(wheel).read(name)).hex for name in zipfile.ZipFile(wheel).namelist()
    }
    listed = {each["name"]: each["hashes"][0]["content"] for each in subject["components"]}
    assert listed == {name: each for name, each in content.items() if not name.endswith("/RECORD")}
    assert edges(found) == via((locked / "requirements.txt").read_text())
    record = json.loads(wheel.with_name(f"{wheel.name}.intoto.json").read_text())
    inputs = record["predicate"]["buildDefinition"]["resolvedDependencies"]
    built_with = {each["digest"]["sha256"] for each in inputs if each["annotations"]["role"] == "build-requirement"}
    (formula,) = found["formulation"]
    makers = {each["hashes"][0]["content"] for each in formula["components"] if each["type"] == "library"}
    assert makers == built_with
    assert {"aggregate": "unknown", "assemblies": [subject["bom-ref"]]} in found["compositions"]
    changed = wheel.with_name(f"{wheel.name}.intoto.json")
    changed.write_bytes(changed.read_bytes().replace(Digest.of_file(wheel).hex.encode(), b"0" * 64))
    assert "trust neither" in reprobuild("sbom", wheel, cwd=locked, code=11).stderr


# --- inside the wheel --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["with-hatchling", "with-setuptools", "with-flit-core"])
def test_inside_a_wheel_and_made_again_identically(
    backend: str, project: Projects, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    where = project(backend)
    reprobuild("wheel", "--out-dir", tmp_path / "without", cwd=where)
    settings = where / "pyproject.toml"
    settings.write_text(settings.read_text() + "\n[tool.reprobuild.wheel]\nsbom = true\n")
    git(where, "commit", "--quiet", "--all", "--message", "With a bill of materials", env=os.environ)
    made = reprobuild("wheel", "--json", cwd=where).json
    wheel = where / made["wheel"]
    (without,) = (tmp_path / "without").glob("*.whl")
    old, new = zipfile.ZipFile(without), zipfile.ZipFile(wheel)
    (added,) = set(new.namelist()) - set(old.namelist())
    name = wheel.name.split("-")[0]
    assert added == f"{name}-1.0.dist-info/sboms/{name}.cdx.json"
    member = new.getinfo(added)
    assert (member.external_attr >> 16, member.compress_type) == (0o100644, zipfile.ZIP_STORED)
    before = {each.filename: each for each in old.infolist() if not each.filename.endswith("/RECORD")}
    for each in new.infolist():
        if each.filename in before:
            assert span(wheel, each) == span(without, before[each.filename])
    read_wheel(wheel)  # RECORD among it
    (tmp_path / "inside.json").write_bytes(new.read(added))
    found = document(tmp_path / "inside.json")
    assert found["metadata"]["component"]["purl"].startswith("pkg:pypi/")
    assert "hashes" not in found["metadata"]["component"]
    assert found["formulation"][0]["components"]
    record = json.loads(Path(where / made["record"]).read_text())
    definition = record["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["sbom"] is True
    assert list(definition["internalParameters"]["sbom"]) == ["cyclonedx-python-lib"]
    verified = reprobuild("verify-wheel", "--json", cwd=where).json
    assert verified["level"] == "identical", verified
    installed = tmp_path / "installed"
    command = ["uv", "pip", "install", "--quiet", "--target", str(installed), "--no-deps", str(wheel)]
    subprocess.run(command, check=True, timeout=120)
    assert (installed / added).read_bytes() == new.read(added)


def span(path: Path, member: zipfile.ZipInfo) -> bytes:
    """A member's stored bytes with its local header."""
    raw = path.read_bytes()
    lengths = raw[member.header_offset + 26 : member.header_offset + 30]
    head = 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return raw[member.header_offset : member.header_offset + head + member.compress_size]


def test_a_backends_own_file_is_kept_or_in_the_way(
    project: Projects, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    where = project("with-hatchling")
    settings = where / "pyproject.toml"
    own = '\n[tool.hatch.build.targets.wheel]\nsbom-files = ["{}"]\n\n[tool.reprobuild.wheel]\nsbom = true\n'
    plain = settings.read_text()
    for name, code in (("theirs.cdx.json", 0), ("with_hatchling.cdx.json", 7)):
        (where / name).write_text('{"bomFormat": "CycloneDX"}')
        settings.write_text(plain + own.format(name))
        git(where, "add", "--all")
        git(where, "commit", "--quiet", "--message", name)
        done = reprobuild("wheel", cwd=where, code=code)
        if code:
            assert "The backend put with_hatchling-1.0.dist-info/sboms/with_hatchling.cdx.json" in done.stderr
        else:
            (wheel,) = (where / "dist").glob("*.whl")
            inside = [each for each in zipfile.ZipFile(wheel).namelist() if "/sboms/" in each]
            assert len(inside) == 2


# --- images ------------------------------------------------------------------------------------------


@pytest.fixture
def image(
    locked: Path, base_image: Callable[[str], str], git: Git, reprobuild: Cli, tmp_path: Path
) -> tuple[Path, str]:
    """An image with an environment and the project's own wheel, in a layout; and its base's name."""
    base = base_image("debian")
    folder = locked / "images" / "app"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(
        f"FROM {base}\nCOPY --from=environment / /opt/venv/\nCOPY pyproject.toml /srv/\n"
    )
    settings = locked / "pyproject.toml"
    table = "\n[tool.reprobuild.images.app]\n"
    table += 'python = "3.11"\ninterpreter = "/usr/bin/python3.11"\nplatform = "x86_64-manylinux_2_28"\n'
    settings.write_text(settings.read_text() + table)
    reprobuild("lock", "--no-images", cwd=locked)
    git(locked, "add", "--all")
    git(locked, "commit", "--quiet", "--message", "An image")
    layout = tmp_path / "layout"
    reprobuild("image", "app", locked, "-o", f"oci:{layout}")
    return layout, base


def test_an_image_and_its_way_to_a_registry(
    image: tuple[Path, str],
    locked: Path,
    reprobuild: Cli,
    repository: str,
    cosign: Cosign,
    tools: Mapping[str, str],
    tmp_path: Path,
) -> None:
    layout, base = image
    reprobuild("keys", "new", tmp_path / "own.key")
    made = reprobuild("sbom", layout, "-o", tmp_path / "image.json", "--files", "--json").json["sboms"][0]
    found = document(tmp_path / "image.json")
    check_image(found, made["subject"], base, locked)
    first = reprobuild("sbom", layout, "--attest", tmp_path / "own.key", "--json").json["sboms"][0]
    index = (layout / "index.json").read_bytes()
    second = reprobuild("sbom", layout, "--attest", tmp_path / "own.key", "--json").json["sboms"][0]
    assert first == second
    assert (layout / "index.json").read_bytes() == index
    pushed = reprobuild("push", layout, f"{repository}:1", "--cosign-att", "--json").json
    types = [each["artifactType"] for each in pushed["evidence"]]
    assert types.count(CYCLONEDX) == 1
    name = f"{repository}@{pushed['digest']}"
    command = [
        "oras",
        "discover",
        "--plain-http",
        "--format",
        "json",
        "--distribution-spec",
        "v1.1-referrers-tag",
        name,
    ]
    done = subprocess.run(command, env=os.environ | tools, capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(done.stdout)
    assert CYCLONEDX in [each["artifactType"] for each in said.get("referrers") or said["manifests"]]
    how: list[str | Path] = ["--key", tmp_path / "own.pub", "--insecure-ignore-tlog", "--allow-http-registry"]
    cosign("verify-attestation", "--type", "cyclonedx", *how, name, online=True)
    (tmp_path / "policy.toml").write_text('keys = ["own.pub"]\npredicates = ["sbom"]\n')
    assert "pass  predicate" in reprobuild("verify", name, "--policy", tmp_path / "policy.toml").stdout
    # From the registry the same document, which is there already.
    again = reprobuild("sbom", name, "--json").json["sboms"][0]
    assert (again["digest"], again["serialNumber"]) == (first["digest"], first["serialNumber"])
    done = subprocess.run(command, env=os.environ | tools, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == said


def check_image(found: Any, digest: str, base: str, locked: Path) -> None:
    """That a document says what is in the image, and nothing else."""
    subject, parts = found["metadata"]["component"], by_name(found)
    assert subject["hashes"] == [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]
    assert [each["name"] for each in subject["components"]] == ["pyproject.toml"]
    repository = base.partition("@")[0].rpartition(":")[0] if base.count(":") > 2 else base.partition("@")[0]
    assert parts[repository]["purl"].startswith(f"pkg:oci/{repository.rpartition('/')[2]}@sha256")
    lock = (locked / "images" / "app" / "requirements.txt").read_text()
    wheels = {name: each for name, each in parts.items() if each["purl"].startswith("pkg:pypi/")}
    assert set(wheels) == {"demo", *re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)}
    for each in wheels.values():
        (sha256,) = (hash_["content"] for hash_ in each["hashes"])
        assert each["name"] == "demo" or sha256 in lock
    assert {edge for edge in edges(found) if edge[0] != "app"} == via(lock)
    assert {edge[1] for edge in edges(found) if edge[0] == "app"} == set(parts)
    assert parts["demo"]["licenses"] == [{"license": {"acknowledgement": "declared", "id": "MIT"}}]
    incomplete = next(each for each in found["compositions"] if each["aggregate"] == "incomplete")
    assert parts[repository]["bom-ref"] in incomplete["assemblies"]


def test_a_wheel_meets_a_policy_that_asks_for_a_bill_of_materials(
    locked: Path, reprobuild: Cli, tmp_path: Path, cosign: Cosign
) -> None:
    wheel = locked / reprobuild("wheel", "--json", cwd=locked).json["wheel"]
    reprobuild("keys", "new", tmp_path / "own.key")
    policy = tmp_path / "policy.toml"
    policy.write_text('keys = ["own.pub"]\npredicates = ["sbom"]\n')
    reprobuild("verify", wheel, "--policy", policy, code=25)
    said = reprobuild("sbom", wheel, "--attest", tmp_path / "own.key", "--json", cwd=locked).json["sboms"][0]
    assert re.fullmatch(r".*\.whl\.sbom\.key-[0-9a-f]{12}\.sigstore\.json", said["attested"])
    reprobuild("verify", wheel, "--policy", policy)
    how: list[str | Path] = ["--key", tmp_path / "own.pub", "--insecure-ignore-tlog", "--type", "cyclonedx"]
    if cosign.older:
        root = tmp_path / "no-root.json"
        root.write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
        how += ["--new-bundle-format", "--trusted-root", root]
    cosign("verify-blob-attestation", "--bundle", said["attested"], *how, wheel)
