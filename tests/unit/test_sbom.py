"""Bills of materials: their one spelling, what depends on what, licences, and the way into a wheel."""

import base64
import json
import struct
import subprocess
import sys
import zipfile
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.version import Version

from reprobuild import attest, bom, graph, index, pep770, sbom
from reprobuild.archive import NewMember, open_archive, replaced_zip, zipped
from reprobuild.bom import Document, Licences, Part, purl_of
from reprobuild.cli import app
from reprobuild.cli import sbom as cli
from reprobuild.digest import Digest, canonical_json
from reprobuild.errors import BadInput, BuildFailed, RecordUnusable, ToolMissing
from reprobuild.graph import Node
from reprobuild.image.store import add_record
from reprobuild.index import LockedFile
from reprobuild.oci.layout import Layout
from reprobuild.oci.model import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from reprobuild.wheelfile import read_metadata, read_wheel

ONE, TWO = Digest.of_bytes(b"1"), Digest.of_bytes(b"2")
LINUX = {"sys_platform": "linux", "python_version": "3.12", "python_full_version": "3.12.0"}
WINDOWS = {**LINUX, "sys_platform": "win32"}
EPOCH = 1_790_856_000
#: Of the document below: whoever changes the spelling changes everybody's digests, and says so in CHANGELOG.md.
GOLDEN = "sha256:99491508f074a6fc3ded3331d4deb6485f8d039d4cdbd29ffcd736ae7df54baf"


def part(name, version="1.0", **more):
    purl = purl_of(name, version)
    return Part(bom.text_of(purl), name, version, purl=purl, **more)


def sample():
    """One of everything."""
    files = (Part("file:a.py", "a.py", kind="file", digests=(ONE,)),)
    subject = Part("subject", "demo", "2", kind="application", parts=files, properties=(("reprobuild:for", "all"),))
    a = part("a", digests=(ONE,), licences=Licences("MIT OR Apache-2.0"))
    b = part("b", "1.0+cu12", files=(TWO, ONE), licences=Licences("", "mit"))
    c = part("c", licences=Licences("", "", ("License :: OSI Approved :: BSD License",)))
    edges = {"subject": frozenset([a.ref, b.ref]), a.ref: frozenset([b.ref]), b.ref: frozenset()}
    return Document(
        subject,
        "post-build",
        (a, b, c),
        edges,
        incomplete=frozenset([a.ref]),
        opaque=frozenset([c.ref]),
        unread=frozenset(["subject"]),
        makers=(Part("build:d", "d", "3", purl=purl_of("d", "3"), digests=(TWO,)),),
        named=False,
    )


