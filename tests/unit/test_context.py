"""What the table of test_buildkit_cases.py can't hold: hostile contexts, laziness, names of users."""

import io
import os
import socket
import tarfile
import zlib
from dataclasses import replace
from pathlib import PosixPath

import pytest

from reprobuild.errors import BadInput
from reprobuild.image.context import Context, Nodes, owner_of, place
from reprobuild.image.stages import Copy
from reprobuild.oci.tree import WHEEL_TIME, Node, OnDisk, Text

COPY = Copy("COPY", 2, ("",), "/x/", None, "", None, (), unpacks=False)
EPOCH = 1_700_000_000


def nobody(_path: str) -> bytes | None:
    """No file of the image is there."""
    return None


def placed(tree, *sources, to="/x/", **more):
    step = replace(COPY, sources=sources, destination=to, **more)
    return place(step, tree, epoch=EPOCH, where="Dockerfile", follow=lambda path: (path, False), read=nobody)


def names(found):
    return [node.path for node in found.nodes]


def text(path, data=b"", **more):
    return Node(path, "file", 0o644, EPOCH, content=Text(data), **more)


def test_nothing_is_read_before_somebody_wants_the_content(tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 100)
    opened = []

    class Watched(PosixPath):
        def open(self, *arguments, **more):
            opened.append(self)
            return super().open(*arguments, **more)

    found = placed(Context(Watched(tmp_path), EPOCH), "big")
    assert [(node.content.size, type(node.content)) for node in found.nodes if node.content] == [(100, OnDisk)]
    assert opened == []


def test_only_what_is_copied_is_walked(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a").touch()
    (tmp_path / "other").mkdir()
    os.mkfifo(tmp_path / "other/pipe")
    context = Context(tmp_path, EPOCH)
    assert names(placed(context, "src")) == ["x/a"]
    with pytest.raises(BadInput, match="pipe is a socket, a device or a pipe"):
        placed(context, "other")
    assert names(placed(Context(tmp_path, EPOCH, ["**/pipe"]), "other")) == []


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with pytest.raises(BadInput, match="s is a socket") as caught:
            placed(Context(tmp_path, EPOCH), "s")
    assert caught.value.remedy == "Name it in .dockerignore."


def test_a_link_out_of_the_context_is_copied_as_a_link_and_never_followed_there(tmp_path):
    (tmp_path / "secret").write_text("outside")
    context = tmp_path / "context"
    (context / "d").mkdir(parents=True)
    (context / "d/up").symlink_to("../../secret")
    (context / "d/abs").symlink_to(tmp_path / "secret")
    (context / "folder").symlink_to(tmp_path)
    found = placed(Context(context, EPOCH), "d")
    assert [(node.path, node.kind, node.target) for node in found.nodes] == [
        ("x/abs", "symlink", str(tmp_path / "secret")),
        ("x/up", "symlink", "../../secret"),
    ]
    for source in ("d/up", "d/abs", "folder/secret", "folder/*"):
        if "*" in source:
            assert names(placed(Context(context, EPOCH), source)) == []
            continue
        with pytest.raises(BadInput, match=r"Dockerfile:2: There is no .* to copy"):
            placed(Context(context, EPOCH), source)


def test_the_modes_of_a_checkout_are_those_of_any_umask(tmp_path):
    for name, mode in {"a": 0o600, "b": 0o664, "c": 0o711, "d": 0o4770, "e": 0o010 | 0o400}.items():
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "f").mkdir(mode=0o700)
    found = placed(Context(tmp_path, EPOCH), "")
    modes = [0o644, 0o644, 0o755, 0o755, 0o644, 0o755]
    assert [(node.mode, node.mtime, node.uid, node.gid) for node in found.nodes] == [(m, EPOCH, 0, 0) for m in modes]


def test_an_unreadable_file_is_said_whoever_runs_it(tmp_path, monkeypatch):
    (tmp_path / "f").touch()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may read everything
    with pytest.raises(BadInput, match="f' can't be read: permission denied") as caught:
        placed(Context(tmp_path, EPOCH), "f")
    assert ".dockerignore" in caught.value.remedy
    monkeypatch.setattr(os, "scandir", lambda path: os.open(f"{path}/f/f", os.O_RDONLY))
    with pytest.raises(BadInput, match="can't be read: Not a directory"):
        placed(Context(tmp_path, EPOCH), "")


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):  # noqa: PTH123 - a Path can't hold it
        pass
    with pytest.raises(BadInput, match="is not UTF-8"):
        placed(Context(tmp_path, EPOCH), "")


