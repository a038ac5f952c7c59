"""Manifests, indexes and configs of others: what no reader agrees on is refused before it gets into an image."""

import json

import pytest

from reprobuild.digest import canonical_json
from reprobuild.errors import BadInput
from reprobuild.oci.model import OCI_INDEX, Descriptor, ImageConfig, Index, Manifest, Platform, document_of

DIGEST = "sha256:" + "a" * 64
PART = {"mediaType": "a/b", "digest": DIGEST, "size": 1}
CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
#: As Docker, BuildKit and kaniko write them.
REAL = {
    "Hostname": "f00",
    "Domainname": "",
    "User": "1000:1000",
    "AttachStdin": False,
    "ExposedPorts": {"80/tcp": {}},
    "Env": ["PATH=/bin", "ODD"],
    "Cmd": None,
    "Entrypoint": ["/x"],
    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30 * 10**9, "Retries": 3},
    "ArgsEscaped": True,
    "Image": DIGEST,
    "Volumes": {"/data": {}, "/more": None},
    "WorkingDir": "/srv",
    "OnBuild": [],
    "Labels": {"a": "b"},
    "StopSignal": "SIGTERM",
    "StopTimeout": 10,
    "Shell": ["/bin/sh", "-c"],
}


def read(**more):
    return ImageConfig.read(json.dumps({**CONFIG, **more}).encode(), "it")


def test_real_configs_are_read_whole():
    more = {
        "author": "me",
        "created": "0001-01-01T00:00:00Z",
        "os.features": ["win32k"],
        "container_config": {"Memory": 0, "Cmd": ["x"]},
        "moby.buildkit.cache.v0": "e30=",
        "moby.buildkit.buildinfo.v1": {"sources": [{"pin": DIGEST}]},
        "history": [{"created": "2024-01-01T00:00:00.123456789Z", "empty_layer": True}],
        "config": REAL,
    }
    found = read(**more)
    assert found.document == {**CONFIG, **more}
    assert found.environment == {"PATH": "/bin"}
    assert canonical_json(found.document)


def test_null_is_nothing():
    found = read(config=dict.fromkeys(REAL), author=None, variant=None, created=None)
    assert found.environment == {}
    assert found.platform == Platform("linux", "amd64")
    assert read(config=None).settings == {}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("Env", ["A=1", {"A": "1"}, ["A=1", 2], [None], 0, False, {}]),
        ("Cmd", ["run", [1], {}]),
        ("Entrypoint", ["run", [["x"]]]),
        ("Shell", ["/bin/sh", 0]),
        ("OnBuild", ["RUN x", {"a": 1}]),
        ("User", [0, ["root"], {}, False]),
        ("WorkingDir", [["/"], 0]),
        ("StopSignal", [9]),
        ("Labels", [[], ["a"], {"a": 1}, {"a": None}, "a", 0]),
        ("ExposedPorts", [[], ["80/tcp"], {"80/tcp": 1}, "80", 0]),
        ("Volumes", [[], ["/data"], {"/data": "x"}, False]),
        ("Healthcheck", ["x", [], {"Test": "x"}, {"Interval": "1s"}, {"Retries": 1.5}, {"Timeout": True}]),
        ("ArgsEscaped", ["true", 1]),
    ],
)
def test_a_setting_of_another_type_is_refused(key, values):
    for value in values:
        with pytest.raises(BadInput, match=f"^it: config: {key}"):
            read(config={key: value})


@pytest.mark.parametrize("key", ["author", "created", "os", "architecture", "variant", "os.version", "os.features"])
def test_what_a_config_says_of_the_image_is_text(key):
    wrong: tuple[object, ...] = (5, {}, ["x", 1], True)
    for value in wrong:
        with pytest.raises(BadInput, match=f"^it: {key} is not a"):
            read(**{key: value})


#: What canonical JSON can't say, or not as each reader understands it.
UNWRITABLE = {
    "half a surrogate pair": b'{"a": ["\\ud800"]}',
    "half a pair, in capitals": b'{"a": "\\uDFFF"}',
    "half a pair in a name": b'{"\\udc00": 1}',
    "half a pair as bytes": b'{"a": "\xed\xa0\x80"}',
    "an integer": b'{"a": {"b": 9007199254740992}}',
    "a negative integer": b'{"a": -9007199254740992}',
    "many digits": b'{"a": 1' + b"0" * 400 + b"}",
    "more digits": b'{"a": 1' + b"0" * 5000 + b"}",
    "infinity": b'{"a": Infinity}',
    "beyond infinity": b'{"a": [1e400]}',
    "not a number": b'{"a": NaN}',
    "another encoding": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("raw", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written_again_is_refused(raw):
    with pytest.raises(BadInput, match=r"^it is not JSON: ") as caught:
        document_of(raw, "it")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["\\ud83d\\ude00 \\\\ud800", "😀"])
def test_what_looks_like_it_is_fine(text):
    raw = f'{{"a": ["{text}", 9007199254740991, -9007199254740991, 1.5, -0, 1e300], "b": {"[" * 90}{"]" * 90}}}'
    assert canonical_json(document_of(raw.encode(), "it"))


@pytest.mark.parametrize("key", ["config", "history"])
def test_what_is_passed_on_is_not_nested_deeper_than_it_can_be_written(key):
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(BadInput, match=f"^it: {key} is nested too deeply"):
        read(**{key: {"more": deep}})
    assert read(more=deep).document["more"] == deep


@pytest.mark.parametrize("size", [-1, 2**53, 10**400, 1.0, "1", True, None])
def test_a_size_is_an_integer_that_others_can_read(size):
    with pytest.raises(BadInput, match=r"^it has no size\.$"):
        Descriptor.read({**PART, "size": size}, "it")
    assert Descriptor.read({**PART, "size": 2**53 - 1}, "it").size == 2**53 - 1


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"artifactType": 5}, "it: artifactType is not a text"),
        ({"mediaType": ["x"]}, "it: mediaType is not a text"),
        ({"config": {**PART, "artifactType": {}}}, "it: config: artifactType is not a text"),
        ({"layers": [{**PART, "platform": {"os": 5}}]}, "it: layer 0: platform: os is not a text"),
        ({"layers": [{**PART, "platform": "linux"}]}, "it: layer 0: platform is not an object"),
    ],
)
def test_what_a_manifest_says_is_text(more, complaint):
    with pytest.raises(BadInput, match=f"^{complaint}"):
        Manifest.read(json.dumps({"config": PART, "layers": [], **more}).encode(), "it")


def test_an_index_says_null_or_text():
    manifests = [{**PART, "artifactType": None, "platform": {"os": "linux", "architecture": "arm64", "variant": None}}]
    found = Index.read(json.dumps({"mediaType": OCI_INDEX, "manifests": manifests}).encode(), "it").manifests[0]
    assert (found.artifact_type, found.platform) == ("", Platform("linux", "arm64"))
    with pytest.raises(BadInput, match=r"^it: mediaType is not a text"):
        Index.read(b'{"mediaType": 5, "manifests": []}', "it")
