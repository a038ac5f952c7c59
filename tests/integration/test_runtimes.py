"""Do the programs that people run read layers whose gzip stream has many members?

RFC 1952 lets a gzip file have any number of members, and the spliced layers here have two for each file. Each test
hands such an image to one real program and looks at what comes out, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reprobuild.digest import Digest
from reprobuild.oci.layer import Compression, write_layer
from reprobuild.oci.tree import WHEEL_TIME, Deflated, Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Contents that are stored, deflated, empty, of exactly one tar block, and longer than any buffer.
FILES = {
    "opt/venv/empty": b"",
    "opt/venv/short": b"spliced\n",
    "opt/venv/block": bytes(range(256)) * 2,
    "opt/venv/long": b"".join(
        hashlib.sha256(bytes([number % 251, number >> 8 & 255])).digest() for number in range(60000)
    ),
    "opt/venv/deep/er/text": b"one line, many times\n" * 50_000,
}
NAME = "docker.io/test/spliced:latest"
ALL = " ".join(f"/{name}" for name in sorted(FILES))
SUMS = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  /{name}\n" for name in sorted(FILES))


@dataclass(frozen=True)
class Spliced:
    """An image with a spliced layer.

    Attributes:
        layout: an OCI image layout that holds it alone, tagged ``latest``.
        digest: its manifest's.
    """

    layout: Path
    digest: str


def run(*command: str | Path, env: Mapping[str, str]) -> str:
    """What a program prints, which must succeed."""
    done = subprocess.run([*map(str, command)], env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def add_blob(layout: Path, media_type: str, data: bytes) -> dict[str, Any]:
    """Put a blob into a layout: its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def read_blob(layout: Path, descriptor: dict[str, Any]) -> Any:
    """A JSON document in a layout."""
    return json.loads((layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes())


@dataclass(frozen=True)
class Packed:
    """Content that is deflated already, as in a wheel."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data

    def deflated(self) -> Deflated:
        squeeze = zlib.compressobj(6, wbits=-15)
        raw = squeeze.compress(self.data) + squeeze.flush()
        return Deflated(zlib.crc32(self.data), len(self.data), len(raw), [raw])


def spliced_layer() -> tuple[bytes, Digest]:
    """What `reprobuild image` makes of such content, and its diff ID."""
    folders = sorted({str(parent) for name in FILES for parent in Path(name).parents} - {"."})
    nodes = [Node(name, "directory", 0o755, WHEEL_TIME) for name in folders]
    nodes += [Node(name, "file", 0o644, WHEEL_TIME, content=Packed(data)) for name, data in FILES.items()]
    stream = io.BytesIO()
    layer = write_layer(nodes, stream, Compression.SPLICE)
    return stream.getvalue(), layer.diff_id


@pytest.fixture(scope="module")
def spliced(base_layout: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Spliced:
    """The busybox base with a spliced layer on top."""
    layout = tmp_path_factory.mktemp("spliced") / "layout"
    shutil.copytree(base_layout("busybox"), layout)
    packed, diff_id = spliced_layer()
    entry = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    manifest = read_blob(layout, entry)
    config = read_blob(layout, manifest["config"])
    config["rootfs"]["diff_ids"].append(str(diff_id))
    config["history"].append({"created_by": "a test"})
    manifest["config"] = add_blob(layout, manifest["config"]["mediaType"], json.dumps(config).encode())
    manifest["layers"].append(add_blob(layout, manifest["layers"][0]["mediaType"], packed))
    new = add_blob(layout, manifest["mediaType"], json.dumps(manifest).encode())
    # The second is what `docker load` calls an image; it takes the first for a name that no command then accepts.
    new["annotations"] = {**entry["annotations"], "io.containerd.image.name": NAME}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [new]}))
    return Spliced(layout, new["digest"])


def archive(spliced: Spliced, folder: Path) -> Path:
    """The layout as a tar archive."""
    target = folder / "image.tar"
    with tarfile.open(target, "w") as tar:
        for path in sorted(spliced.layout.rglob("*")):
            tar.add(path, path.relative_to(spliced.layout).as_posix(), recursive=False)
    return target


def pushed(spliced: Spliced, repository: str, tools: Mapping[str, str]) -> str:
    """Push the image to the registry with skopeo, every byte as it is: its reference."""
    target = f"docker://{repository}:latest"
    run(
        "skopeo",
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        f"oci:{spliced.layout}:latest",
        target,
        env=tools,
    )
    return f"{repository}@{spliced.digest}"


def contents(root: Path) -> dict[str, bytes]:
    """The files below opt/venv in an unpacked root file system."""
    found = [path for path in (root / "opt" / "venv").rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_the_layer_has_a_member_for_each_header_and_each_content(spliced: Spliced) -> None:
    """What follows would prove nothing about a stream of one member."""
    layer = read_blob(spliced.layout, {"digest": spliced.digest})["layers"][-1]
    data = (spliced.layout / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
    members = 0
    while data:
        reader = zlib.decompressobj(wbits=31)
        reader.decompress(data)
        assert reader.eof
        data = reader.unused_data
        members += 1
    assert members > 2 * sum(bool(content) for content in FILES.values())


def test_docker_loads_and_runs_it(spliced: Spliced, docker: Mapping[str, str], tmp_path: Path) -> None:
    run("docker", "load", "--input", archive(spliced, tmp_path), env=docker)
    assert run("docker", "image", "inspect", "--format={{.Id}}", NAME, env=docker).strip() == spliced.digest
    sums = run("docker", "run", "--rm", "--network=none", spliced.digest, "sha256sum", *ALL.split(), env=docker)
    assert sums == SUMS
    wanted = "1980-01-01 00:00:00"
    times = run(
        "docker", "run", "--rm", "--network=none", spliced.digest, "stat", "-c", "%y", "/opt/venv/long", env=docker
    )
    assert times.startswith(wanted)


def test_docker_pulls_it_by_digest(
    spliced: Spliced, docker: Mapping[str, str], tools: Mapping[str, str], repository: str
) -> None:
    reference = pushed(spliced, repository, tools)
    assert run("docker", "pull", "--quiet", reference, env=docker).strip() == reference
    sums = run("docker", "run", "--rm", "--network=none", reference, "sha256sum", *ALL.split(), env=docker)
    assert sums == SUMS


def test_containerd_imports_and_runs_it(spliced: Spliced, docker: Mapping[str, str], tmp_path: Path) -> None:
    ctr = ("ctr", "--namespace", f"test-{tmp_path.name}")
    image = archive(spliced, tmp_path)
    run(*ctr, "images", "import", "--digests", "--base-name", "docker.io/test/spliced", image, env=docker)
    named = [line for line in run(*ctr, "images", "ls", "-q", env=docker).split() if spliced.digest in line]
    assert named == [f"docker.io/test/spliced@{spliced.digest}"]
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    run(*ctr, "images", "mount", named[0], rootfs, env=docker)
    try:
        assert contents(rootfs) == FILES
    finally:
        run(*ctr, "images", "unmount", "--rm", rootfs, env=docker)
    run(*ctr, "images", "rm", *run(*ctr, "images", "ls", "-q", env=docker).split(), env=docker)


def test_skopeo_copies_it_through_a_registry_unchanged(
    spliced: Spliced, tools: Mapping[str, str], repository: str, tmp_path: Path
) -> None:
    reference = pushed(spliced, repository, tools)
    back = tmp_path / "back"
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{back}:latest", env=tools)
    assert json.loads((back / "index.json").read_bytes())["manifests"][0]["digest"] == spliced.digest
    for blob in (back / "blobs" / "sha256").iterdir():
        assert blob.read_bytes() == (spliced.layout / "blobs" / "sha256" / blob.name).read_bytes()
    assert len([*(back / "blobs" / "sha256").iterdir()]) == 4


def test_skopeo_unpacks_its_layers_for_an_older_format(
    spliced: Spliced, tools: Mapping[str, str], tmp_path: Path
) -> None:
    """An archive for older engines holds layers uncompressed, so skopeo has to read them."""
    target = tmp_path / "old.tar"
    run("skopeo", "copy", f"oci:{spliced.layout}:latest", f"docker-archive:{target}:{NAME}", env=tools)
    with tarfile.open(target) as tar:
        (image,) = json.load(tar.extractfile("manifest.json") or BytesIO())
        layer = (tar.extractfile(image["Layers"][-1]) or BytesIO()).read()
    assert Digest.of_bytes(layer) == spliced_layer()[1]


def test_umoci_unpacks_it(spliced: Spliced, tools: Mapping[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "layout"  # umoci writes to the layout that it reads
    shutil.copytree(spliced.layout, copy)
    run("umoci", "unpack", "--rootless", "--image", f"{copy}:latest", tmp_path / "bundle", env=tools)
    assert contents(tmp_path / "bundle" / "rootfs") == FILES


def test_oras_copies_it_into_a_registry(spliced: Spliced, tools: Mapping[str, str], repository: str) -> None:
    run(
        "oras",
        "cp",
        "--from-oci-layout",
        f"{spliced.layout}:latest",
        "--to-plain-http",
        f"{repository}:latest",
        env=tools,
    )
    found = json.loads(
        run("oras", "manifest", "fetch", "--descriptor", "--plain-http", f"{repository}:latest", env=tools)
    )
    assert found["digest"] == spliced.digest


def test_podman_pulls_it(spliced: Spliced, as_root: None, tools: Mapping[str, str], repository: str) -> None:
    """Not run by it: where pid 1 leaves zombies, podman waits twenty seconds for each container that has ended."""
    reference = pushed(spliced, repository, tools)
    run("podman", "pull", "--quiet", reference, env=tools)
    assert contents(Path(run("podman", "image", "mount", reference, env=tools).strip())) == FILES


def test_buildah_pulls_and_runs_it(
    spliced: Spliced, as_root: None, tools: Mapping[str, str], repository: str, tmp_path: Path
) -> None:
    reference = pushed(spliced, repository, tools)
    buildah = ("buildah", "--root", tmp_path / "store", "--runroot", tmp_path / "run")
    container = run(*buildah, "from", "--quiet", reference, env=tools).strip()
    assert run(*buildah, "run", "--network=none", container, "sha256sum", *ALL.split(), env=tools) == SUMS


@pytest.fixture
def as_root() -> None:
    """podman and buildah would need ranges of user ids otherwise."""
    if os.geteuid() != 0:
        pytest.skip("this user has no ranges of user ids, which podman and buildah unpack with")
