import csv
import hashlib
import stat
import zipfile
import zlib
from base64 import urlsafe_b64encode

import pytest

from reprobuild.errors import BadInput
from reprobuild.image.installed import install, nodes
from reprobuild.image.target import Target
from reprobuild.oci.tree import WHEEL_TIME
from reprobuild.wheelfile import read_wheel

TARGET = Target("3.12", "/usr/bin/python3.12", "x86_64-manylinux_2_28")
SITE, INFO = "lib/python3.12/site-packages", "lib/python3.12/site-packages/demo-1.0.dist-info"
FIRST = b"#!/opt/venv/bin/python\n"
X = 0o100755
LINK = stat.S_IFLNK | 0o777


def content(file):
    return b"".join(file.content.chunks())


@pytest.fixture
def installed(make_wheel, tmp_path):
    def run(members=None, *, requested=False, target=TARGET, **more):
        return install(read_wheel(make_wheel(tmp_path, members, **more)), target, requested=requested)

    return run


@pytest.fixture
def refusal(installed):
    def run(members, **more):
        with pytest.raises(BadInput) as caught:
            installed(members, **more)
        assert caught.value.remedy
        return caught.value.reason

    return run


# --- what goes where -------------------------------------------------------------------------------


def test_each_scheme_has_its_place(installed):
    files = installed(
        {
            "demo/": b"",
            "demo/__init__.py": b"x = 1\n",
            "@data/purelib/pure.py": b"1",
            "@data/platlib/demo/plat.so": (b"2", X),
            "@data/headers/demo.h": b"3",
            "@data/scripts/tool": (b"#!python\nprint()\n", X),
            "@data/data/share/x": b"5",
            "@data/data/lib64/y": b"6",
        }
    )
    there = {path: (file.executable, content(file)) for path, file in files.items() if not path.startswith(INFO)}
    assert there == {
        f"{SITE}/demo/__init__.py": (False, b"x = 1\n"),
        f"{SITE}/pure.py": (False, b"1"),
        f"{SITE}/demo/plat.so": (True, b"2"),
        "include/site/python3.12/demo/demo.h": (False, b"3"),
        "bin/tool": (True, FIRST + b"print()\n"),
        "share/x": (False, b"5"),
        "lib/y": (False, b"6"),
    }
    assert list(files) == sorted(files)


