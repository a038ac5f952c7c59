from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from reprobuild.digest import Digest
from reprobuild.errors import BadInput
from reprobuild.oci.reference import Reference

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
HOST = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.lists(LABEL, min_size=2, max_size=4).map(".".join),
    st.tuples(st.lists(LABEL, min_size=1, max_size=3).map(".".join), st.integers(1, 65535)).map("{0[0]}:{0[1]}".format),
    st.ip_addresses(v=6).map("[{}]".format),
)
PART = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
TAG = st.just("") | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
DIGEST = st.none() | st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw.hex()))
PARTS = st.lists(PART, min_size=2, max_size=5).map("/".join)


@given(HOST, PARTS, TAG, DIGEST)
def test_every_reference_reads_back(host, repository, tag, digest):
    reference = Reference("docker.io" if host == "index.docker.io" else host, repository, tag, digest)
    assert Reference.parse(str(reference)) == reference


@given(st.text(st.sampled_from("aA0.-_/:@[] é\n"), max_size=30) | st.text())
def test_what_is_read_is_spelled_in_one_way(text):
    with suppress(BadInput):
        read = Reference.parse(text)
        assert Reference.parse(str(read)) == read
        assert str(Reference.parse(str(read))) == str(read)
