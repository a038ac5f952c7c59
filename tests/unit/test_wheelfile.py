import base64
import hashlib
import zipfile

import pytest
from packaging.tags import Tag
from packaging.version import Version

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.wheelfile import read_wheel

NAME = "demo_app-1.0-py2.py3-none-any.whl"
INFO = "demo_app-1.0.dist-info"
METADATA = "Metadata-Version: 2.4\nName: Demo.App\nVersion: 1.0.0\n\nName: not a header\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: some-backend 3.1\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n"


def row(name, data, algorithm="sha256"):
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
    return f"{name},{algorithm}={digest},{len(data)}"


def files(**changes):
    """The members of a sound wheel, without its RECORD."""
    members = {
        "demo_app/__init__.py": b"x = 1\n",
        "demo_app/a,b.txt": b"comma",
        f"{INFO}/METADATA": METADATA.encode(),
        f"{INFO}/WHEEL": WHEEL.encode(),
    }
    return members | changes


def record_of(members, algorithm="sha256"):
    rows = [row(f'"{name}"' if "," in name else name, data, algorithm) for name, data in members.items()]
    return "\n".join([*rows, f"{INFO}/RECORD,,", ""])


def wheel_at(folder, members=None, *, record=None, name=NAME):
    members = members or files()
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        text = record_of(members) if record is None else record
        if text:
            archive.writestr(f"{INFO}/RECORD", text)
    return path


def test_reads_a_sound_wheel(tmp_path):
    path = wheel_at(tmp_path)
    wheel = read_wheel(path)
    assert (wheel.name, wheel.version, wheel.build) == ("demo-app", Version("1.0"), ())
    assert wheel.tags == {Tag("py2", "none", "any"), Tag("py3", "none", "any")}
    assert (wheel.dist_info, wheel.generator, wheel.root_is_purelib) == (INFO, "some-backend 3.1", True)
    assert (wheel.metadata_name, wheel.metadata_version) == ("Demo.App", "1.0.0")
    assert wheel.digest == Digest.of_bytes(path.read_bytes())
    assert len(wheel.entries) == 5


def test_tells_what_record_and_metadata_say(tmp_path):
    text = METADATA.replace(
        "\n\n", "\nRequires-Dist: a>=1\nRequires-Python: >=3.9\nRequires-Dist:  b ; extra == 'x'\n\n"
    )
    members = files(**{f"{INFO}/METADATA": text.encode()})
    wheel = read_wheel(wheel_at(tmp_path, members))
    assert wheel.requires == ("a>=1", "b ; extra == 'x'")
    assert wheel.requires_python == ">=3.9"
    said = {name: row(name, data).split(",")[-2] for name, data in members.items()}
    assert wheel.record == said


def test_what_was_seen_before_is_not_hashed_again_but_read_with_care(tmp_path):
    members = files()
    record = record_of(members)
    path = wheel_at(tmp_path, members | {"demo_app/__init__.py": b"x = 2\n"}, record=record)
    with pytest.raises(BadInput, match="another sha256"):
        read_wheel(path)
    seen = Digest.of_bytes(b"the caller's word")
    assert read_wheel(path, seen=seen).digest == seen
    with pytest.raises(BadInput, match="RECORD omits"):
        read_wheel(wheel_at(tmp_path, members | {"demo_app/more.py": b""}, record=record), seen=seen)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_longer_hashes_are_fine(tmp_path, algorithm):
    assert read_wheel(wheel_at(tmp_path, record=record_of(files(), algorithm))).name == "demo-app"


def test_signatures_need_no_line_in_record(tmp_path):
    members = files()
    record = record_of(members)
    members[f"{INFO}/RECORD.jws"] = b"{}"
    assert read_wheel(wheel_at(tmp_path, members, record=record)).name == "demo-app"


@pytest.mark.parametrize("name", ["demo_app.whl", "demo_app-1.0.zip", "demo_app-one-py3-none-any.whl"])
def test_the_file_name_must_be_a_wheels(tmp_path, name):
    with pytest.raises(BadInput, match="doesn't have the name of a wheel"):
        read_wheel(wheel_at(tmp_path, name=name))


