"""An image that is made again: what passes for identical, and what was forged to."""

import json
import os
import shutil
import tarfile
from dataclasses import replace

import pytest
from click.testing import CliRunner

from reprobuild import attest
from reprobuild.cli.verify_image import _varied, verify_image
from reprobuild.difference import Level
from reprobuild.errors import BadInput, DigestMismatch, RecordUnusable, SourceUnusable
from reprobuild.image.build import Choices, build
from reprobuild.image.make import Destinations, make
from reprobuild.image.others import Others
from reprobuild.image.outputs import Output
from reprobuild.image.store import InLayout, add_record, images_of, records_of
from reprobuild.image.verify import _require_unchanged, compare_named, verify
from reprobuild.oci.layer import Compression
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import OCI_CONFIG, Index, Manifest, Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture
def project(tmp_path, git):
    """A project whose images have no base and no environment."""
    folder = tmp_path / "project"
    (folder / "images" / "app").mkdir(parents=True)
    (folder / "images" / "other").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'demo'\nversion = '1'\n"
        "[tool.reprobuild.images.app]\nproject = false\n[tool.reprobuild.images.other]\nproject = false\n"
    )
    (folder / "images" / "app" / "Dockerfile").write_text("FROM scratch\nARG WHO=me\nENV WHO=$WHO\nCOPY app.py /app/\n")
    (folder / "images" / "other" / "Dockerfile").write_text("FROM scratch\nCOPY app.py /other/\n")
    (folder / "app.py").write_text("print('app')\n")
    git(folder, "init", "--quiet")
    commit(git, folder)
    return folder


def commit(git, folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state of the test")


@pytest.fixture
def built(project, tmp_path):
    """Build an image into a layout."""

    def run(name="app", to="image", *, platforms=(AMD64,), archived=False, tag="latest", **choices):
        output = Output(tmp_path / to, tag, archived)
        make(project, name, Choices(platforms=platforms, **choices), Destinations(outputs=(output,)))
        return output.path if archived else Layout(output.path)

    return run


def checked(layout, project):
    return verify(str(layout.folder if isinstance(layout, Layout) else layout), project)


def the_record(layout):
    (image,) = images_of(InLayout(layout), layout.find(), "it")
    (record,) = records_of(InLayout(layout), image)
    return image.manifest.descriptor, record.statement


def only(layout, descriptor, *statements, subject=None):
    """Let a layout hold one thing and some records."""
    (layout.folder / "index.json").write_bytes(Index.make([replace(descriptor, annotations={})]).raw)
    for statement in statements:
        add_record(layout, statement, subject or descriptor)


def test_what_was_not_touched_is_identical(built, project):
    verified = checked(built(), project)
    assert verified.level is Level.IDENTICAL
    assert verified.index is None
    (one,) = verified.images
    assert (one.platform, one.notes, one.varied) == (AMD64, (), ("path", "umask"))


def test_an_archive_is_verified_by_the_record_beside_it(built, project):
    path = built(to="image.tar", archived=True)
    assert checked(path, project).level is Level.IDENTICAL
    path.with_name("image.tar.intoto.json").unlink()
    with pytest.raises(RecordUnusable, match="no record of"):
        checked(path, project)


def test_all_platforms_and_their_index(built, project):
    layout = built(platforms=(AMD64, ARM64))
    verified = checked(layout, project)
    assert verified.level is verified.index.level is Level.IDENTICAL
    assert [each.platform for each in verified.images] == [AMD64, ARM64]
    path = built(to="image.tar", platforms=(AMD64, ARM64), archived=True)
    assert checked(path, project).level is Level.IDENTICAL


# --- forged --------------------------------------------------------------------------------------------


def reindexed(layout, change):
    """Put another index in the place of the one of all platforms."""
    index = Index.read(layout.read(layout.find()), "the index")
    made = Index.make(change(list(index.manifests)))
    layout.add(layout.put_document(made.descriptor.media_type, made.raw), "latest")


def evil(layout):
    config = layout.put_document(
        OCI_CONFIG, b'{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}'
    )
    manifest = Manifest.make(config, [])
    return layout.put_document(manifest.descriptor.media_type, manifest.raw)


def test_an_index_may_not_name_what_was_not_made_again(built, project):
    """A runtime takes a manifest without a platform for one of its own."""
    layout = built(platforms=(AMD64, ARM64))
    reindexed(layout, lambda manifests: [evil(layout), *manifests])
    assert checked(layout, project).level is Level.PAYLOAD


def test_platforms_may_not_be_swapped(built, project):
    layout = built(platforms=(AMD64, ARM64))
    reindexed(layout, lambda pair: [replace(pair[0], platform=ARM64), replace(pair[1], platform=AMD64)])
    assert checked(layout, project).level is Level.PAYLOAD


def test_an_index_of_no_platform_is_no_image(built, project):
    layout = built(platforms=(AMD64, ARM64))
    reindexed(layout, lambda manifests: [replace(each, platform=None) for each in manifests])
    with pytest.raises(BadInput, match="names no image for any platform"):
        checked(layout, project)


def test_an_index_that_names_one_image_twice_is_refused(built, project):
    layout = built(platforms=(AMD64, ARM64))
    reindexed(layout, lambda manifests: [manifests[0], manifests[0]])
    with pytest.raises(BadInput, match="twice"):
        checked(layout, project)


@pytest.mark.parametrize("other", [{"name": "other"}, {"build_args": {"WHO": "you"}}], ids=str)
def test_the_images_of_an_index_are_of_one_build(built, project, other):
    """Each of them is what its own record gives, and the index is none that anybody built."""
    layout = built(platforms=(AMD64,), tag="one")
    built(platforms=(ARM64,), tag="two", **other)
    index = Index.make([replace(layout.find("one"), platform=AMD64), replace(layout.find("two"), platform=ARM64)])
    top = layout.put_document(index.descriptor.media_type, index.raw)
    layout.add(top, "both")
    with pytest.raises(RecordUnusable, match="not one image for several platforms"):
        verify(f"oci:{layout.folder}:both", project)


def test_a_layer_in_a_layout_has_its_bytes(built, project):
    layout = built()
    (image,) = images_of(InLayout(layout), layout.find(), "it")
    (layer,) = image.manifest.layers
    path = layout.path_of(layer.digest)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"!")
    with pytest.raises(DigestMismatch):
        checked(layout, project)
    path.write_bytes(whole[:-1])
    with pytest.raises(BadInput, match="does not have its"):
        checked(layout, project)
    path.unlink()
    with pytest.raises(BadInput, match="lacks its layer"):
        checked(layout, project)


