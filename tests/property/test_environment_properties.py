import base64
import csv
import hashlib
import io
import posixpath
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.image.environment import Environment, InstalledWheel
from reprobuild.image.installed import InstalledFile, install, nodes
from reprobuild.image.listing import Listing
from reprobuild.image.plan import plan
from reprobuild.image.target import Target
from reprobuild.index import LockedFile
from reprobuild.oci.layer import packed_size
from reprobuild.oci.tree import Text
from reprobuild.wheelfile import read_wheel

TARGET = Target("3.12", "/usr/bin/python3.12", "x86_64-manylinux_2_28")
SITE = "lib/python3.12/site-packages"
#: Names that a zip, RECORD's CSV and a file system each have their own trouble with.
PARTS = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.builds("/".join, st.lists(PARTS, min_size=1, max_size=3))
FOLDERS = st.sampled_from(["", "@data/data/", "@data/scripts/", "@data/headers/", "@data/platlib/", "@info/"])
MEMBERS = st.dictionaries(st.builds("{}{}".format, FOLDERS, NAMES), st.binary(max_size=30), max_size=6)
TEXTS = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            ["[console_scripts]", "[gui_scripts]", "[DEFAULT]", "[]", "a = b:c", "a=b:c.d [x]", " more", "= x:y", "a",
             "\u2028", "%(a)s = b:c", "..=a:b", "\0=a:b", "#", "a:b=c:d", ""]
        ),
        max_size=6,
    ).map(lambda lines: "\n".join(lines).encode()),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(members=MEMBERS, text=TEXTS)
def test_a_wheel_is_installed_as_record_says_or_refused(make_wheel, members, text):
    with tempfile.TemporaryDirectory() as folder, suppress(BadInput):
        files = install(read_wheel(make_wheel(Path(folder), {**members, "@info/entry_points.txt": text})), TARGET)
        record = b"".join(files[f"{SITE}/demo-1.0.dist-info/RECORD"].content.chunks()).decode()
        rows = list(csv.reader(io.StringIO(record, newline=""), strict=True))
        assert rows == sorted(rows)
        there = {posixpath.normpath(f"{SITE}/{path}"): (hashed, size) for path, hashed, size in rows}
        assert there.keys() == files.keys()
        assert len(rows) == len(files)
        assert there.pop(f"{SITE}/demo-1.0.dist-info/RECORD") == ("", "")
        for path, said in there.items():
            data = b"".join(files[path].content.chunks())
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert said == (f"sha256={digest}", str(len(data)))
        found = [node.path for node in nodes(files, "/opt/venv")]
        assert found == sorted(set(found))
        assert all(not {"", ".", ".."} & set(path.split("/")) for path in found)


def wheel_of(name, sizes):
    # Names for which a tar needs a record of their own.
    contents = {
        f"lib/{name}/{'n' * 99}{number}.py": InstalledFile(Text(b"x" * size), executable=False, hash="")
        for number, size in enumerate(sizes)
    }
    contents["lib/same.py"] = InstalledFile(Text(b"of all wheels"), executable=False, hash="")
    file = LockedFile(name, "1.0", f"{name}-1.0-py3-none-any.whl", Digest.of_bytes(name.encode()))
    found = nodes(contents, TARGET.prefix)
    files = {path: (each.executable, each.content.size, each.hash) for path, each in contents.items()}
    listing = Listing(name, "1.0", "", (), files, frozenset(), packed_size(found))
    return InstalledWheel(file, Path(file.filename), listing, lambda: found)


WHEELS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4), st.lists(st.integers(0, 3000), min_size=1, max_size=4), max_size=30
).map(lambda sizes: [wheel_of(name, sizes[name]) for name in sorted(sizes)])


def environment_of(wheels):
    return Environment(TARGET, (), tuple(wheels), ())


@settings(max_examples=200, deadline=None)
@given(WHEELS, st.integers(40, 200))
def test_a_small_wheel_more_moves_no_other(wheels, heavy):
    """But those of its own layer, where it joins them."""
    added = wheel_of("another", [1])
    before, after = plan(environment_of(wheels), heavy=heavy), plan(environment_of([*wheels, added]), heavy=heavy)
    new = [layer for layer in after if layer not in before]
    (joined,) = new
    assert added in joined.wheels
    gone = [layer for layer in before if layer not in after]
    assert [set(layer.wheels) for layer in gone] in ([], [set(joined.wheels) - {added}])
    kept = [layer for layer in after if layer is not joined and layer in before]
    assert kept == [layer for layer in before if layer in after]


@settings(max_examples=200, deadline=None)
@given(WHEELS, st.randoms(use_true_random=False), st.integers(13_000, 30_000), st.integers(0, 95))
def test_a_plan_holds_every_file_once_within_its_limits(wheels, random, largest, others):
    shuffled = list(wheels)
    random.shuffle(shuffled)
    try:
        layers = plan(environment_of(shuffled), largest=largest, others=others, heavy=3000)
    except BadInput:
        assert others > 40
        return
    assert layers == plan(environment_of(wheels), largest=largest, others=others, heavy=3000)
    assert len(layers) + others <= 100
    files = [node.path for layer in layers for node in layer.nodes if node.kind == "file"]
    assert set(files) == {node.path for wheel in wheels for node in wheel.nodes if node.kind == "file"}
    own = [path for path in files if path != "opt/venv/lib/same.py"]
    assert len(own) == len(set(own))
    for layer in layers:
        there = [node.path for node in layer.nodes]
        assert there == sorted(set(there))
        assert all(posixpath.dirname(path) in {*there, "opt"} for path in there)
        assert tar_size(layer.nodes) <= largest


def tar_size(found):
    """What nodes take in a real tar, without what pads its end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for node in found:
            member = tarfile.TarInfo(node.path)
            member.type = tarfile.DIRTYPE if node.kind == "directory" else tarfile.REGTYPE
            member.size = node.content.size if node.content else 0
            tar.addfile(member, io.BytesIO(bytes(member.size)))
        return out.tell()
