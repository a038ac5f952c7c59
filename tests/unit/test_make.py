"""From a project to wherever its image is to be: layouts, archives, registries; and what stays as it was."""

import gc
import json
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, BuildFailed, DigestMismatch, RegistryFailed, ToolMissing, WriteFailed
from reprobuild.image import outputs
from reprobuild.image.build import Choices
from reprobuild.image.make import Destinations, make
from reprobuild.image.outputs import Output
from reprobuild.image.store import STATEMENT
from reprobuild.image.verify import verify
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, OCI_LAYER, Descriptor, Index, Manifest, Platform
from reprobuild.oci.reference import Reference
from reprobuild.progress import SILENT, Silent

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
LAYERS = (b"the lower layer of a base", b"the upper one")


def write_project(folder, dockerfile, git):
    images = folder / "images" / "app"
    images.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'demo'\nversion = '1'\n[tool.reprobuild.images.app]\nproject = false\n"
    )
    (images / "Dockerfile").write_text(dockerfile)
    (folder / "app.py").write_text("print('app')\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state of the test")
    return folder


@pytest.fixture
def project(tmp_path, git):
    """A project whose image has no base."""
    return write_project(tmp_path / "project", "FROM scratch\nCOPY app.py /app/\n", git)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path / "cache"))


def put_base(registry, repository="base", platform=AMD64):
    """Put an image into a registry; its reference."""
    kept = [Descriptor.of(OCI_LAYER, layer) for layer in LAYERS]
    config = canonical_json(
        {
            "os": "linux",
            "architecture": platform.architecture,
            "rootfs": {"type": "layers", "diff_ids": [str(each.digest) for each in kept]},
        }
    )
    manifest = Manifest.make(Descriptor.of(OCI_CONFIG, config), kept)
    blobs = registry.blobs.setdefault(repository, {})
    blobs |= {str(Digest.of_bytes(raw)): raw for raw in (*LAYERS, config)}
    raw = manifest.raw
    registry.manifests[repository, str(manifest.descriptor.digest)] = (manifest.descriptor.media_type, raw)
    return f"127.0.0.1:{registry.port}/{repository}:1@{manifest.descriptor.digest}"


@pytest.fixture
def based(tmp_path, git, served, cache):
    """A project whose image has a base in a registry."""
    return write_project(tmp_path / "based", f"FROM {put_base(served)}\nCOPY app.py /srv/\n", git)


class Listener(Silent):
    def __init__(self):
        self.steps = []
        self.warnings = []

    def step(self, message):
        self.steps.append(message)

    def warn(self, message):
        self.warnings.append(message)


def built(project, *outputs, platforms=(AMD64,), pushes=(), observer=SILENT, **more):
    to = Destinations(tuple(outputs), tuple(map(Reference.parse, pushes)))
    return make(project, "app", Choices(platforms=platforms, **more), to, observer=observer)


def to_layout(path, name="latest"):
    return Output(path, name, archived=False)


def to_archive(path):
    return Output(path, "latest", archived=True)


def names(layout):
    return sorted(each.annotations.get("org.opencontainers.image.ref.name", "") for each in layout.index().manifests)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("oci:a", Output(Path("a"), "latest", False)),
        ("oci:a/b:c", Output(Path("a/b"), "c", False)),
        ("oci:a:b:c", Output(Path("a"), "b:c", False)),
        ("oci:with space:", Output(Path("with space"), "latest", False)),
        ("oci-archive:x.tar:1", Output(Path("x.tar"), "1", True)),
    ],
)
def test_an_output_is_read_as_others_write_it(text, output):
    assert Output.parse(text) == output


@pytest.mark.parametrize("text", ["", "oci", "oci:", "oci::name", "a.tar", "docker:x", "OCI:x"])
def test_what_is_no_output_is_refused(text):
    with pytest.raises(BadInput, match="is not a place for an image"):
        Output.parse(text)


def test_without_a_place_it_is_in_dist_and_the_tree_stays_clean(project, git):
    made = built(project)
    assert made.places == (f"oci:{project / 'dist' / 'app'}:latest",)
    assert Layout(project / "dist" / "app").find().digest == made.built.top.digest
    assert git(project, "status", "--porcelain") == ""
    assert built(project).built.top == made.built.top


