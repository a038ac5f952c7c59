"""An image put together without its base: layers, config, manifest, and what decides them."""

import json
import os
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.version import Version

from reprobuild import memory
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput
from reprobuild.image import assembler
from reprobuild.image import writer as writer_module
from reprobuild.image.assembler import Origins, assemble
from reprobuild.image.base import Base, fetch
from reprobuild.image.context import Context, Nodes
from reprobuild.image.dockerfile import parse
from reprobuild.image.environment import assemble as environment_of
from reprobuild.image.environment import with_own
from reprobuild.image.resolve import resolve
from reprobuild.image.target import Target
from reprobuild.image.writer import writing
from reprobuild.index import Index
from reprobuild.lockfile import Lockfile, Pin
from reprobuild.oci import layer as layers
from reprobuild.oci.layer import Compression, write_layer
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import DOCKER_LAYER, OCI_CONFIG, OCI_LAYER, Descriptor, ImageConfig, Manifest, Platform
from reprobuild.oci.reference import Reference
from reprobuild.oci.rootfs import open_layer
from reprobuild.oci.tree import WHEEL_TIME, Node, Text
from reprobuild.progress import Silent
from reprobuild.wheelfile import read_wheel

EPOCH = 1_700_000_000
AMD64 = Platform("linux", "amd64")
BASE_CONFIG = {
    "os": "linux",
    "architecture": "amd64",
    "config": {"Env": ["PATH=/usr/bin", "KEPT=1"], "Labels": {"org.opencontainers.image.version": "base"}},
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'a' * 64}"]},
    "history": [{"created_by": "base"}, {"created_by": "ENV KEPT=1", "empty_layer": True}],
}


def a_base(config=None, media_type=DOCKER_LAYER):
    raw = canonical_json(config or BASE_CONFIG)
    layer = Descriptor(media_type, Digest("sha256", "b" * 64), 100)
    manifest = Manifest.make(Descriptor.of(OCI_CONFIG, raw), [layer])
    reference = Reference("own.example", "base", "1", manifest.descriptor.digest)
    return Base(reference, manifest, ImageConfig.read(raw, "the base"))


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "app.py").write_text("print('app')\n")
    return folder


@pytest.fixture
def locked(tmp_path, make_wheel, monkeypatch):
    """A lock of two wheels in a folder of links."""
    offered = tmp_path / "offered"
    offered.mkdir()
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(offered))
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    wheels = [make_wheel(offered, name=name) for name in ("one", "two")]
    pins = [
        Pin(path.name.split("-")[0], Version(path.name.split("-")[1]), None, (Digest.of_file(path),)) for path in wheels
    ]
    return Lockfile(Digest.of_bytes(b""), tuple(pins), "")


class Making:
    """One build after the other, of whatever Dockerfile."""

    def __init__(self, folder, context, lock):
        self.folder, self.context, self.lock = folder, context, lock
        self.base = a_base()
        self.epoch = EPOCH
        self.others = Nodes({})
        self.python = "3.12"

    def assembly(self, text, compression=Compression.SPLICE, complete=None, ahead=len, *, remembering=True, index=None):
        text = text.replace("FROM base", f"FROM {self.base.reference}")
        spec = resolve(parse(text, "Dockerfile"), lambda _: self.base.config, platform=AMD64, epoch=self.epoch)
        target = Target(self.python, "/usr/bin/python3.12", "x86_64-manylinux_2_28")
        origins = Origins(
            Context(self.context, self.epoch),
            lambda _: self.base,
            lambda _: self.others,
            lambda prefix, _: environment_of(
                self.lock, replace(target, prefix=prefix), index or Index(self.folder), remembering=remembering
            ),
            complete,
        )
        return assemble(spec, origins, epoch=self.epoch, where="Dockerfile", compression=compression, ahead=ahead)

    def image(self, text, name="layout", compression=Compression.SPLICE, *, index=None, remembering=True, **more):
        store = Layout(self.folder / name, create=True)
        with writing(store, compression=compression, remembering=remembering, **more) as writer:
            return writer.image(self.assembly(text, compression, index=index, remembering=remembering)), store


@pytest.fixture
def making(tmp_path, context, locked):
    return Making(tmp_path, context, locked)


def files(image, store):
    """What each layer holds: the entries by path."""
    found = []
    for layer in image.layers:
        with open_layer(store.path_of(layer.descriptor.digest), name="layer") as archive:
            found.append({entry.name: entry for entry in archive.entries})
    return found


WHOLE = """FROM base
ENV A=b
WORKDIR /srv/app
COPY --from=environment / /opt/venv/
COPY app.py .
LABEL org.opencontainers.image.source=https://own.example/repo
ENTRYPOINT ["/opt/venv/bin/python", "app.py"]
"""


def test_an_image_is_its_base_and_a_layer_for_each_step_that_adds_something(making):
    image, store = making.image(WHOLE)
    layers = files(image, store)
    assert "opt/venv/pyvenv.cfg" in layers[0]
    assert sum("one" in path for path in layers[1]) > 0 or sum("two" in path for path in layers[1]) > 0
    # What the steps made on their way is where each commit changes something anyway.
    assert sorted(layers[-1]) == ["opt", "opt/venv", "srv", "srv/app", "srv/app/app.py"]
    assert {layers[-1][path].seconds for path in layers[-1]} == {EPOCH}
    assert {entry.seconds for each in layers[:-1] for entry in each.values()} == {WHEEL_TIME}
    config = json.loads(store.read(image.config))
    assert config["config"]["Env"] == ["PATH=/usr/bin", "KEPT=1", "A=b"]
    assert config["config"]["WorkingDir"] == "/srv/app"
    assert config["rootfs"]["diff_ids"] == [f"sha256:{'a' * 64}", *(str(layer.diff_id) for layer in image.layers)]
    told = [each for each in config["history"] if not each.get("empty_layer")]
    assert len(told) == len(config["rootfs"]["diff_ids"])
    assert config["history"][:2] == BASE_CONFIG["history"]
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert image.manifest.layers[0].media_type == f"{OCI_LAYER}+gzip"  # Docker's word for it, put into OCI's
    assert image.manifest.annotations == {
        "org.opencontainers.image.base.digest": str(making.base.reference.digest),
        "org.opencontainers.image.base.name": "own.example/base:1",
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        "org.opencontainers.image.source": "https://own.example/repo",
    }