def test_what_would_be_read_as_a_removal_is_refused():
    tree = Nodes({"d/.wh.a": text("d/.wh.a")})
    with pytest.raises(BadInput, match="removal of a file"):
        placed(tree, "d")


@pytest.mark.parametrize("place_of", ["<Dockerfile>", "context"])
def test_a_pattern_that_is_none_names_its_file(tmp_path, place_of):
    path = tmp_path / (".dockerignore" if place_of == "context" else "my.Dockerfile.dockerignore")
    path.write_bytes(b"\xef\xbb\xbf# fine\r\na\r\n[\n")
    with pytest.raises(BadInput, match=f"{path.name}: Invalid ignore pattern"):
        Context.open(tmp_path, tmp_path / "my.Dockerfile", EPOCH)
    path.write_bytes(b"\xef\xbb\xbfa\r\nb/**\r\n!b/c\r\n")
    for name in ("a", "b/c", "b/d", "e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path.rename(path)
    found = placed(Context.open(tmp_path, tmp_path / "my.Dockerfile", EPOCH), "[a-e]")
    assert names(found) == ["x/c", "x/e"]


def test_only_line_feeds_end_a_line_of_an_ignore_file(tmp_path):
    (tmp_path / ".dockerignore").write_bytes("a\u2028!secret\nsecret\x0c\n\x85b\r\n".encode())
    for name in ("a", "b", "c", "secret"):
        (tmp_path / name).touch()
    assert names(placed(Context.open(tmp_path, tmp_path / "Dockerfile", EPOCH), "[a-cs]*")) == ["x/a", "x/c"]


@pytest.mark.parametrize(("raw", "why"), [(b"[\n", "Invalid ignore pattern"), (b"\xff", "is not UTF-8")])
def test_messages_name_an_ignore_file_as_the_context_does(tmp_path, raw, why):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/Dockerfile.dockerignore").write_bytes(raw)
    with pytest.raises(BadInput, match=f"^sub/Dockerfile.dockerignore:? {why}"):
        Context.open(tmp_path, tmp_path / "sub/Dockerfile", EPOCH)


def test_what_comes_from_wheels_keeps_its_time_and_nothing_is_younger_than_the_epoch():
    tree = Nodes({"a": replace(text("a"), mtime=WHEEL_TIME, uid=3, gid=4), "b": replace(text("b"), mtime=EPOCH + 1)})
    found = placed(tree, "")
    assert [(node.mtime, node.uid, node.gid) for node in found.nodes] == [(WHEEL_TIME, 3, 4), (EPOCH, 0, 0)]


def test_the_folders_above_are_told_apart_from_what_is_copied():
    tree = Nodes({"d/e/f": text("d/e/f"), "g": text("g")})
    found = placed(tree, "d", to="/opt/app", owner="7")
    assert [(node.path, node.mode, node.uid, node.gid) for node in found.parents] == [
        ("opt", 0o755, 7, 7),
        ("opt/app", 0o755, 7, 7),
    ]
    assert names(found) == ["opt/app/e", "opt/app/e/f"]
    assert [node.path for node in placed(tree, "g", to="/opt/app").parents] == ["opt"]
    assert placed(tree, "nothing*").parents == ()


def test_a_file_goes_where_the_link_at_its_destination_leads():
    step = replace(COPY, sources=("g",), destination="/bin/sh")
    places = {"bin/sh": ("usr/bin/dash", False), "bin": ("usr/bin", True)}
    for destination, path in (("/bin/sh", "usr/bin/dash"), ("/bin", "usr/bin/g")):
        found = place(
            replace(step, destination=destination),
            Nodes({"g": text("g")}),
            epoch=EPOCH,
            where="D",
            follow=lambda path: places[path],
            read=nobody,
        )
        assert names(found) == [path]


def test_an_absolute_link_starts_at_the_root_of_what_is_copied_from():
    tree = Nodes({"d/l": Node("d/l", "symlink", 0o777, 1, target="/a"), "a": text("a", b"1"), "d/a": text("d/a", b"2")})
    assert [node.content for node in placed(tree, "d/l").nodes] == [Text(b"1")]


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(BadInput, match="can't be read: File name too long"):
        placed(Context(tmp_path, EPOCH), "x" * 300)


@pytest.mark.parametrize("sources", [("a", "b"), ("[ab]",)])
def test_several_files_need_a_folder(sources):
    tree = Nodes({"a": text("a"), "b": text("b")})
    with pytest.raises(BadInput, match=r"Dockerfile:2: Several files") as caught:
        placed(tree, *sources, to="/x")
    assert "slash" in caught.value.remedy


@pytest.mark.parametrize("tree", [{"a/x/f": "", "b/x": ""}, {"b/x/f": "", "a/x": ""}])
def test_a_path_is_not_a_file_and_a_folder(tree):
    with pytest.raises(BadInput, match="/q/x would be a file and a folder"):
        placed(Nodes({path: text(path) for path in tree}), "a", "b", to="/q/")


def tar_of_a_file():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data", [tar_of_a_file(), zlib.compress(b"", wbits=31), b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]
)
def test_add_does_not_pretend_to_unpack(data):
    tree = Nodes({"x": text("x", data)})
    with pytest.raises(BadInput, match="ADD would unpack 'x'") as caught:
        placed(tree, "x", unpacks=True)
    assert "--engine buildkit" in caught.value.remedy
    assert names(placed(tree, "x")) == ["x/x"]
    assert names(placed(Nodes({"x": text("x", data[1:])}), "x", unpacks=True)) == ["x/x"]


