"""Two images compared: which layer, which file, which field; and what a config that lies can't hide."""

import gzip
import io
import json
import tarfile

import pytest

from reprobuild.archive import zstd
from reprobuild.difference import Level
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput
from reprobuild.image.compare import compare_images
from reprobuild.image.store import Readable
from reprobuild.oci.model import OCI_CONFIG, OCI_LAYER, Descriptor, ImageConfig, Manifest

PLAIN = OCI_LAYER
GZIP = f"{OCI_LAYER}+gzip"


def tar_of(mtime=0, **files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


class Made:
    """Images of whatever layers; what was looked into."""

    def __init__(self, folder):
        self.folder = folder
        self.opened = []

    def image(self, *layers, diff_ids=None, texts=None, types=None, raw=None, annotations=None, **config):
        kept = []
        for number, layer in enumerate(layers):
            kept.append(Descriptor.of(types[number] if types else PLAIN, layer))
            (self.folder / kept[-1].digest.hex).write_bytes(layer)
        if diff_ids is None:
            plain = [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in layers]
            diff_ids = [str(Digest.of_bytes(each)) for each in plain]
        document = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            **({"history": [{"created_by": text} for text in texts]} if texts else {}),
            **config,
        }
        raw = raw or canonical_json(document)
        manifest = Manifest.make(Descriptor.of(OCI_CONFIG, raw), kept, annotations=annotations)
        return Readable("it", manifest, ImageConfig.read(raw, "the config"), self.blob)

    def blob(self, descriptor):
        self.opened.append(descriptor.digest)
        return self.folder / descriptor.digest.hex


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def told(verdict):
    return [(each.path, each.field, each.left, each.right, each.level) for each in verdict.differences]


def test_an_image_is_itself_and_nothing_is_opened(made):
    one, two = made.image(tar_of(a=b"1")), made.image(tar_of(a=b"1"))
    verdict = compare_images(one, two)
    assert (verdict.level, verdict.differences, made.opened) == (Level.IDENTICAL, (), [])
    assert verdict.left == verdict.right == one.manifest.descriptor.digest
    sizes = [one.manifest.descriptor.size, one.manifest.config.size, len(tar_of(a=b"1"))]
    assert verdict.left_size == sum(sizes)


def test_a_file_that_differs_is_named(made):
    below = tar_of(base=b"base")
    texts = ["base", "COPY a . # one 1.0, two 2.0"]
    left = made.image(below, tar_of(a=b"1", b=b"2"), texts=texts)
    right = made.image(below, tar_of(a=b"1", b=b"3"), texts=texts)
    verdict = compare_images(left, right)
    assert verdict.level is Level.PAYLOAD
    assert {path for path, *_ in told(verdict)} == {("layer 1 (one 1.0, two 2.0)", "b")}
    assert Digest.of_bytes(below) not in made.opened


def test_another_time_of_a_file_is_told(made):
    verdict = compare_images(made.image(tar_of(a=b"1")), made.image(tar_of(mtime=9, a=b"1")))
    assert verdict.level is Level.CONTAINER
    assert [(path, field) for path, field, *_ in told(verdict)] == [(("layer 0", "a"), "time")]


def test_which_of_several_settings_differs_is_told_and_how(made):
    def image(version, *more):
        return made.image(tar_of(a=b"1"), config={"Env": ["PATH=" + "/x" * 60, f"VERSION={version}", *more]})

    found = told(compare_images(image(1), image(2)))
    assert found == [(("config",), "config.Env.1", "VERSION=1", "VERSION=2", Level.METADATA)]
    ((_, field, left, right, _),) = told(compare_images(image(1), image(1, "MORE=1")))
    assert field == "config.Env"
    assert left != right
    assert "MORE=1" in right


def test_another_compression_of_the_same_layer(made):
    layer = tar_of(a=b"1")
    verdict = compare_images(made.image(layer), made.image(gzip.compress(layer), types=[GZIP]))
    assert verdict.level is Level.CONTAINER
    assert (("layer 0",), "compression") in [(path, field) for path, field, *_ in told(verdict)]