def test_an_image_is_the_same_wherever_and_in_whatever_order_it_is_made(making, monkeypatch):
    first, _ = making.image(WHOLE, "one")
    before = os.umask(0o077)
    try:
        monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(making.folder / "other-cache"))
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        second, _ = making.image(WHOLE, "two")
    finally:
        os.umask(before)
    assert second.remembered == 0
    assert first.manifest.raw == second.manifest.raw


def test_what_was_made_before_is_not_made_again(making):
    first, _ = making.image(WHOLE, "one")
    second, store = making.image(WHOLE, "two")
    third, _ = making.image(WHOLE, "three", remembering=False)
    assert first.remembered == third.remembered == 0
    assert second.remembered > 0
    assert first.manifest.raw == second.manifest.raw == third.manifest.raw
    for layer in second.layers:  # a remembered diff ID is still that of the bytes which were written
        with open_layer(store.path_of(layer.descriptor.digest), name="layer") as archive:
            assert archive.entries


def test_text_of_the_same_length_makes_another_layer(making):
    """Such as pyvenv.cfg, for another Python."""
    images = []
    for making.python in ("3.12.1", "3.12.2"):
        images.append(making.image(ENVIRONMENT, making.python)[0])
    known = [{layer.digest for layer in image.manifest.layers} for image in images]
    assert len(known[0] - known[1]) == 1


def test_another_wheel_with_the_same_files_makes_another_layer(making):
    """Its bytes are in the layer as they are, and so is how they are compressed."""
    making.image(ENVIRONMENT, "first")
    (path,) = (making.folder / "offered").glob("one-*.whl")
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members:
            archive.writestr(info, data, zipfile.ZIP_STORED)
    one, two = making.lock.pins
    making.lock = replace(making.lock, pins=(replace(one, hashes=(Digest.of_file(path),)), two))
    found, _ = making.image(ENVIRONMENT, "first")  # where the other layer is
    assert found.manifest.raw == making.image(ENVIRONMENT, "anew", remembering=False)[0].manifest.raw


def test_what_is_where_the_image_goes_is_not_written(making):
    first, _ = making.image(WHOLE, "one")
    second, store = making.image(WHOLE, "two", is_there=lambda _: True)
    assert first.manifest.raw == second.manifest.raw
    assert [store.has(layer.descriptor.digest) for layer in second.layers].count(True) == 1  # the context's


def test_a_new_commit_of_the_app_changes_one_layer(making):
    first, _ = making.image(WHOLE, "one")
    (making.context / "app.py").write_text("print('changed')\n")
    making.epoch += 1000
    second, _ = making.image(WHOLE, "two")
    same = [a.descriptor.digest == b.descriptor.digest for a, b in zip(first.layers, second.layers, strict=True)]
    assert same == [True] * (len(same) - 1) + [False]


@pytest.mark.parametrize("compression", list(Compression))
def test_every_compression_holds_the_same_files(making, compression):
    spliced, _ = making.image(WHOLE, "spliced")
    other, store = making.image(WHOLE, "other", compression)
    assert [layer.diff_id for layer in spliced.layers] == [layer.diff_id for layer in other.layers]
    assert {each.media_type for each in other.manifest.layers[1:]} == {compression.media_type}
    assert len(files(other, store)) == len(spliced.layers)


def test_nothing_is_newer_than_the_epoch(making):
    image, store = making.image(WHOLE)
    times = {entry.seconds for each in files(image, store) for entry in each.values()}
    assert times == {WHEEL_TIME, EPOCH}


@pytest.mark.parametrize(
    ("step", "paths"),
    [
        ("COPY app.py /opt/x/app.py", ["opt", "opt/x", "opt/x/app.py"]),
        ("COPY app.py /tmp/app.py", ["tmp/app.py"]),  # 1777 in every base, and not to be 755 here
        ("COPY app.py /root/", ["root/app.py"]),
        ("COPY app.py /usr/local/bin", ["usr/local/bin", "usr/local/bin/app.py"]),
        ("COPY app.py /deep", ["deep"]),
        ("WORKDIR /tmp", None),
        ("WORKDIR /", None),
        ("WORKDIR /usr/local", None),
        ("WORKDIR /work", ["work"]),
    ],
)
def test_which_folders_are_named_again(making, step, paths):
    image, store = making.image(f"FROM base\n{step}\n")
    assert [sorted(each) for each in files(image, store)] == ([] if paths is None else [paths])


@pytest.mark.parametrize("folder", ["/bin/", "/lib64/", "/var/run/"])
def test_a_folder_that_is_a_link_in_most_images_is_refused(making, folder):
    with pytest.raises(BadInput, match="is a link to another folder in most images"):
        making.image(f"FROM base\nCOPY app.py {folder}\n")
    making.image(f"FROM scratch\nCOPY app.py {folder}\n")


