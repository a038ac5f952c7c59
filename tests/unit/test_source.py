import hashlib
import io
import os
import re
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reprobuild import gitcmd, process, source
from reprobuild.digest import Digest
from reprobuild.errors import BadInput, DigestMismatch, SourceUnusable, ToolMissing
from reprobuild.export import clone, open_source
from reprobuild.files import scratch_folder
from reprobuild.source import EARLIEST_EPOCH, epoch_from_environment, peek, place

#: The committer date that every test's environment sets: 2026-10-01 12:00 UTC.
COMMITTED_AT = 1_790_856_000
LATEST_EPOCH = 4_354_819_199
BIG = b"a big file\n" * 100


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def repository(git, tmp_path):
    """Make a repository with one commit of some files."""

    def make(files, name="repository"):
        folder = tmp_path / name
        folder.mkdir()
        git(folder, "init", "--quiet")
        write(folder, files)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "first")
        return folder

    return make


@pytest.fixture
def scratch(tmp_path):
    with scratch_folder(tmp_path, "scratch-") as folder:
        yield folder


@pytest.fixture
def exported(tmp_path):
    """Export a project and put the files into a folder."""

    def export(project, order="sorted", **options):
        number = len(list(tmp_path.iterdir()))
        scratch, folder = tmp_path / f"scratch-{number}", tmp_path / f"export-{number}"
        scratch.mkdir()
        folder.mkdir()
        opened = open_source(project, scratch, **options)
        place(opened, folder, order)
        return opened, folder

    return export


def tree(folder):
    """Everything in a folder but git's own: bytes of files, targets of links."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if ".git" not in path.relative_to(folder).parts and (path.is_symlink() or path.is_file())
    }


def state_of(folder):
    """The bytes of every file of a repository, its index and objects among them."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pointer(data):
    oid = hashlib.sha256(data).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode(), oid


def keep_lfs_object(git_dir, data):
    oid = pointer(data)[1]
    write(git_dir / "lfs" / "objects" / oid[:2] / oid[2:4], {oid: data})


# --- a commit --------------------------------------------------------------------------------------


def test_a_commit_is_exported_and_identified(repository, exported, git):
    folder = repository({"a.txt": "a", "sub/b.txt": "b"})
    opened, out = exported(folder)
    assert tree(out) == {"a.txt": b"a", "sub/b.txt": b"b"}
    assert (opened.kind, opened.subdirectory, opened.untracked) == ("git", "", 0)
    assert opened.digests == {
        "gitCommit": git(folder, "rev-parse", "HEAD").strip(),
        "gitTree": git(folder, "rev-parse", "HEAD^{tree}").strip(),
    }
    assert opened.epoch == COMMITTED_AT
    assert opened.size == (opened.tar.stat().st_size)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_modes_and_times_are_a_function_of_the_commit(repository, exported, umask):
    folder = repository({"plain": "x", "script": "x", "sub/deep/file": "x"})
    (folder / "script").chmod(0o755)
    (folder / "link").symlink_to("plain")
    process.run(["git", "add", "--all"], env=os.environ, cwd=folder)
    process.run(["git", "commit", "--quiet", "-m", "second"], env=os.environ, cwd=folder)
    before = os.umask(umask)
    try:
        _, out = exported(folder)
    finally:
        os.umask(before)
    found = {
        name: (out / name).stat().st_mode & 0o777 for name in ("plain", "script", "sub", "sub/deep", "sub/deep/file")
    }
    assert found == {"plain": 0o644, "script": 0o755, "sub": 0o755, "sub/deep": 0o755, "sub/deep/file": 0o644}
    assert (out / "link").readlink() == Path("plain")
    everything = [path for path in out.rglob("*") if ".git" not in path.parts]
    assert len(everything) == 6
    assert {path.lstat().st_mtime_ns for path in everything} == {COMMITTED_AT * 10**9}


@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_the_order_changes_no_file(repository, exported, order):
    files = {f"{name}/{other}": name + other for name in "abc" for other in "xyz"}
    _, out = exported(repository(files), order)
    assert tree(out) == {name: content.encode() for name, content in files.items()}


def test_an_older_commit_can_be_named(repository, exported, git):
    folder = repository({"a.txt": "old"})
    old = git(folder, "rev-parse", "HEAD").strip()
    write(folder, {"a.txt": "new"})
    git(folder, "commit", "--quiet", "--all", "--message", "second")
    write(folder, {"a.txt": "dirty"})
    opened, out = exported(folder, commit=old)
    assert (opened.kind, opened.digests["gitCommit"], tree(out)) == ("git", old, {"a.txt": b"old"})


@pytest.mark.parametrize("commit", ["0" * 40, "no-such-branch", "--all", "-h", ""])
def test_a_commit_that_is_not_here_is_said_to_be_missing(repository, scratch, commit):
    folder = repository({"a.txt": "a"})
    with pytest.raises(SourceUnusable, match="is not in") as caught:
        open_source(folder, scratch, commit=commit)
    assert "git fetch" in caught.value.remedy


def test_a_commit_of_a_folder_without_git_is_refused_before_anything_is_copied(tmp_path, scratch):
    with pytest.raises(SourceUnusable, match="is not a git checkout") as caught:
        open_source(tmp_path, scratch, commit="1" * 40)
    assert "--project" in caught.value.remedy
    assert list(scratch.iterdir()) == []


def test_a_repository_without_a_commit_has_no_source(git, tmp_path, scratch):
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    with pytest.raises(SourceUnusable, match="has no commit yet"):
        open_source(tmp_path / "empty", scratch)


