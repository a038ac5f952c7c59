"""Images with all that is about them on their way to a registry: what goes, in which order, and what stops it."""

import json
import threading
import time

import pytest
from click.testing import CliRunner

from reprobuild import attest
from reprobuild.bundle import BUNDLE_MEDIA_TYPE
from reprobuild.cli import app
from reprobuild.digest import canonical_json
from reprobuild.errors import BadInput, RecordUnusable, RegistryFailed, ReprobuildError
from reprobuild.image import publish, signed
from reprobuild.image.archive import Registries
from reprobuild.image.store import InLayout, add_record, find
from reprobuild.keys import PrivateKey
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import (
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from reprobuild.oci.reference import Reference
from reprobuild.oci.registry import Registry
from reprobuild.oci.transfer import Local, Remote, copy_image
from reprobuild.sign import KeySigner

SIGNER = KeySigner(PrivateKey.generate())
BASE = "base/debian"


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "image", create=True)


def put_image(layout, architecture="amd64", layers=(b"a layer",)):
    kept = [layout.put_document(OCI_LAYER, each) for each in layers]
    config = {"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": []}}
    manifest = Manifest.make(layout.put_document(OCI_CONFIG, canonical_json(config)), kept)
    return layout.put_document(OCI_MANIFEST, manifest.raw)


@pytest.fixture
def image(layout):
    """An index of two images, the first signed; and something about the signature."""
    images = [put_image(layout, name, (name.encode(),)) for name in ("amd64", "arm64")]
    entries = [
        Descriptor(each.media_type, each.digest, each.size, Platform("linux", name))
        for each, name in zip(images, ("amd64", "arm64"), strict=True)
    ]
    top = layout.put_document(OCI_INDEX, Index.make(entries).raw)
    layout.add(top)
    return top, images


def statement(digest):
    return {
        "_type": attest.STATEMENT_TYPE,
        "subject": [attest.descriptor({"sha256": digest.hex}, name="it")],
        "predicateType": attest.PROVENANCE_TYPE,
        "predicate": {},
    }


def attach(layout, subject, raw=None):
    raw = SIGNER.sign(statement(subject.digest)) if raw is None else raw
    manifest, blobs = signed.referrer_of(raw, attest.PROVENANCE_TYPE, subject)
    return keep(layout, manifest, blobs)


def keep(layout, manifest, blobs=()):
    described = Descriptor(
        OCI_MANIFEST, manifest.descriptor.digest, len(manifest.raw), artifact_type=manifest.artifact_type
    )
    InLayout(layout).keep(described, (*blobs, (manifest.descriptor, manifest.raw)))
    return manifest.descriptor


@pytest.fixture
def push(layout, served, tmp_path):
    def push(*names, **more):
        targets = [Reference.parse(f"{served.host}/{name}") for name in names or ("app:1",)]
        return publish.push(str(layout.folder), targets, Registries(), tmp_path, **more)

    return push


def tags(served, repository="app"):
    return {name for where, name in served.manifests if where == repository and ":" not in name}


def test_everything_goes_and_tags_go_last(layout, image, served, push):
    top, (one, two) = image
    about = attach(layout, one), attach(layout, top), attach(layout, two)
    deeper = attach(layout, about[0])
    done = push("app:1", "app:latest")
    assert {each.digest for each in done.evidence} == {each.digest for each in (*about, deeper)}
    assert len(done.evidence) == 4
    there = {name for _, name in served.manifests}
    assert {str(each.digest) for each in (top, one, two, *about, deeper)} <= there
    puts = [each.path.rpartition("/")[2] for each in served.asked_for("PUT", "manifests")]
    assert puts[-2:] == ["1", "latest"]
    assert puts.count("1") == puts.count("latest") == 1
    assert done.sent == sum(len(data) for data in served.blobs["app"].values())
    served.asked.clear()
    assert push().sent == 0
    assert served.asked_for("PATCH") == []
    assert served.manifests["app", "1"][1] == layout.read(top)


def test_a_dry_run_asks_nobody(layout, image, served, push):
    attach(layout, image[1][0])
    done = push(dry_run=True)
    assert (len(done.evidence), done.tags) == (1, (f"{served.host}/app:1",))
    assert served.asked == []


def test_without_a_tag_nothing_is_tagged(layout, image, served, push):
    assert push("app").tags == ()
    assert tags(served) == set()