def merged_of(image, store):
    """What is there in the end: the entry of the highest layer by path."""
    return {path: entry for each in files(image, store) for path, entry in each.items()}


def test_folders_that_steps_make_or_fill_have_the_time_of_the_commit(making):
    image, store = making.image("FROM base\nCOPY --from=environment / /opt/venv/\nWORKDIR /out/a\nWORKDIR /out/b\n")
    found = merged_of(image, store)
    dated = {path for path, entry in found.items() if entry.seconds == EPOCH}
    assert dated == {"opt", "opt/venv", "out", "out/a", "out/b"}
    assert {entry.seconds for path, entry in found.items() if path not in dated} == {WHEEL_TIME}
    assert sorted(files(image, store)[-1]) == sorted(dated)  # no layer changes otherwise: these have one of their own
    history = json.loads(store.read(image.config))["history"]
    assert "folders" in history[-1]["created_by"]
    assert [each.get("empty_layer", False) for each in history[-4:]] == [False, True, True, False]


def test_a_folder_of_the_environment_that_a_copy_fills_has_the_time_of_the_commit(making):
    image, store = making.image(
        "FROM base\nCOPY --from=environment --chown=5:6 / /opt/venv/\nCOPY app.py /opt/venv/lib/app.py\n"
    )
    last = files(image, store)[-1]
    assert (last["opt/venv/lib"].seconds, last["opt/venv/lib"].owner) == (EPOCH, "5:6 :")
    assert merged_of(image, store)["opt/venv/bin"].seconds == WHEEL_TIME


@pytest.mark.parametrize("before", ["", "COPY app.py /data/venv/bin/x\n"], ids=["nothing", "a file"])
def test_the_folder_above_an_environment_has_the_time_of_the_commit_whatever_was_there(making, before):
    image, store = making.image(f"FROM base\nWORKDIR /data/work\n{before}COPY --from=environment / /data/venv/\n")
    found = merged_of(image, store)
    assert [found[path].seconds for path in ("data", "data/work", "data/venv")] == [EPOCH] * 3


@pytest.mark.parametrize("before", ["", "COPY app.py /opt/venv/bin/x\n"], ids=["nothing", "a file"])
def test_of_two_environments_in_one_place_the_last_counts(making, before):
    image, store = making.image(
        f"FROM base\n{before}COPY --from=environment / /opt/venv/\nCOPY --from=environment --chown=5:6 / /opt/venv/\n"
        "COPY app.py /opt/venv/lib/app.py\n"
    )
    assert merged_of(image, store)["opt/venv/lib"].owner == "5:6 :"


def test_what_an_environment_replaces_is_not_copied_to_another_stage(making):
    image, store = making.image(
        "FROM base AS first\nCOPY app.py /opt/venv/pyvenv.cfg\nCOPY --from=environment / /opt/venv/\n"
        "FROM base\nCOPY --from=first /opt/venv/pyvenv.cfg /srv/x\n"
    )
    assert merged_of(image, store)["srv/x"].size > len("print('app')\n")


def test_a_stage_knows_the_environment_of_the_one_that_it_starts_from(making):
    image, store = making.image(
        "FROM base AS first\nCOPY --from=environment --chown=5:6 / /opt/venv/\n"
        "FROM first\nCOPY app.py /opt/venv/lib/app.py\n"
    )
    assert files(image, store)[-1]["opt/venv/lib"].owner == "5:6 :"


def test_a_folder_that_layers_of_wheels_have_is_dated_above_them(making):
    folder = "opt/venv/lib/python3.12/site-packages/one-1.0.dist-info"
    image, store = making.image(f"{ENVIRONMENT}WORKDIR /{folder}/deep\n")
    found = merged_of(image, store)
    assert [found[path].seconds for path in (folder, f"{folder}/deep")] == [EPOCH] * 2


def test_an_environment_in_a_folder_that_is_there(making):
    image, store = making.image(
        "FROM base\nCOPY --chown=7:8 app.py /opt/venv/app.py\nCOPY --from=environment --chown=5:6 / /opt/venv/\n"
    )
    found = merged_of(image, store)["opt/venv"]
    assert (found.seconds, found.owner, found.mode) == (EPOCH, "7:8 :", 0o755)


def test_the_own_wheel_takes_the_folders_along_unless_it_is_heavy(making, make_wheel, monkeypatch):
    own = make_wheel(making.folder / "own", name="own")
    text = "FROM base\nCOPY --from=environment / /opt/venv/\nWORKDIR /out\n"

    def layers_of(epoch, name):
        making.epoch = epoch
        assembly = making.assembly(text, complete=lambda environment: with_own(environment, own))
        store = Layout(making.folder / name, create=True)
        with writing(store, compression=Compression.SPLICE) as writer:
            image = writer.image(assembly)
        return image.layers, files(image, store)

    light, named = layers_of(EPOCH, "one")
    assert {"opt", "opt/venv", "out"} < set(named[-1])
    assert any("own.py" in path for path in named[-1])
    assert {named[-1][path].seconds for path in ("opt", "opt/venv", "out")} == {EPOCH}  # not as the wheel has them
    later, _ = layers_of(EPOCH + 1, "two")
    assert [a == b for a, b in zip(light, later, strict=True)] == [True] * (len(light) - 1) + [False]
    monkeypatch.setattr(assembler, "HEAVY", 1)
    _, named = layers_of(EPOCH, "three")
    assert set(named[-1]) == {"opt", "opt/venv", "out"}
    assert any("own.py" in path for path in named[-2])