def test_a_repository_without_a_commit_is_a_folder_when_changes_are_allowed(git, tmp_path, exported):
    folder = tmp_path / "young"
    write(folder, {".gitignore": "*.log\n", "a.txt": "a", "staged.txt": "s", "x.log": "x", "sub/b.txt": "b"})
    write(folder, {"sub/y.log": "y", "sub/deep/c.txt": "c", "dist/d.txt": "d"})
    git(folder, "init", "--quiet")
    git(folder, "add", "staged.txt")
    opened, out = exported(folder, allow_dirty=True)
    assert (opened.kind, opened.git) == ("folder", None)
    assert sorted(tree(out)) == [".gitignore", "a.txt", "staged.txt", "sub/b.txt", "sub/deep/c.txt"]
    opened, out = exported(folder / "sub", allow_dirty=True)
    assert sorted(tree(out)) == ["b.txt", "deep/c.txt"]


def test_a_commit_that_is_lost_is_no_reason_to_take_the_folder(repository, scratch, git):
    folder = repository({"a.txt": "a"})
    name = git(folder, "rev-parse", "HEAD").strip()
    (folder / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(SourceUnusable, match="The commit HEAD is not in"):
        open_source(folder, scratch, allow_dirty=True)


def test_a_project_in_a_subdirectory_comes_with_the_whole_repository(repository, exported):
    opened, out = exported(repository({"shared.txt": "s", "libs/demo/pyproject.toml": "p"}) / "libs" / "demo")
    assert opened.subdirectory == "libs/demo"
    assert sorted(tree(out)) == ["libs/demo/pyproject.toml", "shared.txt"]


@pytest.mark.parametrize(
    "name", ["new\nline", 'a "quoted"\n\\n', "separated\u2028\x85", os.fsdecode(b"caf\xe9"), " blank "]
)
@pytest.mark.parametrize("allow_dirty", [False, True])
def test_a_path_may_hold_anything(repository, exported, git, name, allow_dirty):
    folder = repository({"sub/a.txt": "a"}, name)
    git(folder, "tag", "v1.0")
    if allow_dirty:
        write(folder, {"sub/a.txt": "b"})
    opened, out = exported(folder / "sub", allow_dirty=allow_dirty)
    assert (opened.subdirectory, opened.objects) == ("sub", (folder / ".git/objects",))
    assert git(out, "describe", "--tags") == "v1.0\n"
    assert tree(out) == {"sub/a.txt": b"b" if allow_dirty else b"a"}


def test_a_tags_name_may_be_no_text(repository, exported, git):
    folder = repository({"a.txt": "a"})
    git(folder, "tag", os.fsdecode(b"caf\xe9"))
    _, out = exported(folder)
    assert (out / ".git/packed-refs").read_bytes().endswith(b"refs/tags/caf\xe9\n")


def test_files_that_are_elsewhere_are_not_taken_for_the_projects(repository, scratch, git):
    folder = repository({"a.txt": "a"})
    git(folder, "config", "core.worktree", repository({"b.txt": "b"}, "other"))
    with pytest.raises(SourceUnusable, match="other"):
        open_source(folder, scratch)


def test_a_worktree_is_a_checkout_too(repository, exported, git, tmp_path):
    folder = repository({"a.txt": "a"})
    git(folder, "worktree", "add", "--quiet", tmp_path / "other", "HEAD")
    opened, out = exported(tmp_path / "other")
    assert (opened.kind, tree(out)) == ("git", {"a.txt": b"a"})


def test_a_borrowed_object_folder_is_readable_too(repository, exported, git, tmp_path):
    folder = repository({"a.txt": "a"})
    git(tmp_path, "clone", "--quiet", "--shared", folder, "clone")
    opened, _ = exported(tmp_path / "clone")
    assert opened.objects == (tmp_path / "clone/.git/objects", folder / ".git/objects")


def test_without_git_a_checkout_is_no_source(repository, scratch, monkeypatch, tmp_path):
    folder = repository({"a.txt": "a"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="git"):
        open_source(folder, scratch)


# --- what the owner's configuration can't do -------------------------------------------------------


def test_line_endings_and_keywords_follow_the_commits_own_attributes(repository, exported):
    files = {
        ".gitattributes": "*.bat eol=crlf\n*.id ident\n*.raw -text\n",
        "a.bat": "x\n",
        "a.txt": "x\n",
        "a.raw": b"x\r\n",
        "a.id": "$Id$\n",
    }
    _, out = exported(repository(files))
    found = tree(out)
    assert (found["a.bat"], found["a.txt"], found["a.raw"]) == (b"x\r\n", b"x\n", b"x\r\n")
    assert found["a.id"].startswith(b"$Id: ")


@pytest.mark.parametrize("setting", ["true", "input"])
def test_the_owners_line_ending_setting_does_not_matter(repository, exported, git, setting):
    folder = repository({"a.txt": "x\ny\n", "dos.txt": b"x\r\ny\r\n"})
    git(folder, "config", "core.autocrlf", setting)
    git(folder, "config", "core.eol", "crlf")
    for name in ("a.txt", "dos.txt"):
        (folder / name).unlink()
    git(folder, "checkout", "--", ".")
    _, out = exported(folder)
    assert tree(out) == {"a.txt": b"x\ny\n", "dos.txt": b"x\r\ny\r\n"}


def test_nothing_is_left_out_and_nothing_filled_in(repository, exported):
    attributes = "tests export-ignore\nversion.txt export-subst\n"
    files = {".gitattributes": attributes, "tests/test.py": "t", "version.txt": "$Format:%H$"}
    _, out = exported(repository(files))
    assert tree(out)["tests/test.py"] == b"t"
    assert tree(out)["version.txt"] == b"$Format:%H$"


@pytest.mark.parametrize("place_of", ["repository", "user"])
def test_filters_and_hooks_are_not_run(repository, exported, git, tmp_path, place_of):
    folder = repository({".gitattributes": "*.txt filter=shout\n", "a.txt": "a\n"})
    where = ["config", "--local"] if place_of == "repository" else ["config", "--global"]
    git(folder, *where, "filter.shout.smudge", f"touch {tmp_path}/ran; tr a-z A-Z")
    git(folder, *where, "filter.shout.clean", "cat")
    git(folder, *where, "core.fsmonitor", f"touch {tmp_path}/ran; false")
    write(folder / ".git" / "hooks", {"post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (folder / ".git" / "hooks" / "post-checkout").chmod(0o755)
    (tmp_path / "ran").unlink(missing_ok=True)
    _, out = exported(folder)
    assert tree(out)["a.txt"] == b"a\n"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("missing", ["commit", "tree", "blob"])
@pytest.mark.parametrize("url", ["ext::touch {ran}", "{other}"])
@pytest.mark.parametrize("old_git", [False, True])
def test_nothing_is_fetched(repository, scratch, git, tmp_path, monkeypatch, missing, url, old_git):
    """A partial clone fetches what it lacks, by whatever program its configuration names."""
    if old_git:
        monkeypatch.delitem(gitcmd.RESTRAINED, "GIT_NO_LAZY_FETCH")
    folder, ran = repository({"a.txt": "a"}), tmp_path / "ran"
    git(folder, "config", "remote.origin.url", url.format(ran=ran, other=repository({"b.txt": "b"}, "other")))
    git(folder, "config", "remote.origin.uploadpack", f"touch {ran}; git-upload-pack")
    for setting in ("remote.origin.promisor=true", "extensions.partialClone=origin", "core.repositoryFormatVersion=1"):
        git(folder, "config", *setting.split("="))
    git(folder, "config", "protocol.ext.allow", "always")
    name = git(folder, "rev-parse", {"commit": "HEAD", "tree": "HEAD^{tree}", "blob": "HEAD:a.txt"}[missing]).strip()
    (folder / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(SourceUnusable):
        open_source(folder, scratch)
    assert not ran.exists()


def test_a_working_tree_that_git_cannot_read_is_no_source(repository, scratch, git):
    folder = repository({".gitattributes": "*.txt filter=gone\n", "a.txt": "a\n"})
    git(folder, "config", "filter.gone.clean", "false")
    git(folder, "config", "filter.gone.required", "true")
    os.utime(folder / "a.txt", (1, 1))
    with pytest.raises(SourceUnusable, match="git can't read the working tree"):
        open_source(folder, scratch)


def test_git_variables_of_the_caller_do_not_matter(repository, exported, monkeypatch, tmp_path):
    folder, other = repository({"a.txt": "a"}), repository({"b.txt": "b"}, "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    _, out = exported(folder)
    assert tree(out) == {"a.txt": b"a"}


def test_names_that_are_not_text_are_refused_in_words(repository, scratch, git, tmp_path):
    folder = repository({"a.txt": "a"})
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("x")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "latin-1")
    opened = open_source(folder, scratch)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="unsafe member name"):
        place(opened, tmp_path / "out", "sorted")


# --- the git directory that goes along -------------------------------------------------------------


def test_version_tools_hear_what_a_fresh_clone_would_say(repository, exported, git):
    folder = repository({"a.txt": "a"})
    git(folder, "tag", "v1.0")
    git(folder, "tag", "--annotate", "v1.1", "--message", "annotated")
    write(folder, {"a.txt": "b"})
    git(folder, "commit", "--quiet", "--all", "--message", "second")
    git(folder, "branch", "side")
    _, out = exported(folder)
    described = git(folder, "describe", "--tags", "--long", "--dirty").strip()
    assert described.startswith("v1.1-1-g")
    assert git(out, "describe", "--tags", "--long", "--dirty").strip() == described
    assert git(out, "tag") == "v1.0\nv1.1\n"
    assert git(out, "rev-parse", "HEAD") == git(folder, "rev-parse", "HEAD")
    assert git(out, "status", "--porcelain") == ""
    assert git(out, "for-each-ref", "refs/heads", "refs/remotes") == ""
    assert git(out, "config", "--local", "--list").splitlines() == [
        "core.bare=false",
        "core.filemode=true",
        "core.repositoryformatversion=0",
    ]


def test_a_shallow_clone_stays_shallow(repository, exported, git, tmp_path):
    folder = repository({"a.txt": "a"})
    write(folder, {"a.txt": "b"})
    git(folder, "commit", "--quiet", "--all", "--message", "second")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{folder}", "clone")
    _, out = exported(tmp_path / "clone")
    assert git(out, "log", "--format=%s") == "second\n"


def test_a_sha256_repository_is_exported(git, tmp_path, exported):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--object-format=sha256")
    write(folder, {"a.txt": "a"})
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    opened, out = exported(folder)
    assert len(opened.digests["gitCommit"]) == 64
    assert git(out, "status", "--porcelain") == ""


# --- a tree with changes ---------------------------------------------------------------------------


def test_a_changed_tree_is_refused_with_the_names(repository, scratch):
    folder = repository({f"{number}.txt": "x" for number in range(7)})
    for path in folder.glob("*.txt"):
        path.write_text("y")
    with pytest.raises(SourceUnusable, match=r"changes that no commit holds: 0\.txt, .*4\.txt and 2 more") as caught:
        open_source(folder, scratch)
    assert "--allow-dirty" in caught.value.remedy


@pytest.mark.parametrize("change", ["modified", "staged", "deleted", "renamed", "mode"])
def test_every_kind_of_change_is_one(repository, scratch, git, change):
    folder = repository({"a.txt": "a"})
    if change in ("modified", "staged"):
        write(folder, {"a.txt": "b"})
    if change == "staged":
        git(folder, "add", "--all")
    if change == "deleted":
        (folder / "a.txt").unlink()
    if change == "renamed":
        git(folder, "mv", "a.txt", "b.txt")
    if change == "mode":
        (folder / "a.txt").chmod(0o755)
    with pytest.raises(SourceUnusable, match=r"changes that no commit holds: [ab]\.txt"):
        open_source(folder, scratch)


def test_a_link_out_of_the_project_is_refused_in_words_for_its_owner(repository, exported, git):
    project = repository({"a": "a"})
    (project / "link").symlink_to("/etc/passwd")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", "a link")
    with pytest.raises(BadInput, match="the source has a link 'link' that leads outside") as caught:
        exported(project)
    assert "project's files" in caught.value.remedy


def test_untracked_files_are_counted_and_left_out(repository, exported):
    folder = repository({"a.txt": "a", ".gitignore": "*.log\n"})
    write(folder, {"new.txt": "n", "sub/other.txt": "n", "x.log": "ignored"})
    opened, out = exported(folder)
    assert (opened.kind, opened.untracked) == ("git", 2)
    assert sorted(tree(out)) == [".gitignore", "a.txt"]


def test_the_tree_as_it_is_leaves_out_just_what_is_ignored(repository, exported, git, tmp_path):
    """What the user ignores outside the repository stays out too: it may well hold secrets."""
    folder = repository({"a.txt": "a", "gone.txt": "g", "script": "s", ".gitignore": "*.log\n"})
    write(folder, {"a.txt": "b", "new/file.txt": "n", "x.log": "x", ".env": "s3cret", "mine.key": "s3cret"})
    write(folder / ".git" / "info", {"exclude": ".env\n"})
    write(tmp_path, {"everywhere": "*.key\n"})
    git(folder, "config", "--global", "core.excludesFile", tmp_path / "everywhere")
    (folder / "gone.txt").unlink()
    (folder / "script").chmod(0o755)
    opened, out = exported(folder, allow_dirty=True)
    assert tree(out) == {".gitignore": b"*.log\n", "a.txt": b"b", "new/file.txt": b"n", "script": b"s"}
    assert (out / "script").stat().st_mode & 0o777 == 0o755
    assert (opened.kind, opened.untracked) == ("dirty", 0)
    assert opened.digests["gitCommit"] == git(folder, "rev-parse", "HEAD").strip()
    git(folder, "add", "--all")
    assert opened.digests["gitTree"] == git(folder, "write-tree").strip()


@pytest.mark.parametrize(
    ("setting", "attributes", "new", "changed"),
    [
        ("", "", b"n\r\n", b"x\r\ny\r\n"),
        ("false", "", b"n\r\n", b"x\r\ny\r\n"),
        ("true", "", b"n\n", b"x\r\ny\r\n"),  # what is kept with CRLF stays so, says gitattributes(5)
        ("input", "", b"n\n", b"x\r\ny\r\n"),
        ("", "*.txt text\n", b"n\n", b"x\ny\n"),
        ("true", "*.txt -text\n", b"n\r\n", b"x\r\ny\r\n"),
    ],
)
def test_line_endings_become_what_a_commit_would_make_of_them(
    repository, exported, git, setting, attributes, new, changed
):
    folder = repository({"changed.txt": b"x\r\n", ".gitattributes": attributes})
    if setting:
        git(folder, "config", "core.autocrlf", setting)
    write(folder, {"new.txt": b"n\r\n", "changed.txt": b"x\r\ny\r\n"})
    _, out = exported(folder, allow_dirty=True)
    assert (tree(out)["new.txt"], tree(out)["changed.txt"]) == (new, changed)
    git(folder, "add", "--all")
    for name, content in (("new.txt", new), ("changed.txt", changed)):
        assert process.run(["git", "cat-file", "blob", f":{name}"], env=os.environ, cwd=folder).stdout == content


def test_staged_and_renamed_files_are_in_the_tree_as_it_is(repository, exported, git):
    folder = repository({"a.txt": "a", "b.txt": "b", ".gitignore": "*.log\n"})
    git(folder, "mv", "a.txt", "c.txt")
    git(folder, "rm", "--quiet", "--cached", "b.txt")
    write(folder, {"forced.log": "f", "d.txt": "d"})
    git(folder, "add", "--force", "forced.log", "d.txt")
    (folder / "d.txt").unlink()
    _, out = exported(folder, allow_dirty=True)
    assert sorted(tree(out)) == [".gitignore", "b.txt", "c.txt", "forced.log"]


def test_a_file_that_became_a_folder_is_one(repository, exported):
    folder = repository({"a": "file", "b/c": "file"})
    (folder / "a").unlink()
    (folder / "b" / "c").unlink()
    (folder / "b").rmdir()
    write(folder, {"a/new": "x", "b": "now a file"})
    _, out = exported(folder, allow_dirty=True)
    assert tree(out) == {"a/new": b"x", "b": b"now a file"}


def test_a_clean_tree_is_a_commit_even_when_changes_are_allowed(repository, exported):
    opened, _ = exported(repository({"a.txt": "a"}), allow_dirty=True)
    assert opened.kind == "git"


def test_the_same_tree_gives_the_same_export(repository, exported):
    folder = repository({"a.txt": "a"})
    write(folder, {"b.txt": "b"})
    first, _ = exported(folder, allow_dirty=True)
    second, _ = exported(folder, allow_dirty=True)
    assert first.digests == second.digests
    assert Digest.of_file(first.tar) == Digest.of_file(second.tar)


def test_version_tools_hear_that_the_tree_is_dirty(repository, exported, git):
    folder = repository({"a.txt": "a"})
    git(folder, "tag", "v1.0")
    write(folder, {"a.txt": "b"})
    _, out = exported(folder, allow_dirty=True)
    assert git(out, "describe", "--tags", "--dirty") == "v1.0-dirty\n"


@pytest.mark.parametrize("allow_dirty", [False, True])
def test_the_users_repository_is_not_touched(repository, exported, allow_dirty):
    folder = repository({"a.txt": "a"})
    write(folder, {"new.txt": "n"})
    os.utime(folder / "a.txt", (1, 1))  # git would like to refresh its index
    before = state_of(folder)
    exported(folder, allow_dirty=allow_dirty)
    assert state_of(folder) == before


@pytest.mark.parametrize("kind", ["git", "dirty", "young", "folder"])
def test_scratch_in_the_project_is_not_exported(git, repository, tmp_path, kind):
    folder = repository({"a.txt": "a"})
    if kind in ("young", "folder"):
        (folder / ".git").rename(tmp_path / "gone")
    if kind == "young":
        git(folder, "init", "--quiet")
    if kind == "dirty":
        write(folder, {"a.txt": "b", "tmp/b.txt": "b"})
    with scratch_folder(folder / "tmp", "scratch-") as scratch:
        (scratch / "out").mkdir()
        write(scratch, {"more.txt": "x"})
        opened = open_source(folder, scratch, allow_dirty=True)
        place(opened, scratch / "out", "sorted")
        assert (opened.kind, opened.untracked) == ("folder" if kind == "young" else kind, 0)
        assert sorted(tree(scratch / "out")) == (["a.txt", "tmp/b.txt"] if kind == "dirty" else ["a.txt"])


# --- LFS and submodules ----------------------------------------------------------------------------


@pytest.fixture
def with_lfs(repository):
    text, _ = pointer(BIG)
    return repository({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "sub/x.bin": text})


def test_an_lfs_object_takes_its_pointers_place(with_lfs, exported, git):
    keep_lfs_object(with_lfs / ".git", BIG)
    git(with_lfs, "tag", "v1.0")
    _, out = exported(with_lfs)
    assert (out / "sub" / "x.bin").read_bytes() == BIG
    assert (out / "sub" / "x.bin").stat().st_mode & 0o777 == 0o644
    assert (out / "sub" / "x.bin").stat().st_mtime == COMMITTED_AT
    assert git(out, "describe", "--tags", "--dirty") == "v1.0\n"
    assert git(out, "status", "--porcelain") == ""


def test_a_missing_lfs_object_is_named_with_what_to_do(with_lfs, scratch, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(SourceUnusable, match=r"x\.bin is kept in Git LFS, and its object sha256:") as caught:
        place(open_source(with_lfs, scratch), tmp_path / "out", "sorted")
    assert caught.value.remedy == "Fetch it: git lfs pull."


def test_a_damaged_lfs_object_is_refused(with_lfs, scratch, tmp_path):
    oid = pointer(BIG)[1]
    write(with_lfs / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4], {oid: b"other bytes"})
    (tmp_path / "out").mkdir()
    with pytest.raises(DigestMismatch, match=r"LFS object of x\.bin"):
        place(open_source(with_lfs, scratch), tmp_path / "out", "sorted")


def test_submodules_are_exported_from_the_local_clones(repository, exported, git):
    inner = repository({"inner.txt": "i"}, "inner")
    middle = repository({"middle.txt": "m"}, "middle")
    git(middle, "submodule", "add", "--quiet", inner, "deep/inner")
    git(middle, "commit", "--quiet", "--message", "with inner")
    outer = repository({"outer.txt": "o"}, "outer")
    git(outer, "submodule", "add", "--quiet", middle, "libs/middle")
    git(outer, "submodule", "update", "--quiet", "--init", "--recursive")
    git(outer, "commit", "--quiet", "--message", "with middle")
    git(outer, "tag", "v1.0")
    opened, out = exported(outer)
    assert [path for path, _ in opened.submodules] == ["libs/middle", "libs/middle/deep/inner"]
    found = tree(out)
    assert found["libs/middle/middle.txt"] == b"m"
    assert found["libs/middle/deep/inner/inner.txt"] == b"i"
    assert git(out, "describe", "--tags", "--dirty") == "v1.0\n"


def test_a_submodules_lfs_object_is_found(with_lfs, repository, exported, git):
    outer = repository({"outer.txt": "o"}, "outer")
    git(outer, "submodule", "add", "--quiet", with_lfs, "data")
    git(outer, "commit", "--quiet", "--message", "with data")
    keep_lfs_object(outer / ".git" / "modules" / "data", BIG)
    _, out = exported(outer)
    assert (out / "data" / "sub" / "x.bin").read_bytes() == BIG


def test_a_pointer_that_the_attributes_dont_give_to_lfs_is_a_file_like_others(repository, exported, git):
    text, _ = pointer(BIG)
    inner = repository({"inner.bin": text}, "inner")
    folder = repository({".gitattributes": "*.bin filter=lfs\ntests/** -filter\n", "tests/x.bin": text, "b.txt": text})
    git(folder, "submodule", "add", "--quiet", inner, "inner")
    git(folder, "commit", "--quiet", "--message", "with inner")
    _, out = exported(folder)
    assert {tree(out)[name] for name in ("tests/x.bin", "b.txt", "inner/inner.bin")} == {text}
    assert git(out, "status", "--porcelain", "--ignore-submodules") == ""


def test_a_submodule_that_is_not_checked_out_is_named(repository, scratch, git, tmp_path):
    outer = repository({"outer.txt": "o"}, "outer")
    git(outer, "submodule", "add", "--quiet", repository({"inner.txt": "i"}, "inner"), "libs/inner")
    git(outer, "commit", "--quiet", "--message", "with inner")
    git(tmp_path, "clone", "--quiet", outer, "clone")
    with pytest.raises(SourceUnusable, match="The submodule libs/inner is not checked out") as caught:
        open_source(tmp_path / "clone", scratch)
    assert "git submodule update" in caught.value.remedy


def test_a_submodule_without_its_commit_is_named(repository, scratch, git):
    outer = repository({"outer.txt": "o"}, "outer")
    git(outer, "submodule", "add", "--quiet", repository({"inner.txt": "i"}, "inner"), "inner")
    git(outer, "update-index", "--cacheinfo", f"160000,{'1' * 40},inner")
    git(outer, "commit", "--quiet", "--message", "a commit that nobody has")
    commit = git(outer, "rev-parse", "HEAD").strip()
    with pytest.raises(SourceUnusable, match=f"The submodule inner lacks the commit {'1' * 40}"):
        open_source(outer, scratch, commit=commit)


# --- where others find it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "uri"),
    [
        ("https://example.org/demo.git", "git+https://example.org/demo.git"),
        ("https://user:t0ken@example.org/demo.git", "git+https://example.org/demo.git"),
        ("https://t0ken@example.org:8443/demo.git", "git+https://example.org:8443/demo.git"),
        ("https://us%40er:to%2Fken@example.org/demo", "git+https://example.org/demo"),
        ("ssh://git@example.org/demo.git", "git+ssh://example.org/demo.git"),
        ("git@example.org:group/demo.git", "git+ssh://example.org/group/demo.git"),
        ("example.org:demo.git", "git+ssh://example.org/demo.git"),
        ("https://example.org/demo.git?private_token=t0ken#t0ken", "git+https://example.org/demo.git"),
        ("https://[t0ken/demo.git", ""),
        ("file:///srv/demo.git", ""),
        ("/srv/demo.git", ""),
        ("../demo.git", ""),
        (None, ""),
    ],
)
def test_the_remote_is_told_without_credentials(repository, scratch, git, remote, uri):
    folder = repository({"a.txt": "a"})
    if remote:
        git(folder, "config", "remote.origin.url", remote)
    assert open_source(folder, scratch).uri == uri


# --- folders without git ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "project"
    path.mkdir()
    return path


def test_a_folder_is_exported_without_what_tools_leave_there(folder, exported):
    write(folder, {"pyproject.toml": "", "src/demo/__init__.py": "", "src/demo/build/x.py": "x", "script.sh": "s"})
    write(folder, {f"{name}/file": "x" for name in (".venv", "dist", "build", ".tox", "src/demo/__pycache__")})
    write(folder, {"src/demo/a.pyc": "x", "src/demo.egg-info/PKG-INFO": "x"})
    (folder / "script.sh").chmod(0o700)
    (folder / "link").symlink_to("script.sh")
    opened, out = exported(folder)
    assert sorted(tree(out)) == ["link", "pyproject.toml", "script.sh", "src/demo/__init__.py", "src/demo/build/x.py"]
    assert (out / "script.sh").stat().st_mode & 0o777 == 0o755
    assert (opened.kind, opened.digests, opened.git) == ("folder", {"sha256": Digest.of_file(opened.tar).hex}, None)


def test_an_unpacked_sdist_keeps_its_list_of_files(folder, exported):
    write(folder, {"PKG-INFO": "", "src/demo.egg-info/SOURCES.txt": "x", "a.pyc": "x"})
    _, out = exported(folder)
    assert sorted(tree(out)) == ["PKG-INFO", "src/demo.egg-info/SOURCES.txt"]


@pytest.mark.parametrize("name", ["dist", "build"])
def test_a_package_may_have_the_name_of_an_output_folder(folder, exported, name):
    write(folder, {f"{name}/__init__.py": "", "other/dist/x.whl": "x"})
    _, out = exported(folder)
    assert sorted(tree(out)) == [f"{name}/__init__.py", "other/dist/x.whl"]


def test_a_folders_digest_is_of_its_content_alone(folder, exported):
    write(folder, {"b.txt": "b", "a.txt": "a"})
    first, _ = exported(folder)
    os.utime(folder / "a.txt", (1_600_000_000, 1_600_000_000))
    (folder / "a.txt").chmod(0o600)
    second, _ = exported(folder)
    write(folder, {"a.txt": "c"})
    third, _ = exported(folder)
    assert first.digests == second.digests != third.digests


def test_a_folders_time_is_its_newest_files(folder, exported):
    write(folder, {"a.txt": "a", "b.txt": "b", "build/new.txt": "x"})
    os.utime(folder / "a.txt", (1_700_000_000, 1_700_000_000))
    os.utime(folder / "b.txt", (1_600_000_000, 1_600_000_000))
    opened, out = exported(folder)
    assert opened.epoch == 1_700_000_000
    assert (out / "b.txt").stat().st_mtime == 1_700_000_000


@pytest.mark.parametrize("name", ["absent", "file.txt", "demo.zip"])
def test_what_is_neither_a_folder_nor_an_sdist_is_refused(tmp_path, scratch, name):
    if name != "absent":
        (tmp_path / name).write_text("x")
    with pytest.raises(BadInput, match=name):
        open_source(tmp_path / name, scratch)


# --- sdists ----------------------------------------------------------------------------------------


def sdist(path, files, pax=None):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), 1_700_000_000, 0o664
            member.pax_headers = pax or {}
            tar.addfile(member, io.BytesIO(content))
    return path


SDIST = {"demo-1.0/pyproject.toml": b"p", "demo-1.0/src/demo.py": b"d", "demo-1.0/PKG-INFO": b"i"}


def test_an_sdists_own_folder_is_lifted(tmp_path, exported):
    path = sdist(tmp_path / "demo-1.0.tar.gz", SDIST)
    opened, out = exported(path)
    assert tree(out) == {"pyproject.toml": b"p", "src/demo.py": b"d", "PKG-INFO": b"i"}
    assert (opened.kind, opened.uri, opened.epoch) == ("sdist", "demo-1.0.tar.gz", 1_700_000_000)
    assert opened.digests == {"sha256": Digest.of_file(path).hex}
    assert (out / "PKG-INFO").stat().st_mode & 0o777 == 0o644


def test_an_sdist_may_hold_any_name_where_its_folder_is_lifted(tmp_path, exported):
    names = (".lift-0", ".lift-1", ".reprobuild-lift", "demo-1.0")
    files = {**SDIST, **{f"demo-1.0/{name}/x": b"x" for name in names}}
    _, out = exported(sdist(tmp_path / "demo-1.0.tar.gz", files))
    assert tree(out) == {name.removeprefix("demo-1.0/"): data for name, data in files.items()}


def test_a_link_is_no_top_folder(tmp_path, exported):
    path = tmp_path / "demo-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("demo-1.0")
        link.type, link.linkname = tarfile.SYMTYPE, "."
        tar.addfile(link)
    with pytest.raises(BadInput, match="exactly one top folder"):
        exported(path)


@pytest.mark.parametrize("files", [{"a": b"", "b": b""}, {"demo": b""}, {"demo-1/x": b"", "y": b""}])
def test_an_sdist_has_one_top_folder(tmp_path, exported, files):
    with pytest.raises(BadInput, match="exactly one top folder"):
        exported(sdist(tmp_path / "demo-1.0.tar.gz", files))


@pytest.mark.parametrize(
    ("mtime", "epoch"),
    [
        ("0", EARLIEST_EPOCH),
        ("-5", EARLIEST_EPOCH),
        ("1e30", LATEST_EPOCH),
        ("inf", LATEST_EPOCH),
        ("-inf", EARLIEST_EPOCH),
        ("nan", EARLIEST_EPOCH),
        ("1700000000.75", 1_700_000_000),
    ],
)
def test_an_sdists_time_is_one_that_a_zip_can_hold(tmp_path, scratch, mtime, epoch):
    path = sdist(tmp_path / "demo-1.0.tar.gz", SDIST, {"mtime": mtime})
    assert open_source(path, scratch).epoch == epoch


@pytest.mark.parametrize("damage", [b"", b"nonsense", "cut", "flipped"])
def test_a_damaged_sdist_is_refused_in_words(tmp_path, scratch, damage):
    path = sdist(tmp_path / "demo-1.0.tar.gz", SDIST)
    data = path.read_bytes()
    damages = {"cut": data[:60], "flipped": data[:60] + bytes(255 - byte for byte in data[60:])}
    path.write_bytes(damages.get(damage, damage))
    with pytest.raises(BadInput, match="is not an sdist"):
        open_source(path, scratch)


# --- peek and epochs -------------------------------------------------------------------------------


def test_peek_copies_the_projects_own_files_alone(repository, scratch, tmp_path):
    files = {"pyproject.toml": "outer", "libs/demo/pyproject.toml": "demo", "libs/demo/sub/pyproject.toml": "x"}
    folder = repository(files)
    (tmp_path / "seen").mkdir()
    peek(open_source(folder / "libs/demo", scratch), ("pyproject.toml", "setup.py"), tmp_path / "seen")
    assert tree(tmp_path / "seen") == {"pyproject.toml": b"demo"}


def test_peek_looks_into_an_sdists_folder(tmp_path, scratch):
    opened = open_source(sdist(tmp_path / "demo-1.0.tar.gz", SDIST), scratch)
    (tmp_path / "seen").mkdir()
    peek(opened, ("pyproject.toml", "demo.py"), tmp_path / "seen")
    assert tree(tmp_path / "seen") == {"pyproject.toml": b"p"}


def test_peek_reads_no_file_that_is_too_large_to_be_one(tmp_path, scratch):
    files = {"demo-1.0/pyproject.toml": bytes((16 << 20) + 1)}
    opened = open_source(sdist(tmp_path / "demo-1.0.tar.gz", files), scratch)
    with pytest.raises(BadInput, match=r"has a pyproject\.toml of 16777217 bytes"):
        peek(opened, ("pyproject.toml",), tmp_path)
    peek(opened, ("setup.py",), tmp_path)


def test_a_commit_before_1980_gets_the_first_moment_of_a_zip(repository, scratch, monkeypatch):
    monkeypatch.setenv("GIT_COMMITTER_DATE", "@86400 +0000")
    assert open_source(repository({"a.txt": "a"}), scratch).epoch == EARLIEST_EPOCH


def test_an_epoch_that_was_named_wins(repository, exported):
    opened, out = exported(repository({"a.txt": "a"}), epoch=1_000_000_000)
    assert opened.epoch == (out / "a.txt").stat().st_mtime == 1_000_000_000


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        (None, None),
        ("", None),
        ("0", EARLIEST_EPOCH),
        ("1", EARLIEST_EPOCH),
        (str(EARLIEST_EPOCH), EARLIEST_EPOCH),
        ("1700000000", 1_700_000_000),
        ("01700000000", 1_700_000_000),
        (str(LATEST_EPOCH), LATEST_EPOCH),
    ],
)
def test_the_users_epoch_is_clamped_to_what_a_zip_can_hold(text, epoch):
    assert epoch_from_environment({} if text is None else {"SOURCE_DATE_EPOCH": text}) == epoch