def test_files_that_no_commit_holds_are_told(project):
    (project / "forgotten.py").write_text("")
    observer = Listener()
    built(project, observer=observer)
    assert observer.warnings == ["1 untracked file is not in the commit, and so not in the image."]


@pytest.mark.parametrize("others", [(), ("second",)])
def test_what_was_damaged_in_a_layout_is_mended(based, tmp_path, others):
    places = [to_layout(tmp_path / name) for name in ("first", *others)]
    top = built(based, *places).built.top
    whole = {path: path.read_bytes() for path in tmp_path.rglob("blobs/sha256/*")}
    assert len({path.name for path in whole}) >= 5
    for path, content in whole.items():
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert built(based, *places).built.top == top
    assert {path: path.read_bytes() for path in tmp_path.rglob("blobs/sha256/*")} == whole


@pytest.mark.parametrize("name", ["nope", "../../evil", "", ".."])
def test_an_image_that_the_project_lacks_leaves_nothing(project, name, tmp_path):
    before = everything(tmp_path)
    with pytest.raises(BadInput, match="has no image"):
        make(project, name, Choices(), Destinations())
    assert everything(tmp_path) == before


def test_every_output_is_written(project, tmp_path):
    wanted = [to_layout(tmp_path / "one", "a"), to_layout(tmp_path / "one", "b"), to_layout(tmp_path / "two", "c")]
    made = built(project, *wanted, to_archive(tmp_path / "three.tar"))
    digest = made.built.top.digest
    assert Layout(tmp_path / "one").find("a").digest == Layout(tmp_path / "one").find("b").digest == digest
    assert Layout(tmp_path / "two").find("c").digest == digest
    assert len(made.places) == 4
    for place in made.places:
        assert verify(place, project).level == "identical"


def test_two_archives_of_one_image_have_the_same_bytes(project, tmp_path):
    for folder in ("one", "two"):
        built(project, to_archive(tmp_path / folder / "image.tar"))
    one, two = (tmp_path / folder for folder in ("one", "two"))
    assert everything(one) == everything(two) == ["image.tar", "image.tar.intoto.json"]
    assert [(one / name).read_bytes() for name in everything(one)] == [
        (two / name).read_bytes() for name in everything(two)
    ]
    with tarfile.open(one / "image.tar") as tar:
        assert "oci-layout" in tar.getnames()


def test_an_archive_of_several_platforms_has_a_record_for_each(project, tmp_path):
    built(project, to_archive(tmp_path / "out" / "image.tar"), platforms=(AMD64, ARM64))
    records = ["image.tar.linux-amd64.intoto.json", "image.tar.linux-arm64.intoto.json"]
    assert everything(tmp_path / "out") == ["image.tar", *records]


def test_an_archive_that_fails_leaves_what_was_there(project, tmp_path, monkeypatch):
    path = tmp_path / "out" / "image.tar"
    path.parent.mkdir()
    path.write_bytes(b"the one before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_archive", full)
    with pytest.raises(WriteFailed, match=r"image\.tar can't be written: No space left"):
        built(project, to_archive(path))
    assert everything(path.parent) == ["image.tar"]
    assert path.read_bytes() == b"the one before"