def test_the_last_layer_with_a_folder_dates_it_and_the_first_names_it(making):
    """Some runtimes take a folder's mode from the highest layer; and a link of the base makes room for the first."""
    making.others = Nodes({"data/x": Node("data/x", "file", 0o644, 5, content=Text(b"x"))})
    image, store = making.image(
        "FROM base\nWORKDIR /out\nWORKDIR /srv/deep\nCOPY app.py /else/\n"
        f"COPY --from={making.base.reference} /data/x /out/x\n"
    )
    first, second, last = files(image, store)
    assert sorted(first) == ["else", "else/app.py", "srv", "srv/deep"]
    assert sorted(second) == ["out", "out/x"]
    assert sorted(last) == ["out"]
    assert [second["out"].seconds, last["out"].seconds] == [WHEEL_TIME, EPOCH]


def test_a_layer_of_another_image_is_the_same_for_each_commit(making):
    making.others = Nodes({"data/x": Node("data/x", "file", 0o644, 5, content=Text(b"x"))})
    text = f"FROM base\nCOPY --from={making.base.reference} /data/x /new/place/x\n"
    first, _ = making.image(text, "one")
    making.epoch += 5
    second, _ = making.image(text, "two")
    assert [a == b for a, b in zip(first.layers, second.layers, strict=True)] == [True, False]


def test_a_copied_folder_gives_its_time_to_the_one_that_it_goes_into(making):
    """As BuildKit does, but for the root of an image; and what is put into it later takes that time away."""
    folder = {"data": 5, "data/in": 6, "more": 7, "more/in": 8}
    nodes = {path: Node(path, "directory", 0o755, time, 1, 2) for path, time in folder.items()}
    for path in ("data/x", "data/in/y", "more/in/z"):
        nodes[path] = Node(path, "file", 0o644, 9, content=Text(b"x"))
    making.others = Nodes(nodes)

    def times(*steps):
        text = "".join(f"COPY --from={making.base.reference} {each}\n" for each in steps)
        image, store = making.image(f"FROM base\n{text}", "-".join(steps).replace("/", "_").replace(" ", "."))
        return {path: entry.seconds for path, entry in merged_of(image, store).items() if entry.kind == "directory"}

    assert times("/data /n/") == {"n": 5, "n/in": 6}
    assert times("/data /more /n/") == {"n": 7, "n/in": 8}
    assert times("/data /n/", "/more /n/") == {"n": 7, "n/in": 8}
    assert times("/data /n/", "/data/x /n/z") == {"n": EPOCH, "n/in": 6}
    assert times("/data /data/x /n/")["n"] == EPOCH
    assert times("/data /usr/share/n/") == {"usr/share": EPOCH, "usr/share/n": 5, "usr/share/n/in": 6}
    assert times("/data /usr/share/") == {"usr/share": 5, "usr/share/in": 6}
    assert times("/ /n/")["n"] == EPOCH


def test_a_folder_of_the_base_stays_roots_when_something_is_put_into_it_for_a_user(making):
    image, store = making.image("FROM base\nCOPY --chown=7:8 app.py /srv/static/\n")
    (layer,) = files(image, store)
    assert (layer["srv"].owner, layer["srv/static"].owner) == ("0:0 :", "7:8 :")


def test_a_file_on_the_way_is_refused(making):
    with pytest.raises(BadInput, match="/srv/x is a file, and would become a folder"):
        making.image("FROM base\nCOPY app.py /srv/x\nCOPY app.py /srv/x/y\n")
    with pytest.raises(BadInput, match="/srv/x is a file, and would become a folder"):
        making.image("FROM base\nCOPY app.py /srv/x\nWORKDIR /srv/x/y\n", "other")


def test_a_working_directory_behind_a_link(making):
    (making.context / "links").mkdir()
    (making.context / "links" / "current").symlink_to("releases/1")
    image, store = making.image("FROM base\nCOPY app.py /srv/releases/1/\nCOPY links /srv/\nWORKDIR /srv/current/w\n")
    found = merged_of(image, store)
    assert "srv/releases/1/w" in found
    assert not any(path.startswith("srv/current/") for path in found)


def test_a_folder_keeps_its_owner_and_mode(making):
    image, store = making.image(
        "FROM base\nUSER 1000\nCOPY --chown=7:8 --chmod=700 . /srv/app/\nCOPY app.py /srv/app/b.py\n"
    )
    first, second = files(image, store)
    assert first["srv/app/app.py"].owner.startswith("7:8 ")
    assert first["srv/app/app.py"].mode == 0o700
    assert second["srv/app"] == replace(first["srv/app"], order=second["srv/app"].order)


def test_each_layer_names_the_own_folders_that_it_has_a_path_through(making):
    """What has no name there gets the time at which somebody unpacks it."""
    image, store = making.image(
        "FROM base\nCOPY app.py /srv/one/\nCOPY app.py /srv/two/\nCOPY app.py /srv/two/deep/er/\n"
        "COPY app.py /srv/two/deep/er/b.py\n"
    )
    found = [{path for path, entry in layer.items() if entry.kind == "directory"} for layer in files(image, store)]
    deep = {"srv", "srv/two", "srv/two/deep", "srv/two/deep/er"}
    assert found == [{"srv", "srv/one"}, {"srv", "srv/two"}, deep, deep]


def test_what_is_copied_into_a_link_lands_where_it_leads(making):
    (making.context / "links").mkdir()
    (making.context / "links" / "current").symlink_to("/srv/releases/1")
    image, store = making.image(
        "FROM base\nCOPY app.py /srv/releases/1/\nCOPY links /srv/\nCOPY app.py /srv/current/b.py\n"
    )
    assert "srv/releases/1/b.py" in files(image, store)[2]


