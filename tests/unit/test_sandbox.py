import os
import pwd
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reprobuild import process, sandbox, workspace
from reprobuild.errors import SandboxUnavailable
from reprobuild.process import ToolFailed, ToolTimeout, ToolTooLarge
from reprobuild.sandbox import KINDS, USUAL, Guarantees, Surroundings, choose, observed, open_box

PYTHON = os.path.realpath(sys.executable)
#: What a shell adds by itself.
SHELLS_OWN = {"PWD", "OLDPWD", "SHLVL", "_"}
NAMESPACES = ["bubblewrap", "unshare"]


@pytest.fixture(params=list(KINDS))
def kind(request):
    """Each kind of sandbox that works on this machine."""
    if why := KINDS[request.param].why_not():
        pytest.skip(f"{request.param} doesn't work here: {why}")
    return request.param


@pytest.fixture
def around(kind, tmp_path):
    """The usual surroundings; for plain at a path of this test's own, which no other test can hold."""
    return Surroundings(root=str(tmp_path / "fixed")) if kind == "plain" else USUAL


@pytest.fixture
def box(kind, around):
    with open_box(kind, around, readable=[Path(sys.base_prefix)]) as opened:
        yield opened


def shell(box, script, **options):
    return box.run(["sh", "-c", script], timeout=30, **options).stdout.decode().strip()


def python(box, script, *arguments):
    return box.run([PYTHON, "-I", "-S", "-c", script, *arguments], timeout=30).stdout.decode().strip()


# --- what a build sees -----------------------------------------------------------------------------


def test_the_workspace_lies_at_the_fixed_path(box, around):
    assert box.guarantees.fixed_path
    assert box.root == around.root
    assert shell(box, "pwd -P") == around.root
    homes = ["reprobuild-home"] if box.guarantees.kind == "plain" else []
    assert shell(box, "ls").split() == sorted((*sandbox.FOLDERS, *homes))


def test_every_folder_is_the_same_inside_and_outside(box):
    for name in sandbox.FOLDERS:
        box.outside(name, "from-outside").write_text(name)
        assert shell(box, f"cat from-outside && echo inside > {name}.txt", cwd=box.inside(name)) == name
        assert box.outside(name, f"{name}.txt").read_text() == "inside\n"


def test_the_host_name_is_fixed_where_that_is_promised(box):
    expected = "reprobuild" if box.guarantees.fixed_hostname else socket.gethostname()
    assert python(box, "import socket; print(socket.gethostname())") == expected
    assert observed(box).hostname == expected