FILES = {
    "etc/passwd": b"root:x:0:0::/:/bin/sh\nbroken:x\nbad:x:a:b::/:\napp:x:1000:1001:,,,:/:\n\xff:x:1:1::/:\n",
    "etc/group": b"www:x:33:app\n",
}


@pytest.mark.parametrize(
    ("owner", "numbers"),
    [
        ("", None),
        ("5", (5, 5)),
        ("5:6", (5, 6)),
        ("app", (1000, 1001)),
        ("app:www", (1000, 33)),
        ("0:www", (0, 33)),
        ("4294967295", (4294967295, 4294967295)),
    ],
)
def test_owners(owner, numbers):
    assert owner_of(owner, FILES.get, "D:1") == numbers


@pytest.mark.parametrize("end", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"])
def test_what_else_ends_lines_elsewhere_makes_no_account(end):
    users = f"alice:x:1000:1000:A{end}bob:x:0:0::/:/x\nbob:x:1001:1002::/:\r\n".encode()
    assert owner_of("bob", {"etc/passwd": users}.get, "D:1") == (1001, 1002)
    groups = f"www:x:33:a{end}adm:x:0:\nadm:x:4:\n".encode()
    assert owner_of("1:adm", {"etc/group": groups}.get, "D:1") == (1, 4)


@pytest.mark.parametrize("owner", ["nobody", "broken", "bad", "app:nobody", ":", "1:", "4294967296", "1:-1", "²"])
def test_an_owner_that_is_not_in_the_image(owner):
    with pytest.raises(BadInput, match=r"^D:1: .* is not in the image's /etc/(passwd|group)"):
        owner_of(owner, FILES.get, "D:1")


def test_the_order_is_that_of_the_paths():
    paths = ["a-b/c", "a/b", "a.b", "a/a/z", "B"]
    found = placed(Nodes({path: text(path) for path in paths}), "", to="/")
    assert names(found) == ["B", "a", "a/a", "a/a/z", "a/b", "a-b", "a-b/c", "a.b"]
    assert found.parents == ()


def test_a_folder_that_would_be_read_as_a_removal_is_refused():
    with pytest.raises(BadInput, match="removal"):
        placed(Nodes({"a": text("a")}), "a", to="/.wh.x/")


def test_as_many_links_are_followed_as_by_buildkit():
    links = {f"l{n}": Node(f"l{n}", "symlink", 0o777, EPOCH, target=f"l{n - 1}" if n else "a") for n in range(256)}
    tree = Nodes({"a": text("a"), **links})
    assert names(placed(tree, "l254")) == ["x/l254"]
    with pytest.raises(BadInput, match="too many others"):
        placed(tree, "l255")


@pytest.mark.parametrize("to", ["/" + "x" * 256, "/" + "ü" * 128 + "/", "/" + "x" * 256 + "/y/z"])
def test_a_destination_that_no_file_system_can_hold_is_refused(to):
    with pytest.raises(BadInput, match="too long for a file system"):
        placed(Nodes({"g": text("g")}), "g", to=to)
    placed(Nodes({"g": text("g")}), "g", to="/" + "x" * 255)
