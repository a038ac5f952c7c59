"""The same Dockerfiles by both engines: the same root file system and settings, whatever their layers are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reprobuild.digest import Digest, chunks_of
from reprobuild.image.crossed import compare_roots
from reprobuild.image.store import Readable, find
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest
from reprobuild.oci.rootfs import open_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import Cli, Git

    from reprobuild.compare import Verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
#: A day after everything in the base image: what has the one time and what has the other can be told apart.
EPOCH = 1_790_856_000 + 86_400
pytestmark = pytest.mark.network


@pytest.fixture
def digits(tmp_path: Path, base_image: Callable[[str], str], git: Git) -> Path:
    """The example in a clean checkout, its bases pinned."""
    folder = tmp_path / "digits"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "venv", "dist"))
    for path in folder.glob("images/*/Dockerfile"):
        path.write_text(path.read_text().replace("127.0.0.1:5000/base/debian:latest", base_image("debian")))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state of the test")
    return folder


def read(text: str, scratch: Path) -> Readable:
    """The one image of a layout or an archive."""
    scratch.mkdir(exist_ok=True)
    (image,) = find(text, lambda _: pytest.fail("no registry"), scratch).images
    return image


def assembled(name: str, folder: Path, out: Path, reprobuild: Cli) -> Readable:
    """By the assembler, without the base's layers."""
    out.mkdir(exist_ok=True)
    reprobuild("image", name, folder, env={"SOURCE_DATE_EPOCH": str(EPOCH)})
    return read(str(folder / "dist" / name), out)


