import os
import resource
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from reprobuild import files
from reprobuild.errors import BadInput, WriteFailed
from reprobuild.files import (
    cache_root,
    read_kept,
    read_text,
    remove_orphans,
    remove_tree,
    reserve,
    scratch_folder,
    write_atomically,
    write_together,
)

NOBODY = 65534


@contextmanager
def file_size_limit(size):
    """What a full disk looks like: a write past some size fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def without_privileges(action):
    """Do something in a child process that isn't root, which file modes don't bind; its exception's name, or ''."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
        except BaseException as error:  # noqa: BLE001 - the parent asserts on it
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def open_folder():
    """A folder that a process without privileges may write in; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="test-files-"))
    folder.chmod(0o777)
    yield folder
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o700)
    shutil.rmtree(folder)


def failing(error):
    yield b"the first half"
    raise error


# --- write_atomically ------------------------------------------------------------------------------


def test_the_bytes_are_on_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    """After a power cut a renamed file whose bytes were never flushed can be empty."""
    path, seen = tmp_path / "file", []
    really = os.fsync

    def fsync(descriptor):
        seen.append((os.fstat(descriptor).st_size, path.exists()))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(path, [b"whole"])
    assert seen == [(5, False)]


def test_a_file_is_written_with_its_parents(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, [b"one", b"", b"two"])
    assert path.read_bytes() == b"onetwo"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_gets_the_mode_that_any_new_file_gets(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", [b"x"])
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), WriteFailed),
        (ValueError("wrong bytes"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_midway_leaves_the_old_file_and_nothing_else(tmp_path, error, expected):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(expected):
        write_atomically(path, failing(error))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_of_files_that_belong_together_none_is_new_before_all_are(tmp_path, error):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"old")
    with pytest.raises((WriteFailed, KeyboardInterrupt)) as caught:
        write_together([(one, [b"new"]), (other, failing(error))])
    assert isinstance(error, KeyboardInterrupt) or f"{other} can't be written" in str(caught.value)
    assert (one.read_bytes(), list(tmp_path.iterdir())) == (b"old", [one])
    write_together([(one, [b"new"]), (other, [b"its own"])])
    assert (one.read_bytes(), other.read_bytes(), len(list(tmp_path.iterdir()))) == (b"new", b"its own", 2)


def test_until_the_end_the_old_content_is_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def chunks():
        yield b"new"
        seen.append(path.read_bytes())

    write_atomically(path, chunks())
    assert (seen, path.read_bytes()) == ([b"old"], b"new")


def test_a_full_disk_is_said_to_be_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with file_size_limit(1 << 16), pytest.raises(WriteFailed, match="file can't be written: File too large") as caught:
        write_atomically(path, [bytes(1 << 15)] * 4)
    assert "Free some space" in caught.value.remedy
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_no_folder_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed, match="File exists"):
        write_atomically(tmp_path / "file" / "below", [b"x"])


def test_a_folder_without_permission_cannot_be_written_to(open_folder):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o555)
    said = without_privileges(lambda: write_atomically(closed / "file", [b"x"]))
    assert said == f"WriteFailed: {closed / 'file'} can't be written: Permission denied."
    assert list(closed.iterdir()) == []


def test_a_link_is_replaced_and_not_followed(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"target")
    link.symlink_to(target)
    write_atomically(link, [b"new"])
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"target", b"new", False)


# --- read_text -------------------------------------------------------------------------------------


def test_text_is_read_as_it_is(tmp_path):
    (tmp_path / "file").write_bytes("é\n".encode())
    assert read_text(tmp_path / "file") == "é\n"


def test_text_in_another_encoding_is_refused_with_its_place(tmp_path):
    (tmp_path / "file").write_bytes(b"caf\xe9")
    with pytest.raises(BadInput, match=r"file is not UTF-8 text \(byte 3\)"):
        read_text(tmp_path / "file")


@pytest.mark.parametrize(("name", "why"), [("absent", "No such file"), ("", "Is a directory")])
def test_text_that_cannot_be_read_is_bad_input(tmp_path, name, why):
    with pytest.raises(BadInput, match=why):
        read_text(tmp_path / name)


# --- folders ---------------------------------------------------------------------------------------


def make_stubborn(folder):
    """A tree as builds leave it: folders without write or any permission, files without."""
    for name, mode in (("a/b", 0o555), ("a/c", 0o000), ("d", 0o500)):
        path = folder / name
        path.mkdir(parents=True)
        (path / "file").write_text("x")
        (path / "file").chmod(0o400)
        path.chmod(mode)
    (folder / "a").chmod(0o555)
    folder.chmod(0o555)


def test_a_tree_is_removed_whatever_its_modes(open_folder):
    tree = open_folder / "tree"

    def action():
        make_stubborn(tree)
        remove_tree(tree)

    assert without_privileges(action) == ""
    assert not tree.exists()


def test_links_in_a_tree_are_not_followed(tmp_path):
    precious, tree = tmp_path / "precious", tmp_path / "tree"
    precious.mkdir()
    (precious / "file").write_text("x")
    tree.mkdir()
    (tree / "link").symlink_to(precious)
    remove_tree(tree)
    assert not tree.exists()
    assert (precious / "file").read_text() == "x"


def test_no_mode_is_changed_through_a_link_that_is_hard_to_remove(open_folder):
    tree, precious = open_folder / "tree", open_folder / "precious"

    def action():
        precious.touch(0o600)
        tree.mkdir()
        (tree / "link").symlink_to(precious)
        tree.chmod(0o555)
        remove_tree(tree)

    assert without_privileges(action) == ""
    assert not tree.exists()
    assert precious.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["file", "link to a folder", "dangling link", "nothing"])
def test_what_is_no_folder_is_removed_too(tmp_path, kind):
    path, other = tmp_path / "path", tmp_path / "other"
    other.mkdir()
    if kind == "file":
        path.write_text("x")
    elif kind != "nothing":
        path.symlink_to(other if kind == "link to a folder" else tmp_path / "nowhere")
    remove_tree(path)
    assert not path.is_symlink()
    assert list(tmp_path.iterdir()) == [other]


def test_a_scratch_folder_is_private_and_goes_away(tmp_path):
    with scratch_folder(tmp_path / "new", "x-") as folder:
        assert folder.parent == tmp_path / "new"
        assert folder.name.startswith("x-")
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("x")
    assert not folder.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_scratch_folder_goes_away_whatever_happens(tmp_path, error):
    def work():
        with scratch_folder(tmp_path, "x-") as folder:
            (folder / "sub").mkdir()
            raise error

    with pytest.raises(error):
        work()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_goes_away_whatever_the_modes_in_it(open_folder):
    def action():
        with scratch_folder(open_folder, "x-") as folder:
            make_stubborn(folder)

    assert without_privileges(action) == ""
    assert list(open_folder.iterdir()) == []


def test_a_scratch_folder_has_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with scratch_folder(Path(), "x-") as folder:
        assert folder.parent == tmp_path


def test_two_scratch_folders_are_two(tmp_path):
    with scratch_folder(tmp_path, "x-") as one, scratch_folder(tmp_path, "x-") as two:
        assert one != two


def test_a_scratch_folder_that_cannot_be_made_says_what_helps(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed) as caught, scratch_folder(tmp_path / "file", "x-"):
        pass
    assert "TMPDIR" in caught.value.remedy


def test_a_scratch_folder_for_a_users_file_speaks_of_that_file(tmp_path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "x.tar"
    with pytest.raises(WriteFailed) as caught, scratch_folder(target.parent, "x-", target):
        pass
    assert caught.value.reason == f"{target} can't be written: File exists."
    assert caught.value.remedy == "Name another place."


def test_the_cache_lies_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.setenv("REPROBUILD_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "reprobuild"


@pytest.mark.parametrize("found", [Path("~/.cache/reprobuild"), None])
def test_an_account_without_a_home_has_no_cache(monkeypatch, found):
    def user_cache_path(name):
        if found is None:
            raise RuntimeError("could not determine the home directory")
        return found

    monkeypatch.delenv("REPROBUILD_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_path", user_cache_path)
    with pytest.raises(BadInput, match="no home folder") as caught:
        cache_root()
    assert "REPROBUILD_CACHE_DIR" in caught.value.remedy


# --- what a killed process left --------------------------------------------------------------------


def orphan(parent, name, mode=0o700):
    folder = parent / name
    folder.mkdir()
    (folder / "file").touch()
    folder.chmod(mode)
    return folder


def test_only_orphans_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_NEW", -1)
    with scratch_folder(tmp_path, "reprobuild-work-") as owned:
        gone = [orphan(tmp_path, f"reprobuild-{middle}0123456789ab") for middle in ("", "work-", "held-")]
        kept = [
            orphan(tmp_path, "reprobuild-work"),
            orphan(tmp_path, "reprobuild-0123456789abc"),
            orphan(tmp_path, "my-reprobuild-0123456789ab"),
            orphan(tmp_path, "reprobuild-open-0123456789ab", 0o755),
        ]
        link = tmp_path / "reprobuild-link-0123456789ab"
        link.symlink_to(kept[0])
        remove_orphans(tmp_path)
        assert owned.is_dir()
        assert not any(folder.exists() for folder in gone)
        assert all((folder / "file").exists() for folder in kept)
        assert link.is_symlink()
    assert not owned.exists()


def test_a_new_folder_is_nobodys_orphan(tmp_path):
    """Between its making and its locking there is a moment."""
    folder = orphan(tmp_path, "reprobuild-0123456789ab")
    remove_orphans(tmp_path)
    assert folder.is_dir()


def test_what_a_killed_process_left_is_an_orphan(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_NEW", -1)
    child = os.fork()
    if not child:
        with scratch_folder(tmp_path, "reprobuild-work-"):
            os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    remove_orphans(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- room ------------------------------------------------------------------------------------------


def test_room_is_set_aside(tmp_path):
    with (tmp_path / "file").open("wb") as stream:
        reserve(stream.fileno(), 0)
        assert os.fstat(stream.fileno()).st_size == 0
        reserve(stream.fileno(), 1 << 20)
        assert os.fstat(stream.fileno()).st_blocks * 512 >= 1 << 20


def test_where_no_room_can_be_set_aside_nothing_happens(tmp_path):
    reader, writer = os.pipe()
    reserve(writer, 1 << 20)
    os.write(writer, b"as ever")
    assert os.read(reader, 100) == b"as ever"
    with (tmp_path / "file").open("wb") as stream, file_size_limit(1 << 20):
        reserve(stream.fileno(), 2 << 20)
        assert os.fstat(stream.fileno()).st_size == 0


def test_what_was_kept_is_read_and_nothing_else_is(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    assert read_kept(kept) is None
    kept.write_bytes(b"known")
    assert read_kept(kept) == b"known"
    monkeypatch.setattr(files, "KEPT_LIMIT", 4)
    assert read_kept(kept) is None
    monkeypatch.undo()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "endless", tmp_path):
        assert read_kept(path) is None