@pytest.mark.parametrize("other", [PLAIN, f"{OCI_LAYER}+zstd"])
def test_gzip_and_another_compression_differ_in_nothing_else(made, other):
    """A gzip header that the other can't have is no clock's doing, and another compression no zlib's."""
    layer = tar_of(a=b"1")
    packed = layer if other == PLAIN else zstd().compress(layer)
    diff_ids = [str(Digest.of_bytes(layer))]
    one = made.image(gzip.compress(layer, mtime=5), types=[GZIP], diff_ids=diff_ids)
    two = made.image(packed, types=[other], diff_ids=diff_ids)
    for pair in ((one, two), (two, one)):
        verdict = compare_images(*pair)
        assert (verdict.level, verdict.causes) == (Level.CONTAINER, ())
        assert [(each.path, each.field) for each in verdict.differences] == [(("layer 0",), "compression")]


def test_another_level_of_gzip_is_still_zlibs(made):
    layer = tar_of(a=bytes(range(256)) * 99)
    verdict = compare_images(*(made.image(gzip.compress(layer, n, mtime=0), types=[GZIP]) for n in (1, 9)))
    assert "compression" in verdict.causes


def test_a_layer_of_another_type(made):
    layer = tar_of(a=b"1")
    verdict = compare_images(made.image(layer), made.image(layer, types=["application/x"]))
    assert told(verdict) == [(("layer 0",), "media type", PLAIN, "application/x", Level.CONTAINER)]


@pytest.mark.parametrize("diff_ids", [[f"sha256:{'a' * 64}"], []], ids=["a lie", "none"])
def test_diff_ids_that_lie_hide_no_content(made, diff_ids):
    """A config says what it likes: two layers with other bytes are looked into."""
    left = made.image(tar_of(a=b"right"), diff_ids=diff_ids)
    right = made.image(tar_of(a=b"wrong"), diff_ids=diff_ids)
    verdict = compare_images(left, right)
    assert verdict.level is Level.PAYLOAD
    assert {path for path, *_ in told(verdict)} == {("layer 0", "a")}


def test_a_layer_more_is_told(made):
    one, two, three = (tar_of(**{name: b"1"}) for name in "abc")
    verdict = compare_images(made.image(one, three), made.image(one, two, three))
    assert told(verdict) == [(("layer 1",), "missing", "absent", "present", Level.PAYLOAD)]
    verdict = compare_images(made.image(one, two, three), made.image(one, three))
    assert told(verdict) == [(("layer 1",), "missing", "present", "absent", Level.PAYLOAD)]


def test_layers_in_another_order_are_not_the_same(made):
    one, two = tar_of(a=b"1"), tar_of(a=b"2")
    assert compare_images(made.image(one, two), made.image(two, one)).level is Level.PAYLOAD


def test_layers_of_the_same_wheels_are_each_others_counterpart(made):
    texts = ["COPY # one 1.0", "COPY # two 1.0", "COPY # own 1.0"]
    left = made.image(tar_of(one=b"1"), tar_of(two=b"1"), tar_of(own=b"1"), texts=texts)
    texts = ["COPY # two 1.1", "COPY # own 1.0"]
    right = made.image(tar_of(two=b"2"), tar_of(own=b"2"), texts=texts)
    paths = {path for path, *_ in told(compare_images(left, right))}
    assert paths == {("layer 0 (one 1.0)",), ("layer 1 (two 1.0)", "two"), ("layer 2 (own 1.0)", "own")}


def test_the_same_wheels_in_two_places_are_told_apart_by_their_steps(made):
    left = made.image(tar_of(a=b"1"), tar_of(b=b"1"), texts=["COPY /a/ # one 1.0", "COPY /b/ # one 1.0"])
    right = made.image(tar_of(b=b"2"), texts=["COPY /b/ # one 1.1"])
    paths = {path for path, *_ in told(compare_images(left, right))}
    assert paths == {("layer 0 (one 1.0)",), ("layer 1 (one 1.0)", "b")}


def test_what_the_config_and_the_manifest_say(made):
    layer = tar_of(a=b"1")
    left = made.image(layer, config={"Env": ["A=1"], "User": "1000"}, annotations={"x": "1", "same": "1"})
    right = made.image(layer, config={"Env": ["A=2"]}, annotations={"x": "2", "same": "1"})
    verdict = compare_images(left, right)
    assert told(verdict) == [
        (("config",), "config.Env.0", "A=1", "A=2", Level.METADATA),
        (("config",), "config.User", "1000", "absent", Level.METADATA),
        (("manifest",), "x", "1", "2", Level.METADATA),
    ]