def test_another_config_differs(built, project):
    layout = built()
    _, statement = the_record(layout)
    (image,) = images_of(InLayout(layout), layout.find(), "it")
    document = json.loads(image.config.raw)
    document["config"]["Env"].append("LD_PRELOAD=/evil.so")
    manifest = Manifest.make(
        layout.put_document(OCI_CONFIG, attest.encode(document)),
        image.manifest.layers,
        annotations=image.manifest.annotations,
    )
    kept = layout.put_document(manifest.descriptor.media_type, manifest.raw)
    statement["subject"][0]["digest"]["sha256"] = kept.digest.hex
    only(layout, kept, statement)
    verified = checked(layout, project)
    assert verified.level is Level.METADATA
    assert [each.field for each in verified.images[0].verdict.differences] == ["config.Env"]


def _set(statement, path, value):
    *parents, last = path
    for key in parents:
        statement = statement[key]
    statement[last] = value


DEFINITION = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("subject", 0, "name"), "another"),
        (("subject", 0, "uri"), "docker://own.example/another"),
        (("subject", 0, "digest", "sha512"), "a" * 128),
        ((*DEFINITION, "externalParameters", "more"), 1),
        ((*DEFINITION, "externalParameters", "compression"), "brotli"),
        ((*DEFINITION, "externalParameters", "platform"), "linux"),
        ((*DEFINITION, "externalParameters", "platform"), 5),
        ((*DEFINITION, "externalParameters", "buildArguments"), {"A": 1}),
        ((*DEFINITION, "externalParameters", "buildArguments"), []),
        ((*DEFINITION, "externalParameters", "target"), None),
        ((*DEFINITION, "externalParameters", "source", "subdirectory"), "elsewhere"),
        ((*DEFINITION, "externalParameters", "source", "kind"), "tarball"),
        ((*DEFINITION, "resolvedDependencies", 0, "annotations", "more"), "1"),
        ((*DEFINITION, "resolvedDependencies", 1, "digest", "sha256"), "a" * 64),
        ((*DEFINITION, "resolvedDependencies", 2, "name"), "another.py"),
        (("predicate", "more"), {}),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_record_says_nothing_that_the_source_does_not(built, project, path, value):
    layout = built()
    subject, statement = the_record(layout)
    _set(statement, path, value)
    only(layout, layout.find(), statement, subject=subject)
    with pytest.raises(RecordUnusable):
        checked(layout, project)