def valid(raw):
    """The document, once CycloneDX's own schema has taken it."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(raw.decode()) is None
    return json.loads(raw)


# --- documents ---------------------------------------------------------------------------------------


def test_the_spelling_stays_as_it_is():
    assert str(Digest.of_bytes(bom.encode(sample()))) == GOLDEN


def test_a_document_is_valid_and_read_back_to_the_same_components():
    found = valid(bom.encode(sample()))
    again = Bom.from_json(found)  # type: ignore[attr-defined]
    assert again.serial_number.urn == found["serialNumber"]
    assert {each.purl.to_string() for each in again.components} == {
        "pkg:pypi/a@1.0",
        "pkg:pypi/b@1.0%2Bcu12",
        "pkg:pypi/c@1.0",
    }
    assert [each.name for each in again.metadata.component.components] == ["a.py"]
    depends = {each.ref.value: {to.value for to in each.dependencies_as_bom_refs()} for each in again.dependencies}
    assert depends == sample().edges
    hashes = {each.name: [hash_.content for hash_ in each.hashes] for each in again.components}
    assert hashes == {"a": [ONE.hex], "b": [], "c": []}
    (makers,) = found["formulation"]
    assert [each["name"] for each in makers["components"]] == ["d"]


def test_what_is_not_known_is_said():
    found = json.loads(bom.encode(sample()))
    said = {each["aggregate"]: each for each in found["compositions"]}
    assert said["complete"]["dependencies"] == ["pkg:pypi/b@1.0%2Bcu12", "subject"]
    assert said["incomplete"] == {
        "aggregate": "incomplete",
        "dependencies": ["pkg:pypi/a@1.0"],
        "assemblies": ["pkg:pypi/c@1.0"],
    }
    assert said["unknown"] == {
        "aggregate": "unknown",
        "dependencies": ["pkg:pypi/c@1.0"],
        "assemblies": ["subject"],
    }
    assert "pkg:pypi/c@1.0" not in {each["ref"] for each in found["dependencies"]}  # it isn't said to need nothing


def test_no_clock_and_no_chance():
    found = json.loads(bom.encode(sample()))
    assert "timestamp" not in found["metadata"]
    assert len({bom.encode(sample()) for _ in range(3)}) == 1
    other = Document(part("other"), "pre-build")
    assert json.loads(bom.encode(other))["serialNumber"] != found["serialNumber"]


def test_a_name_for_two_things_is_refused():
    twice = Document(part("s"), "build", (part("a", digests=(ONE,)), part("a", digests=(TWO,))))
    with pytest.raises(BadInput, match="named twice"):
        bom.encode(twice)


def test_one_newline_ends_it_and_no_other_is_in_it():
    raw = bom.encode(sample())
    assert raw.endswith(b"}\n")
    assert raw.count(b"\n") == 1


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (Licences("MIT"), [{"license": {"id": "MIT"}}]),
        (Licences("MIT AND (ISC OR BSD-3-Clause)"), [{"expression": "MIT AND (ISC OR BSD-3-Clause)"}]),
        (Licences("LicenseRef-Own"), [{"license": {"name": "LicenseRef-Own"}}]),
        (Licences("", "apache-2.0", ("License :: OSI Approved :: MIT License",)), [{"license": {"id": "Apache-2.0"}}]),
        (Licences("", "BSD", ("License :: OSI Approved :: BSD License",)), [{"license": {"name": "BSD License"}}]),
        (Licences("", "My own words"), [{"license": {"name": "My own words"}}]),
        (Licences("", "Copyright\nall of it", ()), []),
        (Licences("", "x" * 201, ("License :: OSI Approved",)), []),
        (Licences("", "", ("License :: Public Domain", "License :: OSI Approved :: MIT License")),
         [{"license": {"name": "MIT License"}}, {"license": {"name": "Public Domain"}}]),
        (Licences(), []),
    ],
)  # fmt: skip
def test_licences_have_identifiers_only_where_they_are_beyond_doubt(said, wanted):
    (found,) = valid(bom.encode(Document(part("s"), "build", (part("a", licences=said),))))["components"]
    for each in wanted:
        (inner,) = [value for value in each.values() if isinstance(value, dict)] or [each]
        inner["acknowledgement"] = "declared"
    assert found.get("licenses", []) == wanted


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cyclonedx.output", None)
    with pytest.raises(ToolMissing) as caught:
        bom.encode(sample())
    assert "reprobuild[sbom]" in caught.value.remedy


def test_the_command_line_says_so_too(tmp_path):
    script = "import sys; sys.modules['cyclonedx.output'] = None; from reprobuild.cli import main; main()"
    command = [sys.executable, "-c", script, "sbom", "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "reprobuild[sbom]" in done.stderr


# --- the graph ---------------------------------------------------------------------------------------


def node(name, requires=(), version="1.0", **more):
    return Node(f"{name}@{version}", name, Version(version), requires, **more)


def test_edges_are_those_of_the_requirements_that_apply():
    nodes = [node("a", ("b>=1", 'c; sys_platform == "win32"', 'd; extra == "x"')), node("b"), node("c"), node("d")]
    assert graph.resolve(nodes, [LINUX]).edges["a@1.0"] == {"b@1.0"}
    assert graph.resolve(nodes, [LINUX, WINDOWS]).edges["a@1.0"] == {"b@1.0", "c@1.0"}


def test_an_extra_counts_where_somebody_asks_for_it():
    asking = [node("a", ("b[X_y]",)), node("b", ('c; extra == "x-y"', 'd; extra == "other"')), node("c"), node("d")]
    found = graph.resolve(asking, [LINUX])
    assert found.edges == {"a@1.0": {"b@1.0"}, "b@1.0": {"c@1.0"}, "c@1.0": frozenset(), "d@1.0": frozenset()}
    assert not found.incomplete


def test_an_extra_that_asks_for_others_of_its_own():
    nodes = [node("a", ("b[all]",)), node("b", ('b[one]; extra == "all"', 'c; extra == "one"')), node("c")]
    assert graph.resolve(nodes, [LINUX]).edges["b@1.0"] == {"c@1.0"}


def test_what_nobody_can_read_has_no_edges_and_is_no_leaf():
    nodes = [node("a", None), node("b", ("not a requirement !",)), node("c", ("x" * (1 << 20),))]
    assert graph.resolve(nodes, [LINUX]).edges == {}


def test_what_is_asked_for_and_not_there_makes_it_incomplete():
    nodes = [node("a", ("b>=2", "gone")), node("b"), node("c", ('gone; sys_platform == "win32"',))]
    found = graph.resolve(nodes, [LINUX])
    assert found.edges["a@1.0"] == frozenset()
    assert found.incomplete == {"a@1.0"}


def test_of_two_versions_the_one_that_is_meant():
    nodes = [node("a", ("b<2",)), node("b"), node("b", version="2.0")]
    assert graph.resolve(nodes, [LINUX]).edges["a@1.0"] == {"b@1.0"}


def test_a_version_before_its_release_is_one_that_may_be_meant():
    found = graph.resolve([node("a", ["b>=1"]), node("b", version="2.0rc1")], [LINUX])
    assert found.edges["a@1.0"] == {"b@2.0rc1"}
    assert not found.incomplete


def test_a_subject_of_which_nothing_is_known_is_unknown():
    assert Document(part("a"), "build").unknown == {"pkg:pypi/a@1.0"}


def test_circles_come_to_an_end():
    nodes = [node("a", ("b[x]",)), node("b", ('a[y]; extra == "x"',)), node("c", ("a",))]
    assert graph.resolve(nodes, [LINUX]).edges == {"a@1.0": {"b@1.0"}, "b@1.0": {"a@1.0"}, "c@1.0": {"a@1.0"}}


# --- into a wheel ------------------------------------------------------------------------------------

BUILT_WITH = (LockedFile("hatchling", "1.27.0", "hatchling-1.27.0-py3-none-any.whl", ONE),)


def test_a_wheel_gets_its_document_and_is_sound(make_wheel, tmp_path):
    path = make_wheel(tmp_path, metadata="License-Expression: MIT\n")
    before = {name: zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()}
    pep770.embed(path, BUILT_WITH, EPOCH)
    read_wheel(path)
    archive = zipfile.ZipFile(path)
    assert archive.testzip() is None
    inside = "demo-1.0.dist-info/sboms/demo.cdx.json"
    assert [each for each in archive.namelist() if each not in before] == [inside]
    assert archive.namelist()[-1] == "demo-1.0.dist-info/RECORD"
    assert archive.getinfo(inside).date_time == (2026, 10, 1, 12, 0, 0)
    assert archive.getinfo(inside).external_attr >> 16 == 0o100644
    record = archive.read("demo-1.0.dist-info/RECORD").decode().splitlines()
    assert record[-1] == "demo-1.0.dist-info/RECORD,,"
    assert record[-2].startswith(f"{inside},sha256=")
    found = valid(archive.read(inside))
    assert found["formulation"][0]["components"][0]["hashes"] == [{"alg": "SHA-256", "content": ONE.hex}]
    assert "version" not in found["metadata"]["tools"]["components"][0]
    assert "hashes" not in found["metadata"]["component"]  # nothing can hold its own digest


def test_twice_the_same_and_never_twice_inside(make_wheel, tmp_path):
    paths = [make_wheel(tmp_path / folder) for folder in ("one", "two")]
    for path in paths:
        pep770.embed(path, BUILT_WITH, EPOCH)
    made = [path.read_bytes() for path in paths]
    assert made[0] == made[1]
    path = paths[1]
    with pytest.raises(BuildFailed, match=r"sboms/demo\.cdx\.json into the wheel itself"):
        pep770.embed(path, BUILT_WITH, EPOCH)
    assert path.read_bytes() == made[1]


def test_a_signed_record_is_left_alone(make_wheel, tmp_path):
    path = make_wheel(tmp_path, {"demo.py": b"", "@info/RECORD.jws": b"{}"})
    before = path.read_bytes()
    with pytest.raises(BuildFailed, match=r"RECORD\.jws"):
        pep770.embed(path, (), EPOCH)
    assert path.read_bytes() == before


def test_a_record_keeps_its_line_endings():
    record = b"a.py,sha256=x,1\r\nd/RECORD,,\r\n"
    assert pep770._with_row(record, "n,m", b"").splitlines(keepends=True)[1].endswith(b",0\r\n")
    assert b'"n,m"' in pep770._with_row(record, "n,m", b"")
    assert pep770._with_row(b"d/RECORD,,", "n", b"").endswith(b",0\nd/RECORD,,\n")


VENDORED = {
    "demo/_vendor/x-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: X\nVersion: 1.2\nLicense: MIT\n",
    "demo/_vendor/x-1.2.dist-info/RECORD": b"x.py,,\nx-1.2.dist-info/METADATA,,\n",
}


def test_bundled_distributions_and_libraries_are_components(make_wheel, tmp_path):
    members = {**VENDORED, "demo/_vendor/x.py": b"", "demo.libs/libgomp-a34b.so.1.0": b"elf"}
    found = pep770.bundled(make_wheel(tmp_path, members))
    assert [(each.name, each.version, each.kind) for each in found] == [
        ("x", "1.2", "library"),
        ("demo.libs/libgomp-a34b.so.1.0", "", "file"),
    ]
    assert found[1].digests == (Digest.of_bytes(b"elf"),)
    document = pep770.document_of(make_wheel(tmp_path / "again", members), ())
    assert document.edges[document.subject.ref] == {each.ref for each in found}
    assert document.incomplete == {document.subject.ref}


def test_data_that_looks_like_a_distribution_is_none(make_wheel, tmp_path):
    assert pep770.bundled(make_wheel(tmp_path, dict(VENDORED))) == ()  # nothing of it is there
    broken = {
        **VENDORED,
        "demo/_vendor/x.py": b"",
        "demo/_vendor/x-1.2.dist-info/METADATA": b"Name: ../x\nVersion: 1\n",
    }
    assert pep770.bundled(make_wheel(tmp_path / "b", broken)) == ()


def test_metadata_alone(make_wheel, tmp_path):
    metadata = "License: MIT\nClassifier: License :: OSI Approved :: MIT License\nClassifier: Typing :: Typed\n"
    said = pep770.licences_in(read_metadata(make_wheel(tmp_path, metadata=metadata)))
    assert said == Licences("", "MIT", ("License :: OSI Approved :: MIT License",))
    assert read_metadata(make_wheel(tmp_path, metadata="License: Café\n"))["License"] == "Café"
    (tmp_path / "x.whl").write_bytes(b"PK")
    with pytest.raises(BadInput):
        read_metadata(tmp_path / "x.whl")


# --- zips with other members -------------------------------------------------------------------------


def zip_of(*members, comment=b""):
    raw = BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6)), content, zipfile.ZIP_DEFLATED)
        archive.comment = comment
    return raw


NEW = NewMember("new/ö.txt", b"new", 0o100644, (2026, 5, 6, 7, 8, 9))


def test_a_member_more_and_another_changed():
    raw = zip_of(("a", b"a" * 999), ("b", b"b" * 999), ("c", b"c" * 999), comment=b"said")
    rewritten = BytesIO(b"".join(replaced_zip(raw, "z", {"b": b"other"}, before="b", new=NEW)))
    made = zipfile.ZipFile(rewritten)
    assert made.testzip() is None
    assert made.comment == b"said"
    assert [(name, made.read(name)) for name in made.namelist()] == [
        ("a", b"a" * 999),
        ("new/ö.txt", b"new"),
        ("b", b"other"),
        ("c", b"c" * 999),
    ]
    assert made.getinfo("b").date_time == (2026, 1, 2, 3, 4, 6)
    assert made.getinfo("new/ö.txt").date_time == (2026, 5, 6, 7, 8, 8)
    with open_archive(rewritten, name="made") as archive:  # our own reader agrees
        assert [each.mtime for each in archive.entries if each.name == "c"] == ["2026-01-02 03:04:06"]


def test_something_in_front_of_the_first_member_is_refused():
    raw = BytesIO(b"#!/bin/sh\n" + zip_of(("a", b""), ("b", b"")).getvalue())
    with pytest.raises(BadInput, match="in front"):
        b"".join(replaced_zip(raw, "z", {}, before="b", new=NEW))


def test_a_zip_with_64_bits_of_its_own_stays_one():
    raw = BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(b"content")
    made = zipfile.ZipFile(BytesIO(b"".join(replaced_zip(raw, "z", {"a": b"x"}, before="a", new=NEW))))
    assert [made.read(name) for name in made.namelist()] == [b"new", b"x", b"content"]


def test_offsets_beyond_32_bits_get_64():
    raw = zip_of(("a", b"a"))
    with open_archive(raw, name="z") as archive:
        (entry,) = archive.entries
        record = zipped._moved(raw, entry, 1 << 33)
    assert struct.unpack_from("<L", record, 42) == (0xFFFFFFFF,)
    extra = record[46 + 1 :]
    assert struct.unpack("<HHQ", extra) == (1, 8, 1 << 33)
    assert zipped._moved(raw, entry, 0) == zipped._moved(raw, entry, entry.offset)
    end = zipped._end(70_000, 10, 1 << 33)
    assert end.startswith(b"PK\x06\x06")
    assert struct.unpack_from("<4Q", end, 24) == (70_000, 70_000, 10, 1 << 33)


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "-", "--json"], "leave out --json"),
        (["--platform", "linux/amd64"], "is not for locks"),
        (["--files"], "is not for locks"),
        (["requirements.txt", "--lock", "x"], "leave out --lock"),
    ],
)
def test_options_that_say_nothing_are_refused(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("")
    done = CliRunner().invoke(app.cli, ["sbom", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_an_empty_lock_to_standard_output(tmp_path):
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'Demo.X'\nversion = '1'\n")
    done = CliRunner().invoke(app.cli, ["sbom", "--project", str(tmp_path), "-o", "-", "-q"])
    assert done.exit_code == 0, done.output
    found = valid(done.stdout.encode())
    assert found["metadata"]["component"]["purl"] == "pkg:pypi/demo-x@1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pyproject.toml", "requirements.txt"]


def test_a_lock_that_is_not_there_is_named(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.reprobuild.environments.dev]\n")
    done = CliRunner().invoke(app.cli, ["sbom", "--project", str(tmp_path), "--lock", "devv"])
    assert isinstance(done.exception, BadInput)
    assert "dev" in done.exception.remedy


# --- images ------------------------------------------------------------------------------------------


def put_image(layout, architecture):
    layer = layout.put_document(OCI_LAYER, architecture.encode())
    config = {"os": "linux", "architecture": architecture, "rootfs": {"diff_ids": []}}
    manifest = Manifest.make(layout.put_document(OCI_CONFIG, canonical_json(config)), [layer])
    kept = layout.put_document(OCI_MANIFEST, manifest.raw)
    return Descriptor(kept.media_type, kept.digest, kept.size, Platform("linux", architecture))


def record_of(image, *dependencies):
    return attest.provenance(
        attest.descriptor({"sha256": image.digest.hex}, name="app"),
        build_type=attest.IMAGE_BUILD_TYPE,
        external={},
        internal={"environments": []},
        dependencies=dependencies,
        builder_version={"reprobuild": "0"},
    )


def dependency(role, name, digest, uri=""):
    return attest.descriptor({"sha256": digest.hex}, name=name, uri=uri, annotations={"role": role})


BASE = dependency("base", "registry.example.org/base/debian:12", ONE)
PACKAGE = dependency("apt-package", "z.deb", TWO, "pkg:deb/debian/zlib1g@1%3A1.2%2Bdfsg?arch=amd64")


@pytest.fixture
def images(tmp_path):
    """A layout with an image for two platforms, each with its record."""
    layout = Layout(tmp_path / "layout", create=True)
    found = [put_image(layout, each) for each in ("amd64", "arm64")]
    layout.add(layout.put_document(OCI_INDEX, Index.make(found).raw))
    for each in found:
        add_record(layout, record_of(each, BASE, PACKAGE), each)
    return layout, found


def run(*arguments):
    return CliRunner().invoke(app.cli, ["sbom", "-q", *map(str, arguments)])


def an_sdist(make_sdist, folder, *headers, metadata="2.4"):
    lines = [f"Metadata-Version: {metadata}", "Name: demo", "Version: 1.0", *headers]
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / "PKG-INFO").write_text("".join(f"{line}\n" for line in lines))
    (folder / "demo" / "demo.py").write_text("x = 1\n")
    return make_sdist(folder / "demo", folder)


def test_an_sdist_is_what_it_holds_and_says_that_it_requires(make_sdist, tmp_path):
    path = an_sdist(make_sdist, tmp_path, "Requires-Dist: iniconfig>=2", "License-Expression: MIT")
    assert run(path, "--files").exit_code == 0
    found = valid((tmp_path / "demo-1.0.tar.gz.cdx.json").read_bytes())
    subject = found["metadata"]["component"]
    assert (subject["bom-ref"], subject["purl"]) == ("sdist:pkg:pypi/demo@1.0", "pkg:pypi/demo@1.0")
    assert subject["hashes"] == [{"alg": "SHA-256", "content": Digest.of_file(path).hex}]
    assert [each["name"] for each in subject["components"]] == ["demo-1.0/PKG-INFO", "demo-1.0/demo.py"]
    assert subject["components"][1]["hashes"] == [{"alg": "SHA-256", "content": Digest.of_bytes(b"x = 1\n").hex}]
    assert found["metadata"]["lifecycles"] == [{"phase": "pre-build"}]
    again = an_sdist(make_sdist, tmp_path / "again", "Requires-Dist: iniconfig>=2", "License-Expression: MIT")
    assert run(again, "--files").exit_code == 0
    made = [(folder / "demo-1.0.tar.gz.cdx.json").read_bytes() for folder in (tmp_path, tmp_path / "again")]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("header", "metadata", "known"),
    [
        ("Requires-Dist: iniconfig>=2", "2.2", True),
        ("Dynamic: Requires-Dist", "2.4", False),  # the build says it
        ("Dynamic: Version", "2.4", True),
        ("Requires-Dist: iniconfig>=2", "2.1", False),  # before PEP 643 nobody could tell
    ],
)
def test_what_the_build_of_an_sdist_says_is_unknown(make_sdist, tmp_path, header, metadata, known):
    path = an_sdist(make_sdist, tmp_path, header, metadata=metadata)
    document = sbom.of_file(path, sbom.Reader(index.Index(tmp_path), offline=True), root=tmp_path)
    assert (document.subject.ref in document.edges) is known


def test_an_index_gets_a_document_for_each_image_and_twice_is_once(images):
    layout, found = images
    assert run(layout.folder).exit_code == 0
    referrers = [
        each for image in found for each in layout.referrers(image.digest) if each.artifact_type == bom.MEDIA_TYPE
    ]
    assert len(referrers) == 2
    before = (layout.folder / "index.json").read_bytes()
    assert run(layout.folder).exit_code == 0
    assert (layout.folder / "index.json").read_bytes() == before
    said = valid(layout.read(referrers[0].layers[0]))
    assert {each["purl"] for each in said["components"]} == {
        f"pkg:oci/debian@sha256:{ONE.hex}?repository_url=registry.example.org/base/debian&tag=12",
        "pkg:deb/debian/zlib1g@1:1.2%2Bdfsg?arch=amd64",
    }


def test_one_file_holds_one_document(images, tmp_path):
    layout, found = images
    done = run(layout.folder, "-o", tmp_path / "both.json")
    assert isinstance(done.exception, BadInput)
    assert "--platform" in done.exception.remedy
    assert not (tmp_path / "both.json").exists()
    assert run(layout.folder, "-o", tmp_path / "one.json", "--platform", "linux/arm64").exit_code == 0
    said = valid((tmp_path / "one.json").read_bytes())
    assert said["metadata"]["component"]["version"] == str(found[1].digest)
    assert isinstance(run(layout.folder, "--platform", "linux/s390x").exception, BadInput)


@pytest.mark.parametrize(
    "other",
    [
        (BASE,),
        (BASE, {**PACKAGE, "digest": {"sha256": "0" * 64}}),
        (BASE, PACKAGE, dependency("wheel", "x-1-py3-none-any.whl", ONE)),
    ],
)
def test_records_that_disagree_are_not_believed(images, other):
    layout, found = images
    add_record(layout, record_of(found[0], *other), found[0])
    assert isinstance(run(layout.folder).exception, RecordUnusable)
    assert not [each for each in layout.artifacts() if each.artifact_type == bom.MEDIA_TYPE]


def test_records_of_two_commits_that_agree_are(images):
    layout, found = images
    add_record(layout, record_of(found[0], dependency("dockerfile", "Dockerfile", TWO), BASE, PACKAGE), found[0])
    assert run(layout.folder).exit_code == 0


@pytest.mark.parametrize(
    "wrong",
    [
        dependency("wheel", "../x.whl", ONE, "pkg:pypi/x@1"),
        dependency("apt-package", "z.deb", TWO, "no purl"),
        dependency("own-wheel", "x-1-py3-none-any.whl\n", ONE),
    ],
)
def test_what_is_malformed_in_a_record_is_named(images, wrong):
    layout, _ = images
    image = put_image(layout, "riscv64")
    layout.add(image, "other")
    add_record(layout, record_of(image, wrong), image)
    assert isinstance(run(f"oci:{layout.folder}:other").exception, RecordUnusable)


# --- what wheels of an index say ---------------------------------------------------------------------


class Offered:
    """An index that has some wheels: a pin's is the one of its release."""

    def __init__(self, *paths):
        self._wheels = {path.name: path for path in paths}

    def wheel_for(self, pin, _):
        found = [name for name in self._wheels if name.startswith(f"{pin.name}-{pin.version}-")]
        return LockedFile(pin.name, str(pin.version), found[0], ONE) if found else None

    def kept(self, file):
        return self._wheels[file.filename]