def test_a_history_of_its_own_is_told_when_nothing_else_is(made):
    layer = tar_of(a=b"1")
    verdict = compare_images(made.image(layer, texts=["one"]), made.image(layer, texts=["two"]))
    assert [(path, field, level) for path, field, _, _, level in told(verdict)] == [
        (("config",), "history", Level.METADATA)
    ]


def test_other_bytes_that_say_the_same(made):
    layer = tar_of(a=b"1")
    left = made.image(layer)
    verdict = compare_images(left, made.image(layer, raw=json.dumps(left.config.document).encode()))
    assert [(path, field, level) for path, field, _, _, level in told(verdict)] == [
        (("manifest",), "bytes", Level.CONTAINER)
    ]


@pytest.mark.parametrize("history", [5, "text", [5], [None], {"a": 1}, [{"created_by": 7}], [["empty_layer"]]])
def test_a_history_that_is_none_stops_nothing(made, history):
    left, right = made.image(tar_of(a=b"1"), history=history), made.image(tar_of(a=b"2"), history=history)
    assert compare_images(left, right).level is Level.PAYLOAD


def test_what_a_layer_is_called_is_what_the_history_says_of_it(made):
    """An entry without a layer counts for none, BuildKit's mark says nothing, and a long step is cut."""
    long = f"RUN {'x' * 200}"
    history = [
        {"created_by": "COPY a . # buildkit"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"comment": "of an importer"},
        {"created_by": long},
        {"created_by": "COPY # one 1.0, two 2.0"},
    ]
    layers = made.image(*(tar_of(a=each) for each in (b"1", b"2", b"3", b"4")), history=history).layers
    titles = ["layer 0 (COPY a .)", "layer 1", f"layer 2 ({long[:96]})", "layer 3 (one 1.0, two 2.0)"]
    assert [each.title for each in layers] == titles


@pytest.mark.parametrize("texts", [["one"], ["one", "two", "three"]], ids=["less", "more"])
def test_a_history_of_other_layers_names_none(made, texts):
    layers = made.image(tar_of(a=b"1"), tar_of(a=b"2"), texts=texts).layers
    assert [each.title for each in layers] == ["layer 0", "layer 1"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_layers_are_those_of_the_manifest_however_many_diff_ids_there_are(made, count):
    found = made.image(tar_of(a=b"1"), tar_of(a=b"2"), diff_ids=[f"sha256:{'a' * 64}"] * count).layers
    assert [each.number for each in found] == [0, 1]


def test_a_config_of_great_depth_is_compared(made):
    def deep(value):
        for _ in range(900):
            value = {"a": value}
        return value

    layer = tar_of(a=b"1")
    verdict = compare_images(made.image(layer, more=deep(1)), made.image(layer, more=deep(2)))
    assert verdict.level is Level.METADATA
    assert len(verdict.differences) == 1


def test_a_damaged_layer_is_refused(made):
    left, right = made.image(tar_of(a=b"1")), made.image(tar_of(a=b"2"))
    (made.folder / right.manifest.layers[0].digest.hex).write_bytes(b"damaged")
    with pytest.raises(BadInput):
        compare_images(left, right)


def test_a_config_that_says_two_things_of_one_is_refused(made):
    """Go takes the two together, Python the last."""
    raw = b'{"os":"linux","architecture":"amd64","config":{"User":"root"},"config":{},"rootfs":{"diff_ids":[]}}'
    with pytest.raises(BadInput, match="'config' twice"):
        ImageConfig.read(raw, "the config")


@pytest.mark.parametrize(("created", "follows"), [("2024-01-01T00:00:00Z", True), ("2023-01-01T00:00:00Z", False)])
def test_times_of_files_follow_from_the_time_of_the_image(made, created, follows):
    """And no advice for backends of wheels is given."""
    one = made.image(tar_of(1_600_000_000, a=b"1"), created="2023-01-01T00:00:00Z")
    verdict = compare_images(one, made.image(tar_of(1_700_000_000, a=b"1"), created=created))
    (difference,) = (each for each in verdict.differences if each.field == "time")
    assert (difference.cause, difference.follows) == (None, follows)
    assert verdict.causes == ()