@pytest.mark.parametrize(
    ("path", "value", "note"),
    [
        (("predicate", "runDetails", "builder", "id"), "https://own.example/other", "builder"),
        ((*DEFINITION, "internalParameters", "engine"), "another", "libraries"),
        ((*DEFINITION, "externalParameters", "source", "uri"), "https://own.example/fork", ""),
    ],
)
def test_what_no_source_tells_is_free(built, project, path, value, note):
    layout = built()
    subject, statement = the_record(layout)
    _set(statement, path, value)
    only(layout, layout.find(), statement, subject=subject)
    verified = checked(layout, project)
    assert verified.level is Level.IDENTICAL
    assert [each.partition(":")[0] for each in verified.images[0].notes] == ([note] if note else [])


def with_own_wheel(digest, **more):
    described = attest.descriptor({"sha256": digest * 64}, name="own.whl", annotations={"role": "own-wheel"})
    return attest.provenance(
        attest.descriptor({"sha256": "c" * 64}, name="app"),
        build_type=attest.IMAGE_BUILD_TYPE,
        external={"source": {"uri": "", "kind": "git"}},
        internal={},
        dependencies=[{**described, **more}],
        builder_version={"reprobuild": "1"},
    )


def test_another_own_wheel_in_the_record_is_told():
    """Its layer may have the same bytes, and yet nobody made the wheel that the record names."""

    def notes(said):
        return _require_unchanged(attest.ImageRecord(attest.encode(said), "the record"), with_own_wheel("a"))

    assert notes(with_own_wheel("a")) == ()
    (note,) = notes(with_own_wheel("b"))
    assert note == f"own wheel: the record names sha256:{'b' * 64}, made again it is sha256:{'a' * 64}"
    for more in ({"uri": "https://own.example/evil.whl"}, {"annotations": {"role": "own-wheel", "more": "1"}}):
        with pytest.raises(RecordUnusable):
            notes(with_own_wheel("a", **more))


def test_a_record_of_another_image_is_none(built, project):
    layout = built()
    subject, statement = the_record(layout)
    statement["subject"][0]["digest"]["sha256"] = "a" * 64
    only(layout, layout.find(), statement, subject=subject)
    with pytest.raises(RecordUnusable, match="has no record"):
        checked(layout, project)


def test_of_several_records_one_that_fits_is_enough(built, project):
    """The same image from two clones has two; and anybody may push another beside an image."""
    layout = built()
    subject, good = the_record(layout)
    copies = [json.loads(json.dumps(good)) for _ in range(3)]
    _set(copies[0], (*DEFINITION, "externalParameters", "source", "uri"), "https://own.example/fork")
    _set(copies[1], (*DEFINITION, "resolvedDependencies", 1, "digest", "sha256"), "a" * 64)
    _set(copies[2], (*DEFINITION, "resolvedDependencies", 0, "digest"), {"gitCommit": "a" * 40})
    only(layout, layout.find(), *copies, good, {**good, "_type": "none"}, subject=subject)
    assert checked(layout, project).level is Level.IDENTICAL
    only(layout, layout.find(), copies[1], copies[2], {**good, "_type": "none"}, subject=subject)
    with pytest.raises((RecordUnusable, SourceUnusable)):
        checked(layout, project)


def test_a_source_without_the_commit_is_refused(built, project, git):
    layout = built()
    shutil.rmtree(project / ".git")
    git(project, "init", "--quiet")
    (project / "app.py").write_text("print('another')\n")
    commit(git, project)
    with pytest.raises(SourceUnusable):
        checked(layout, project)


def test_the_umask_is_the_users_again(built, project):
    before = os.umask(0o022)
    try:
        checked(built(), project)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_what_an_image_was_built_from_is_told(built, project):
    layout = built(build_args={"WHO": "you"})
    done = CliRunner().invoke(verify_image, [str(layout.folder), "--project", str(project), "--json"])
    said = json.loads(done.stdout)
    (platform,) = said["platforms"]
    assert (said["level"], said["index"]) == ("identical", None)
    assert platform["from"]["image"] == "app"
    assert platform["from"]["buildArguments"] == {"WHO": "you"}
    assert platform["from"]["source"]["kind"] == "git"
    done = CliRunner().invoke(verify_image, [str(layout.folder), "--project", str(project)])
    assert 'buildArguments {"WHO": "you"}' in done.stdout


# --- hostile places ------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["oci-archive:/nowhere.tar", "oci-archive:.", "oci:/nowhere", "/nowhere.tar"])
def test_what_is_not_there_is_told(project, image):
    with pytest.raises(BadInput):
        verify(image, project)


def test_links_in_an_archive_lead_nowhere(project, tmp_path, built):
    path = built(to="image.tar", archived=True)
    secret = tmp_path / "secret"
    secret.write_text("{}")
    changed = tmp_path / "changed.tar"
    with tarfile.open(path) as old, tarfile.open(changed, "w") as new:
        for member in old:
            if member.name == "index.json":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, str(secret), 0
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with pytest.raises(BadInput, match="leads outside"):
        verify(str(changed), project)