def locked(*lines):
    return "".join(f"{line} {' '.join(f'--hash={each}' for each in (ONE,))}\n" for line in lines)


@pytest.fixture
def lock_of(tmp_path):
    """The document of a lock in a project, with the wheels that the index has."""

    def make(pyproject, text, *wheels, name="requirements.txt"):
        (tmp_path / "pyproject.toml").write_text(pyproject)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return sbom.of_lock(path, tmp_path, sbom.Reader(Offered(*wheels)))  # type: ignore[arg-type]

    return make


DEMO = '[project]\nname = "demo"\nversion = "1"\n'


def properties(document, name):
    (found,) = (each for each in document.parts if each.name == name)
    return sorted(value for key, value in found.properties if key == "reprobuild:marker")


def test_a_release_that_is_pinned_for_several_platforms_is_one_component(lock_of):
    linux, mac = "sys_platform == 'linux'", "sys_platform == 'darwin'"
    text = locked(f"a==1 ; {linux}", f"a==1 ; {mac}", f"b==1 ; {linux}", "b==1", "a==2", f"c==1 ; {mac}")
    document = lock_of(DEMO, text)
    assert [(each.name, each.version) for each in document.parts].count(("a", "1")) == 1
    assert len(document.parts) == 4
    told = [each for each in document.parts if each.ref == "pkg:pypi/a@1"]
    assert sorted(value for _, value in told[0].properties) == ['sys_platform == "darwin"', 'sys_platform == "linux"']
    assert properties(document, "b") == []  # it is everywhere, whatever the other line says
    assert properties(document, "c") == ['sys_platform == "darwin"']


