import base64
import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from reprobuild.errors import BadInput, SigningFailed, WriteFailed
from reprobuild.keys import PrivateKey, PublicKey, public_path

KINDS = ["ed25519", "p256"]
#: RFC 8032, 7.1, test 2: a key, its public half, a message and its signature.
RFC_8032 = (
    bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
    bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
    b"\x72",
    bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    ),
)
#: RFC 6979, A.2.5, SHA-256 of "sample": the key, and r and s.
RFC_6979 = (
    0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721,
    0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
    0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
)


def never():
    pytest.fail("the passphrase was asked for")


def pem_of(private):
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def key_file(tmp_path):
    """Writes a file that only its owner can read."""

    def write(content, name="k.key"):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    return write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", ["", "a päss phrase"])
def test_a_saved_key_is_the_same_again(tmp_path, kind, passphrase):
    key = PrivateKey.generate(kind)
    key.save(tmp_path / "deep" / "own.key", passphrase)
    asked = []

    def ask():
        asked.append(1)
        return passphrase

    again = PrivateKey.load(tmp_path / "deep" / "own.key", ask)
    assert len(asked) == bool(passphrase)
    assert again.sign(b"x") == key.sign(b"x")
    assert PublicKey.load(tmp_path / "deep" / "own.pub") == key.public == again.public
    assert key.public.verifies(again.sign(b"x"), b"x")
    assert not key.public.verifies(again.sign(b"x"), b"y")


def test_ed25519_signs_as_its_standard_says(key_file):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    seed, public, message, signature = RFC_8032
    key = PrivateKey.load(key_file(pem_of(Ed25519PrivateKey.from_private_bytes(seed))), never)
    assert key.sign(message) == signature
    assert key.public.der[-32:] == public


def test_p256_signs_as_its_standard_says(key_file):
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415

    number, r, s = RFC_6979
    key = PrivateKey.load(key_file(pem_of(ec.derive_private_key(number, ec.SECP256R1()))), never)
    assert decode_dss_signature(key.sign(b"sample")) == (r, s)


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_reads_both_halves(tmp_path, kind):
    key = PrivateKey.generate(kind)
    key.save(tmp_path / "own.key")
    command = ["openssl", "pkey", "-in", tmp_path / "own.key", "-pubout", "-outform", "DER"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == key.public.der
    (tmp_path / "message").write_bytes(b"m")
    (tmp_path / "signature").write_bytes(key.sign(b"m"))
    how = ["-rawin"] if kind == "ed25519" else ["-rawin", "-digest", "sha256"]
    judge = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "own.pub", *how]
    judge += ["-in", tmp_path / "message", "-sigfile", tmp_path / "signature"]
    assert subprocess.run(judge, capture_output=True, check=False).returncode == 0


def test_a_key_is_named_by_its_public_half():
    public = PrivateKey.generate().public
    digest = hashlib.sha256(public.der).digest()
    assert public.id == f"sha256:{digest.hex()}"
    assert base64.b64decode(public.hint) == digest


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_a_private_key_from_its_first_moment(tmp_path, umask):
    before = os.umask(umask)
    try:
        PrivateKey.generate().save(tmp_path / "own.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "own.key").stat().st_mode) == 0o600
    assert b"PRIVATE" not in (tmp_path / "own.pub").read_bytes()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_private_key_that_others_can_touch_is_not_used(tmp_path, mode):
    PrivateKey.generate().save(tmp_path / "own.key")
    (tmp_path / "own.key").chmod(mode)
    with pytest.raises(SigningFailed, match="can be read by others") as caught:
        PrivateKey.load(tmp_path / "own.key", never)
    assert "chmod 600" in caught.value.remedy


@pytest.mark.parametrize("there", ["own.key", "own.pub"])
def test_no_file_is_overwritten(tmp_path, there):
    (tmp_path / there).write_text("precious")
    with pytest.raises(BadInput, match="is there already"):
        PrivateKey.generate().save(tmp_path / "own.key")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_no_link_is_followed(tmp_path):
    (tmp_path / "own.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is there already"):
        PrivateKey.generate().save(tmp_path / "own.key")
    assert not (tmp_path / "elsewhere").exists()


def test_no_half_of_a_pair_is_left(tmp_path, monkeypatch):
    def fail(*arguments):
        raise WriteFailed("The disk is full.")

    monkeypatch.setattr("reprobuild.keys.write_atomically", fail)
    with pytest.raises(WriteFailed, match="disk is full"):
        PrivateKey.generate().save(tmp_path / "own.key")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteFailed, match="can't be written"):
        PrivateKey.generate().save(tmp_path / "file" / "own.key")


@pytest.mark.parametrize("given", ["gu3ssed", "", "x" * 2000, "\udc80"])
def test_a_wrong_passphrase(tmp_path, given):
    PrivateKey.generate().save(tmp_path / "own.key", "right")
    with pytest.raises(SigningFailed, match="can't be opened with this passphrase") as caught:
        PrivateKey.load(tmp_path / "own.key", lambda: given)
    assert not given or given not in f"{caught.value} {caught.value.remedy}"


