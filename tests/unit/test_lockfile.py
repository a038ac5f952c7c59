import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.lockfile import holds, logical_lines, parse, read

A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
GOLDEN = f"""\
# The build requirements of demo, exact and hashed.
# Written by `reprobuild lock`; change pyproject.toml and run it again instead.
# exclude-newer: 2026-05-01T00:00:00Z
colorama==0.4.6 ; sys_platform == "win32" \\
    --hash={B} \\
    --hash={A}
    # via demo
Demo_Tool==1.0.0+local \\
    --hash={C}
    # via
    #   build-system.requires
    #   other
"""
LINUX = {"sys_platform": "linux", "python_version": "3.12", "python_full_version": "3.12.1", "os_name": "posix"}
WINDOWS = {**LINUX, "sys_platform": "win32"}


def one(text):
    (pin,) = parse(text, "constraints.txt").pins
    return pin


def test_what_reprobuild_lock_writes_is_read():
    lock = parse(GOLDEN, "constraints.txt")
    first, second = lock.pins
    assert (first.name, first.version) == ("colorama", Version("0.4.6"))
    assert first.hashes == (Digest.parse(A), Digest.parse(B))
    assert str(first.marker) == 'sys_platform == "win32"'
    assert (second.name, str(second.version), second.marker) == ("demo-tool", "1.0.0+local", None)
    assert lock.exclude_newer == "2026-05-01T00:00:00Z"
    assert lock.digest == Digest.of_bytes(GOLDEN.encode())


def test_a_lock_without_a_time_has_none():
    assert parse("", "x").exclude_newer == ""
    assert parse("x==1 --hash=" + A + " # exclude-newer: 2026", "x").exclude_newer == ""


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_change_the_digest_and_nothing_else(tmp_path, ending):
    data = GOLDEN.replace("\n", ending).encode()
    path = tmp_path / "constraints.txt"
    path.write_bytes(data)
    lock = read(path)
    assert (lock.pins, lock.exclude_newer) == (parse(GOLDEN, "x").pins, "2026-05-01T00:00:00Z")
    assert parse(data.decode(), "x").pins == lock.pins
    assert parse(data.decode(), "x").exclude_newer == lock.exclude_newer
    assert lock.digest == Digest.of_file(path)


@pytest.mark.parametrize(
    "text",
    [
        f"demo==1 --hash={A}",
        f"demo == 1   --hash={A}   ",
        f"  demo==1 \\\n\t--hash={A}\n",
        f"demo==1\\\n --hash={A}",
        f"demo==1 --hash={A} # why",
        f"demo==1 --hash={A}\n# trailing comment\n\n",
        f"\n\n# demo==2 --hash={B}\ndemo==1 --hash={A}",
        f"DEMO===1 --hash={A}",
        f"demo[extra]==1 --hash={A}",
    ],
)
def test_every_spelling_of_a_pin(text):
    pin = one(text)
    assert (pin.name, pin.version, pin.hashes) == ("demo", Version("1"), (Digest.parse(A),))


def test_a_comment_ends_with_its_line():
    """Or else a backslash at its end would hide the next pin."""
    lines = f"# one \\\ndemo==1 \\\n  --hash={A}  # two \\\nother==2 --hash={B}\n"
    assert [pin.name for pin in parse(lines, "x").pins] == ["demo", "other"]
    assert list(logical_lines(lines)) == [(2, f"demo==1 --hash={A}"), (4, f"other==2 --hash={B}")]


def test_a_line_that_goes_on_at_the_end_of_the_file_is_read():
    assert list(logical_lines("demo==1 \\")) == [(1, "demo==1")]


def test_longer_hashes_are_read():
    long = "sha512:" + "0" * 128
    assert one(f"demo==1 --hash={long} --hash={A}").hashes == (Digest.parse(A), Digest.parse(long))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("demo==1", "'demo==1' has no hash"),
        (f"demo --hash={A}", "'demo' is not pinned to one version with =="),
        (f"demo>=1 --hash={A}", "not pinned"),
        (f"demo==1.* --hash={A}", "not pinned"),
        (f"demo==1,>0 --hash={A}", "not pinned"),
        (f"demo~=1.0 --hash={A}", "not pinned"),
        (f"demo===one --hash={A}", "Invalid version: 'one'"),
        (f"demo @ file:///tmp/demo.whl --hash={A}", "not pinned"),
        (f"./demo.whl --hash={A}", "not a requirement"),
        ("-r other.txt", "'-r other.txt' is an option"),
        ("--find-links ./wheels", "is an option"),
        ("--no-binary :all:", "is an option"),
        (f"-e . --hash={A}", "is an option"),
        ("demo==1 --hash=md5:" + "0" * 32, "'demo==1': .*is not a digest"),
        ("demo==1 --hash=sha256:" + "0" * 63, "is not a digest"),
        (f"demo==1 --no-binary --hash={A}", "not a requirement"),
        (f"demo==1 ; nonsense --hash={A}", "not a requirement"),
    ],
)
def test_anything_but_exact_hashed_pins_is_refused(line, why):
    with pytest.raises(BadInput, match=f"constraints.txt, line 2: .*{why}") as caught:
        parse(f"good==1 --hash={A}\n{line}\n", "constraints.txt")
    assert "reprobuild lock" in caught.value.remedy


