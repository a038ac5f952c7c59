import io
import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from reprobuild.digest import Digest, canonical_json, chunks_of
from reprobuild.errors import BadInput, DigestMismatch

SAFE = 2**53 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-SAFE, SAFE) | st.floats(-SAFE, SAFE) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=12)


def shuffled(value, order):
    """The same value, its objects' members in an order that ``order`` draws."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], order) for key in order(st.permutations(list(value)))}
    return [shuffled(each, order) for each in value] if isinstance(value, list) else value


@given(JSON)
def test_canonical_json_means_the_same(value):
    assert json.loads(canonical_json(value)) == value


@given(JSON)
def test_canonical_json_of_canonical_json_is_itself(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(JSON, st.data())
def test_the_order_of_members_does_not_matter(value, data):
    assert canonical_json(shuffled(value, data.draw)) == canonical_json(value)


@given(st.binary(), st.integers(1, 40))
def test_the_size_of_the_pieces_does_not_matter(content, size):
    chunks = list(chunks_of(io.BytesIO(content), size))
    assert b"".join(chunks) == content
    assert list(Digest.of_bytes(content).check(chunks, "it")) == chunks
    assert Digest.of_stream(io.BytesIO(content)) == Digest.of_bytes(content)


@given(st.binary(), st.binary())
def test_only_the_promised_bytes_pass(promised, sent):
    try:
        passed = b"".join(Digest.of_bytes(promised).check([sent], "it"))
    except DigestMismatch:
        assert sent != promised
    else:
        assert passed == sent == promised


@given(st.text())
def test_what_is_parsed_is_spelled_the_same(text):
    with suppress(BadInput):
        assert str(Digest.parse(text)) == text


@given(
    st.sampled_from([("sha256", 32), ("sha384", 48), ("sha512", 64)]).flatmap(
        lambda kind: st.tuples(st.just(kind[0]), st.binary(min_size=kind[1], max_size=kind[1]))
    )
)
def test_every_digest_reads_back(parts):
    digest = Digest(parts[0], parts[1].hex())
    assert Digest.parse(str(digest)) == digest