def test_a_passphrase_that_openssl_can_not_take(tmp_path):
    with pytest.raises(BadInput, match="more than 1023 bytes"):
        PrivateKey.generate().save(tmp_path / "own.key", "ä" * 512)
    assert not list(tmp_path.iterdir())
    PrivateKey.generate().save(tmp_path / "own.key", "x" * 1023)


@pytest.mark.parametrize(
    "private",
    [
        pytest.param(lambda: rsa.generate_private_key(65537, 2048), id="rsa"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP384R1()), id="p384"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP256K1()), id="secp256k1"),
        pytest.param(ed448.Ed448PrivateKey.generate, id="ed448"),
    ],
)
def test_other_kinds_are_not_used(key_file, private):
    made = private()
    with pytest.raises(BadInput, match="neither an Ed25519 nor a P-256 key"):
        PrivateKey.load(key_file(pem_of(made)), never)
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(BadInput, match="neither an Ed25519 nor a P-256 key"):
        PublicKey.read(public, "k.pub")


BROKEN = [b"", b"\0\xff", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"ssh-ed25519 AAAA x"]


@pytest.mark.parametrize("content", BROKEN)
def test_what_is_no_key(key_file, content):
    with pytest.raises(BadInput, match=r"no private key|a public key where a private one"):
        PrivateKey.load(key_file(content), never)
    with pytest.raises(BadInput, match="no public key"):
        PublicKey.read(content, "k.pub")


def test_a_private_key_in_the_place_of_a_public_one(tmp_path):
    PrivateKey.generate().save(tmp_path / "own.key")
    with pytest.raises(BadInput, match="holds a private key where a public one is meant"):
        PublicKey.load(tmp_path / "own.key")


@pytest.mark.parametrize("kind", ["SIGSTORE", "COSIGN"])
def test_cosigns_own_format(key_file, kind):
    content = f"-----BEGIN ENCRYPTED {kind} PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED {kind} PRIVATE KEY-----\n"
    with pytest.raises(BadInput, match="a way of cosign's own"):
        PrivateKey.load(key_file(content.encode()), never)


def test_files_that_can_not_be_read(tmp_path, key_file):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BadInput, match="can't be read"):
            PublicKey.load(path)
    with pytest.raises(BadInput, match="too large for a key"):
        PublicKey.load(key_file(b"x" * 70_000))
    with pytest.raises(BadInput, match="is no path"):
        PublicKey.load(tmp_path / "a\0b")


def test_an_encrypted_key_of_another_tool(key_file):
    made = ec.generate_private_key(ec.SECP256R1())
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        content = made.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"p"))
        assert PrivateKey.load(key_file(content), lambda: "p").public == PublicKey.of(made.public_key(), "k")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_shows_the_private_half(kind):
    key = PrivateKey.generate(kind)
    assert repr(key) == "PrivateKey()"
    assert "PRIVATE" not in repr(key.public)


@pytest.mark.parametrize(
    ("name", "public"), [("own.key", "own.pub"), ("own", "own.pub"), ("own.pem", "own.pem.pub"), ("a.pub", "a.pub.pub")]
)
def test_where_the_public_half_lies(tmp_path, name, public):
    assert public_path(tmp_path / name) == tmp_path / public


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\x30\x06\x02\x01\x00\x02\x01\x00", b"\xff" * 100])
def test_what_is_no_signature(kind, signature):
    assert not PrivateKey.generate(kind).public.verifies(signature, b"x")


def test_a_private_key_gets_no_public_name(tmp_path):
    with pytest.raises(BadInput, match="a name for a public key"):
        PrivateKey.generate().save(tmp_path / "own.pub")
    assert not list(tmp_path.iterdir())


def test_a_public_key_in_the_place_of_a_private_one(tmp_path):
    # the file is for all to read, and it isn't that which is wrong
    PrivateKey.generate().save(tmp_path / "own.key")
    with pytest.raises(BadInput, match="holds a public key where a private one is meant"):
        PrivateKey.load(tmp_path / "own.pub", never)


@pytest.mark.parametrize("name", [".", "", "/", "folder/.."])
def test_what_is_no_name_for_a_key(name):
    with pytest.raises(BadInput, match="no name for a file"):
        PrivateKey.generate().save(Path(name))


def test_a_passphrase_that_is_no_text(tmp_path):
    with pytest.raises(BadInput, match="not UTF-8") as caught:
        PrivateKey.generate().save(tmp_path / "a.key", "s3cret\udcff")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not list(tmp_path.iterdir())


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path = tmp_path / "a.key"
    path.write_bytes(b"theirs")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(WriteFailed):
        PrivateKey.generate().save(path)
    assert path.read_bytes() == b"theirs"