def test_a_file_does_not_become_a_folder(making):
    (making.context / "folder" / "app.py").mkdir(parents=True)
    (making.context / "folder" / "app.py" / "x").touch()
    with pytest.raises(BadInput, match="is a file already, and would become a directory"):
        making.image("FROM base\nCOPY app.py /srv/\nCOPY folder /srv/\n")


def test_a_stage_gives_files_to_another(making):
    image, store = making.image(
        "FROM base AS first\nCOPY app.py /made/here.py\nFROM base\nCOPY --from=first /made /srv/made\n"
    )
    (layer,) = files(image, store)
    assert "srv/made/here.py" in layer
    with pytest.raises(BadInput, match="may come from that stage's base"):
        making.image("FROM base AS first\nFROM base\nCOPY --from=first /etc/passwd /srv/\n", "other")


def test_a_stage_goes_on_from_another(making):
    image, store = making.image("FROM base AS first\nCOPY app.py /srv/one\nFROM first\nCOPY app.py /srv/two\n")
    assert [list(each)[-1] for each in files(image, store)] == ["srv/one", "srv/two"]
    assert image.base == making.base


def test_files_of_another_image(making):
    making.others = Nodes({"usr/bin/tool": Node("usr/bin/tool", "file", 0o755, EPOCH + 5, content=Text(b"tool"))})
    image, store = making.image(f"FROM base\nCOPY --from={making.base.reference} /usr/bin/tool /opt/tool\n")
    assert files(image, store)[0]["opt/tool"].seconds == EPOCH


def test_the_environment_is_copied_as_a_whole(making):
    with pytest.raises(BadInput, match="is copied as a whole"):
        making.image("FROM base\nCOPY --from=environment /bin /opt/venv/bin\n")


def test_an_environment_can_belong_to_a_user(making):
    image, store = making.image("FROM base\nCOPY --from=environment --chown=5:6 / /home/app/venv/\n")
    owners = {entry.owner for each in files(image, store) for path, entry in each.items() if "venv" in path}
    assert owners == {"5:6 :"}
    whole, _ = making.image("FROM base\nCOPY --from=environment / /home/app/venv/\n", "other")
    assert whole.remembered == 0  # it is another layer


def test_an_environment_can_have_a_mode_and_its_links_keep_theirs(making):
    image, store = making.image("FROM base\nCOPY --from=environment --chmod=750 / /home/app/venv/\n")
    found = {path: entry for each in files(image, store) for path, entry in each.items() if "venv" in path}
    modes = {path: entry.mode for path, entry in found.items() if entry.kind != "symlink"}
    assert modes.pop("home/app/venv") == 0o755  # BuildKit makes it, and copies nothing over it
    assert set(modes.values()) == {0o750}
    assert found["home/app/venv/bin/python"].kind == "symlink"
    assert found["home/app/venv/bin/python"].mode != 0o750


def test_too_many_layers_are_refused(making):
    steps = "".join(f"COPY app.py /srv/{number}\n" for number in range(100))
    with pytest.raises(BadInput, match="has 101 layers, more than 100"):
        making.image(f"FROM base\n{steps}")


def test_an_image_from_scratch(making):
    image, store = making.image("FROM scratch\nCOPY app.py /bin/app\n")
    assert sorted(files(image, store)[0]) == ["bin", "bin/app"]
    assert image.manifest.annotations.keys() == {"org.opencontainers.image.created"}


def test_a_base_whose_history_tells_nothing(making):
    making.base = a_base({**BASE_CONFIG, "history": []})
    image, store = making.image("FROM base\nCOPY app.py /srv/\n")
    assert len(json.loads(store.read(image.config))["history"]) == 2


def test_a_layer_that_may_not_be_passed_on_is_refused(making):
    making.base = a_base(media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    with pytest.raises(BadInput, match="may not be passed on"):
        making.image("FROM base\nCOPY app.py /srv/\n")


# --- the base ------------------------------------------------------------------------------------------


class Served:
    def __init__(self, base):
        self.documents = {str(base.manifest.descriptor.digest): base.manifest.raw}
        self.config = base.config.raw
        self.asked = 0

    def manifest(self, repository, reference):
        self.asked += 1
        return "", self.documents[reference]

    def blob(self, repository, descriptor):
        self.asked += 1
        return [self.config]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_base_is_asked_for_once(cache):
    base = a_base()
    served = Served(base)
    assert fetch(base.reference, AMD64, lambda _: served) == base
    assert served.asked == 2
    assert fetch(base.reference, AMD64, lambda _: served) == base
    assert served.asked == 2
    for path in cache.rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert fetch(base.reference, AMD64, lambda _: served) == base
    assert served.asked == 4


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({**BASE_CONFIG, "architecture": "arm64"}, "is for linux/arm64, not for linux/amd64"),
        ({**BASE_CONFIG, "rootfs": {"diff_ids": []}}, "has 1 layers and 0 diff IDs"),
        ({"os": "linux"}, "rootfs is not an object"),
    ],
)
def test_a_base_that_contradicts_itself_is_refused(cache, config, complaint):
    raw = canonical_json(config)
    manifest = Manifest.make(Descriptor.of(OCI_CONFIG, raw), [Descriptor(DOCKER_LAYER, Digest("sha256", "b" * 64), 1)])
    served = Served(a_base())
    served.documents = {str(manifest.descriptor.digest): manifest.raw}
    served.config = raw
    with pytest.raises(BadInput, match=complaint):
        fetch(Reference("own.example", "base", "", manifest.descriptor.digest), AMD64, lambda _: served)