@pytest.mark.parametrize(
    ("script", "becomes"),
    [
        (b"#!python\nx\n", FIRST + b"x\n"),
        (b"#!pythonw -x\r\nx\r\n", FIRST + b"x\r\n"),
        (b"#!python", FIRST),
        (b"#!/bin/sh\nx\n", b"#!/bin/sh\nx\n"),
        (b" #!python\n", b" #!python\n"),
        (b"\x7fELF", b"\x7fELF"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("mode", [0o100644, X])
def test_a_script_starts_with_the_environments_python_if_it_asks_for_one(installed, script, becomes, mode):
    files = installed({"@data/scripts/tool": (script, mode)})
    assert content(files["bin/tool"]) == becomes
    assert files["bin/tool"].executable


def test_entry_points_become_scripts(installed):
    text = b"""
[console_scripts]
# a comment
run = demo.cli:main
with.dot-and space = demo : Class.method [extra]
[gui_scripts]
Window=demo:main
[demo.plugins]
broken = not a function
[DEFAULT]
everywhere = demo:main
"""
    files = installed({"demo.py": b"", "@info/entry_points.txt": text})
    scripts = {path: content(file).decode() for path, file in files.items() if path.startswith("bin/")}
    assert sorted(scripts) == ["bin/Window", "bin/run", "bin/with.dot-and space"]
    assert scripts["bin/run"].startswith(FIRST.decode())
    assert "from demo.cli import main\n" in scripts["bin/run"]
    assert "from demo import Class\n" in scripts["bin/with.dot-and space"]
    assert "sys.exit(Class.method())\n" in scripts["bin/with.dot-and space"]
    assert all(files[path].executable for path in scripts)


def test_the_installers_files_are_its_own(installed):
    mine = {f"@info/{name}": b"of the wheel" for name in ("INSTALLER", "REQUESTED", "direct_url.json")}
    files = installed({"demo.py": b"", **mine})
    assert content(files[f"{INFO}/INSTALLER"]) == b"reprobuild\n"
    assert f"{INFO}/REQUESTED" not in files
    assert f"{INFO}/direct_url.json" not in files
    assert content(installed({"demo.py": b"", **mine}, requested=True)[f"{INFO}/REQUESTED"]) == b""


def test_a_signature_of_another_record_is_left_out(installed):
    files = installed({"demo.py": b"", "@info/RECORD.jws": b"{}", "@info/RECORD.p7s": b"?"})
    assert [path for path in files if "RECORD." in path] == []


def test_bytecode_is_left_out(installed):
    files = installed({"demo.py": b"", "demo/__pycache__/x.cpython-312.pyc": b"?", "old.pyc": b"!"})
    assert [path for path in files if path.endswith(".pyc")] == [f"{SITE}/old.pyc"]


def test_record_says_what_is_there(installed):
    files = installed(
        {
            'demo/a,"b".txt': b"comma",
            "demo/line\nbreak.txt": b"",
            "@data/scripts/tool": b"#!python\n",
            "@data/data/share/x": b"5",
            "@info/entry_points.txt": b"[console_scripts]\nrun = demo:main\n",
        },
        requested=True,
    )
    text = content(files[f"{INFO}/RECORD"]).decode()
    rows = list(csv.reader(text.splitlines(keepends=True), strict=True))
    assert rows == sorted(rows)
    assert len(rows) == len(files)
    assert ["demo-1.0.dist-info/RECORD", "", ""] in rows
    for path, hashed, size in rows:
        name = path.replace("../../../", "") if path.startswith("../../../") else f"{SITE}/{path}"
        if not path.endswith("/RECORD"):
            data = content(files[name])
            digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (hashed, size) == (f"sha256={digest}", str(len(data)))
    assert "\r" not in text


def test_nodes_have_every_folder_from_the_prefix_down(installed):
    files = installed({"demo/__init__.py": b"x = 1\n", "@data/scripts/tool": b""})
    found = nodes(files, "/opt/venv")
    assert [node.path for node in found] == sorted(node.path for node in found)
    folders = {node.path for node in found if node.kind == "directory"}
    assert folders == {
        "opt/venv",
        "opt/venv/bin",
        "opt/venv/lib",
        "opt/venv/lib/python3.12",
        f"opt/venv/{SITE}",
        f"opt/venv/{SITE}/demo",
        f"opt/venv/{INFO}",
    }
    assert {(node.mtime, node.uid, node.gid) for node in found} == {(WHEEL_TIME, 0, 0)}
    assert {node.mode for node in found if node.kind == "directory"} == {0o755}
    modes = {node.path: node.mode for node in found if node.kind == "file"}
    assert modes["opt/venv/bin/tool"] == 0o755
    assert modes[f"opt/venv/{SITE}/demo/__init__.py"] == 0o644


def test_unchanged_members_keep_their_deflate_stream(installed):
    data = b"x = 1\n" * 1000
    file = installed({"demo/__init__.py": data})[f"{SITE}/demo/__init__.py"]
    for _ in range(2):
        deflated = file.content.deflated()
        raw = b"".join(deflated.raw)
        assert zlib.decompress(raw, -15) == data
        assert (deflated.crc, deflated.size, deflated.raw_size) == (zlib.crc32(data), len(data), len(raw))
    assert content(file) == content(file) == data
    assert file.content.size == len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
def test_other_members_than_deflated_ones_have_their_content_alone(make_wheel, tmp_path, method):
    path = make_wheel(tmp_path / "one", {"demo/__init__.py": b"x = 1\n" * 1000})
    (tmp_path / "two").mkdir()
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(tmp_path / "two" / path.name, "w", method) as two:
        for name in one.namelist():
            two.writestr(name, one.read(name))
    file = install(read_wheel(tmp_path / "two" / path.name), TARGET)[f"{SITE}/demo/__init__.py"]
    assert file.content.deflated() is None
    assert content(file) == b"x = 1\n" * 1000


def test_a_wheel_that_changes_under_our_hands_is_noticed(make_wheel, tmp_path):
    path = make_wheel(tmp_path, {"demo/__init__.py": b"x = 1\n" * 1000})
    file = install(read_wheel(path), TARGET)[f"{SITE}/demo/__init__.py"]
    data = path.read_bytes()
    path.write_bytes(data.replace(data[60:63], b"\xff\xff\xff", 1))
    with pytest.raises(BadInput):
        content(file)
    path.unlink()
    with pytest.raises(BadInput):
        content(file)


def test_only_wheel_and_target_count(make_wheel, tmp_path):
    members = {
        "demo.py": b"x\n",
        "@data/scripts/tool": b"#!python\n",
        "@info/entry_points.txt": b"[gui_scripts]\na=b:c",
    }

    def made(folder, target):
        files = install(read_wheel(make_wheel(tmp_path / folder, members)), target)
        return [(node.path, node.mode, node.mtime, node.content and b"".join(node.content.chunks()))
                for node in nodes(files, target.prefix)]  # fmt: skip

    assert made("one", TARGET) == made("two", TARGET)
    # Which patch, which platform and where the base's Python lies are no business of a wheel's layer.
    assert made("one", TARGET) == made("one", Target("3.12.9", "/usr/local/bin/python3", "aarch64-manylinux_2_17"))
    assert made("one", TARGET) != made("one", Target("3.13", "/usr/bin/python3.13", "x86_64-manylinux_2_28"))
    assert made("one", TARGET) != made("one", Target("3.12", "/usr/bin/python3.12", "x86_64-manylinux_2_28", "/venv"))


# --- hostile wheels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "demo/../../x", "@data/data/../../x", "@data/scripts/..", "a\\b"]
)
def test_refuses_paths_that_lead_outside(refusal, name):
    assert "unsafe member name" in refusal({name: b""})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("@data/bin/x", "belongs to none of"),
        ("@data/scripts", "belongs to none of"),
        ("@data/x", "belongs to none of"),
        ("other-1.0.data/data/x", "is not the data folder"),
        ("demo-1.1.data/data/x", "is not the data folder"),
        ("demo/" + "n" * 256, "too long"),
    ],
)
def test_refuses_what_has_no_place(refusal, name, said):
    assert said in refusal({name: b""})


