"""Somebody's lock in three formats; tests/locks holds what uv wrote about one project, with its hosts renamed."""

import os
from pathlib import Path

import pytest

from reprobuild.dependencies import read
from reprobuild.digest import Digest
from reprobuild.errors import BadInput

LOCKS = Path(__file__).parents[1] / "locks"
A, B, C = (f"sha256:{digit * 64}" for digit in "abc")
RELEASES = {
    "anyio 4.16.0",
    "colorama 0.4.6",
    "idna 3.20",
    "iniconfig 2.0.0",
    "iniconfig 2.1.0",
    "tomli-w 1.2.0",
    "typing-extensions 4.16.0",
}


@pytest.fixture
def lock(tmp_path):
    """A lock with some text, and what is read from it."""

    def write_and_read(text, name="requirements.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path)

    return write_and_read


def checkable(found):
    return {str(each) for each in found.pinned if not each.why_not}


def unchecked(found):
    return {each.name: each.why_not for each in found.pinned if each.why_not}


def digests(*texts):
    return frozenset(map(Digest.parse, texts))


# --- what uv writes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "exported.txt", "compiled.txt"])
def test_the_releases_in_every_format(name):
    found = read(LOCKS / name)
    assert checkable(found) == RELEASES
    assert {len(each.digests) for each in found.pinned if not each.why_not} == {2}
    idna = next(each for each in found.pinned if each.name == "idna")
    assert "sha256:ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c" in map(str, idna.digests)


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "exported.txt", "compiled.txt"])
def test_two_versions_for_two_environments_are_two_releases(name):
    markers = {each.version: each.marker for each in read(LOCKS / name).pinned if each.name == "iniconfig"}
    assert list(markers) == ["2.0.0", "2.1.0"]
    assert ["<" in marker for marker in markers.values()] == [True, False]


def test_what_a_uv_lock_holds_beside_releases():
    found = read(LOCKS / "uv.lock")
    assert (found.format, found.own) == ("uv.lock", ("demo-app", "member"))
    assert unchecked(found) == {
        "cloned": "a git checkout",
        "folder": "a folder",
        "linked": "an editable folder",
        "packed": "a file",
    }
    assert [each.where for each in found.pinned][:2] == ["uv.lock, package[0]", "uv.lock, package[1]"]


def test_what_a_pylock_holds_beside_releases():
    found = read(LOCKS / "pylock.toml")
    assert (found.format, found.own) == ("pylock.toml", ())
    assert unchecked(found) == {
        "cloned": "a version control checkout",
        "folder": "a folder",
        "linked": "a folder",
        "member": "a folder",
        "packed": "a file or a URL",
    }


def test_what_a_requirements_file_holds_beside_releases():
    found = read(LOCKS / "exported.txt")
    assert found.format == "requirements.txt"
    assert unchecked(found) == {
        "../linked": "an editable folder",
        "./libs/member": "an editable folder",
        "../folder": "a URL or a path",
        "./wheels/packed-1.5-py3-none-any.whl": "a URL or a path",
        "cloned": "a URL or a path",
    }
    assert found.pinned[4].where == "exported.txt, line 10"


# --- requirements.txt ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"demo==1 --hash={A} --hash={B}",
        f"Demo == 1.0 \\\n  --hash={A} \\\n  --hash {B}  # why",
        f"\ufeffdemo===1 ; python_version > '3' --hash={A}   --hash={B}",
        f"demo[extra]==1\\\r\n --hash={A} --hash={B} --config-settings=x=y\r\n",
        f"demo==1 --hash={A}\n# demo==2\ndemo==1 --hash={B}\n",
    ],
)
def test_every_spelling_of_a_pin(lock, text):
    (each,) = lock(text).pinned
    assert (each.name, each.why_not, each.digests) == ("demo", "", digests(A, B))
    assert each.version in ("1", "1.0")


def test_a_pin_needs_no_hash(lock):
    (each,) = lock("demo==1").pinned
    assert (each.version, each.digests, each.why_not) == ("1", frozenset(), "")