def test_the_user_is_fixed_where_that_is_promised(box):
    assert shell(box, "echo $USER $LOGNAME") == "builder builder"
    if box.guarantees.fixed_user:
        assert shell(box, "id -un; id -u; id -gn; id -g").split() == ["builder", "1000", "builder", "1000"]
        assert shell(box, "cut -d: -f1 /etc/passwd") == "builder"
    assert str(observed(box).uid) == shell(box, "id -u")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_is_the_one_that_was_asked_for(kind, around, umask):
    with open_box(kind, replace(around, umask=umask)) as box:
        shell(box, "echo > file", cwd=box.inside("out"))
        assert box.outside("out", "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_environment_is_known_to_the_last_variable(monkeypatch, kind, around):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    with open_box(kind, around) as box:
        said = dict(line.split("=", 1) for line in box.run(["env"]).stdout.decode().splitlines())
    expected = box.environment({})
    assert {name: said[name] for name in expected} == expected
    assert said.keys() - expected.keys() <= SHELLS_OWN
    assert expected["HOME"] == (f"{around.root}/reprobuild-home" if kind == "plain" else "/tmp/reprobuild-home")
    assert expected["TMPDIR"] == f"{around.root}/tmp"
    assert {name: expected[name] for name in ("UV_NO_CONFIG", "UV_OFFLINE", "PIP_NO_INDEX")} == {
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
    }
    assert {name: expected[name] for name in ("TZ", "LC_ALL", "LANG", "PYTHONHASHSEED", "USER")} == {
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "USER": "builder",
    }


def test_varied_surroundings_arrive(kind, tmp_path):
    varied = Surroundings(
        root=str(tmp_path / "other") if kind == "plain" else "/tmp/another-place",
        home="/tmp/second-home",
        hostname="elsewhere",
        user="rebuilder",
        uid=1001,
        timezone="<-1130>+11:30",
        locale="C",
        hash_seed="7",
        jobs=3,
        noise="loud",
    )
    with open_box(kind, varied) as box:
        script = "pwd -P; echo $HOME; echo $USER; date +%z; echo $LC_ALL; echo $PYTHONHASHSEED; echo $MAX_JOBS"
        said = shell(box, f"{script}; echo $REPROBUILD_NOISE; test -d $HOME && uname -n; id -u").split()
    root = varied.root
    home = f"{root}/second-home" if kind == "plain" else "/tmp/second-home"
    assert said[:8] == [root, home, "rebuilder", "-1130", "C", "7", "3", "loud"]
    if box.guarantees.fixed_hostname:
        assert said[8] == "elsewhere"
    if box.guarantees.fixed_user:
        assert said[9] == "1001"


def test_a_build_sees_as_many_processors_as_it_may_use(kind, around):
    count = os.cpu_count() or 1
    script = "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)), os.environ['MAX_JOBS'])"
    for jobs in (1, count + 1):
        with open_box(kind, replace(around, jobs=jobs), readable=[Path(sys.base_prefix)]) as box:
            seen = python(box, script).split()
        # No processor can be added, and only namespaces can hide how many there are.
        assert seen[1:] == [str(min(jobs, len(os.sched_getaffinity(0)))), str(jobs)]
        if kind == "bubblewrap":
            assert seen[0] == str(jobs)
    with open_box(kind, around, readable=[Path(sys.base_prefix)]) as box:
        assert python(box, script).split() == [str(count), str(len(os.sched_getaffinity(0))), str(count)]


def test_this_process_keeps_its_processors(kind, around):
    before = os.sched_getaffinity(0)
    with open_box(kind, replace(around, jobs=1)) as box:
        shell(box, "true")
        with pytest.raises(ToolFailed):
            shell(box, "false")
    assert os.sched_getaffinity(0) == before


def test_the_clock_is_the_one_that_was_asked_for(kind, around, compiler):
    if not compiler:
        pytest.skip("there is no C compiler here")
    for clock, expected in (("stopped", "2037-01-02 03:04:05"), ("shifted", ""), ("real", "")):
        with open_box(kind, replace(around, clock=clock)) as box:
            said = shell(box, "date -u '+%F %T'")
            year = int(said[:4])
            assert (
                said == expected or year == time.gmtime(time.time() + (397 * 86_400 + 3_661) * (clock == "shifted"))[0]
            )
            loaded = shell(box, "echo $LD_PRELOAD")
            assert (loaded == "") is (clock == "real")


def test_a_clock_leaves_no_word_of_its_own_in_the_output(kind, around, compiler):
    """A library that isn't there is something that the loader speaks of, once for each program."""
    if not compiler:
        pytest.skip("there is no C compiler here")
    lines: list[str] = []
    with open_box(kind, replace(around, clock="shifted")) as box:
        box.run(["/bin/sh", "-c", "date >/dev/null; echo end >&2"], on_line=lines.append)
    assert lines == ["end"]


def test_noise_is_added_and_nothing_else_changes(kind, around):
    with open_box(kind, around) as box:
        usual = box.environment({})
    with open_box(kind, replace(around, noise="Geräusch")) as box:
        noisy = box.environment({})
        assert shell(box, "echo $REPROBUILD_NOISE $EDITOR") == "Geräusch /usr/bin/a-second-editor"
    added = noisy.keys() - usual.keys()
    assert {name: noisy[name] for name in usual} == usual
    assert added == {*sandbox._NOISE, "REPROBUILD_NOISE"}
    assert max(map(len, noisy.values())) > 4000


def test_variables_for_one_command_are_added_and_win(box):
    assert shell(box, "echo $OWN $TZ", env={"OWN": "1", "TZ": "CET"}) == "1 CET"
    assert shell(box, "echo $OWN$TZ") == "UTC"


def test_uv_is_at_hand(box):
    assert box.run([box.uv_inside, "--version"]).stdout.startswith(b"uv ")


def test_a_folder_below_tmp_can_be_read_and_not_changed_under_bubblewrap(kind, around, tmp_path):
    tools = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(tools):
        folder.mkdir()
        (folder / "tool").write_text(f"#!/bin/sh\necho {number}\n")
        (folder / "tool").chmod(0o755)
    with open_box(kind, around, readable=tools) as box:
        assert [shell(box, f"{folder}/tool") for folder in tools] == ["0", "1"]
        if box.guarantees.confined:
            with pytest.raises(ToolFailed, match="Read-only"):
                shell(box, f"touch {tools[0]}/new")
    assert sorted(path.name for path in tools[0].iterdir()) == ["tool"]


# --- what a build can't reach ----------------------------------------------------------------------

CONNECT = """
import socket, sys
with socket.socket() as end:
    end.settimeout(2)
    try:
        end.connect((sys.argv[1], int(sys.argv[2])))
        print("connected")
    except OSError as error:
        print(type(error).__name__)
"""


def test_no_socket_of_the_machine_can_be_reached_where_that_is_promised(box):
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = python(box, CONNECT, "127.0.0.1", str(server.getsockname()[1]))
    assert (said == "connected") is not box.guarantees.network_off


def test_a_build_can_talk_to_itself(box):
    script = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 5)