def test_a_base_without_a_digest_is_refused(cache):
    with pytest.raises(BadInput, match="has no digest"):
        fetch(Reference("own.example", "base", "1"), AMD64, lambda _: Served(a_base()))


def test_the_path_of_a_context_says_nothing(making, tmp_path):
    first, _ = making.image(WHOLE, "one")
    other = tmp_path / "another-context"
    making.context.rename(other)
    making.context = Path(other)
    (other / "app.py").chmod(0o600)
    second, _ = making.image(WHOLE, "two")
    assert first.manifest.raw == second.manifest.raw


# --- what is waited for ----------------------------------------------------------------------------

ENVIRONMENT = "FROM base\nCOPY app.py /srv/\nCOPY --from=environment / /opt/venv/\n"


@pytest.fixture
def own(making, make_wheel):
    return make_wheel(making.folder / "own", name="app", metadata="Requires-Dist: one\n")


def test_locked_wheels_are_written_while_the_own_one_is_built(making, own):
    told: list[assembler.Part] = []

    def complete(environment):
        assert told
        return with_own(environment, own)

    assembly = making.assembly(ENVIRONMENT, complete=complete, ahead=told.extend)
    *locked, last = assembly.parts[1:]
    assert told == locked
    assert [wheel.own for part in assembly.parts for wheel in part.wheels] == [False, False, True]
    assert [wheel.file.name for wheel in last.wheels] == ["app"]
    assert all(part.key for part in told)


def test_what_was_begun_ahead_is_written_once(making, own, monkeypatch):
    written = []
    original = layers.write_layer

    def counted(nodes, stream, compression, **more):
        written.append(nodes)
        return original(nodes, stream, compression, **more)

    monkeypatch.setattr(writer_module, "write_layer", counted)
    images = []
    for number, ahead in enumerate((True, False)):
        store = Layout(making.folder / str(number), create=True)
        with writing(store, compression=Compression.SPLICE, remembering=False) as writer:
            told = writer.start if ahead else len
            assembly = making.assembly(ENVIRONMENT, complete=lambda one: with_own(one, own), ahead=told)
            images.append(writer.image(assembly))
    assert images[0].descriptor == images[1].descriptor
    assert len(written) == 2 * len(images[0].layers)


def test_only_what_the_image_will_have_is_begun_ahead(making, own):
    told: list[object] = []
    text = "FROM base AS first\nCOPY --from=environment / /opt/venv/\nFROM {}\n"
    text += "COPY --from=first /opt/venv/pyvenv.cfg /srv/\n"
    making.assembly(text.format("base"), complete=lambda one: with_own(one, own), ahead=told.append)
    assert told == []
    making.assembly(text.format("first"), complete=lambda one: with_own(one, own), ahead=told.append)
    assert len(told) == 1


def test_what_was_begun_is_left_when_something_else_fails(making):
    begun, given = threading.Event(), []

    class Long:
        size = 256 << 20

        def chunks(self):
            for number in range(256):
                begun.set()
                given.append(number)
                yield bytes(1 << 20)

        def deflated(self):
            return None

    store = Layout(making.folder / "layout", create=True)
    node = Node("long", "file", 0o644, EPOCH, content=Long())

    def failing():
        with writing(store, compression=Compression.SPLICE) as writer:
            writer.start([assembler.Part("", (node,))])
            begun.wait(60)
            raise BadInput("It was another reason.")

    with pytest.raises(BadInput, match="another"):
        failing()
    assert len(given) < 256
    assert list(store.folder.glob("blobs/**/*")) == []


def test_a_known_layer_that_was_begun_is_left_too(making, monkeypatch):
    making.image(ENVIRONMENT, "first")
    begun, given = threading.Event(), []

    def long(_, __, stream, ___):
        for number in range(256):
            begun.set()
            given.append(number)
            stream.write(b"piece")
            time.sleep(0.005)
        return Digest.of_bytes(b"")

    monkeypatch.setattr(writer_module, "write_again", long)
    store = Layout(making.folder / "layout", create=True)
    part = next(each for each in making.assembly(ENVIRONMENT).parts if each.key)

    def failing():
        with writing(store, compression=Compression.SPLICE) as writer:
            writer.start([part])
            begun.wait(60)
            raise BadInput("It was another reason.")

    with pytest.raises(BadInput, match="another"):
        failing()
    assert 0 < len(given) < 256
    assert list(store.folder.glob("blobs/**/*")) == []


# --- what proves that the wheels are sound ----------------------------------------------------------------

TWO = "FROM base AS first\nCOPY --from=environment / /opt/venv/\nFROM base\nCOPY --from=first /opt/venv/ /opt/venv/\n"


def test_wheels_are_checked_where_nothing_else_proves_them(making):
    asked: list[str] = []

    class Asked(Index):
        def kept(self, file):
            asked.append(file.name)
            return super().kept(file)

    def image(text, name, **more):
        asked.clear()
        return making.image(text, name, index=Asked(making.folder), **more)

    for text in (ENVIRONMENT, TWO):
        image(text, "one", remembering=False)
        assert {*asked} == {"one", "two"}
    first, _ = image(ENVIRONMENT, "two")
    assert {*asked} == {"one", "two"}
    again, store = image(ENVIRONMENT, "three")
    assert asked == []
    assert again.manifest.raw == first.manifest.raw
    assert all(Digest.of_file(store.path_of(each.descriptor.digest)) == each.descriptor.digest for each in again.layers)
    image(TWO, "four")  # whose files nobody knows by a layer's digest
    assert {*asked} == {"one", "two"}
    shutil.rmtree(making.folder / "cache" / "layers")
    image(ENVIRONMENT, "five")
    assert {*asked} == {"one", "two"}


