"""The files of other images: which of their files, for which platform, and what hard links stand for."""

import io
import tarfile

import pytest

from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, DigestMismatch
from reprobuild.image.others import Others
from reprobuild.image.stages import BaseImage
from reprobuild.oci.model import OCI_CONFIG, OCI_LAYER, Descriptor, Index, Manifest, Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


class Served:
    """A registry with one repository."""

    def __init__(self):
        self.documents = {}
        self.blobs = {}

    def manifest(self, repository, reference):
        return "", self.documents[reference]

    def blob(self, repository, descriptor):
        return [self.blobs[descriptor.digest]]

    def image(self, *layers, platform=AMD64):
        """Keep an image; its descriptor."""
        kept = []
        for layer in layers:
            kept.append(Descriptor.of(OCI_LAYER, layer))
            self.blobs[kept[-1].digest] = layer
        config = canonical_json(
            {
                "os": platform.os,
                "architecture": platform.architecture,
                "rootfs": {"type": "layers", "diff_ids": [str(each.digest) for each in kept]},
            }
        )
        self.blobs[Digest.of_bytes(config)] = config
        manifest = Manifest.make(Descriptor.of(OCI_CONFIG, config), kept)
        self.documents[str(manifest.descriptor.digest)] = manifest.raw
        return manifest.descriptor


def layer_of(**members):
    """A tar: bytes for a file, `("hardlink", target)`, `("fifo",)`, or None for a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("WH_", ".wh."))
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type = {"hardlink": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}[content[0]]
            info.linkname = content[1] if len(content) > 1 else ""
            tar.addfile(info)
    return stream.getvalue()


@pytest.fixture
def served():
    return Served()


@pytest.fixture
def others(served, tmp_path, monkeypatch):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))
    with Others(lambda _: served, tmp_path) as opened:
        yield opened


def named(descriptor, platform=AMD64):
    return BaseImage(f"own.example/tools@{descriptor.digest}", platform, 1)


def content(tree, path):
    found = tree.find(path)
    return found and b"".join(found.content.chunks())


def test_each_platform_has_its_own_files(served, others):
    one = served.image(layer_of(tool=b"for amd64"))
    two = served.image(layer_of(tool=b"for arm64"), platform=ARM64)
    index = Index.make(
        [Descriptor(d.media_type, d.digest, d.size, platform=p) for d, p in ((one, AMD64), (two, ARM64))]
    )
    served.documents[str(index.descriptor.digest)] = index.raw
    assert content(others.tree(named(index.descriptor)), "tool") == b"for amd64"
    assert content(others.tree(named(index.descriptor, ARM64)), "tool") == b"for arm64"


def test_an_image_for_another_platform_is_not_called_a_base(served, others):
    with pytest.raises(BadInput, match="is for linux/amd64, not for linux/arm64") as caught:
        others.tree(named(served.image(layer_of(tool=b"x")), ARM64))
    assert caught.value.remedy == "Name an image for that platform."


@pytest.mark.parametrize("target", ["bin/busybox", "./bin/busybox", "bin//busybox"])
def test_a_hard_link_is_the_file_that_it_links(served, others, target):
    image = served.image(layer_of(bin__busybox=b"all of them", bin__ls=("hardlink", target)))
    tree = others.tree(named(image))
    assert content(tree, "bin/ls") == b"all of them"
    assert tree.find("bin/ls").mode == tree.find("bin/busybox").mode


def test_a_hard_link_stays_what_it_was_when_a_layer_above_changes_the_other_name(served, others):
    below = layer_of(a=b"before", b=("hardlink", "a"), c=b"gone", d=("hardlink", "c"))
    above = layer_of(a=b"after", WH_c=b"")
    tree = others.tree(named(served.image(below, above)))
    assert [content(tree, name) for name in "abcd"] == [b"after", b"before", None, b"gone"]


def test_a_hard_link_may_lead_to_a_layer_below(served, others):
    tree = others.tree(named(served.image(layer_of(a=b"below"), layer_of(b=("hardlink", "a"), c=("hardlink", "b")))))
    assert content(tree, "b") == content(tree, "c") == b"below"


def test_a_hard_link_to_nothing_is_refused(served, others):
    with pytest.raises(BadInput, match="links to"):
        others.tree(named(served.image(layer_of(b=("hardlink", "a")))))


def test_what_is_no_file_is_left_out(served, others):
    tree = others.tree(named(served.image(layer_of(a=b"1", pipe=("fifo",)))))
    assert list(tree.names("")) == ["a"]


def test_a_layer_with_other_bytes_is_refused(served, others):
    image = served.image(layer_of(a=b"1"))
    (digest,) = [each for each, raw in served.blobs.items() if raw == layer_of(a=b"1")]
    served.blobs[digest] = layer_of(a=b"2")
    with pytest.raises(DigestMismatch):
        others.tree(named(image))