@pytest.mark.parametrize(
    ("complaint", "members"),
    [
        ("it has 2", files(**{"other-1.0.dist-info/METADATA": b""})),
        ("METADATA is missing", {k: v for k, v in files().items() if not k.endswith("METADATA")}),
        ("WHEEL is missing", {k: v for k, v in files().items() if not k.endswith("WHEEL")}),
        ("METADATA says Other 1.0.0", files(**{f"{INFO}/METADATA": METADATA.replace("Demo.App", "Other").encode()})),
        ("METADATA says Demo.App 2", files(**{f"{INFO}/METADATA": METADATA.replace("1.0.0", "2").encode()})),
        ("is not a version", files(**{f"{INFO}/METADATA": METADATA.replace("1.0.0", "one").encode()})),
        ("Name is there 2 times", files(**{f"{INFO}/METADATA": b"Name: a\n" + METADATA.encode()})),
        ("not UTF-8", files(**{f"{INFO}/METADATA": b"\xff" + METADATA.encode()})),
        (
            "only in the name: py2-none-any",
            files(**{f"{INFO}/WHEEL": WHEEL.replace("Tag: py2-none-any\n", "").encode()}),
        ),
        ("only in WHEEL: cp311-none-any", files(**{f"{INFO}/WHEEL": (WHEEL + "Tag: cp311-none-any\n").encode()})),
        (
            "only 1.x is known",
            files(**{f"{INFO}/WHEEL": WHEEL.replace("Wheel-Version: 1.0", "Wheel-Version: 2.0").encode()}),
        ),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(tmp_path, complaint, members):
    with pytest.raises(BadInput, match=complaint) as caught:
        read_wheel(wheel_at(tmp_path, members))
    assert NAME in caught.value.reason
    assert caught.value.remedy


def test_a_short_line_that_means_millions_of_tags_is_refused(tmp_path):
    part = ".".join(f"a{number}" for number in range(400))
    text = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {part}-{part}-{part}\n"
    with pytest.raises(BadInput, match="more than 10000 tags"):
        read_wheel(wheel_at(tmp_path, files(**{f"{INFO}/WHEEL": text.encode()})))


def test_without_dist_info_it_is_no_wheel(tmp_path):
    with zipfile.ZipFile(tmp_path / NAME, "w") as archive:
        archive.writestr("a.py", "")
    with pytest.raises(BadInput, match="it has none"):
        read_wheel(tmp_path / NAME)


def test_the_dist_info_folder_must_be_this_wheels(tmp_path):
    with pytest.raises(BadInput, match="disagrees with the file name"):
        read_wheel(wheel_at(tmp_path, name="demo_app-1.1-py2.py3-none-any.whl"))


GOOD = record_of(files())
X = "demo_app/__init__.py"


@pytest.mark.parametrize(
    ("complaint", "record"),
    [
        ("RECORD is missing", ""),
        ("omits 'demo_app/__init__.py'", GOOD.partition("\n")[2]),
        ("lists 'ghost.py', which isn't there", GOOD + row("ghost.py", b"") + "\n"),
        ("twice", GOOD + GOOD.partition("\n")[0] + "\n"),
        ("malformed line", GOOD + "a,b\n"),
        ("malformed", GOOD + '"unfinished,'),
        ("another sha256", GOOD.replace(row(X, b"x = 1\n"), row(X, b"x = 2\n"))),
        ("RECORD says 7", GOOD.replace(row(X, b"x = 1\n"), row(X, b"x = 1\n")[:-1] + "7")),
        ("only a md5", GOOD.replace(row(X, b"x = 1\n"), row(X, b"x = 1\n", "md5"))),
        ("only a sha1", GOOD.replace(row(X, b"x = 1\n"), row(X, b"x = 1\n", "sha1"))),
        ("no hash", GOOD.replace(row(X, b"x = 1\n"), f"{X},,")),
    ],
)
def test_a_record_that_disagrees_is_refused(tmp_path, complaint, record):
    with pytest.raises(BadInput, match=complaint):
        read_wheel(wheel_at(tmp_path, record=record))


@pytest.mark.parametrize(
    ("complaint", "name", "old", "new"),
    [
        ("is not a version", "METADATA", "1.0.0", "1." + "9" * 5000),
        ("METADATA says", "METADATA", "Demo.App", "a" * 5000),
        ("METADATA says", "METADATA", "Demo.App", "Demo\0App"),
        ("it says Wheel-Version", "WHEEL", "Wheel-Version: 1.0", "Wheel-Version: " + "9" * 5000),
        ("a Tag that is no tag", "WHEEL", "Tag: py2-none-any", "Tag: p\u00ffy2-none-any"),
        ("a Tag that is no tag", "WHEEL", "Tag: py2-none-any", "Tag: \u00ff"),
        ("only in WHEEL", "WHEEL", "Tag: py2-none-any", "".join(f"Tag: {'a' * 50}{n}-none-any\n" for n in range(900))),
    ],
)
def test_metadata_that_no_backend_writes_is_refused_in_few_words(tmp_path, complaint, name, old, new):
    text = {"METADATA": METADATA, "WHEEL": WHEEL}[name].replace(old, new)
    with pytest.raises(BadInput, match=complaint) as caught:
        read_wheel(wheel_at(tmp_path, files(**{f"{INFO}/{name}": text.encode()})))
    assert len(caught.value.reason) < 1200


def test_a_record_is_not_read_where_its_members_need_no_such_size(tmp_path):
    with pytest.raises(BadInput, match="RECORD has 82000 bytes, which its members don't need"):
        read_wheel(wheel_at(tmp_path, record="x" * 82_000))


def test_a_record_is_read_no_further_than_to_the_first_name_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="lists 'ghost0', which isn't there"):
        read_wheel(wheel_at(tmp_path, record="".join(f"ghost{n},,\n" for n in range(9)) + '"malformed'))
