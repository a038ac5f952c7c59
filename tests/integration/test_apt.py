"""Real Debian packages, from the archive that this machine's apt is set up with, in images that BuildKit builds."""

import io
import json
import os
import subprocess
import tarfile

import pytest

from reprobuild import project
from reprobuild.image import apt
from reprobuild.oci.model import Platform

AMD64 = Platform("linux", "amd64")
#: A program with libraries of its own, and a service whose packages make a user and draw a machine-id.
PACKAGES = ["jq", "dbus"]
PYPROJECT = """\
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"

[project]
name = "demo"
version = "1"
description = "A demonstration"
requires-python = ">=3.11"

[tool.reprobuild.images.tool]
project = false
platforms = ["linux/amd64"]
manylinux = "2_28"
apt = {packages}
"""
INSTALL = "/apt/install"
NAME = "reprobuild-apt-test:1"
NAIVE = "apt-get install --yes --no-install-recommends /apt/debs/*.deb"


@pytest.fixture
def locked(tmp_path, base_image, reprobuild, git):
    """A project with an image whose packages are locked."""
    folder = tmp_path / "demo"
    (folder / "images/tool").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(packages=json.dumps(PACKAGES)))
    (folder / "demo.py").write_text('"""A demonstration."""\n')
    write_dockerfile(folder, base_image("debian"), INSTALL)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a project")
    reprobuild("lock", cwd=folder)
    return folder


def write_dockerfile(folder, base, command):
    run = f"RUN --mount=type=bind,from=apt,target=/apt {command}\n"
    (folder / "images/tool/Dockerfile").write_text(f"FROM {base}\n{run}")


def build(folder, name, docker, *more):
    """Build with nothing from a cache and no network: the image as an archive, with its digest."""
    out, config = folder.parent / f"{name}.tar", project.load(folder)
    context = apt.context(folder / "images/tool/apt.lock", folder.parent / name, AMD64, settings=config.images[0])
    command = ["docker", "buildx", "build", "--no-cache", "--network=none", "--provenance=false", "--progress=plain"]
    command += [f"--build-context=apt={context}", "--build-arg=SOURCE_DATE_EPOCH=1790856000", *more]
    command += [f"--output=type=oci,dest={out},rewrite-timestamp=true", str(folder / "images/tool")]
    done = subprocess.run(command, env=os.environ | docker, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    with tarfile.open(out) as image:
        return out, json.loads(content(image, "index.json"))["manifests"][0]["digest"]


def content(archive, member):
    stream = archive.extractfile(member)
    assert stream
    return stream.read()


def files_of(out):
    """What the last layer of an image holds: the bytes of each file by its path."""
    with tarfile.open(out) as image:

        def blob(digest):
            return content(image, f"blobs/sha256/{digest.partition(':')[2]}")

        manifest = json.loads(blob(json.loads(content(image, "index.json"))["manifests"][0]["digest"]))
        with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][-1]["digest"]))) as layer:
            return {each.name: content(layer, each) if each.isfile() else None for each in layer}


def inside(docker, *command):
    """What a program of the image that was loaded prints; then the image is taken away."""

    def run(*arguments):
        done = subprocess.run(
            arguments, env=os.environ | docker, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        return run("docker", "run", "--rm", "--network=none", NAME, *command)
    finally:
        run("docker", "rmi", "--force", NAME)


def test_two_cold_builds_are_the_same_image_and_its_programs_run(locked, docker, reprobuild, git):
    git(locked, "add", "--all")
    git(locked, "commit", "--quiet", "--message", "its lock")
    out, env = locked.parent / "tool.tar", {**docker, "SOURCE_DATE_EPOCH": "1790856000"}
    reprobuild("image", "tool", locked, "-o", f"oci-archive:{out}", "--load", NAME, env=env)
    said = reprobuild("verify-image", out, "--project", locked, "--json", env=env).json
    assert said["level"] == "identical"
    record = json.loads(out.with_name("tool.tar.intoto.json").read_text())
    listed = record["predicate"]["buildDefinition"]["resolvedDependencies"]
    roles = [each["annotations"]["role"] for each in listed]

    lock = apt.read(locked / "images/tool/apt.lock")
    (closure,) = lock.closures
    assert {*PACKAGES} < {each.name for each in closure.packages}
    assert (roles.count("apt-lock"), roles.count("apt-package")) == (1, len(closure.packages))
    assert {each.digest.hex for each in closure.packages} < {each["digest"].get("sha256") for each in listed}
    listed = "dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version}\\n'"
    script = f"jq --null-input --compact-output '[1, 2]'; {listed}; dpkg --audit"
    said = inside(docker, "sh", "-c", script).splitlines()
    assert said[0] == "[1,2]"
    assert {f"installed {each.name} {each.version}" for each in closure.packages} <= {*said}
    assert all(line.startswith("installed ") for line in said[1:])

    files = files_of(out)
    assert not [name for name in files if name.startswith(("var/log/", "var/cache/ldconfig/", "tmp/"))]
    assert not {"etc/machine-id", "var/lib/dbus/machine-id", "usr/sbin/policy-rc.d", "etc/shadow-"} & {*files}
    shadow = dict(line.split(":", 1) for line in files["etc/shadow"].decode().splitlines())
    assert shadow["messagebus"].split(":")[1] == "3652"  # 1980-01-01, not today


def test_the_same_packages_without_the_script_differ(locked, docker, base_image):
    write_dockerfile(locked, base_image("debian"), NAIVE)
    (one, first), (two, second) = (build(locked, name, docker) for name in ("one", "two"))
    assert first != second
    before, after = files_of(one), files_of(two)
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    assert {"var/log/dpkg.log", "var/cache/ldconfig/aux-cache", "var/lib/dbus/machine-id"} <= differing, differing


def test_check_sees_that_the_packages_changed(locked, reprobuild):
    reprobuild("lock", "--check", cwd=locked)
    text = (locked / "pyproject.toml").read_text()
    (locked / "pyproject.toml").write_text(text.replace('"jq", ', ""))
    said = reprobuild("lock", "--check", "--no-images", cwd=locked, code=6).stdout
    assert '-packages = ["dbus", "jq"]' in said
    assert '+packages = ["dbus"]' in said