@pytest.mark.parametrize(
    ("line", "name", "why"),
    [
        ("demo", "demo", "not pinned to one version (any)"),
        ("demo>=1", "demo", "not pinned to one version (>=1)"),
        ("demo==1.*", "demo", "not pinned to one version (==1.*)"),
        ("demo==1,>0", "demo", "not pinned to one version (==1,>0)"),
        ("demo===one", "demo", "not pinned to one version (===one)"),
        (f"demo==1 --hash=sha512:{'0' * 128}", "demo", "the lock has no SHA-256 of its files"),
        ("demo @ https://example.org/demo.whl", "demo", "a URL or a path"),
        ("git+https://user:secret@example.org/demo", "git+https://…@example.org/demo", "a URL or a path"),
        ("wheels/demo-1-py3-none-any.whl", "wheels/demo-1-py3-none-any.whl", "a URL or a path"),
        ("demo-1.tar.gz", "demo-1.tar.gz", "a URL or a path"),
        ("-e git+https://user:secret@example.org/demo", "git+https://…@example.org/demo", "an editable folder"),
        ("--editable=../demo", "../demo", "an editable folder"),
    ],
)
def test_whatever_is_no_pinned_release_is_kept_with_the_reason(lock, line, name, why):
    (each,) = lock(line).pinned
    assert (each.name, each.why_not) == (name, why)


@pytest.mark.parametrize("line", ["-e .", ".", "--editable .[extra]", "-e ./", ".[extra]"])
def test_the_locks_own_folder_is_no_dependency(lock, line):
    found = lock(line)
    assert found.pinned == ()
    assert len(found.own) == 1


def test_other_files_are_included(lock, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.txt").write_text("one==1\n-r two.txt\n")
    (tmp_path / "more" / "two.txt").write_text("two==2")
    found = lock("zero==0\n-r more/one.txt\n--requirement=more/two.txt\nthree==3")
    assert [(str(each), each.where) for each in found.pinned] == [
        ("zero 0", "requirements.txt, line 1"),
        ("one 1", "more/one.txt, line 1"),
        ("two 2", "two.txt, line 1"),
        ("three 3", "requirements.txt, line 4"),
    ]


def test_the_same_release_in_several_environments_is_one(lock):
    found = lock("a==1 ; python_version < '3.12'\nb==1\na==1.0 ; python_version >= '3.13'\nb==1 ; os_name == 'nt'\n")
    assert {each.name: each.marker for each in found.pinned if each.version == "1"} == {
        "a": 'python_version < "3.12"',
        "b": "",
    }


def test_a_release_keeps_the_markers_and_the_hashes_of_all_its_lines(lock):
    (each,) = lock(f"a==1 ; os_name == 'nt' --hash={A}\na==1 ; os_name == 'posix' --hash={B}").pinned
    assert (each.marker, each.digests) == ('os_name == "nt" or os_name == "posix"', digests(A, B))


def test_options_that_name_no_package_do_no_harm_and_those_that_matter_are_noted(lock):
    places = "--index-url https://user:secret@example.org/simple\n-i https://example.org\n"
    found = lock(f"{places}--pre\n--no-binary=:all:\n-c c.txt\nx==1")
    assert checkable(found) == {"x 1"}
    assert len(found.notes) == 2
    assert "secret" not in "".join(found.notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("good==1\n\nname==1 ; nonsense", r"requirements\.txt, line 3: 'name==1 ; nonsense' is not a requirement"),
        ("good==1\n=1", r"line 2: '=1' is not a requirement"),
        ("name==1 \\\n  --hash=md5:" + "0" * 32, r"line 1: 'md5:0+' is not a digest"),
        ("name==1 --hash=sha256:0", r"line 1: 'sha256:0' is not a digest"),
        ("--frobnicate", r"line 1: '--frobnicate' is no option"),
        ("-", r"line 1: '-' is no option"),
        ("-r", r"line 1: '-r' is no option"),
        ("-r https://user:secret@example.org/r.txt", r"line 1: it includes a URL\."),
        ("-r requirements.txt", r"requirements\.txt includes itself"),
        ("-r missing.txt", r"missing\.txt can't be read"),
        (b"\xff", r"is not UTF-8 text"),
    ],
)
def test_a_malformed_requirements_file_says_where(lock, text, says):
    with pytest.raises(BadInput, match=says) as caught:
        lock(text)
    assert "secret" not in caught.value.reason


def test_a_pipe_is_not_waited_for(tmp_path):
    os_path = tmp_path / "requirements.txt"
    os.mkfifo(os_path)
    with pytest.raises(BadInput, match="is not a file"):
        read(os_path)