@pytest.mark.parametrize("what", ["uploads", "manifests/sha256:"])
def test_what_breaks_off_has_no_tag(layout, image, served, push, what):
    attach(layout, image[0])
    served.answer("POST" if what == "uploads" else "PUT", what, 403)
    with pytest.raises(RegistryFailed):
        push()
    assert tags(served) == set()
    push()
    assert "1" in tags(served)


def test_evidence_that_is_refused_leaves_no_tag(layout, image, served, push):
    referrer = attach(layout, image[0])
    served.answer("PUT", f"manifests/{referrer.digest}", 400)
    with pytest.raises(RegistryFailed):
        push()
    assert "1" not in tags(served)


def test_evidence_that_is_damaged_leaves_no_tag(layout, image, served, push):
    referrer = attach(layout, image[0])
    (bundle,) = Manifest.read(layout.read(referrer), "it").layers
    layout.path_of(bundle.digest).write_bytes(b" " * bundle.size)
    with pytest.raises(ReprobuildError):
        push()
    assert "1" not in tags(served)


def test_one_repository_at_a_time(layout, image, served, push):
    with pytest.raises(BadInput, match="of one repository"):
        push("app:1", "other:1")
    assert served.asked == []


def test_what_is_in_a_registry_is_not_pushed(served, tmp_path):
    empty = canonical_json({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}})
    served.hold("app", empty)
    served.hold_manifest("app", OCI_MANIFEST, Manifest.make(Descriptor.of(OCI_CONFIG, empty), []).raw, "1")
    with pytest.raises(BadInput, match="in a registry already"):
        publish.push(f"{served.host}/app:1", [Reference.parse(f"{served.host}/other:1")], Registries(), tmp_path)


def test_thousands_of_referrers_take_seconds(layout, image, push):
    top, _ = image
    entries = []
    for number in range(1500):
        manifest, blobs = signed.referrer_of(b'{"n": %d}' % number, "x", top)
        for descriptor, raw in (*blobs, (manifest.descriptor, manifest.raw)):
            layout.path_of(descriptor.digest).write_bytes(raw)
        found = manifest.descriptor
        entries.append(Descriptor(OCI_MANIFEST, found.digest, found.size, artifact_type=BUNDLE_MEDIA_TYPE))
    (layout.folder / "index.json").write_bytes(Index.make([*layout.index().manifests, *entries]).raw)
    begin = time.process_time()
    assert len(push(dry_run=True).evidence) == 1500
    assert time.process_time() - begin < 20


# --- layers of the base --------------------------------------------------------------------------------


@pytest.fixture
def thin(layout, served):
    """An image whose base's layer lies in a registry alone."""
    base = b"the base's layer"
    made = put_image(layout, layers=(base, b"its own"))
    layout.path_of(Descriptor.of(OCI_LAYER, base).digest).unlink()
    layout.add(made)
    served.hold(BASE, base)
    return made, base


def add_base(layout, served, subject, role="base"):
    uri = f"docker://{served.host}/{BASE}@sha256:{'0' * 64}"
    record = attest.provenance(
        attest.descriptor({"sha256": subject.digest.hex}, name="app"),
        build_type=attest.IMAGE_BUILD_TYPE,
        external={},
        internal={},
        dependencies=[{"uri": uri, "digest": {"sha256": "0" * 64}, "annotations": {"role": role}}],
        builder_version={},
    )
    add_record(layout, record, subject)


@pytest.mark.parametrize("mounts", [True, False])
def test_layers_of_the_base_come_from_where_it_is(layout, thin, served, push, mounts):
    made, base = thin
    served.mounts = mounts
    add_base(layout, served, made)
    done = push()
    assert base in served.blobs["app"].values()
    assert (done.mounted == len(base)) == mounts
    assert "1" in tags(served)


def test_layers_that_are_nowhere_stop_it(layout, thin, served, push):
    made, _ = thin
    with pytest.raises(RecordUnusable):
        push()
    assert served.manifests == {}
    add_base(layout, served, made)
    served.blobs[BASE].clear()
    with pytest.raises(RegistryFailed):
        push()
    assert served.manifests == {}


def test_a_record_without_a_base_says_nothing_of_layers(layout, thin, served, push):
    add_base(layout, served, thin[0], role="source")
    with pytest.raises(BadInput, match="nothing says where it is"):
        push()
    assert served.manifests == {}


# --- what cosign before version 3 reads ----------------------------------------------------------------