print("connected")
"""
    assert python(box, script) == "connected"


def test_no_other_machine_can_be_reached_where_that_is_promised(box):
    if not box.guarantees.network_off:
        assert box.environment({})["https_proxy"] == "http://127.0.0.1:9"
        return
    assert "https_proxy" not in box.environment({})
    # An address that is set apart for documentation (RFC 5737); with a route it would time out.
    assert python(box, CONNECT, "192.0.2.1", "80") == "OSError"


def test_nothing_else_of_the_machine_is_seen_under_bubblewrap(kind, around, tmp_path):
    home = pwd.getpwuid(os.getuid()).pw_dir
    (tmp_path / "secret").write_text("s3cret")
    script = f"cat {tmp_path}/secret; ls -A {home}; ls /proc | grep -c '^[0-9]'"
    if kind != "bubblewrap":
        pytest.skip(f"{kind} doesn't promise it")
    with open_box(kind, around) as box:
        lines = shell(box, f"({script}) 2>&1 || true").splitlines()
    assert lines[0].endswith("secret: No such file or directory")
    assert lines[1].endswith("No such file or directory")
    assert int(lines[2]) < 6


@pytest.mark.parametrize("namespace", ["ipc", "mnt", "net", "pid", "user", "uts"])
def test_a_build_has_namespaces_of_its_own(kind, around, namespace):
    if kind == "plain":
        pytest.skip("plain doesn't promise it")
    with open_box(kind, around) as box:
        own = shell(box, f"readlink /proc/self/ns/{namespace}")
    assert own.startswith(f"{namespace}:[")
    assert own != str(Path(f"/proc/self/ns/{namespace}").readlink())


def test_no_setting_of_the_kernel_can_be_written_under_bubblewrap(box):
    if not box.guarantees.confined:
        pytest.skip(f"{box.guarantees.kind} doesn't promise it")
    script = "import os, sys; os.close(os.open(sys.argv[1], os.O_WRONLY))"  # opened alone: it is the real one
    for name in ("kernel/core_pattern", "kernel/hostname", "vm/drop_caches"):
        assert Path("/proc/sys", name).exists()
        with pytest.raises(ToolFailed, match=r"Read-only file system|Permission denied"):
            python(box, script, f"/proc/sys/{name}")


def test_a_build_cannot_write_outside_its_workspace_under_bubblewrap(box, tmp_path):
    if not box.guarantees.confined:
        pytest.skip(f"{box.guarantees.kind} doesn't promise it")
    name = f"written-by-a-build-{os.getpid()}"
    folders = ["/usr", "/usr/lib", "/etc", "/var/tmp", "/tmp", "/dev/shm", tmp_path.parent, "/"]
    for folder in folders:
        shell(box, f"mkdir -p {folder}; touch {folder}/{name} || true")
    assert [folder for folder in folders if Path(folder, name).exists()] == []


def test_other_files_below_tmp_are_out_of_sight_in_namespaces(kind, around, tmp_path):
    if kind == "plain":
        pytest.skip("plain doesn't promise it")
    (tmp_path / "secret").write_text("s3cret")
    with open_box(kind, around) as box, pytest.raises(ToolFailed, match="No such file"):
        shell(box, f"cat {tmp_path}/secret")


@pytest.mark.parametrize("name", ["src", "asked", "home", "hooks", "tools", "reprobuild-home"])
def test_what_ran_inside_cannot_redirect_what_is_mounted_or_filled_next(kind, around, tmp_path, name):
    if kind != "bubblewrap":
        pytest.skip(f"{kind} doesn't promise it")
    target = tmp_path / "of-the-machine"
    target.mkdir()
    with open_box(kind, around) as box:
        for place in (box.inside(name), f"{box.home}/../{name}"):
            shell(box, f"rm -rf {place}; rm -rf {place}/*; ln -sfn {target} {place} || true")
        for folder in ("src", "asked"):
            assert not box.outside(folder).is_symlink()
            box.outside(folder, "from-outside").touch()
        with box.exchange() as (here, there):
            script = f"touch {there}/answer $HOME/x src/x asked/x tools/x; {box.uv_inside} --version"
            said = box.run(["sh", "-c", f"({script}) 2>/dev/null"], exchange=here, timeout=30)
            assert said.stdout.startswith(b"uv ")
            assert (here / "answer").is_file()
    assert list(target.iterdir()) == []


# --- failures --------------------------------------------------------------------------------------


def test_a_failure_inside_is_told_with_its_status_and_output(box):
    with pytest.raises(ToolFailed, match="it broke") as caught:
        shell(box, "echo it broke >&2; exit 7")
    assert caught.value.returncode == 7


@pytest.mark.parametrize("kind", NAMESPACES)
def test_a_sandbox_that_fails_itself_is_no_failed_build(kind, around):
    if why := KINDS[kind].why_not():
        pytest.skip(f"{kind} doesn't work here: {why}")
    with open_box(kind, around) as box:
        box.outside("src").rmdir()
        with pytest.raises(SandboxUnavailable, match="failed before anything ran in it") as caught:
            shell(box, "true")
    assert "--sandbox" in caught.value.remedy


def test_a_build_that_takes_too_long_is_ended(box, monkeypatch):
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(ToolTimeout):
        box.run(["sleep", "60"], timeout=0.5)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("place", ["/x", "/dev/x", "/dev/shm/x"])
def test_memory_has_no_other_place_to_be_taken_from(place):
    if why := KINDS["bubblewrap"].why_not():
        pytest.skip(f"bubblewrap doesn't work here: {why}")
    with (
        open_box("bubblewrap", USUAL, memory=128) as box,
        pytest.raises((ToolFailed, SandboxUnavailable), match=r"Read-only file system|No space left on device"),
    ):
        shell(box, f"head -c 200M /dev/zero > {place}")


def test_each_command_of_a_box_has_its_time_limit(kind, around):
    with open_box(kind, around, timeout=0.5) as box, pytest.raises(ToolTimeout, match=r"A step of the build \(sleep\)"):
        box.run(["sleep", "60"])


FULL_TMP = "head -c 400M /dev/zero > /tmp/full"


def test_a_build_that_takes_too_much_memory_is_ended(kind, around):
    with open_box(kind, around, readable=[Path(sys.base_prefix)], memory=256) as box:
        greedy = "import mmap, time; mmap.mmap(-1, 600 << 20).write(bytes(600 << 20)); time.sleep(20)"
        with pytest.raises((ToolTooLarge, ToolFailed), match=r"more than 256 MiB of memory|MemoryError"):
            python(box, greedy)
        assert shell(box, "echo fine") == "fine"
        if kind != "plain":  # there /tmp is the machine's
            with pytest.raises(ToolFailed, match="No space left on device"):
                shell(box, FULL_TMP)


# --- traces ----------------------------------------------------------------------------------------


def test_nothing_is_left(kind, around):
    with open_box(kind, around) as box:
        shell(box, "mkdir -p src/a/b out/c && echo > src/a/b/file && chmod 555 src/a/b src/a && chmod 0 out/c")
        places = [box.outside("src"), box.outside("env").parent]
        assert all(place.is_dir() for place in places)
    assert [place for place in places if place.exists()] == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(kind, around, error):
    places = []

    def build():
        with open_box(kind, around) as box:
            places.extend([box.outside("src"), box.outside("env").parent])
            raise error

    with pytest.raises(error):
        build()
    assert len(places) == 2
    assert [place for place in places if place.exists()] == []


def test_every_build_starts_with_an_empty_workspace(kind, around):
    for _ in range(2):
        with open_box(kind, around) as box:
            assert shell(box, "find . -type f ! -path './etc/*' ! -path './tools/*'") == ""
            shell(box, "echo > src/left; echo > $HOME/left; echo > tmp/left")


# --- the order of directory entries ----------------------------------------------------------------


def test_the_order_of_making_is_the_order_of_listing_where_that_is_promised(kind, around):
    """On tmpfs the order of entries depends on the order of their making alone."""
    listed = {}
    names = [f"file-{number:02}" for number in range(12)]
    for order in ("sorted", "reversed"):
        with open_box(kind, around) as box:
            if not box.guarantees.fixed_directory_order:
                pytest.skip(f"{kind} doesn't promise it here")
            for name in names if order == "sorted" else reversed(names):
                box.outside("src", name).touch()
            listed[order] = shell(box, "ls -U", cwd=box.inside("src")).split()
    assert sorted(listed["sorted"]) == names
    assert listed["sorted"] == listed["reversed"][::-1]


def test_a_source_that_does_not_fit_into_memory_lies_on_disk(kind, around):
    with open_box(kind, around, source_size=1 << 60) as box:
        assert not box.outside("src").is_relative_to("/dev/shm")
        assert box.guarantees.fixed_directory_order == workspace._is_in_memory(box.outside("src"))


@pytest.mark.parametrize(("size", "is_roomy"), [(None, False), (0, True), (1 << 60, False)])
def test_the_whole_workspace_lies_in_memory_where_it_is_known_to_fit(monkeypatch, size, is_roomy):
    """Of what uv is to put there only the packed size is known."""
    monkeypatch.setattr(workspace, "_fits_in_memory", lambda size: size < 1 << 30)
    with workspace.workspace(None, 0, size) as place:
        assert place.folder.is_relative_to("/dev/shm") is is_roomy
        assert place.held.is_relative_to("/dev/shm")


@pytest.mark.parametrize(
    ("mounts", "answer"),
    [
        ("none / ext4 rw 0 0\n", False),
        ("none / ext4 rw 0 0\nnone {} tmpfs rw 0 0\n", True),
        ("none / tmpfs rw 0 0\nnone {} ext4 rw 0 0\n", False),
        ("none / tmpfs rw 0 0\nnone {}-other ext4 rw 0 0\n", True),
        ("none {} ext4 rw 0 0\nnone {} tmpfs rw 0 0\n", True),
    ],
)
def test_the_mount_table_says_what_lies_in_memory(monkeypatch, tmp_path, mounts, answer):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts.replace("{}", str(tmp_path)))
    assert workspace._is_in_memory(tmp_path / "below") is answer


# --- the plain kind's fixed path -------------------------------------------------------------------


@pytest.fixture
def fixed(tmp_path):
    return tmp_path / "fixed"


def plain(folder):
    return open_box("plain", Surroundings(root=str(folder)))


def test_plain_takes_another_path_when_the_fixed_one_is_held_and_says_so(fixed):
    with plain(fixed) as first, plain(fixed) as second:
        assert first.root == str(fixed)
        assert first.guarantees.fixed_path
        assert second.root != first.root
        assert not second.guarantees.fixed_path
        assert second.guarantees.missing[0] == "a fixed path"
        assert shell(second, "pwd -P; echo $HOME").split() == [second.root, f"{second.root}/reprobuild-home"]
        assert observed(second).root == second.root
    assert not Path(second.root).exists()
    with plain(fixed) as third:
        assert third.root == str(fixed)


def test_what_a_killed_build_left_is_cleared_away(fixed):
    child = os.fork()
    if not child:
        with plain(fixed) as box:
            box.outside("src", "left").write_text("x")
            os._exit(0)
    os.waitpid(child, 0)
    assert (fixed / "src" / "left").is_file()
    with plain(fixed) as box:
        assert box.root == str(fixed)
        assert not box.outside("src", "left").exists()


@pytest.mark.parametrize("used_before", [False, True])
def test_a_folder_of_somebody_elses_is_left_alone(fixed, used_before):
    """A user may well have something of their own at that path: a clone, say."""
    if used_before:
        with plain(fixed):
            pass
    fixed.mkdir()
    (fixed / "precious").write_text("x")
    with plain(fixed) as box:
        assert box.root != str(fixed)
        assert not box.guarantees.fixed_path
    assert (fixed / "precious").read_text() == "x"


@pytest.mark.parametrize("target", ["target", "nowhere"])
def test_a_link_at_the_fixed_path_is_not_followed(fixed, tmp_path, target):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "precious").write_text("x")
    fixed.symlink_to(tmp_path / target)
    with plain(fixed) as box:
        assert not box.guarantees.fixed_path
        assert Path(box.root).resolve() != tmp_path / target
    assert fixed.is_symlink()
    assert (tmp_path / "target" / "precious").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_in_place_of_the_lock_is_not_followed(fixed, tmp_path):
    (tmp_path / f".fixed.{os.getuid()}.lock").symlink_to(tmp_path / "elsewhere")
    with plain(fixed) as box:
        assert not box.guarantees.fixed_path
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_free_is_about_no_folder(fixed):
    """File systems give the number of a removed folder to the next one, which may be somebody else's."""
    lock = fixed.with_name(f".fixed.{os.getuid()}.lock")
    with plain(fixed):
        assert lock.read_bytes() != b""
    assert lock.read_bytes() == b""