@pytest.mark.parametrize(
    "text", ["-1", "1.5", "1e9", "now", " 1", "1\n", "0x10", "1_000", "\u0661", str(LATEST_EPOCH + 1), "9" * 5000]
)
def test_a_bad_epoch_is_refused(text):
    with pytest.raises(BadInput, match="SOURCE_DATE_EPOCH is ") as caught:
        epoch_from_environment({"SOURCE_DATE_EPOCH": text})
    assert "Unset it" in caught.value.remedy


def test_numbers_are_clamped():
    assert [source.clamped(each) for each in (-1.0, 2e9, float("inf"), float("nan"))] == [
        EARLIEST_EPOCH,
        2_000_000_000,
        LATEST_EPOCH,
        EARLIEST_EPOCH,
    ]


@pytest.mark.parametrize("data", [b"junk", b"\x1f\x8b\x08" + b"\xff" * 300, b"\xfd7zXZ\x00" + b"\0" * 300])
@pytest.mark.parametrize("epoch", [None, 1_700_000_000])
def test_a_damaged_sdist_is_bad_input(tmp_path, scratch, data, epoch):
    path = tmp_path / "demo-1.0.tar.gz"
    path.write_bytes(data)
    (tmp_path / "peeked").mkdir()
    with pytest.raises(BadInput, match="is not a"):
        peek(open_source(path, scratch, epoch=epoch), ("pyproject.toml",), tmp_path / "peeked")