def test_of_several_files_no_digest_is_the_releases(lock_of):
    document = lock_of(DEMO, f"a==1 --hash={ONE} --hash={TWO}\nb==1 --hash={ONE}\n")
    a, b = sorted(document.parts, key=lambda each: each.name)
    assert (a.digests, set(a.files)) == ((), {ONE, TWO})
    assert (b.digests, b.files) == ((ONE,), ())


@pytest.mark.parametrize(
    ("requires", "words"),
    [
        (">=3.12.4,<3.14", "every platform, Python 3.12, 3.13"),
        (">=3.12,<3.13", "every platform, Python 3.12"),
        ("<=3.11.0", "3.11"),  # 3.11.99 isn't admitted, and 3.11 is
    ],
)
def test_the_minors_that_a_project_admits(lock_of, requires, words):
    document = lock_of(f'{DEMO}requires-python = "{requires}"\n', locked("a==1"))
    assert dict(document.subject.properties)["reprobuild:for"].endswith(words)


GROUPS = """
[dependency-groups]
dev = ["b", {include-group = "More.x"}]
more-x = ["c"]
[tool.reprobuild.environments.dev]
groups = ["dev"]
extras = ["all"]
"""
EXTRAS = 'dependencies = ["a"]\noptional-dependencies = {all = ["Demo[one,all]"], one = ["d"], other = ["e"]}\n'
EVERY = locked(*(f"{name}==1" for name in "abcde"))


