import hashlib
import json
import random
import threading

import pytest

from reprobuild.errors import BadInput, DigestMismatch, RegistryFailed
from reprobuild.oci import transfer
from reprobuild.oci.model import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Descriptor, Index, Manifest, Platform
from reprobuild.oci.registry import Registry
from reprobuild.oci.transfer import Local, Remote, copy_image

RANDOM = random.Random(1)
LAYERS = [RANDOM.randbytes(size) for size in (10, 300_000, 70_000)]


class MemoryStore:
    """What a layout does, in memory; it notes the order in which things came."""

    def __init__(self):
        self.content = {}
        self.lock = threading.Lock()

    def has(self, digest):
        return digest in self.content

    def put(self, digest, chunks):
        data = b"".join(digest.check(chunks, "what is put"))
        with self.lock:
            self.content[digest] = data

    def chunks(self, descriptor, offset=0):
        if descriptor.digest not in self.content:
            raise BadInput(f"{descriptor.digest} isn't in the store.")
        data = self.content[descriptor.digest]
        yield from (data[at : at + 1000] for at in range(offset, len(data), 1000))


class Image:
    """An index of two images that share a layer, with all its content."""

    def __init__(self):
        self.blobs = {}
        self.manifests = []
        for architecture, layers in (("amd64", LAYERS[:2]), ("arm64", LAYERS[1:])):
            config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"diff_ids": []}}).encode()
            for data in (config, *layers):
                self.blobs[Descriptor.of("x", data).digest] = data
            manifest = Manifest.make(
                Descriptor.of(OCI_CONFIG, config), [Descriptor.of(OCI_LAYER, data) for data in layers]
            )
            self.manifests.append(manifest)
        platforms = [Platform("linux", "amd64"), Platform("linux", "arm64")]
        pairs = zip(self.manifests, platforms, strict=True)
        self.index = Index.make(
            [Descriptor(OCI_MANIFEST, m.descriptor.digest, m.descriptor.size, platform) for m, platform in pairs]
        )
        self.root = self.index.descriptor

    def documents(self):
        found = {manifest.descriptor.digest: manifest.raw for manifest in self.manifests}
        return {**found, self.root.digest: self.index.raw}

    def all(self):
        return self.blobs | self.documents()

    def fill(self, store):
        store.content |= self.all()

    def fill_registry(self, served, repository, *tags):
        for data in self.blobs.values():
            served.hold(repository, data)
        for manifest in self.manifests:
            served.hold_manifest(repository, OCI_MANIFEST, manifest.raw)
        served.hold_manifest(repository, OCI_INDEX, self.index.raw, *tags)


IMAGE = Image()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def remote(served):
    return Remote(Registry(served.host, sleep=lambda _: None), "team/app")


def held(served, repository):
    blobs = dict(served.blobs.get(repository, {}))
    return blobs | {name: raw for (where, name), (_, raw) in served.manifests.items() if where == repository}


def everything(*tags):
    texts = {str(digest): data for digest, data in IMAGE.all().items()}
    return texts | dict.fromkeys(tags, IMAGE.index.raw)


def test_from_a_store_to_a_registry(store, served, remote):
    IMAGE.fill(store)
    done = copy_image(Local(store), remote, IMAGE.root, tags=["v1", "latest"])
    assert held(served, "team/app") == everything("v1", "latest")
    assert len(done.blobs["sent"]) == len(IMAGE.blobs) == 5
    assert done.bytes_of("sent") == sum(map(len, IMAGE.blobs.values()))
    puts = [each.path.rpartition("/")[2] for each in served.asked_for("PUT", "manifests")]
    children = [str(manifest.descriptor.digest) for manifest in IMAGE.manifests]
    assert puts == [*children, str(IMAGE.root.digest), "v1", "latest"]
    last_blob = max(number for number, each in enumerate(served.asked) if "blobs" in each.path)
    assert last_blob < min(number for number, each in enumerate(served.asked) if "manifests" in each.path)


def test_from_a_registry_to_a_store(store, served, remote):
    IMAGE.fill_registry(served, "team/app", "v1")
    assert remote.describe("v1") == IMAGE.root
    copy_image(remote, Local(store), IMAGE.root)
    assert store.content == IMAGE.all()
    order = list(store.content)
    assert order.index(IMAGE.root.digest) == len(order) - 1
    assert set(order[-3:-1]) == {manifest.descriptor.digest for manifest in IMAGE.manifests}
    served.asked.clear()
    assert len(copy_image(remote, Local(store), IMAGE.root).blobs["there"]) == 5
    assert served.asked_for("GET", "blobs") == []