@pytest.mark.parametrize("where", ["alternates", "link"])
def test_a_folder_without_git_objects_is_not_shown_as_if_it_had_them(repository, scratch, tmp_path, where):
    """A build sees the folders that hold objects: a stranger's repository could name any other."""
    folder = repository({"a.py": "1"})
    private = tmp_path / "private"
    private.mkdir()
    (private / "secret").touch()
    objects = folder / ".git" / "objects"
    if where == "alternates":
        (objects / "info").mkdir(exist_ok=True)
        (objects / "info" / "alternates").write_text(f"{private}\n")
    else:
        for path in objects.iterdir():
            path.rename(private / path.name)
        objects.rmdir()
        objects.symlink_to(private)
    with pytest.raises(SourceUnusable, match="is to hold git objects, and holds 'secret'"):
        open_source(folder, scratch)


# --- repositories elsewhere --------------------------------------------------------------------------


@pytest.fixture
def remote(git, repository):
    """A repository with a tag, a branch of its own, and a newer commit."""
    folder = repository({"a.txt": "first", "sub/b.txt": "below"})
    git(folder, "tag", "v1")
    git(folder, "branch", "side")
    write(folder, {"a.txt": "second"})
    git(folder, "commit", "--quiet", "--all", "--message", "second")
    return folder