def test_a_known_environment_is_not_read(making, own, monkeypatch):
    """Nor where a step puts something beside it, or the own wheel has to get along with it."""
    text = ENVIRONMENT + "WORKDIR /opt/place\nCOPY app.py /opt/\nCOPY app.py /opt/place/\n"

    def image(name, text=text):
        store = Layout(making.folder / name, create=True)
        with writing(store, compression=Compression.SPLICE) as writer:
            return writer.image(making.assembly(text, complete=lambda one: with_own(one, own)))

    read = []
    original = read_wheel

    def counted(path, **more):
        read.append(path.name.partition("-")[0])
        return original(path, **more)

    monkeypatch.setattr("reprobuild.image.environment.read_wheel", counted)
    first = image("first")
    assert read == ["one", "two", "app"]
    assert image("second").manifest.raw == first.manifest.raw
    assert read[3:] == ["app"]
    image("third", text + "COPY app.py /opt/venv/bin/\n")
    assert {*read[4:]} == {"one", "two", "app"}


@pytest.mark.parametrize(
    "steps",
    [
        "COPY app.py /opt/venv/lib/python3.12/site-packages/one/app.py",
        "WORKDIR /opt/venv/lib64/python3.12/site-packages",
        "COPY --chown=5:6 . /opt/venv/lib/python3.12/",
        "COPY --from=environment / /opt/venv/",
        "COPY --from=environment --chown=5:6 / /opt/venv/",
        "COPY --from=environment / /opt/venv/deep/",
        "USER one\nWORKDIR /opt/venv",
    ],
)
@pytest.mark.parametrize("before", ["", "COPY app.py /opt/venv/bin/x\n", "WORKDIR /opt/venv/lib\n"])
def test_an_image_is_the_same_whether_its_environment_is_known(making, before, steps):
    text = f"FROM base\n{before}COPY --from=environment / /opt/venv/\n{steps}\n"

    def image(name, **more):
        try:
            return making.image(text, name, **more)[0].manifest.raw
        except BadInput as error:
            return error.reason

    fresh = image("fresh", remembering=False)
    assert [image(name) for name in ("first", "second")] == [fresh] * 2


def test_a_known_environment_for_another_owner_or_mode_is_another_one(making):
    for number, options in enumerate(("", "--chown=5:6", "--chmod=750", "--chown=6:5 --chmod=700")):
        text = f"FROM base\nCOPY --from=environment {options} / /opt/venv/\n"
        known, _ = making.image(text, f"known-{number}")
        assert known.manifest.raw == making.image(text, f"fresh-{number}", remembering=False)[0].manifest.raw


def test_a_locked_wheel_is_another_layer_than_the_same_as_the_own_one(making):
    """Of the own one it is certain that it was asked for (REQUESTED)."""
    one, two = making.lock.pins
    (path,) = (making.folder / "offered").glob("one-*.whl")
    text = "FROM base\nCOPY --from=environment / /opt/venv/\nCOPY app.py /srv/\n"
    making.lock = replace(making.lock, pins=(one,))
    making.image(text, "locked")
    making.lock = replace(making.lock, pins=(two,))

    def image(name, *, remembering):
        store = Layout(making.folder / name, create=True)
        with writing(store, compression=Compression.SPLICE, remembering=remembering) as writer:
            return writer.image(making.assembly(text, complete=lambda environment: with_own(environment, path)))

    assert image("known", remembering=True).manifest.raw == image("fresh", remembering=False).manifest.raw


#: The files of an environment by way of more than one stage.
FAR = "FROM base AS first\nCOPY --from=environment / /venv/\nFROM base AS second\nCOPY --from=first /venv/ /mid/\n"
FURTHER = FAR + "FROM base\nCOPY --from=second /mid/ /opt/venv/\n"
FROM_IT = FAR + "FROM second AS third\nCOPY app.py /\nFROM base\nCOPY --from=third /mid/ /opt/venv/\n"


def replace_wheel(making):
    """Put another wheel into the cache, as valid as the one that was there; that one's place and bytes."""
    (path,) = (making.folder / "cache").glob("files/**/one-*.whl")
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members:
            info.external_attr = 0o100755 << 16
            archive.writestr(info, data)
    return path, sound


@pytest.mark.parametrize("text", [FURTHER, FROM_IT, ENVIRONMENT], ids=["further", "from it", "at once"])
@pytest.mark.parametrize("known", [False, True], ids=["first", "known"])
@pytest.mark.parametrize("compression", [Compression.SPLICE, Compression.ZSTD], ids=lambda each: each.value)
def test_another_wheel_in_the_cache_is_not_taken(making, text, known, compression):
    right, _ = making.image(text, "right", compression)
    path, sound = replace_wheel(making)
    again, _ = making.image(text, "again", compression, remembering=known)
    assert again.manifest.raw == right.manifest.raw
    # Of a known layer the same bytes are taken from both wheels.
    assert (path.read_bytes() == sound) != (known and text is ENVIRONMENT and compression is Compression.SPLICE)