# --- TOML ------------------------------------------------------------------------------------------

UV = 'version = 1\nrequires-python = ">=3.11"\n'
PYLOCK = 'lock-version = "1.0"\ncreated-by = "x"\n'
REGISTRY = 'source = { registry = "https://index.example.org/simple" }\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = \n", r"is not valid TOML: .*line 1"),
        ("[" * 5000, "is not valid TOML"),
        ("x = " + "9" * 5000, "is not valid TOML"),
        ("[metadata]\nlock-version = '2.0'\n[[package]]\nname = 'x'", "neither a pylock.toml nor a uv.lock"),
        (UV.replace("1", "2", 1), r"uv\.lock: its format version is not 1"),
        (UV + "package = 3", r"uv\.lock: package is not a list"),
        (UV + "package = [3]", r"uv\.lock: package holds something else than tables"),
        (UV + "[manifest]\nmembers = 'x'", r"uv\.lock, manifest: members is not a list"),
        (UV + "[[package]]\nname = 'a/b'", r"uv\.lock, package\[0\]: 'a/b' is not the name of a package"),
        (UV + "[[package]]\nname = true", r"name is not a text"),
        (UV + "[[package]]\nname = 'a'\nversion = '1'", r"package\[0\]: a comes from nowhere that is known"),
        (UV + f"[[package]]\nname = 'a'\n{REGISTRY}", r"package\[0\]: '' is not a version"),
        (UV + f"[[package]]\nname = 'a'\nversion = 'x/y'\n{REGISTRY}", r"'x/y' is not a version"),
        (
            UV + f"[[package]]\nname = 'a'\nversion = '1'\nsdist = {{ hash = 'x' }}\n{REGISTRY}",
            "sdist: 'x' is not a digest",
        ),
        (
            UV + f"[[package]]\nname = 'a'\nversion = '1'\nwheels = [{{ hash = 1 }}]\n{REGISTRY}",
            r"wheels\[0\]: hash is not a text",
        ),
    ],
)
def test_a_malformed_uv_lock_says_where(lock, text, says):
    with pytest.raises(BadInput, match=says):
        lock(text, "uv.lock")


@pytest.mark.parametrize("operator", ["==", "==="])
def test_a_version_of_endless_digits_is_no_version_and_told_in_short(lock, operator):
    digits = "1." + "9" * 5000
    for text, name in (
        (f"six{operator}{digits}\n", "requirements.txt"),
        (UV + f"[[package]]\nname = 'six'\nversion = '{digits}'\n{REGISTRY}", "uv.lock"),
    ):
        with pytest.raises(BadInput, match=r"is not a (version|requirement)") as told:
            lock(text, name)
        assert len(told.value.reason) < 1000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PYLOCK, "packages"),
        (PYLOCK.replace("1.0", "3.0") + "packages = []", "version 3.0 is not supported"),
        (PYLOCK + "[[packages]]\nname = 'A b'", r"not normalized in 'packages\[0\]\.name'"),
        (PYLOCK + "[[packages]]\nname = 'a'\nversion = 'x'", r"packages\[0\]\.version"),
        (
            PYLOCK + "[[packages]]\nname = 'a'\nversion = '1'\nsdist = { path = 'a-1.zip', hashes = { sha256 = 'x' } }",
            r"pylock\.toml, packages\[0\]: 'sha256:x' is not a digest",
        ),
    ],
)
def test_a_malformed_pylock_says_where(lock, text, says):
    with pytest.raises(BadInput, match=says):
        lock(text, "pylock.toml")


def test_a_pylock_may_have_any_name_of_its_kind_and_hashes_of_any_kind(lock):
    file = "url = 'https://files.example.org/a-1-py3-none-any.whl', hashes = { md5 = 'x' }"
    found = lock(PYLOCK + f"[[packages]]\nname = 'a'\nversion = '1'\nwheels = [{{ {file} }}]", "pylock.dev.toml")
    assert unchecked(found) == {"a": "the lock has no SHA-256 of its files"}


def test_a_registry_without_hashes_is_checked_all_the_same(lock):
    found = lock(UV + f"[[package]]\nname = 'a'\nversion = '1'\nwheels = [{{ url = 'x' }}]\n{REGISTRY}", "uv.lock")
    assert [(str(each), each.digests, each.why_not) for each in found.pinned] == [("a 1", frozenset(), "")]
