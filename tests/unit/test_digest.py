import hashlib
import io

import pytest

from reprobuild.digest import Digest, canonical_json, chunks_of
from reprobuild.errors import BadInput, DigestMismatch

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_a_digest_reads_back(algorithm, length):
    text = f"{algorithm}:{'0123456789abcdef' * (length // 16)}"
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "e3" * 32,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha512:" + "0" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "0" * 64 + "\n",
        " sha256:" + "0" * 64,
        "sha256:" + "\u0660" * 64,
        "SHA256:" + "0" * 64,
        "md5:" + "0" * 32,
        "sha1:" + "0" * 40,
        "sha256=" + "0" * 64,
        "sha256:../../" + "0" * 58,
    ],
)
def test_anything_else_is_no_digest(text):
    with pytest.raises(BadInput, match="is not a digest") as caught:
        Digest.parse(text)
    assert repr(text) in caught.value.reason
    assert "sha256:" in caught.value.remedy


def test_the_same_bytes_have_the_same_digest_however_they_come(tmp_path):
    data = b"x" * ((1 << 20) + 7)
    path = tmp_path / "data"
    path.write_bytes(data)
    expected = Digest("sha256", hashlib.sha256(data).hexdigest())
    assert Digest.of_bytes(data) == Digest.of_file(path) == Digest.of_stream(io.BytesIO(data)) == expected
    assert str(Digest.of_bytes(b"")) == EMPTY


def test_a_stream_is_hashed_from_where_it_stands():
    stream = io.BytesIO(b"headbody")
    stream.read(4)
    assert Digest.of_stream(stream) == Digest.of_bytes(b"body")


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        Digest.of_file(tmp_path / "absent")
    with pytest.raises(BadInput, match="is not a file"):
        Digest.of_file(tmp_path)


def test_digests_are_sorted_as_their_text_is():
    texts = [f"{name}:{digit * length}" for name, length in (("sha512", 128), ("sha256", 64)) for digit in "b0a"]
    assert [str(each) for each in sorted(map(Digest.parse, texts))] == sorted(texts)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_check_passes_right_bytes_on(algorithm):
    digest = Digest(algorithm, hashlib.new(algorithm, b"onetwo").hexdigest())
    assert list(digest.check([b"one", b"", b"two"], "it")) == [b"one", b"", b"two"]


@pytest.mark.parametrize("chunks", [[], [b"on"], [b"one", b"more"], [b"One"]])
def test_check_refuses_wrong_bytes_at_the_end(chunks):
    promised, found = Digest.of_bytes(b"one"), Digest.of_bytes(b"".join(chunks))
    checked = iter(promised.check(chunks, "demo-1.0.tar.gz"))
    assert [next(checked) for _ in chunks] == chunks
    with pytest.raises(DigestMismatch) as caught:
        next(checked)
    assert caught.value.reason == f"demo-1.0.tar.gz has {found}, but {promised} was promised."


def test_check_is_lazy():
    """Big files go through it, so a piece must come out before the next is asked for."""
    asked = []

    def pieces():
        for number in range(3):
            asked.append(number)
            yield b"x"

    checked = iter(Digest.of_bytes(b"xxx").check(pieces(), "it"))
    assert asked == []
    next(checked)
    assert asked == [0]


def test_chunks_are_whole_but_the_last():
    assert list(chunks_of(io.BytesIO(b"abcdefg"), 3)) == [b"abc", b"def", b"g"]
    assert list(chunks_of(io.BytesIO(b""))) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ([], "[]"),
        ({"b": 1, "a": [True, None, "x"]}, '{"a":[true,null,"x"],"b":1}'),
        ({"10": 0, "9": 0, "": 0}, '{"":0,"10":0,"9":0}'),
        # By UTF-16 units (RFC 8785, section 3.2.3), where U+1F600 comes before U+FB33.
        ({"\ufb33": 1, "\U0001f600": 2, "€": 3, "é": 4}, '{"é":4,"€":3,"\U0001f600":2,"\ufb33":1}'),
        ('é\n\t"\\/\x1f\x7f', '"é\\n\\t\\"\\\\/\\u001f\x7f"'),
        ([1.0, -0.0, 0.1, 1e21, 1e-7, 123456789012345680000.0], "[1,0,0.1,1e+21,1e-7,123456789012345680000]"),
        ([2**53 - 1, -(2**53) + 1], "[9007199254740991,-9007199254740991]"),
    ],
)
def test_canonical_json_has_one_spelling(value, text):
    assert canonical_json(value) == text.encode()


def test_insertion_order_does_not_matter():
    items = [("z", 1), ("a", {"y": 1, "b": 2}), ("m", [])]
    assert canonical_json(dict(items)) == canonical_json(dict(reversed(items)))


@pytest.mark.parametrize(
    "value",
    [{1, 2}, b"bytes", object(), {1: "x"}, float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {"a": [{"b": 1j}]}],
)
def test_what_json_has_no_word_for_is_refused(value):
    with pytest.raises(TypeError):
        canonical_json(value)