@pytest.mark.parametrize("ref", ["v1", "side", "commit"])
def test_a_commit_elsewhere_is_cloned(git, remote, scratch, tmp_path, ref):
    name = git(remote, "rev-parse", "v1").strip()
    opened = clone(f"git+file://{remote}@{name if ref == 'commit' else ref}", scratch)
    assert opened.digests["gitCommit"] == name
    (tmp_path / "out").mkdir()
    place(opened, tmp_path / "out", "sorted")
    assert tree(tmp_path / "out") == {"a.txt": b"first", "sub/b.txt": b"below"}


def test_a_folder_of_a_repository_elsewhere(remote, scratch):
    assert clone(f"git+file://{remote}@v1#subdirectory=sub", scratch).subdirectory == "sub"
    with pytest.raises(BadInput, match="is not a folder in the repository"):
        clone(f"git+file://{remote}@v1#subdirectory=../..", scratch.parent / "other")


def test_a_checkout_without_an_epoch_has_the_present_time(remote, scratch, tmp_path):
    opened = clone(f"git+file://{remote}@v1", scratch)
    started = int(time.time())
    (tmp_path / "out").mkdir()
    place(replace(opened, own_times=True), tmp_path / "out", "sorted")
    assert (tmp_path / "out" / "sub" / "b.txt").stat().st_mtime >= started > opened.epoch


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("git+ext::sh -c id@v1", "is not git+URL@REF"),
        ("git+https://example.org/demo.git", "is not git+URL@REF"),
        ("git+https://-oProxyCommand=id@v1@", "is not git+URL@REF"),
        ("git+https://token@example.org/demo@v1", "holds a credential"),
        ("git+https://me:secret@example.org/demo@v1", "holds a credential"),
        ("git+ssh://me:secret@example.org/demo@v1", "holds a credential"),
    ],
)
def test_addresses_that_are_refused(scratch, address, reason):
    with pytest.raises(BadInput, match=re.escape(reason)):
        clone(address, scratch)