def test_a_lock_is_for_what_its_selection_asks_for(lock_of):
    document = lock_of(DEMO + EXTRAS + GROUPS, EVERY, name="environments/dev/requirements.txt")
    assert document.edges[document.subject.ref] == {f"pkg:pypi/{name}@1" for name in "abcd"}
    own = lock_of(DEMO + EXTRAS + GROUPS, EVERY)
    assert own.edges[own.subject.ref] == {"pkg:pypi/a@1"}


def test_what_a_backend_computes_is_unknown(lock_of):
    dynamic = DEMO + 'dynamic = ["optional-dependencies"]\ndependencies = ["a"]\n'
    extras = '[tool.reprobuild.environments.dev]\nextras = ["all"]\n'
    document = lock_of(dynamic + extras, EVERY, name="environments/dev/requirements.txt")
    assert document.subject.ref in document.unknown
    assert lock_of(dynamic, EVERY).edges["project"] == {"pkg:pypi/a@1"}
    assert "project" in lock_of(DEMO + 'dynamic = ["dependencies"]\n', EVERY).unknown


def test_a_group_that_includes_itself_is_named(lock_of):
    groups = GROUPS.replace('["c"]', '[{include-group = "dev"}]')
    with pytest.raises(BadInput, match="includes itself"):
        lock_of(DEMO + EXTRAS + groups, EVERY, name="environments/dev/requirements.txt")