def environment_of(image: Readable, folder: Path, prefix: str) -> str:
    """What an image's own layers have below a prefix, as an image of its own for a named context.

    As a folder it would have other times: BuildKit keeps the folders that it was sent for an earlier build, and what
    is new in one changes its time.
    """
    store = Layout(folder, create=True)
    layers: list[Descriptor] = []
    for layer in image.layers:
        if "--from=environment" not in layer.text:
            continue
        path = folder / "layer.tar"
        with tarfile.open(image.blob(layer.descriptor)) as theirs, tarfile.open(path, "w") as tar:
            for member in theirs:
                if member.name.startswith(f"{prefix}/"):
                    member.name = member.name.removeprefix(f"{prefix}/")
                    member.pax_headers = {key: value for key, value in member.pax_headers.items() if key != "path"}
                    tar.addfile(member, theirs.extractfile(member) if member.isfile() else None)
        digest = Digest.of_file(path)
        with path.open("rb") as stream:
            store.put(digest, chunks_of(stream))
        layers.append(Descriptor(OCI_LAYER, digest, path.stat().st_size))
    rootfs = {"type": "layers", "diff_ids": [str(each.digest) for each in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    manifest = Manifest.make(store.put_document(OCI_CONFIG, config), layers)
    store.add(store.put_document(manifest.descriptor.media_type, manifest.raw))
    return f"oci-layout://{folder}@{manifest.descriptor.digest}"


def built(name: str, folder: Path, environment: str, out: Path, docker: Mapping[str, str], **changed: str) -> Readable:
    """By BuildKit, from the same files; a part of the Dockerfile may be changed."""
    if time.time() < EPOCH:
        pytest.skip("the clock of this machine is before the epoch of the test, which BuildKit can't give to anything")
    text = (folder / "images" / name / "Dockerfile").read_text()
    for before, after in changed.items():
        assert before in text
        text = text.replace(before, after)
    out.mkdir(exist_ok=True)
    (out / "Dockerfile").write_text(text)
    argv: list[str | Path] = ["docker", "buildx", "build", "--no-cache", "--network=none", "--provenance=false"]
    argv += [f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}", f"--build-context=environment={environment}"]
    argv += [
        f"--output=type=oci,dest={out / 'built.tar'},rewrite-timestamp=true",
        f"--file={out / 'Dockerfile'}",
        folder,
    ]
    done = subprocess.run([*map(str, argv)], env={**os.environ, **docker}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read(f"oci-archive:{out / 'built.tar'}", out)


def told(verdict: Verdict) -> list[tuple[str, str]]:
    """Each difference: its place and its field."""
    return [("/".join(each.path), each.field) for each in verdict.differences]


@pytest.mark.long
@pytest.mark.parametrize("name", ["inference", "training"])
def test_the_examples_are_identical_by_both_engines(
    digits: Path, name: str, docker: dict[str, str], reprobuild: Cli, tmp_path: Path
) -> None:
    image, env = tmp_path / "image", {**docker, "SOURCE_DATE_EPOCH": str(EPOCH)}
    reprobuild("image", name, digits, "-o", f"oci:{image}", env=env)
    said = reprobuild("verify-image", image, "--project", digits, "--cross-engine", "--json", env=env).json
    (checked,) = said["platforms"]
    assert (said["level"], checked["level"]) == ("identical", "identical")
    crossed = checked["crossEngine"]
    assert (crossed["level"], crossed["differences"]) == ("identical", [])
    assert crossed["left"] == crossed["right"] != checked["left"]
    assert crossed["left"]["size"] > 1_000_000
    times = layer_times(read(str(image), tmp_path / "read"))
    assert times["opt"] == times["opt/venv"] == EPOCH
    assert times["opt/venv/bin"] != EPOCH


def layer_times(image: Readable) -> dict[str, int]:
    """The time of each path in the layers above the base."""
    found: dict[str, int] = {}
    for layer in image.manifest.layers[1:]:
        with open_layer(image.blob(layer), name="layer") as archive:
            found |= {entry.name: entry.seconds for entry in archive.entries}
    return found


DOCKERFILE = """\
FROM {base} AS first
WORKDIR /made/here
COPY --chown=5:6 data/ .

FROM {base}
COPY data/a /opt/venv/before
COPY --from=environment --chown=7:8 / /opt/venv/
COPY data/a /opt/venv/lib/a
COPY --chown=1000:1000 data/ /srv/static/
COPY --chmod=750 data/ /usr/local/share/deep/er/
COPY data/a data/b /etc/
COPY --from={other} /bin/ /tools/
COPY --from={other} /bin/busybox /usr/local/bin/box
COPY --from=first /made /made
USER 3:4
WORKDIR /out/a
WORKDIR b
COPY <<END named
some text
END
ENV A=b C="d e"
LABEL x=y
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
SHELL ["/bin/bash", "-c"]
HEALTHCHECK --interval=5s CMD true
CMD start
"""


@pytest.fixture
def many(digits: Path, base_image: Callable[[str], str], git: Git) -> Path:
    """The example with an image of many steps in the place of one, and without numpy, which is most of the bytes."""
    manifest, lock = digits / "pyproject.toml", digits / "images" / "inference" / "requirements.txt"
    assert '"numpy>=2", ' in manifest.read_text()
    manifest.write_text(manifest.read_text().replace('"numpy>=2", ', ""))
    lock.write_text(re.sub(r"^numpy==.*\n( .*\n)+", "", lock.read_text(), flags=re.MULTILINE))
    text = DOCKERFILE.format(base=base_image("debian"), other=base_image("busybox"))
    (digits / "images" / "inference" / "Dockerfile").write_text(text)
    for name in ("a", "b", "sub/deep/c"):
        path = digits / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    git(digits, "add", "--all")
    git(digits, "commit", "--quiet", "--message", "many steps")
    return digits


@pytest.mark.long
def test_many_steps_are_identical_by_both_engines_and_what_is_not_is_named(
    many: Path, docker: dict[str, str], reprobuild: Cli, git: Git, tmp_path: Path
) -> None:
    """One test, since the environment takes most of the time."""
    ours = assembled("inference", many, tmp_path / "ours", reprobuild)
    environment = environment_of(ours, tmp_path / "environment", "opt/venv")
    theirs = built("inference", many, environment, tmp_path / "theirs", docker)
    verdict = compare_roots(ours, theirs)
    assert (told(verdict), verdict.level) == ([], "identical")
    for number, (before, after, difference) in enumerate(CHANGES):
        other = built("inference", many, environment, tmp_path / f"other-{number}", docker, **{before: after})
        verdict = compare_roots(ours, other)
        assert difference in told(verdict), (before, told(verdict))
        assert verdict.level != "identical"
    # The mode and the owner of /tmp are the base's own affair, so the assembler never names it: its time stays.
    dockerfile = many / "images" / "inference" / "Dockerfile"
    dockerfile.write_text(f"{dockerfile.read_text()}COPY data/a /tmp/\n")
    git(many, "commit", "--quiet", "--all", "--message", "into /tmp")
    ours = assembled("inference", many, tmp_path / "tmp-ours", reprobuild)
    theirs = built("inference", many, environment, tmp_path / "tmp-theirs", docker)
    verdict = compare_roots(ours, theirs)
    assert (told(verdict), verdict.level) == ([("/tmp", "time")], "container")


CHANGES = [
    ("--chmod=750", "--chmod=751", ("/usr/local/share/deep/er/a", "mode")),
    ("--chown=1000:1000", "--chown=1000:1001", ("/srv/static/sub", "owner")),
    ("some text", "other text", ("/out/a/b/named", "line 1")),
    ("WORKDIR b\n", "WORKDIR b\nWORKDIR /more\nWORKDIR /out/a/b\n", ("/more", "missing")),
    ("USER 3:4", "USER 3:5", ("/out/a", "owner")),
    ("STOPSIGNAL SIGINT", "STOPSIGNAL SIGTERM", ("config", "StopSignal")),
]