def test_nothing_is_remembered_of_a_wheel_that_nobody_has_checked(making):
    making.image(ENVIRONMENT, "right")
    wheels = making.folder / "cache" / "wheels"
    listed = sorted(path.read_bytes() for path in wheels.rglob("*.json"))
    assert len(listed) == 2
    shutil.rmtree(wheels)
    replace_wheel(making)
    making.image(ENVIRONMENT, "again")
    assert sorted(path.read_bytes() for path in wheels.rglob("*.json")) == listed


@pytest.fixture
def larger(tmp_path, locked, make_wheel):
    """The same lock of wheels with more in them."""
    text = " ".join(str(number**3) for number in range(200))
    pins = []
    for pin in locked.pins:
        path = make_wheel(tmp_path / "offered", {f"{pin.name}/__init__.py": f"'{text}'".encode()}, name=pin.name)
        pins.append(replace(pin, hashes=(Digest.of_file(path),)))
    return replace(locked, pins=tuple(pins))


@pytest.mark.parametrize("known", [False, True], ids=["first", "known"])
@pytest.mark.parametrize("compression", [Compression.SPLICE, Compression.ZSTD], ids=lambda each: each.value)
def test_no_damage_of_a_cached_wheel_gets_into_an_image(making, larger, compression, known):
    making.lock = larger
    right, _ = making.image(ENVIRONMENT, "right", compression, remembering=known)
    wheel = next((making.folder / "cache").glob("files/**/one-*.whl"))
    sound = wheel.read_bytes()
    mended = 0  # what is damaged where a known layer takes nothing from stays as it is
    for at in range(0, len(sound), 23):
        wheel.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        found, store = making.image(ENVIRONMENT, f"layout-{at}", compression, remembering=known)
        assert found.manifest.raw == right.manifest.raw, at
        for layer in found.layers:
            assert Digest.of_file(store.path_of(layer.descriptor.digest)) == layer.descriptor.digest
        mended += wheel.read_bytes() == sound
        wheel.write_bytes(sound)
    assert mended


@pytest.mark.parametrize("compression", [Compression.SPLICE, Compression.ZSTD], ids=lambda each: each.value)
def test_a_known_layer_is_told_and_its_tar_is_not_hashed_again(making, monkeypatch, compression):
    class Told(Silent):
        def __init__(self):
            self.steps = []

        def step(self, text):
            self.steps.append(text)

    asked = []
    original = write_layer

    def written(*arguments, **more):
        asked.append(more.get("diff_id"))
        return original(*arguments, **more)

    monkeypatch.setattr(writer_module, "write_layer", written)
    first, second = Told(), Told()
    right, _ = making.image(ENVIRONMENT, "right", compression, observer=first)
    for path in (making.folder / "cache" / "layers").rglob("*.delta"):
        path.unlink()
    assert {*asked} == {None}
    asked.clear()
    making.image(ENVIRONMENT, "again", compression, observer=second)
    known = [*(making.folder / "cache" / "layers").rglob("*.json")]
    assert {*asked} - {None} <= {layer.diff_id for layer in right.layers}
    assert len({*asked} - {None}) == len(known) > 0
    assert len(first.steps) == len(right.layers)
    assert sorted(second.steps) == sorted(first.steps)


@pytest.mark.parametrize("delta", [True, False], ids=["put together again", "from its nodes"])
@pytest.mark.parametrize("more", [1000, -1, -(1 << 70), 1 << 63])
def test_a_size_that_was_remembered_wrongly_is_found_out(making, more, delta):
    right, _ = making.image(ENVIRONMENT, "right")
    for path in [*(making.folder / "cache" / "layers").rglob("*.json")]:
        key = Digest("sha256", path.stem)
        known = memory.recall("layers", key)
        known["layer"]["size"] += more
        memory.remember("layers", key, known)
        if not delta:
            path.with_suffix(".delta").unlink()
    again, store = making.image(ENVIRONMENT, "again")
    assert again.manifest.raw == right.manifest.raw
    for each in right.layers:
        assert Digest.of_file(store.path_of(each.descriptor.digest)) == each.descriptor.digest
    assert making.image(ENVIRONMENT, "third")[0].remembered


def test_a_delta_that_was_lost_is_kept_again(making):
    making.image(ENVIRONMENT, "right")
    deltas = {path: path.read_bytes() for path in (making.folder / "cache" / "layers").rglob("*.delta")}
    for path in deltas:
        path.unlink()
    assert making.image(ENVIRONMENT, "again")[0].remembered
    assert {path: path.read_bytes() for path in deltas} == deltas != {}


def test_a_known_layer_without_its_end_is_written_again(making):
    """A machine that loses its power may leave such files in a layout."""
    right, store = making.image(ENVIRONMENT, "layout")
    for layer in right.layers:
        path = store.path_of(layer.descriptor.digest)
        path.write_bytes(path.read_bytes()[:-1])
    assert making.image(ENVIRONMENT, "layout")[0].remembered
    assert all(Digest.of_file(store.path_of(each.descriptor.digest)) == each.descriptor.digest for each in right.layers)


@pytest.mark.parametrize("at", [-1, 43], ids=["a byte of its own", "which wheel the first range is in"])
def test_what_is_remembered_wrongly_is_made_anew(making, at):
    right, _ = making.image(ENVIRONMENT, "right")
    deltas = [path for path in (making.folder / "cache" / "layers").rglob("*.delta") if path.stat().st_size > 1000]
    assert deltas
    for path in deltas:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
    found, store = making.image(ENVIRONMENT, "again")
    assert found.manifest.raw == right.manifest.raw
    assert all(Digest.of_file(store.path_of(each.descriptor.digest)) == each.descriptor.digest for each in found.layers)
    assert found.remembered < making.image(ENVIRONMENT, "mended")[0].remembered