def attached(served, subject):
    _, raw = served.manifests["app", f"sha256-{subject.digest.hex}.att"]
    return Manifest.read(raw, "it")


def test_envelopes_are_attached_where_asked_for(layout, image, served, push):
    _, (one, two) = image
    attach(layout, one)
    push()
    assert not any(tag.endswith(".att") for tag in tags(served))
    push(attachments=True)
    (layer,) = attached(served, one).layers
    envelope = json.loads(served.blobs["app"][str(layer.digest)])
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert layer.annotations["predicateType"] == attest.PROVENANCE_TYPE
    config = json.loads(served.blobs["app"][str(attached(served, one).config.digest)])
    assert config["rootfs"]["diff_ids"] == [str(layer.digest)]
    assert f"sha256-{two.digest.hex}.att" not in tags(served)  # about that there is nothing
    puts = [each.path.rpartition("/")[2] for each in served.asked_for("PUT", "manifests")]
    assert puts[-1] == "1"


def test_attachments_of_others_stay(layout, image, served, push):
    _, (one, _) = image
    attach(layout, one)
    theirs = b"somebody else's envelope"
    config = b"{}"
    served.hold("app", theirs)
    served.hold("app", config)
    made = Manifest.make(Descriptor.of(OCI_CONFIG, config), [Descriptor.of("x", theirs, annotations={"their": "own"})])
    served.hold_manifest("app", OCI_MANIFEST, made.raw, f"sha256-{one.digest.hex}.att")
    push(attachments=True)
    before = attached(served, one)
    assert before.layers[0] == made.layers[0]
    assert len(before.layers) == 2
    push(attachments=True)
    assert attached(served, one).raw == before.raw


def test_attachments_of_many_at_once_are_all_kept(served, tmp_path):
    """Each reads what is there and puts it back with its own: whoever does so in between may not lose it."""
    folders = [Layout(tmp_path / str(number), create=True) for number in range(6)]
    subject, *_ = [put_image(layout) for layout in folders]
    for layout in folders:
        layout.add(subject)
        attach(layout, subject, KeySigner(PrivateKey.generate()).sign(statement(subject.digest)))
    target = Remote(Registries().of(Reference.parse(f"{served.host}/app:1")), "app")
    copy_image(Local(folders[0]), target, subject)
    together = threading.Barrier(len(folders))

    def put(layout):
        together.wait()
        publish._attach(subject, find(str(layout.folder), Registries().of, tmp_path), target)

    writers = [threading.Thread(target=put, args=(layout,)) for layout in folders]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(attached(served, subject).layers) == len(folders)


def test_attachments_that_others_always_overwrite_are_an_error(layout, image, served):
    _, (one, _) = image
    attach(layout, one)
    config = b"{}"
    served.hold("app", config)
    theirs = Manifest.make(Descriptor.of(OCI_CONFIG, config), [])
    target = Remote(Registry(served.host, sleep=lambda _: put_theirs()), "app")

    def put_theirs():
        served.hold_manifest("app", OCI_MANIFEST, theirs.raw, f"sha256-{one.digest.hex}.att")

    with pytest.raises(RegistryFailed, match=r"others write to the tag sha256-[0-9a-f]{64}\.att"):
        publish._attach(one, find(str(layout.folder), Registries().of, layout.folder), target)


def test_what_is_no_bundle_is_not_attached(layout, image, served, push):
    _, (one, _) = image
    attach(layout, one, b"no bundle")
    empty = layout.put_document(OCI_EMPTY, b"{}")
    for layers in ([], [empty, empty]):
        keep(layout, Manifest.make(empty, layers, subject=one, artifact_type=BUNDLE_MEDIA_TYPE))
    attach(layout, one)
    assert len(push(attachments=True).evidence) == 4
    assert len(attached(served, one).layers) == 1


# --- the command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["../../other", "a b", ""])
def test_a_tag_that_is_none_is_told_before_anything_goes(layout, image, served, tag):
    done = CliRunner().invoke(app.cli, ["push", str(layout.folder), f"{served.host}/app:1", "--tag", tag])
    assert isinstance(done.exception, BadInput)
    assert served.asked == []


def test_further_tags(layout, image, served):
    done = CliRunner().invoke(app.cli, ["push", str(layout.folder), f"{served.host}/app:1", "--tag", "x", "--json"])
    assert json.loads(done.stdout)["tags"] == [f"{served.host}/app:1", f"{served.host}/app:x"]
    assert tags(served) == {"1", "x"}