def test_a_damaged_manifest_of_a_store_is_refused(store, remote):
    IMAGE.fill(store)
    raw = IMAGE.index.raw
    store.content[IMAGE.root.digest] = raw.replace(b"arm64", b"amd64")
    with pytest.raises(DigestMismatch):
        copy_image(Local(store), remote, IMAGE.root)


def test_from_one_registry_to_another(served, remote, make_registry):
    IMAGE.fill_registry(served, "team/app", "v1")
    other = make_registry()
    there = Remote(Registry(other.host, sleep=lambda _: None), "mirror/app")
    other.fail("PATCH", "uploads", cut_body_after=5)
    served.fail("GET", "blobs", cut_after=5)
    done = copy_image(remote, there, remote.describe("v1"), tags=["v1"])
    assert held(other, "mirror/app") == everything("v1")
    assert len(done.blobs["sent"]) == 5
    assert other.asked_for("POST", "mount") == []


def test_a_source_that_drops_everything_is_left_once(served, make_registry):
    """The target doesn't begin again with what the source has given up."""
    IMAGE.fill_registry(served, "team/app")
    served.fail("GET", "blobs", cut_after=0, times=10**6)
    other = make_registry()
    source, target = (Remote(Registry(each.host, sleep=lambda _: None), "team/app") for each in (served, other))
    with pytest.raises(RegistryFailed, match=rf"{served.host}/team/app: fetching the blob .* the connection broke"):
        copy_image(source, target, IMAGE.root, workers=1)
    paths = [each.path for each in served.asked_for("GET", "blobs")]
    assert paths.count(paths[0]) == 6  # the next blob may have been begun when the failure of this one is told


def test_within_a_registry_blobs_are_mounted(served, remote):
    IMAGE.fill_registry(served, "team/app")
    there = Remote(remote.registry, "other/app")
    done = copy_image(remote, there, IMAGE.root, tags=["v1"])
    assert held(served, "other/app") == everything("v1")
    assert len(done.blobs["mounted"]) == 5
    assert served.asked_for("PATCH") == served.asked_for("GET", "blobs") == []
    assert len(copy_image(remote, there, IMAGE.root).blobs["there"]) == 5


def test_where_mounting_is_refused_blobs_are_sent(served, remote):
    IMAGE.fill_registry(served, "team/app")
    served.mounts = False
    done = copy_image(remote, Remote(remote.registry, "other/app"), IMAGE.root)
    assert held(served, "other/app") == everything()
    assert len(done.blobs["sent"]) == 5


def test_a_second_copy_sends_nothing(store, served, remote):
    IMAGE.fill(store)
    copy_image(Local(store), remote, IMAGE.root, tags=["v1"])
    before, served.asked = held(served, "team/app"), []
    done = copy_image(Local(store), remote, IMAGE.root, tags=["v1"])
    assert len(done.blobs["there"]) == 5
    assert served.asked_for("PATCH") == served.asked_for("POST") == []
    assert held(served, "team/app") == before


def test_one_image_of_an_index(store, served, remote):
    IMAGE.fill_registry(served, "team/app", "v1")
    chosen = transfer.choose(remote, remote.describe("v1"), Platform("linux", "arm64"), "team/app:v1")
    assert chosen.digest == IMAGE.manifests[1].descriptor.digest
    assert transfer.choose(remote, chosen, Platform("linux", "s390x"), "team/app") == chosen
    copy_image(remote, Local(store), chosen)
    assert len(store.content) == 4
    with pytest.raises(BadInput, match=r"team/app:v1 has no image for linux/s390x; it has linux/amd64, linux/arm64"):
        transfer.choose(remote, remote.describe("v1"), Platform("linux", "s390x"), "team/app:v1")


def test_a_bases_layers_come_from_elsewhere(store, served, remote):
    """A new image whose lowest layer is only in the registry: mounted there, and never read."""
    IMAGE.fill(store)
    lowest = IMAGE.manifests[0].layers[0]
    del store.content[lowest.digest]
    served.hold("base/image", LAYERS[0])
    base = Remote(remote.registry, "base/image")
    done = copy_image(Local(store), remote, IMAGE.root, elsewhere={lowest.digest: base}, tags=["v1"])
    assert held(served, "team/app") == everything("v1")
    assert done.blobs["mounted"] == (lowest,)
    assert served.asked_for("GET", "blobs") == []


def test_no_tag_before_everything_is_there(store, served, remote):
    IMAGE.fill(store)
    served.answer("PATCH", "uploads", 403, times=1)
    with pytest.raises(RegistryFailed, match="403"):
        copy_image(Local(store), remote, IMAGE.root, tags=["v1"])
    assert served.manifests == {}
    copy_image(Local(store), remote, IMAGE.root, tags=["v1"])
    assert held(served, "team/app") == everything("v1")


