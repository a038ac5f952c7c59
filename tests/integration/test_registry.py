"""The client against a real registry, also over connections that break."""

import json
import random
import socket
import threading
from contextlib import suppress

import pytest

from reprobuild.digest import Digest
from reprobuild.errors import DigestMismatch
from reprobuild.oci.model import OCI_CONFIG, OCI_EMPTY, OCI_LAYER, OCI_MANIFEST, Descriptor, Index, Manifest, Platform
from reprobuild.oci.registry import Refused, Registry
from reprobuild.oci.transfer import Remote, copy_image

PIECE = 1 << 16


class Cutter:
    """A way to a server on which the first connections break after so many bytes of one direction."""

    def __init__(self, target, *, up=None, down=None):
        self.target = (target.partition(":")[0], int(target.partition(":")[2]))
        self.limits = {"up": list(up or []), "down": list(down or [])}
        self.cuts = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = []
        self.sockets = [self.listener]
        self.start(self.serve)

    def start(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments)
        self.threads.append(thread)
        thread.start()
        return thread

    def serve(self):
        with suppress(OSError):
            while True:
                self.start(self.link, self.listener.accept()[0])

    def link(self, near):
        with near, socket.create_connection(self.target) as far:
            self.sockets += [near, far]
            back = self.start(self.pump, far, near, "down")
            self.pump(near, far, "up")
            back.join()

    def pump(self, source, sink, way):
        passed = 0
        with suppress(OSError):
            while data := source.recv(PIECE):
                sink.sendall(data)
                passed += len(data)
                with self.lock:
                    if self.limits[way] and passed >= self.limits[way][0]:
                        self.limits[way].pop(0)
                        self.cuts += 1
                        break
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.listener.close()


@pytest.fixture
def cut(registry):
    made = []

    def make(**limits):
        made.append(Cutter(registry, **limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def repository(request):
    """A name that no other test has used."""
    return f"tests/{random.SystemRandom().getrandbits(64):016x}"


def content(size, seed):
    return random.Random(seed).randbytes(size)


def put(client, repository, data, media_type=OCI_LAYER):
    descriptor = Descriptor.of(media_type, data)
    client.put_blob(repository, descriptor, lambda offset: iter([data[offset:]]))
    return descriptor


def put_image(client, repository, architecture, layers):
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    described = put(client, repository, json.dumps(config).encode(), OCI_CONFIG)
    manifest = Manifest.make(described, [put(client, repository, layer) for layer in layers])
    client.put_manifest(repository, str(manifest.descriptor.digest), OCI_MANIFEST, manifest.raw)
    return manifest


def test_an_image_there_and_back(registry, repository):
    client = Registry(registry)
    layers = [content(size, size) for size in (0, 1, 5_000_000)]
    manifests = {name: put_image(client, repository, name, layers) for name in ("amd64", "arm64")}
    children = [
        Descriptor(OCI_MANIFEST, each.descriptor.digest, each.descriptor.size, Platform("linux", name))
        for name, each in manifests.items()
    ]
    index = Index.make(children)
    client.put_manifest(repository, "v1", index.descriptor.media_type, index.raw)
    assert client.resolve(repository, "v1") == index.descriptor.digest
    assert client.resolve(repository, "v2") is None
    assert client.manifest(repository, "v1") == (index.descriptor.media_type, index.raw)
    for layer, descriptor in zip(layers, manifests["amd64"].layers, strict=True):
        assert b"".join(client.blob(repository, descriptor)) == layer
        assert b"".join(client.blob(repository, descriptor, len(layer) // 2)) == layer[len(layer) // 2 :]
    source, target = Remote(client, repository), Remote(client, f"{repository}/copy")
    done = copy_image(source, target, source.describe("v1"), tags=["v1", "again"])
    assert len(done.blobs["mounted"]) == 5
    assert sorted(client.tags(target.repository)) == ["again", "v1"]
    assert client.manifest(target.repository, "again")[1] == index.raw
    again = copy_image(source, target, source.describe("v1"), tags=["v1"])
    assert len(again.blobs["there"]) == 5


def test_a_download_goes_on_after_cuts(registry, repository, cut):
    data = content(20_000_000, 1)
    descriptor = put(Registry(registry), repository, data)
    cutter = cut(down=[3_000_000, 3_000_000, 5_000_000])
    client = Registry(cutter.host, sleep=lambda _: None)
    assert b"".join(client.blob(repository, descriptor)) == data
    assert cutter.cuts == 3


def test_an_upload_arrives_after_cuts(registry, repository, cut):
    """This registry doesn't take up what broke in the middle of a request; then the whole is sent once more."""
    data = content(8_000_000, 2)
    cutter = cut(up=[3_000_000, 5_000_000])
    put(Registry(cutter.host, sleep=lambda _: None), repository, data)
    assert cutter.cuts == 2
    assert b"".join(Registry(registry).blob(repository, Descriptor.of(OCI_LAYER, data))) == data


def test_wrong_bytes_are_not_taken(registry, repository):
    client = Registry(registry)
    wrong = Descriptor(OCI_LAYER, Digest.of_bytes(b"this"), 4)
    with pytest.raises(DigestMismatch):
        client.put_blob(repository, wrong, lambda _: iter([b"that"]))
    assert not client.has_blob(repository, wrong)


def test_referrers_are_found(registry, repository):
    client = Registry(registry)
    image = put_image(client, repository, "amd64", [content(10, 3)])
    empty = put(client, repository, b"{}", OCI_EMPTY)
    proofs = []
    for number in ("1", "2"):
        proof = Manifest.make(
            empty, [empty], subject=image.descriptor, artifact_type="application/x-proof", annotations={"n": number}
        )
        client.put_manifest(repository, str(proof.descriptor.digest), OCI_MANIFEST, proof.raw)
        proofs.append(proof.descriptor.digest)
    found = client.referrers(repository, image.descriptor.digest)
    assert [each.digest for each in found] == proofs
    assert client.referrers(repository, Digest.of_bytes(b"nothing")) == ()


def test_what_is_not_there_is_named(registry, repository):
    with pytest.raises(Refused, match=rf"{registry}/{repository}: .* 404, MANIFEST_UNKNOWN"):
        Registry(registry).manifest(repository, "v1")