def test_a_folder_is_no_archive(project, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        built(project, to_archive(tmp_path / "folder"))
    assert everything(tmp_path / "folder") == []


def test_a_folder_with_other_things_stays_as_it_is(project, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").touch()
    with pytest.raises(BadInput, match="holds other things"):
        built(project, to_layout(tmp_path / "folder"))
    assert everything(tmp_path / "folder") == ["thesis.txt"]


def test_one_platform_is_named_once(project, tmp_path):
    for platforms in ((AMD64, AMD64), (ARM64, Platform("linux", "arm64", "v8"))):
        with pytest.raises(BadInput, match="is named twice"):
            built(project, to_layout(tmp_path / "out"), platforms=platforms)


def test_a_whole_layout_has_the_layers_of_the_base(based, tmp_path):
    built(based, to_layout(tmp_path / "whole"))
    built(based)
    digests = [Digest.of_bytes(layer) for layer in LAYERS]
    assert [Layout(tmp_path / "whole").has(each) for each in digests] == [True, True]
    assert [Layout(based / "dist" / "app").has(each) for each in digests] == [False, False]
    assert verify(str(tmp_path / "whole"), based).level == "identical"
    assert verify(str(based / "dist" / "app"), based).level == "identical"


def test_a_layer_of_the_base_that_is_there_has_its_bytes(based, tmp_path):
    built(based, to_layout(tmp_path / "whole"))
    layout = Layout(tmp_path / "whole")
    path = layout.path_of(Digest.of_bytes(LAYERS[0]))
    path.write_bytes(LAYERS[0][::-1])
    with pytest.raises(DigestMismatch):
        verify(str(tmp_path / "whole"), based)


def test_what_a_killed_build_left_goes_away(project, tmp_path, monkeypatch):
    left = tmp_path / "reprobuild-image-0123456789ab"
    left.mkdir(mode=0o700)
    monkeypatch.setattr("reprobuild.image.make.temporary", lambda: tmp_path)
    monkeypatch.setattr("reprobuild.files._NEW", -1)
    built(project, to_layout(tmp_path / "out"))
    assert not left.exists()


def put_index(registry):
    """Put a base for two platforms into a registry; its reference."""
    found = []
    for platform in (AMD64, ARM64):
        digest = put_base(registry, platform=platform).partition("@")[2]
        media_type, raw = registry.manifests["base", digest]
        found.append(Descriptor.of(media_type, raw, platform=platform))
    index = Index.make(found)
    registry.manifests["base", str(index.descriptor.digest)] = (index.descriptor.media_type, index.raw)
    return f"127.0.0.1:{registry.port}/base:1@{index.descriptor.digest}"


def test_stages_for_different_platforms_have_different_bases(tmp_path, git, served, cache):
    base = put_index(served)
    steps = [f"FROM --platform=linux/arm64 {base} AS other", "COPY app.py /made/", f"FROM {base}"]
    project = write_project(tmp_path / "staged", "\n".join([*steps, "COPY --from=other /made/ /srv/", ""]), git)
    ((image, _),) = built(project, to_layout(tmp_path / "out")).built.images
    assert image.base.config.platform == AMD64


def test_a_base_with_other_bytes_gets_no_name(based, served, tmp_path):
    served.fail("GET", r"/base/blobs/", times=99, alter=lambda raw: raw[::-1])
    with pytest.raises(DigestMismatch):
        built(based, to_layout(tmp_path / "out"))
    assert [path for path in everything(tmp_path / "out") if "partial" in path] == []
    assert names(Layout(tmp_path / "out")) == []
    digest = Digest.of_bytes(LAYERS[0])
    assert not Layout(tmp_path / "out").has(digest)


@pytest.mark.parametrize("damage", [lambda _: b"", lambda raw: raw[:-1]], ids=["emptied", "cut"])
def test_building_again_mends_a_layout(based, tmp_path, damage):
    """A machine that loses its power may leave files without their ends."""
    output = to_layout(tmp_path / "out")
    built(based, output)
    for path in (tmp_path / "out" / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(damage(path.read_bytes()))
    built(based, output)
    assert verify(str(tmp_path / "out"), based).level == "identical"
    other = to_layout(tmp_path / "other")
    built(based, output, other)
    layer = Layout(other.path).path_of(Digest.of_bytes(LAYERS[0]))
    layer.write_bytes(damage(layer.read_bytes()))
    built(based, output, other)
    assert verify(str(tmp_path / "other"), based).level == "identical"


@pytest.fixture
def with_wheel(tmp_path, git, served, cache, make_wheel, monkeypatch):
    """Makes a project whose image has an environment of one wheel, from steps behind ``FROM base``; and that wheel."""
    offered = tmp_path / "offered"
    offered.mkdir()
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(offered))
    wheel = make_wheel(offered, {"demo/__init__.py": b"text = 'a text that is long enough to be hit'\n"})

    def make_project(*stages):
        base = put_base(served)
        text = "".join(f"FROM {base} AS stage{number}\n{steps}\n" for number, steps in enumerate(stages))
        folder = write_project(tmp_path / "project", text, git)
        with (folder / "pyproject.toml").open("a") as stream:
            stream.write('python = "3.12.1"\ninterpreter = "/usr/bin/python3.12"\nplatform = "x86_64-manylinux_2_28"\n')
        (folder / "images/app/requirements.txt").write_text(f"demo==1.0 --hash={Digest.of_file(wheel)}\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "a lock")
        return folder, wheel

    return make_project


@pytest.mark.parametrize("known", [False, True], ids=["first", "known"])
@pytest.mark.parametrize("cut", [False, True], ids=["hit", "cut"])
def test_a_wheel_that_is_damaged_in_the_cache_is_fetched_again(with_wheel, tmp_path, known, cut):
    folder, wheel = with_wheel("COPY --from=environment / /venv/")
    right = built(folder, to_layout(tmp_path / "right")).built.top
    (copy,) = (tmp_path / "cache").glob("files/**/*.whl")
    sound = copy.read_bytes()
    with zipfile.ZipFile(copy) as archive:
        at = archive.getinfo("demo/__init__.py").header_offset + 30 + len("demo/__init__.py") + 5
    copy.write_bytes(sound[:at] if cut else sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    if not known:
        shutil.rmtree(tmp_path / "cache" / "layers")
    observer = Listener()
    assert built(folder, to_layout(tmp_path / "again"), observer=observer).built.top == right
    assert observer.warnings == [f"{wheel.name} was damaged in the cache and is fetched again."]
    assert copy.read_bytes() == sound


def test_a_known_layer_is_the_proof_of_its_wheels(with_wheel, tmp_path, monkeypatch):
    """They aren't hashed besides, which took as long as the rest."""
    folder, wheel = with_wheel("COPY --from=environment / /venv/")
    hashed: list[str] = []
    original = Digest.check

    def check(self, chunks, what):
        hashed.append(what)
        return original(self, chunks, what)

    monkeypatch.setattr(Digest, "check", check)
    right = built(folder, to_layout(tmp_path / "right")).built.top
    assert any(wheel.name in each for each in hashed)
    hashed.clear()
    assert built(folder, to_layout(tmp_path / "again")).built.top == right
    assert not any(wheel.name in each for each in hashed)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_record_names_wheels_that_come_through_other_stages(with_wheel, tmp_path, copies):
    through = [f"COPY --from=stage{number} / /from/" for number in range(copies)]
    folder, wheel = with_wheel("COPY --from=environment / /venv/", *through)
    ((_, record),) = built(folder, to_layout(tmp_path / "out")).built.images
    named = [each["name"] for each in record["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert named.count(wheel.name) == 1


def test_a_broken_connection_to_the_base_is_taken_up(based, served, tmp_path):
    served.fail("GET", r"/base/blobs/", cut_after=5)
    built(based, to_layout(tmp_path / "out"))
    assert verify(str(tmp_path / "out"), based).level == "identical"


# --- pushed --------------------------------------------------------------------------------------------


def manifests_of(served, repository):
    return {name: raw for (where, name), (_, raw) in served.manifests.items() if where == repository}


def test_what_is_pushed_is_whole_and_has_its_record(based, served):
    made = built(based, pushes=[f"127.0.0.1:{served.port}/app:1", f"127.0.0.1:{served.port}/app:2"])
    kept = manifests_of(served, "app")
    digest = str(made.built.top.digest)
    assert Digest.of_bytes(kept["1"]) == Digest.of_bytes(kept["2"]) == made.built.top.digest
    assert digest in kept
    manifest = Manifest.read(kept[digest], "it")
    for each in (manifest.config, *manifest.layers):
        assert Digest.of_bytes(served.blobs["app"][str(each.digest)]) == each.digest
    (record,) = [raw for raw in kept.values() if json.loads(raw).get("artifactType") == STATEMENT]
    artifact = Manifest.read(record, "the record")
    assert artifact.subject
    assert artifact.subject.digest == made.built.top.digest
    statement = json.loads(served.blobs["app"][str(artifact.layers[0].digest)])
    assert statement["subject"][0]["digest"]["sha256"] == made.built.top.digest.hex
    assert list(made.moved.tags) == [f"127.0.0.1:{served.port}/app:{tag}" for tag in "12"]
    assert made.moved.mounted + made.moved.sent + made.moved.there == sum(
        each.size for each in (manifest.config, *manifest.layers)
    )
    assert verify(f"127.0.0.1:{served.port}/app:1", based).level == "identical"


def test_what_is_there_is_not_sent_again(based, served):
    reference = f"127.0.0.1:{served.port}/app:1"
    built(based, pushes=[reference])
    again = built(based, pushes=[reference])
    assert (again.moved.sent, again.moved.mounted) == (0, 0)


def test_a_push_that_fails_tags_nothing(based, served):
    served.fail("PUT", r"/blobs/uploads/", times=99, answer=(403, {}, b"{}"))
    with pytest.raises(RegistryFailed):
        built(based, pushes=[f"127.0.0.1:{served.port}/app:1"])
    assert manifests_of(served, "app") == {}


def test_a_platform_that_fails_tags_nothing(project, served, cache):
    served.fail("PUT", r"/manifests/sha256:", times=99, answer=(403, {}, b"{}"))
    with pytest.raises(RegistryFailed):
        built(project, pushes=[f"127.0.0.1:{served.port}/app:1"], platforms=(AMD64, ARM64))
    assert "1" not in manifests_of(served, "app")


def test_all_platforms_are_pushed_under_one_index(project, served, cache):
    built(project, pushes=[f"127.0.0.1:{served.port}/app:1"], platforms=(AMD64, ARM64))
    index = Index.read(manifests_of(served, "app")["1"], "it")
    assert [str(each.platform) for each in index.manifests] == ["linux/amd64", "linux/arm64"]
    assert verify(f"127.0.0.1:{served.port}/app:1", project).level == "identical"


@pytest.mark.parametrize(
    ("pushes", "complaint"),
    [
        (["own.example/a:1", "own.example/b:1"], "aren't of one repository"),
        ([f"own.example/a@sha256:{'0' * 64}"], "names a digest"),
    ],
)
def test_names_that_can_not_be_pushed_to(project, pushes, complaint):
    with pytest.raises(BadInput, match=complaint):
        built(project, pushes=pushes)


def test_a_registry_that_lacks_an_own_layer_is_found_out(based, served):
    made = built(based, pushes=[f"127.0.0.1:{served.port}/app:1"])
    ((image, _),) = made.built.images
    del served.blobs["app"][str(image.layers[0].descriptor.digest)]
    with pytest.raises(BadInput, match="lacks its layer"):
        verify(f"127.0.0.1:{served.port}/app:1", based)


def test_an_archive_that_cannot_be_written_is_called_what_the_user_calls_it(project, tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.tar"
    with pytest.raises(WriteFailed) as caught:
        built(project, to_archive(path))
    assert caught.value.reason.startswith(f"{path} can't be written: ")
    assert caught.value.remedy == "Name another place."


# --- an engine ---------------------------------------------------------------------------------------------------


def loaded(project, observer=SILENT):
    return make(project, "app", Choices(platforms=(AMD64,)), Destinations(load="app:1"), observer=observer)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("unix://{folder}/none.sock", "at unix://{folder}/none.sock: No such file or directory."),
        ("tcp://127.0.0.1:9", "at tcp://127.0.0.1:9: Connection refused."),
        ("tcp://user:s3cret@127.0.0.1:9", "at tcp://…@127.0.0.1:9: "),
        ("gopher://127.0.0.1:9", "at gopher://127.0.0.1:9: "),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves a socket open then
def test_an_engine_that_does_not_answer_is_missing(project, tmp_path, monkeypatch, address, words):
    monkeypatch.setenv("DOCKER_HOST", address.format(folder=tmp_path))
    observer = Listener()
    with pytest.raises(ToolMissing, match=r"^No Docker engine answers at ") as caught:
        loaded(project, observer)
    assert observer.steps == []
    reason, remedy = caught.value.reason, caught.value.remedy
    del caught
    gc.collect()
    assert words.format(folder=tmp_path) in reason
    assert "s3cret" not in reason
    assert "Error(" not in reason
    assert "DOCKER_HOST" in remedy


@pytest.fixture
def engine(monkeypatch):
    """An engine that answers a load as it is told: with a status and a body, or without a word."""
    answers: list[tuple[int, bytes] | None] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer(200, b'{"ApiVersion": "1.44", "MinAPIVersion": "1.24"}')

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if answers[0]:
                self.answer(*answers[0])
            else:
                self.close_connection = True

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, b'{"message": "no space left on device"}'), "no space left on device"),
        ((200, b'{"errorDetail": {"message": "invalid archive"}, "error": "invalid archive"}'), "invalid archive"),
        (None, "the connection broke"),
    ],
)
def test_an_engine_that_refuses_an_image_says_why(project, engine, answer, words):
    engine.append(answer)
    with pytest.raises(BuildFailed) as caught:
        loaded(project)
    assert caught.value.reason == f"The Docker engine didn't take the image: {words}."