def test_no_manifest_of_wrong_blobs_is_stored(store, served, remote):
    IMAGE.fill_registry(served, "team/app")
    served.fail("GET", "blobs", alter=lambda data: b"x" + data[1:])
    with pytest.raises(DigestMismatch):
        copy_image(remote, Local(store), IMAGE.root)
    assert not store.content.keys() & IMAGE.documents().keys()
    assert all(IMAGE.blobs[digest] == data for digest, data in store.content.items())
    copy_image(remote, Local(store), IMAGE.root)
    assert store.content == IMAGE.all()


def test_a_damaged_store_spoils_no_registry(store, served, remote):
    IMAGE.fill(store)
    digest = IMAGE.manifests[0].layers[1].digest
    store.content[digest] = b"x" + store.content[digest][1:]
    with pytest.raises(DigestMismatch):
        copy_image(Local(store), remote, IMAGE.root, tags=["v1"])
    assert served.manifests == {}
    assert str(digest) not in served.blobs.get("team/app", {})


@pytest.mark.parametrize("missing", [IMAGE.root.digest, IMAGE.manifests[0].descriptor.digest, *list(IMAGE.blobs)[:1]])
def test_what_the_source_lacks_is_an_error(store, served, remote, missing):
    IMAGE.fill(store)
    del store.content[missing]
    with pytest.raises(BadInput, match="isn't in the store"):
        copy_image(Local(store), remote, IMAGE.root, tags=["v1"])
    assert served.manifests == {}


def test_indexes_without_end_are_refused(store, remote):
    root = IMAGE.root
    IMAGE.fill(store)
    for _ in range(6):
        index = Index.make([root])
        store.content[index.descriptor.digest] = index.raw
        root = index.descriptor
    with pytest.raises(BadInput, match="deep"):
        copy_image(Local(store), remote, root)
    with pytest.raises(BadInput, match="deep"):
        transfer.choose(Local(store), nested(store), Platform("linux", "amd64"), "it")


def test_a_few_indexes_may_lie_in_each_other(store, remote):
    root = IMAGE.root
    IMAGE.fill(store)
    for _ in range(4):
        copy_image(Local(store), remote, root)
        index = Index.make([root])
        store.content[index.descriptor.digest] = index.raw
        root = index.descriptor
    with pytest.raises(BadInput, match="more than 4 indexes deep"):
        copy_image(Local(store), remote, root)


def test_a_manifest_that_is_named_twice_is_read_once(served, remote):
    IMAGE.fill_registry(served, "team/app")
    both = Index.make([IMAGE.root, IMAGE.root])
    served.hold_manifest("team/app", OCI_INDEX, both.raw)
    copy_image(remote, Local(MemoryStore()), both.descriptor)
    assert len(served.asked_for("GET", f"manifests/{IMAGE.root.digest}")) == 1


def test_what_is_asked_for_by_another_kind_of_digest_keeps_it(served, remote):
    name = f"sha512:{hashlib.sha512(IMAGE.index.raw).hexdigest()}"
    served.hold_manifest("team/app", OCI_INDEX, IMAGE.index.raw, name)
    assert str(remote.describe(name).digest) == name


def nested(store):
    root = Descriptor(OCI_INDEX, IMAGE.root.digest, IMAGE.root.size, Platform("linux", "amd64"))
    for _ in range(6):
        index = Index.make([root])
        store.content[index.descriptor.digest] = index.raw
        root = Descriptor(OCI_INDEX, index.descriptor.digest, index.descriptor.size, Platform("linux", "amd64"))
    return root


def test_manifests_together_have_a_limit(store, remote, monkeypatch):
    monkeypatch.setattr(transfer, "_DOCUMENTS_LIMIT", len(IMAGE.index.raw) + 10)
    IMAGE.fill(store)
    with pytest.raises(BadInput, match="manifests of more than"):
        copy_image(Local(store), remote, IMAGE.root)


def test_a_manifest_of_another_size_is_refused(store, remote):
    IMAGE.fill(store)
    with pytest.raises(BadInput, match="promised"):
        copy_image(Local(store), remote, Descriptor(OCI_INDEX, IMAGE.root.digest, IMAGE.root.size + 1))


def test_a_huge_manifest_is_not_read(store):
    with pytest.raises(BadInput, match="1099511627776 bytes"):
        Local(store).document(Descriptor(OCI_INDEX, IMAGE.root.digest, 1 << 40))


def test_a_stores_tags_are_not_ours(store):
    IMAGE.fill(store)
    with pytest.raises(ValueError, match="owner"):
        copy_image(Local(store), Local(MemoryStore()), IMAGE.root, tags=["v1"])
