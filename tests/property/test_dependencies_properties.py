"""Whatever is in a lock, it is read or refused; and what it pins is there, or named with a reason."""

import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprobuild.dependencies import read
from reprobuild.errors import ReprobuildError

LOCKS = {path.name: path.read_text() for path in (Path(__file__).parents[1] / "locks").iterdir()}
NAMES = st.sampled_from(sorted(LOCKS))
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

WORDS = "name hash version url hashes sha256 registry git".split()
VALUES = st.recursive(
    st.sampled_from(["1", "true", "2.5", "''", "'x'", "'sha256:0'", "2026-10-01T00:00:00Z", "inf"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda some: f"[{', '.join(some)}]"),
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=3).map(
            lambda some: "{" + ", ".join(f"{key} = {value}" for key, value in some.items()) + "}"
        ),
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    "name version source sdist wheels marker vcs directory archive resolution-markers requires-python tool".split()
)


@pytest.fixture
def read_or_refuse(tmp_path):
    def attempt(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        with suppress(ReprobuildError):
            for each in read(path).pinned:
                assert each.why_not or (each.name and each.version)
                assert each.where
                assert all(digest.algorithm == "sha256" for digest in each.digests)

    return attempt


@many
@given(NAMES, st.text())
def test_any_text_is_read_or_refused(read_or_refuse, name, text):
    read_or_refuse(name, text)


@many
@given(NAMES, st.text(string.printable, min_size=1, max_size=30), st.floats(0, 1), st.integers(0, 40))
def test_a_damaged_lock_is_read_or_refused(read_or_refuse, name, noise, where, lost):
    at = int(where * len(LOCKS[name]))
    read_or_refuse(name, LOCKS[name][:at] + noise + LOCKS[name][at + lost :])


@many
@given(st.sampled_from(["uv.lock", "pylock.toml"]), st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3))
def test_any_shape_of_a_table_is_read_or_refused(read_or_refuse, name, tables):
    head, word = {
        "uv.lock": ("version = 1\nrequires-python = '>=3.11'\n", "package"),
        "pylock.toml": ("lock-version = '1.0'\ncreated-by = 'x'\n", "packages"),
    }[name]
    text = head
    for table in tables:
        text += f"[[{word}]]\n" + "".join(f"{key} = {value}\n" for key, value in table.items())
    read_or_refuse(name, text)


PACKAGES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
REQUIREMENTS = st.lists(
    st.tuples(
        PACKAGES,
        st.sampled_from(["", "==1", "==2.0", ">=1", "==1.*", "~=1.0", " @ https://example.org/x.whl"]),
        st.sampled_from(["", " ; os_name == 'nt'"]),
        st.sampled_from(["", f" --hash=sha256:{'0' * 64}", f" \\\n   --hash=sha256:{'1' * 64}"]),
    ),
    max_size=6,
)


@many
@given(REQUIREMENTS)
def test_no_requirement_is_dropped(tmp_path, lines):
    path = tmp_path / "requirements.txt"
    path.write_text("".join(f"{''.join(line)}\n" for line in lines))
    found = read(path).pinned
    assert {each.name for each in found} == {name for name, *_ in lines}
    pinned = {(name, spec[2:]) for name, spec, *_ in lines if spec in ("==1", "==2.0")}
    assert {(each.name, each.version) for each in found if not each.why_not} == pinned