def test_a_user_without_a_name_can_build(fixed, monkeypatch):
    """In containers that run under any number there is no entry in the account database."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with plain(fixed) as box:
        assert box.guarantees.fixed_path


def test_the_plain_workspace_is_private(fixed):
    with plain(fixed):
        assert fixed.stat().st_mode & 0o777 == 0o700


# --- the choice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "chosen"), [([], "bubblewrap"), (["bubblewrap"], "unshare"), (["bubblewrap", "unshare"], "plain")]
)
def test_auto_takes_the_best_that_works(monkeypatch, broken, chosen):
    for name in NAMESPACES:
        monkeypatch.setattr(KINDS[name], "why_not", lambda name=name: "broken" if name in broken else "")
    assert choose("auto").name == chosen


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_kind_that_was_asked_for_is_not_replaced_by_a_lesser_one(monkeypatch, name):
    monkeypatch.setattr(KINDS[name], "why_not", lambda: "no such right")
    with pytest.raises(SandboxUnavailable, match=f"{name} doesn't work on this machine: no such right") as caught:
        choose(name)
    assert "--sandbox" in caught.value.remedy


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 0", ""),
        ("echo first >&2; echo 'bwrap: No permissions' >&2; exit 1", "bwrap: No permissions"),
        ("exit 1", "bwrap ended with status 1"),
        ('case "$*" in *--proc*) echo "bwrap: Can\'t mount proc" >&2; exit 1;; esac', "bwrap: Can't mount proc"),
    ],
)
def test_a_kind_is_tried_out_before_it_is_promised(monkeypatch, tmp_path, script, why):
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sandbox, "_probe", sandbox._probe.__wrapped__)
    said = KINDS["bubblewrap"].why_not()
    assert said.startswith(why)
    assert bool(said) is bool(why)


@pytest.mark.parametrize(("name", "program"), [("bubblewrap", "bwrap"), ("unshare", "unshare")])
def test_a_kind_whose_program_is_missing_does_not_work(monkeypatch, tmp_path, name, program):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandbox, "_probe", sandbox._probe.__wrapped__)
    assert KINDS[name].why_not() == f"The program '{program}' is not on this machine's PATH."


def test_what_is_missing_is_said_in_words():
    everything = Guarantees("bubblewrap", *[True] * 6)
    nothing = Guarantees("plain", *[False] * 6)
    assert everything.missing == ()
    assert nothing.missing == (
        "a fixed path",
        "no network",
        "a confined file system",
        "a fixed host name",
        "a fixed user",
        "a fixed directory order",
    )


def test_each_kind_promises_what_it_is_for(box):
    promised = box.guarantees
    facts = (promised.network_off, promised.fixed_hostname, promised.confined, promised.fixed_user)
    assert (
        facts
        == {
            "bubblewrap": (True, True, True, True),
            "unshare": (True, True, False, False),
            "plain": (False, False, False, False),
        }[promised.kind]
    )


def test_jobs_default_to_the_processors():
    assert Surroundings().job_count == os.cpu_count()
    assert Surroundings(jobs=3).job_count == 3