def test_a_lock_that_cannot_be_read_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        read(tmp_path / "constraints.txt")


@pytest.mark.parametrize(("content", "says"), [(b"nonsense", "the lock, line 1: "), (b"\xff", "the lock is not UTF-8")])
def test_a_lock_in_a_temporary_folder_is_called_otherwise(tmp_path, content, says):
    path = tmp_path / "constraints.txt"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(path, "the lock")
    assert caught.value.reason.startswith(says)


def test_markers_select_by_environment():
    lock = parse(GOLDEN, "x")
    assert sorted(lock.selected(LINUX)) == ["demo-tool"]
    assert sorted(lock.selected(WINDOWS)) == ["colorama", "demo-tool"]


def test_a_fork_has_one_version_in_each_environment():
    lock = parse(f"demo==1 ; python_version < '3.12' --hash={A}\ndemo==2 ; python_version >= '3.12' --hash={B}\n", "x")
    assert str(lock.selected(LINUX)["demo"].version) == "2"
    assert str(lock.selected({**LINUX, "python_version": "3.11"})["demo"].version) == "1"


@pytest.mark.parametrize(
    "second", [f"demo==2 --hash={A}", f"Demo==1 --hash={B}", f"demo==2; os_name=='posix' --hash={A}"]
)
def test_two_pins_of_one_name_are_refused_where_both_apply(second):
    lock = parse(f"demo==1 --hash={A}\n{second}\n", "x")
    for question in (lambda: lock.selected(LINUX), lambda: lock.unsatisfied([], LINUX)):
        with pytest.raises(BadInput, match="pins demo twice") as caught:
            question()
        assert "reprobuild lock" in caught.value.remedy


def test_the_same_pin_twice_is_one():
    assert len(parse(f"demo[x]==1 --hash={A}\ndemo==1 --hash={A}\n", "x").selected(LINUX)) == 1


@pytest.mark.parametrize(
    ("wanted", "problems"),
    [
        ([], []),
        (["demo-tool"], []),
        (["Demo.Tool>=1"], []),
        (["demo_tool==1.0.0"], []),
        (["demo-tool[extra]"], []),
        (["demo-tool>1.0.0"], ["demo-tool>1.0.0 is wanted, but 1.0.0+local is locked"]),
        (["absent>1"], ["absent>1 is not in it"]),
        (["absent; sys_platform == 'win32'"], []),
        (["colorama"], ["colorama is not in it"]),
        (["demo-tool>2", "absent"], ["demo-tool>2 is wanted, but 1.0.0+local is locked", "absent is not in it"]),
    ],
)
def test_a_lock_says_what_it_lacks(wanted, problems):
    assert parse(GOLDEN, "x").unsatisfied(map(Requirement, wanted), LINUX) == problems


def test_a_locked_prerelease_satisfies_what_it_was_locked_for():
    assert parse(f"demo==2.0rc1 --hash={A}", "x").unsatisfied([Requirement("demo>=1")], LINUX) == []


@pytest.mark.parametrize("marker", ["os_name ~= 'posix'", "'x' in extras"])
def test_a_marker_without_a_meaning_is_bad_input(marker):
    locked = parse(f"demo==1.0 ; {marker} --hash=sha256:{'0' * 64}\n", "constraints.txt")
    with pytest.raises(BadInput, match="has no meaning"):
        locked.selected({"os_name": "posix"})


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "pin",
    [f"a==1.{DIGITS}", "a==1; " + "(" * 3000 + "os_name == 'x'" + ")" * 3000, f"a=={'x' * 5000}", f"a==1 --hash=x{A}"],
)
def test_what_no_pin_can_be_is_bad_input_in_few_words(pin):
    with pytest.raises(BadInput, match=r"^constraints\.txt, line 1: 'a==") as caught:
        parse(f"{pin} --hash={A}\n", "constraints.txt")
    assert len(caught.value.reason) < 600


def test_a_marker_that_compares_with_very_many_digits_is_bad_input():
    pin = one(f"a==1 ; python_version > '1.{DIGITS}' --hash={A}")
    with pytest.raises(BadInput, match="has no meaning") as caught:
        pin.applies(LINUX)
    assert len(caught.value.reason) < 600


def test_a_marker_too_deep_for_the_stack_at_hand_is_bad_input():
    class Deep:
        def evaluate(self, environment):
            raise RecursionError

    with pytest.raises(BadInput, match="nested too deeply"):
        holds(Deep(), LINUX)  # type: ignore[arg-type]