def test_refuses_links(refusal):
    assert "is a symlink" in refusal({"demo/link": (b"target", LINK)})


@pytest.mark.parametrize(
    "members",
    [
        {"a.py": b"1", "@data/purelib/a.py": b"1"},
        {"@data/purelib/a.py": b"1", "@data/platlib/a.py": b"2"},
        {"@data/scripts/run": b"", "@info/entry_points.txt": b"[console_scripts]\nrun=a:b\n"},
        {"@info/entry_points.txt": b"[console_scripts]\nrun=a:b\n[gui_scripts]\nrun=a:b\n"},
        {"@data/data/lib/x": b"", "@data/data/lib64/x": b""},
        {"@data/data/lib/python3.12/site-packages/demo-1.0.dist-info/INSTALLER": b"x"},
    ],
)
def test_refuses_two_files_for_one_place(refusal, members):
    assert "two files for" in refusal(members)


def test_refuses_a_data_file_in_the_place_of_the_record(refusal):
    assert "two files for" in refusal({"@data/data/lib/python3.12/site-packages/demo-1.0.dist-info/RECORD": b"x"})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\\b", "a\x00b", "a\x1bb"])
def test_refuses_script_names_that_are_paths(refusal, name):
    text = f"[console_scripts]\n{name} = demo:main\n".encode()
    assert "can't have the name" in (said := refusal({"@info/entry_points.txt": text})) or "malformed" in said


@pytest.mark.parametrize(
    "value",
    ["", "demo", "demo:", ":main", "demo:a b", "demo;x:y", "demo:f()", "1a:b", "a..b:c", "a:b.", "if:x", "a:b:c"],
)
def test_refuses_scripts_that_name_no_function(refusal, value):
    assert "names no function" in refusal({"@info/entry_points.txt": f"[console_scripts]\nrun = {value}\n".encode()})


@pytest.mark.parametrize("text", [b"run = a:b\n", b"[console_scripts]\nrun\n", b"[a]\n[a]\n", b"[a]\nx=1\nx=2\n"])
def test_refuses_entry_points_that_are_malformed(refusal, text):
    assert "malformed" in refusal({"@info/entry_points.txt": text})


def test_refuses_entry_points_in_another_encoding(refusal):
    assert "not UTF-8" in refusal({"@info/entry_points.txt": b"[console_scripts]\n\xff=a:b\n"})


@pytest.mark.parametrize("name", ["demo.py", "@data/scripts/tool", "@info/METADATA"])
def test_refuses_a_record_that_lies(refusal, name):
    members = {"demo.py": b"x = 1\n", "@data/scripts/tool": b"#!python\n"}
    other = (
        b"Metadata-Version: 2.4\nName: demo\nVersion: 1.0\nSummary: other\n" if "METADATA" in name else b"x = 2\n123"
    )
    assert "RECORD" in refusal(members, changed={name: other})


def test_refuses_a_rewritten_script_that_is_too_large_to_hold(refusal, monkeypatch):
    monkeypatch.setattr("reprobuild.image.installed.TEXT_LIMIT", 99)
    assert "has 108 bytes" in refusal({"@data/scripts/tool": b"#!python" + b"x" * 100})