def test_a_backend_may_ask_for_more_than_the_build_lock_says(lock_of):
    text = '[build-system]\nrequires = ["a"]\nbuild-backend = "a"\n' + DEMO
    document = lock_of(text, locked("a==1"), name="constraints.txt")
    assert document.edges["project"] == {"pkg:pypi/a@1"}
    assert document.incomplete == {"project"}
    assert lock_of(text, "").incomplete == frozenset()


def test_a_wheel_with_a_lock_has_edges_to_both_what_it_bundles_and_what_it_runs_with(make_wheel, tmp_path):
    members = {**VENDORED, "demo/_vendor/x.py": b""}
    path = make_wheel(tmp_path, members, metadata="Requires-Dist: a\nRequires-Python: >=3.11\n")
    (tmp_path / "pyproject.toml").write_text(
        DEMO + '[tool.reprobuild.environments.dev]\npython = "3.12"\nplatform = "x86_64-manylinux_2_28"\n'
    )
    (tmp_path / "requirements.txt").write_text(locked("a==1"))
    (tmp_path / "environments" / "dev").mkdir(parents=True)
    narrow = tmp_path / "environments" / "dev" / "requirements.txt"
    narrow.write_text(locked("a==1", "b==1 ; sys_platform == 'win32'"))
    reader = sbom.Reader(Offered(make_wheel(tmp_path / "a", name="a", version="1", metadata="License: MIT\n")))  # type: ignore[arg-type]
    document = sbom.of_file(path, reader, lock=narrow, root=tmp_path)
    names = {each.name for each in document.parts}
    assert names == {"x", "a"}  # b is not of this environment
    assert document.edges[document.subject.ref] == {each.ref for each in document.parts}
    assert dict(document.subject.properties)["reprobuild:for"] == "Python 3.12 on x86_64-manylinux_2_28"
    wide = sbom.of_file(path, reader, lock=tmp_path / "requirements.txt", root=tmp_path)
    assert dict(wide.subject.properties)["reprobuild:for"].startswith("every platform")
    (a,) = (each for each in wide.parts if each.name == "a")
    assert a.licences == Licences("", "MIT")