def test_what_is_not_there_can_not_be_cloned(remote, scratch, tmp_path):
    with pytest.raises(SourceUnusable, match="git can't fetch"):
        clone(f"git+file://{tmp_path}/none@v1", scratch)
    with pytest.raises(SourceUnusable, match="has no commit v2"):
        clone(f"git+file://{remote}@v2", scratch)


def test_a_clone_holds_what_the_commit_and_its_tags_hold_and_no_more(git, remote, scratch):
    """A build sees the objects: a wheel on another branch would be there to be copied."""
    git(remote, "checkout", "--quiet", "-b", "later")
    write(remote, {"wheel": "the published bytes"})
    git(remote, "add", "--all")
    git(remote, "commit", "--quiet", "--message", "later")
    hidden = git(remote, "rev-parse", "HEAD:wheel").strip()
    opened = clone(f"git+file://{remote}@v1", scratch)
    held = git(scratch / "clone", "cat-file", "--batch-all-objects", "--batch-check")
    assert opened.digests["gitCommit"] in held
    assert hidden not in held
    assert git(scratch / "clone", "describe", "--tags", "HEAD").strip() == "v1"


def test_a_submodule_can_not_be_a_folder_of_this_machine(git, remote, repository, scratch):
    secret = repository({"secret": "mine"}, name="secret")
    git(remote, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{secret}", "sub-secret")
    git(remote, "commit", "--quiet", "--all", "--message", "with a submodule")
    git(remote, "tag", "v2")
    with pytest.raises(SourceUnusable, match="git can't fetch"):
        clone(f"git+file://{remote}@v2", scratch)
