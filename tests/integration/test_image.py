"""The two images of an example: the same bytes wherever they are made, and real programs run them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild import interpreter
from reprobuild.errors import ExitCode, ToolMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import Cli, Git, MadeOnce

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
pytestmark = pytest.mark.network


@pytest.fixture
def digits(tmp_path: Path, base_image: Callable[[str], str], git: Git, reprobuild: Cli, made_once: MadeOnce) -> Path:
    """The example, its bases pinned by `reprobuild lock`, in a clean checkout."""
    tagged, _, digest = base_image("debian").partition("@")
    tagged += ":latest"

    def lock(folder: Path) -> None:
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "venv", "dist"))
        for path in folder.glob("images/*/Dockerfile"):
            text = path.read_text()
            assert "127.0.0.1:5000/base/debian:latest" in text
            path.write_text(text.replace("127.0.0.1:5000/base/debian:latest", tagged))
        reprobuild("lock", "--project", folder)
        for path in folder.glob("images/*/Dockerfile"):
            assert f"FROM {tagged}@{digest}" in path.read_text()
        reprobuild("lock", "--check", "--project", folder)

    folder = tmp_path / "digits"
    shutil.copytree(made_once("digits", lock), folder)
    git(folder, "init", "--quiet")
    commit(git, folder)
    return folder


def commit(git: Git, folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state of the test")


def run(*command: str | Path, env: Mapping[str, str]) -> str:
    done = subprocess.run([*map(str, command)], env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", ["training", "inference"])
def test_an_image_is_the_same_from_other_folders_umasks_and_pythons(
    digits: Path, name: str, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    first = reprobuild("image", name, digits, "-o", f"oci:{tmp_path / 'one'}", "--json").json
    other = tmp_path / "a-longer-name-of-a-folder"
    git(tmp_path, "clone", "--quiet", digits, other)
    cold = {"REPROBUILD_CACHE_DIR": str(tmp_path / "cold"), "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    second = reprobuild("image", name, other, "-o", f"oci:{tmp_path / 'two'}", "--json", umask=0o077, env=cold).json
    assert second["platforms"][0]["remembered"] == 0
    assert f" {second['platforms'][0]['base']}\n" in (digits / f"images/{name}/Dockerfile").read_text()
    digests = {first["digest"], second["digest"]}
    for version in ("3.11", "3.12", "3.13"):
        if python := another_python(version, tmp_path):
            command = [python, "-m", "reprobuild", "image", name, str(digits), "--json"]
            command += ["-o", f"oci:{tmp_path / version}"]
            digests.add(json.loads(run(*command, env={"REPROBUILD_CACHE_DIR": str(tmp_path / version)}))["digest"])
    assert len(digests) == 1
    image = f"oci:{tmp_path / 'one'}"
    assert reprobuild("diff", image, f"oci:{tmp_path / 'two'}", "--json").json["level"] == "identical"
    assert reprobuild("verify-image", image, "--project", digits, "--json").json["level"] == "identical"


def another_python(version: str, folder: Path) -> str:
    """An interpreter of another version with this one's packages; empty where there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return ""
    try:
        found = interpreter.find(version).executable
    except ToolMissing:
        return ""
    environment = folder / f"env-{version}"
    lock = Path(__file__).parents[2] / "requirements.txt"
    run("uv", "venv", "--quiet", "--no-project", "--python", found, environment, env={})
    python = str(environment / "bin" / "python")
    run("uv", "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock, env={})
    run("uv", "pip", "install", "--quiet", "--python", python, "--no-deps", lock.parent, env={})
    return python


def test_an_image_is_the_same_for_another_user(digits: Path, reprobuild: Cli, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    first = reprobuild("image", "inference", digits, "--json").json["digest"]
    home = tmp_path / "nobody"
    home.mkdir()
    shutil.copytree(digits, home / "digits")
    subprocess.run(["chown", "-R", "65534:65534", home], check=True)
    for parent in home.parents:
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o755)
    environment = {"HOME": str(home), "TMPDIR": str(home), "REPROBUILD_CACHE_DIR": str(home / "cache")}
    environment |= {key: value for key, value in os.environ.items() if key.startswith(("SSL_", "PATH"))}
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "reprobuild"]
    probe = [*prefix[:-2], "-c", "import reprobuild, sys; open(sys._base_executable).close()"]
    tried = subprocess.run(probe, env=environment, cwd=home, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"nobody can't run this Python: {tried.stderr.strip()[-200:]}")
    done = subprocess.run(
        [*prefix, "image", "inference", home / "digits", "--json", "--sandbox", "plain"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == first


def test_the_images_run(digits: Path, docker: dict[str, str], repository: str, reprobuild: Cli, tmp_path: Path) -> None:
    """The one trains and writes a model, which the other answers with."""
    train, serve = f"{repository}:train", f"{repository}:serve"
    pushed = reprobuild("image", "training", digits, "--push", train, "--json").json
    assert pushed["pushed"]["mounted"] > 0
    again = reprobuild("image", "training", digits, "--push", train, "--json").json
    assert (again["digest"], again["pushed"]["sent"], again["pushed"]["mounted"]) == (pushed["digest"], 0, 0)
    reprobuild("image", "inference", digits, "--load", serve, env=docker)
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)
    tmp_path.chmod(0o755)
    models = []
    for _ in range(2):
        run("docker", "run", "--rm", "--network=none", "-v", f"{out}:/out", train, env=docker)
        models.append((out / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    check = "import importlib.metadata as m, sys; print(sorted(d.name for d in m.distributions()), sys.prefix)"
    told = run(
        "docker", "run", "--rm", "--network=none", "--entrypoint=/opt/venv/bin/python", serve, "-c", check, env=docker
    )
    assert "'digits'" in told
    assert "scikit-learn" not in told
    assert "/opt/venv" in told
    port = free_port()
    command = ["docker", "run", "--detach", "--rm", "--network=host", "-v", f"{out}:/model:ro", serve]
    container = run(*command, "--model", "/model/model.safetensors", "--port", str(port), env=docker).strip()
    try:
        answer = asked(f"http://127.0.0.1:{port}/predict", {"image": [0.0] * 64})
    finally:
        run("docker", "kill", container, env=docker)
    assert answer["digit"] in range(10)
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def asked(url: str, document: object) -> Any:
    """What a server answers, once it does."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, json.dumps(document).encode()), timeout=10
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} doesn't answer")


def test_what_is_pushed_can_be_verified_elsewhere(
    digits: Path, repository: str, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    reference = f"{repository}:1"
    reprobuild("image", "inference", digits, "--push", reference)
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", digits, elsewhere)
    cold = {"REPROBUILD_CACHE_DIR": str(tmp_path / "cold")}
    said = reprobuild("verify-image", reference, "--project", elsewhere, "--json", env=cold).json
    assert said["level"] == "identical"
    assert {"umask", "timezone", "hostname"} <= set(said["platforms"][0]["varied"])


def test_a_change_of_the_app_changes_one_layer(
    digits: Path, repository: str, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    before = reprobuild("image", "inference", digits, "--push", f"{repository}:1", "--json").json
    module = digits / "src" / "digits" / "serve.py"
    module.write_text(module.read_text() + "\nCHANGED = True\n")
    commit(git, digits)
    after = reprobuild("image", "inference", digits, "--push", f"{repository}:2", "--json").json
    layers = [[each["digest"] for each in said["platforms"][0]["layers"]] for said in (before, after)]
    changed = [a != b for a, b in zip(*layers, strict=True)]
    assert changed == [False] * (len(changed) - 1) + [True]
    assert after["pushed"]["sent"] < 200_000
    said = reprobuild("diff", f"{repository}:1", f"{repository}:2", "--json", code=ExitCode.DIFFERS_PAYLOAD).json
    paths = {"/".join(each["path"][1:]) for each in said["differences"] if each["path"][0].startswith("layer")}
    assert "opt/venv/lib/python3.11/site-packages/digits/serve.py" in paths
    assert not any("numpy" in each for each in paths)


def test_a_lock_that_is_not_what_the_project_requires_is_refused(
    digits: Path, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    settings = digits / "pyproject.toml"
    before = settings.read_text()
    assert '"numpy>=2"' in before
    image = f"oci:{tmp_path / 'image'}"
    for wanted, problem in (('"numpy<2"', "numpy<2 is wanted, but "), ('"numpy>=2", "idna"', "idna is not in it")):
        settings.write_text(before.replace('"numpy>=2"', wanted))
        commit(git, digits)
        refused = reprobuild("image", "inference", digits, "-o", image, code=ExitCode.LOCK_STALE)
        assert problem in refused.stderr
        assert "remedy: Run `reprobuild lock`" in refused.stderr
        reprobuild("verify-image", image, "--project", digits, code=ExitCode.BAD_INPUT)  # it has no name
    settings.write_text(
        settings.read_text() + "\n[tool.uv]\noverride-dependencies = [\"idna; python_version < '3'\"]\n"
    )
    commit(git, digits)
    told = reprobuild("image", "inference", digits, "-o", image).stderr
    assert "note: `pip check` would complain in image inference. digits 1.0: idna is not in it" in " ".join(
        told.split()
    )


def test_a_damaged_layer_is_not_the_same_as_a_sound_one(digits: Path, reprobuild: Cli, tmp_path: Path) -> None:
    reprobuild("image", "inference", digits, "-o", f"oci:{tmp_path / 'image'}")
    shutil.copytree(tmp_path / "image", tmp_path / "copy")
    both = [f"oci:{tmp_path / name}" for name in ("image", "copy")]
    reprobuild("diff", *both)
    largest = max((tmp_path / "copy" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-100] ^= 1
    largest.write_bytes(content)
    for each in (both, both[::-1]):
        assert largest.name in reprobuild("diff", *each, code=ExitCode.DIGEST_MISMATCH).stderr


@pytest.mark.long
def test_the_own_wheel_is_built_once_and_again_for_a_verdict(
    digits: Path, reprobuild: Cli, git: Git, tmp_path: Path, bubblewrap: None
) -> None:
    own = {"REPROBUILD_CACHE_DIR": str(tmp_path / "cache")}
    image = f"oci:{tmp_path / 'image'}"

    def built(*command: str | Path) -> bool:
        return "building the wheel" in reprobuild(*command, env=own).stderr

    assert built("image", "inference", digits, "-o", image)
    assert not built("image", "inference", digits, "-o", image)
    assert not built("image", "training", digits, "-o", image)
    assert built("verify-image", image, "--project", digits)
    git(digits, "tag", "v9")  # a backend may ask for it
    assert built("image", "inference", digits, "-o", image)
    module = digits / "src" / "digits" / "serve.py"
    module.write_text(module.read_text() + "\nCHANGED = True\n")
    commit(git, digits)
    assert built("image", "inference", digits, "-o", image)


def test_an_image_that_was_changed_is_found_out(digits: Path, reprobuild: Cli, tmp_path: Path) -> None:
    """Its record is about it, and yet it isn't what the record's inputs give."""
    reprobuild("image", "inference", digits, "-o", f"oci:{tmp_path / 'image'}")
    sys.path.insert(0, str(Path(__file__).parent))
    from reprobuild import attest  # noqa: PLC0415
    from reprobuild.image.store import InLayout, add_record, images_of, records_of  # noqa: PLC0415
    from reprobuild.oci.layout import Layout  # noqa: PLC0415
    from reprobuild.oci.model import OCI_CONFIG, Index, Manifest  # noqa: PLC0415

    layout = Layout(tmp_path / "image")
    (image,) = images_of(InLayout(layout), layout.find(), "it")
    (record,) = records_of(InLayout(layout), image)
    statement = record.statement
    document = json.loads(image.config.raw)
    document["config"]["Env"].append("LD_PRELOAD=/evil.so")
    config = layout.put_document(OCI_CONFIG, attest.encode(document))
    manifest = Manifest.make(config, image.manifest.layers, annotations=image.manifest.annotations)
    layout.put_document(manifest.descriptor.media_type, manifest.raw)
    statement["subject"][0]["digest"]["sha256"] = manifest.descriptor.digest.hex
    add_record(layout, statement, manifest.descriptor)
    layout.add(manifest.descriptor, "latest")
    said = reprobuild(
        "verify-image", f"oci:{tmp_path / 'image'}", "--project", digits, "--json", code=ExitCode.DIFFERS_METADATA
    ).json
    differences = said["platforms"][0]["differences"]
    assert [(each["path"], each["field"]) for each in differences] == [(["config"], "config.Env")]
    # Nor can the record name other inputs.
    manifest = Manifest.make(config, image.manifest.layers)
    layout.put_document(manifest.descriptor.media_type, manifest.raw)
    statement["subject"][0]["digest"]["sha256"] = manifest.descriptor.digest.hex
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].pop()
    (layout.folder / "index.json").write_bytes(Index.make([layout.find("latest")]).raw)
    add_record(layout, statement, manifest.descriptor)
    layout.add(manifest.descriptor, "latest")
    reprobuild("verify-image", tmp_path / "image", "--project", digits, code=ExitCode.RECORD_UNUSABLE)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["layout", "repository"])
def test_a_base_that_its_registry_has_deleted_comes_from_the_archive(
    digits: Path, kind: str, repository: str, reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    before = reprobuild("image", "inference", digits, "-o", f"oci:{tmp_path / 'one'}", "--json").json["digest"]
    place = f"oci:{tmp_path / 'bases'}" if kind == "layout" else f"{repository}/bases"
    reprobuild("lock", "--project", digits, "--archive", place)
    manifest = digits / "pyproject.toml"
    dockerfile = digits / "images" / "inference" / "Dockerfile"
    gone = dockerfile.read_text().replace("/base/debian:", "/base/deleted:")
    dockerfile.write_text(gone)
    commit(git, digits)
    cold = {"REPROBUILD_CACHE_DIR": str(tmp_path / "cold")}
    arguments = ("image", "inference", digits, "-o", f"oci:{tmp_path / 'two'}", "--json")
    refused = reprobuild(*arguments, env=cold, code=ExitCode.REGISTRY_FAILED)
    assert "base/deleted" in refused.stderr
    manifest.write_text(manifest.read_text() + f'\n[tool.reprobuild]\narchive = "{place}"\n')
    commit(git, digits)
    environment = {**cold, "SOURCE_DATE_EPOCH": git(digits, "log", "-1", "--format=%ct", "HEAD~2").strip()}
    said = reprobuild(*arguments, env=environment).json
    differences = reprobuild(
        "diff", f"oci:{tmp_path / 'one'}", f"oci:{tmp_path / 'two'}", "--json", code=ExitCode.DIFFERS_METADATA
    ).json["differences"]
    assert {(each["path"][0], each["field"]) for each in differences} == {
        ("manifest", "org.opencontainers.image.base.name")
    }
    assert said["digest"] != before
    reprobuild(*arguments[:3], "--push", f"{repository}:again", env=environment)


def test_one_true_record_among_several_is_enough(digits: Path, reprobuild: Cli, git: Git, tmp_path: Path) -> None:
    """Two commits may give one image, and a record that somebody adds can't take the true ones' word away."""
    from reprobuild.image.store import InLayout, add_record, images_of, records_of  # noqa: PLC0415
    from reprobuild.oci.layout import Layout  # noqa: PLC0415

    output = ("-o", f"oci:{tmp_path / 'image'}", "--json")
    steady = {"SOURCE_DATE_EPOCH": "1790000000"}
    first = reprobuild("image", "inference", digits, *output, env=steady).json["digest"]
    git(digits, "commit", "--quiet", "--allow-empty", "--message", "another commit of the same files")
    assert reprobuild("image", "inference", digits, *output, env=steady).json["digest"] == first
    layout = Layout(tmp_path / "image")
    (image,) = images_of(InLayout(layout), layout.find(), "it")
    records = records_of(InLayout(layout), image)
    assert len(records) == 2
    for number in range(2):
        statement = records[number].statement
        statement["predicate"]["buildDefinition"]["externalParameters"]["sourceDateEpoch"] = 1_700_000_000 + number
        add_record(layout, statement, image.manifest.descriptor)
        statement["predicate"]["buildDefinition"]["externalParameters"]["image"] = "training"
        add_record(layout, statement, image.manifest.descriptor)
    said = reprobuild("verify-image", tmp_path / "image", "--project", digits, "--json").json
    assert said["level"] == "identical"