def test_a_name_for_two_things_is_found_wherever_they_are():
    inner = (part("s"), Part("file:a", "a", parts=(part("b"),)))
    for twice in (
        Document(part("s", parts=(part("s"),)), "build"),
        Document(part("s"), "build", (part("a", parts=inner[:1]),)),
        Document(part("s"), "build", (part("b"), Part("x", "x", parts=inner[1:]))),
        Document(part("s"), "build", makers=(part("s"),)),
    ):
        with pytest.raises(BadInput, match="named twice"):
            bom.encode(twice)


def test_requirements_that_are_too_long_together_are_not_read():
    many = tuple(f"b; extra == '{number:0>990}'" for number in range(600))
    found = graph.resolve([node("a", many), node("b")], [LINUX])
    assert "a@1.0" not in found.edges
    assert graph.resolve([node("a", many[:9]), node("b")], [LINUX]).edges["a@1.0"] == frozenset()


def test_extras_of_ones_own_are_wanted_under_any_spelling():
    nodes = [node("a", ('b; extra == "x-y"',), extras=frozenset(["X_y"])), node("b")]
    assert graph.resolve(nodes, [LINUX]).edges["a@1.0"] == {"b@1.0"}


def test_a_marker_that_has_no_meaning_asks_for_nothing():
    nodes = [node("a", ('b; python_version > "x" and os_name in "y"', 'a[z]; platform_release < "q"')), node("b")]
    assert graph.resolve(nodes, [{}]).edges["a@1.0"] == frozenset()