@pytest.mark.parametrize("text", ["[" * 3000, '{"manifests":' + "[" * 3000, "{}", "", "5", '{"manifests":[5]}'])
def test_an_index_that_is_none(project, built, text):
    layout = built()
    (layout.folder / "index.json").write_text(text)
    with pytest.raises(BadInput):
        checked(layout, project)


def test_pipes_are_not_waited_for(project, tmp_path, built):
    layout = built()
    path = layout.path_of(layout.find().digest)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadInput, match="is not a file"):
        checked(layout, project)
    (layout.folder / "index.json").unlink()
    os.mkfifo(layout.folder / "index.json")
    with pytest.raises(BadInput, match="is not a file"):
        checked(layout, project)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(BadInput, match="There is no archive"):
        verify(f"oci-archive:{tmp_path / 'pipe.tar'}", project)


def test_indexes_of_indexes_of_indexes_end(project, built):
    layout = built()
    top = layout.find()
    for _ in range(300):
        index = Index.make([replace(top, platform=AMD64, annotations={})])
        top = layout.put_document(index.descriptor.media_type, index.raw)
    layout.add(top, "latest")
    with pytest.raises(BadInput, match="more than 256"):
        checked(layout, project)


# --- two images by name --------------------------------------------------------------------------------


def test_which_image_of_an_index_is_compared(built):
    one = str(built(platforms=(AMD64, ARM64)).folder)
    other = str(built(to="other", platforms=(AMD64,)).folder)
    with pytest.raises(BadInput, match="has 2 images; it has linux/amd64, linux/arm64"):
        compare_named(one, other, "", ())
    assert compare_named(one, other, "linux/amd64", ()).level is Level.IDENTICAL
    with pytest.raises(BadInput, match="has no image for linux/arm64"):
        compare_named(one, other, "linux/arm64", ())


# --- the other engine ----------------------------------------------------------------------------------


@pytest.fixture
def other_engine(monkeypatch):
    """Something else that builds images, in the place of BuildKit: other bytes, and the mode that it is told."""

    def run(mode=0o644):
        def build_otherwise(definition, store, index, origin, *, engine, observer):
            (definition.folder / "app.py").chmod(0o100 | mode if mode & 0o100 else 0o644)
            choices = replace(definition.choices, compression=Compression.GZIP)
            with Others(origin, definition.folder, observer) as others:
                return build(replace(definition, choices=choices), store, index, origin, others.tree, observer=observer)

        monkeypatch.setattr("reprobuild.image.verify.find_engine", lambda *_: None)
        monkeypatch.setattr("reprobuild.image.verify.buildkit.build", build_otherwise)

    return run


def test_the_other_engine_is_asked_only_where_it_is_wanted(built, project, other_engine):
    layout = built()
    assert checked(layout, project).images[0].crossed is None
    other_engine()
    verified = verify(str(layout.folder), project, cross_engine=True)
    (image,) = verified.images
    assert image.crossed
    assert (image.crossed.level, verified.level) == ("identical", "identical")
    assert image.crossed.left == image.crossed.right != image.verdict.left
    other_engine(mode=0o755)
    verified = verify(str(layout.folder), project, cross_engine=True)
    (image,) = verified.images
    assert image.crossed
    assert (image.verdict.level, image.crossed.level, verified.level) == ("identical", "payload", "payload")
    assert [(each.path, each.field) for each in image.crossed.differences] == [(("/app/app.py",), "mode")]


def test_what_was_varied_for_the_wheel_alone_is_told_apart():
    lines = list(_varied(("path", "umask", "timezone", "clock"), "assembler"))
    assert lines == ["varied: path, umask; for the project's wheel also timezone, clock"]
    assert list(_varied(("path", "umask"), "buildkit")) == [
        "varied: path, umask",
        "RUN had nothing varied but the time that passed",
    ]


def test_the_command_tells_of_the_other_engine(built, project, other_engine):
    layout = built(platforms=(AMD64, ARM64))
    other_engine(mode=0o755)
    argv = [str(layout.folder), "--project", str(project), "--cross-engine"]
    said = CliRunner().invoke(verify_image, argv)
    assert said.exit_code == Level.PAYLOAD.exit_code
    assert said.output.count("/app/app.py\n    mode: 644 → 755") == 2
    assert said.output.count("by the other engine") == 2
    document = json.loads(CliRunner().invoke(verify_image, [*argv, "--json"]).stdout)
    assert [each["crossEngine"]["level"] for each in document["platforms"]] == ["payload", "payload"]
    assert (document["level"], document["platforms"][0]["level"]) == ("payload", "identical")
    other_engine()
    assert CliRunner().invoke(verify_image, argv).exit_code == 0