def test_a_wheel_bundles_only_so_much(make_wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(pep770, "_MOST_BUNDLED", 2)
    libraries = {f"demo.libs/lib{number}.so": b"" for number in range(3)}
    with pytest.raises(BadInput, match="bundles more than 2"):
        pep770.bundled(make_wheel(tmp_path, libraries))
    libraries.popitem()
    assert len(pep770.bundled(make_wheel(tmp_path / "two", libraries))) == 2


@pytest.mark.parametrize("name", ["METADATA", "RECORD"])
def test_bundled_metadata_that_is_too_large_is_not_read(make_wheel, tmp_path, monkeypatch, name):
    monkeypatch.setattr(pep770, "TEXT_LIMIT", 200)
    large = {key: value + b"\n" * (200 if key.endswith(name) else 0) for key, value in VENDORED.items()}
    members = {**large, "demo/_vendor/x.py": b""}
    assert pep770.bundled(make_wheel(tmp_path, members)) == ()
    assert len(pep770.bundled(make_wheel(tmp_path / "b", {**VENDORED, "demo/_vendor/x.py": b""}))) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("RECORD", b'x.py,,\n"\r"\rx.py,\0\n' + b"a" * (1 << 17)),
        ("METADATA", b"Name: _x\nVersion: 1\n"),
        ("METADATA", b"Name: x\nVersion: one\n"),
    ],
)
def test_bundled_metadata_that_is_none(make_wheel, tmp_path, name, content):
    members = {**VENDORED, f"demo/_vendor/x-1.2.dist-info/{name}": content, "demo/_vendor/x.py": b""}
    assert pep770.bundled(make_wheel(tmp_path, members)) == ()


def test_a_digest_of_record_has_no_padding():
    for content in (b"", b"1", b"2"):
        digest = Digest.of_bytes(content)
        spelled = base64.urlsafe_b64encode(bytes.fromhex(digest.hex)).rstrip(b"=").decode()
        assert pep770.from_record("sha256", spelled) == digest


def test_a_record_with_empty_lines_at_its_end_gets_its_row_before_its_own():
    assert pep770._with_row(b"a,,\nd/RECORD,,\n\n\n", "n", b"").splitlines()[-2:][0].startswith(b"n,sha256=")


def test_wheels_of_one_release_for_two_interpreters_are_two_components(images, tmp_path):
    layout, _ = images
    image = put_image(layout, "riscv64")
    layout.add(image, "wheels")
    wheels = [dependency("wheel", f"x-1-cp31{minor}-none-any.whl", digest) for minor, digest in ((2, ONE), (3, TWO))]
    own = dependency("own-wheel", "app-1-py3-none-any.whl", TWO)
    add_record(layout, record_of(image, *wheels, own), image)
    assert run(f"oci:{layout.folder}:wheels", "--offline", "-o", tmp_path / "w.json").exit_code == 0
    found = valid((tmp_path / "w.json").read_bytes())["components"]
    assert sorted((each["bom-ref"], each["type"]) for each in found) == [
        ("pkg:pypi/app@1", "application"),
        ("pkg:pypi/x@1#x-1-cp312-none-any.whl", "library"),
        ("pkg:pypi/x@1#x-1-cp313-none-any.whl", "library"),
    ]


def test_the_document_goes_beside_the_wheels_own_metadata(make_wheel, tmp_path):
    """What it bundles has metadata too, and comes first in the archive."""
    path = make_wheel(tmp_path, {**VENDORED, "demo/_vendor/x.py": b""})
    pep770.embed(path, BUILT_WITH, EPOCH)
    read_wheel(path)
    added = [name for name in zipfile.ZipFile(path).namelist() if "/sboms/" in name]
    assert added == ["demo-1.0.dist-info/sboms/demo.cdx.json"]


@pytest.mark.parametrize(
    ("components", "unknown", "says"),
    [
        (1, 0, "x: 1 component"),
        (4, 1, "x: 4 components; what 1 of them needs isn't known"),
        (4, 2, "x: 4 components; what 2 of them need isn't known"),
    ],
)
def test_what_came_out_is_told_in_proper_numbers(capsys, components, unknown, says):
    document = SimpleNamespace(parts=range(components), unknown=range(unknown))
    made: Any = SimpleNamespace(
        document=document, artifact=SimpleNamespace(name="x"), raw=b"", place="y", attested=None
    )
    cli._tell([made])
    assert capsys.readouterr().out.splitlines()[0] == says
