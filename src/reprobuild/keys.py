"""Local signing keys: Ed25519, or ECDSA on P-256, in PEM files as every tool writes them (RFC 5958, RFC 5280).

A private key is used where it lies and never printed; messages and records name a key by the SHA-256 of its public half
in SubjectPublicKeyInfo, DER.
"""

import base64
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from reprobuild.errors import BadInput, SigningFailed, WriteFailed
from reprobuild.files import write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Kind = Literal["ed25519", "p256"]
#: A PEM file of a key is far smaller.
_LIMIT = 1 << 16
#: Bytes that OpenSSL takes.
_PASSPHRASE_LIMIT = 1023
_MAKE = "Make one with `reprobuild keys new FILE`."


@dataclass(frozen=True)
class PublicKey:
    """What a signature is checked with.

    Attributes:
        der: SubjectPublicKeyInfo.
    """

    der: bytes
    _key: "Ed25519PublicKey | EllipticCurvePublicKey" = field(repr=False, compare=False)

    @classmethod
    def read(cls, pem: bytes, where: str) -> "PublicKey":
        """Read a PEM file.

        Raises:
            BadInput: it holds no public key of a known kind; a private one is refused, it doesn't belong there.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - slow, and seldom needed
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

        if b"PRIVATE KEY" in pem:
            raise BadInput(f"{where} holds a private key where a public one is meant.", "Name the .pub file beside it.")
        try:
            return cls.of(load_pem_public_key(pem), where)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BadInput(f"{where} holds no public key in PEM.", _MAKE) from error

    @classmethod
    def load(cls, path: Path) -> "PublicKey":
        """Read a file.

        Raises:
            BadInput: as :meth:`read`, or the file can't be read.
        """
        return cls.read(_bytes_of(path), str(path))

    @classmethod
    def of(cls, key: object, where: str) -> "PublicKey":
        """A key of the cryptography library.

        Raises:
            BadInput: it is of a kind that isn't used here.
        """
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        if not (p256 or isinstance(key, ed25519.Ed25519PublicKey)):
            raise BadInput(f"{where} is neither an Ed25519 nor a P-256 key.", _MAKE)
        known = cast("ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey", key)
        return cls(known.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), known)

    @cached_property
    def id(self) -> str:
        """What messages and statements call it: ``sha256:`` and the hex digest of :attr:`der`."""
        return f"sha256:{hashlib.sha256(self.der).hexdigest()}"

    @property
    def hint(self) -> str:
        """The same as a bundle has it, in base64."""
        return base64.b64encode(hashlib.sha256(self.der).digest()).decode()

    @property
    def pem(self) -> bytes:
        """The file."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether a signature over a message was made with the private half."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(signature, message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """What signs."""

    _key: "Ed25519PrivateKey | EllipticCurvePrivateKey" = field(repr=False)

    @classmethod
    def generate(cls, kind: Kind = "ed25519") -> "PrivateKey":
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415

        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path, passphrase: Callable[[], str]) -> "PrivateKey":
        """Read a file.

        Args:
            passphrase: is asked when the file is encrypted.

        Raises:
            BadInput: it can't be read, or holds no private key of a known kind.
            SigningFailed: others may read it, or the passphrase is wrong.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        pem = _bytes_of(path)
        if b"PUBLIC KEY" in pem and b"PRIVATE KEY" not in pem:
            raise BadInput(f"{path} holds a public key where a private one is meant.", "Name the key that signs.")
        if path.stat().st_mode & 0o077:
            raise SigningFailed(f"{path} can be read by others.", f"Make it yours alone: chmod 600 {path}.")
        if b"SIGSTORE PRIVATE KEY" in pem or b"COSIGN PRIVATE KEY" in pem:
            raise BadInput(f"{path} is encrypted in a way of cosign's own, which nothing else opens.", _MAKE)
        encrypted = b"ENCRYPTED" in pem
        try:
            key = load_pem_private_key(pem, passphrase().encode() if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if encrypted:
                raise SigningFailed(f"{path} can't be opened with this passphrase.", "Try again.") from error
            raise BadInput(f"{path} holds no private key in PEM.", _MAKE) from error
        PublicKey.of(key.public_key(), str(path))
        return cls(cast("Ed25519PrivateKey | EllipticCurvePrivateKey", key))

    @cached_property
    def public(self) -> PublicKey:
        """The half that anybody may have."""
        return PublicKey.of(self._key.public_key(), "the key")

    def sign(self, message: bytes) -> bytes:
        """A signature; the same key and message give the same bytes (RFC 8032; for P-256, RFC 6979)."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True))

    def save(self, path: Path, passphrase: str = "") -> None:
        """Write the private half to a new file that only its owner can read, and the public half beside it.

        Raises:
            BadInput: one of the files is there already, or the name is a public key's.
            WriteFailed: there is no room, or no right to write.
        """
        from cryptography.hazmat.primitives import serialization as as_  # noqa: PLC0415

        if not path.name or path.name == "..":
            raise BadInput(f"{path} is no name for a file.", "Name a new file.")
        beside = public_path(path)
        if path.suffix == ".pub":
            raise BadInput(f"{path} is a name for a public key.", "Name the file of the private one, such as demo.key.")
        for each in (path, beside):
            if each.exists() or each.is_symlink():
                raise BadInput(f"{each} is there already.", "Name a new file; no key is ever overwritten.")
        try:
            secret = passphrase.encode()
        except UnicodeEncodeError:
            raise BadInput("The passphrase is not UTF-8 text.", "Choose another one.") from None  # the cause holds it
        if len(secret) > _PASSPHRASE_LIMIT:
            raise BadInput(f"The passphrase has more than {_PASSPHRASE_LIMIT} bytes.", "Choose a shorter one.")
        how = as_.BestAvailableEncryption(secret) if passphrase else as_.NoEncryption()
        pem = self._key.private_bytes(as_.Encoding.PEM, as_.PrivateFormat.PKCS8, how)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise WriteFailed(f"{path} can't be written: {error.strerror}.", "Name another file.") from error
        try:
            with open(handle, "wb") as stream:  # noqa: PTH123 - a descriptor, so that the mode was never another one
                stream.write(pem)
                stream.flush()
                os.fsync(handle)
            write_atomically(beside, [self.public.pem])
        except (OSError, WriteFailed) as error:
            with suppress(OSError):
                path.unlink()
            if isinstance(error, WriteFailed):
                raise
            raise WriteFailed(f"{path} can't be written: {error.strerror}.", "Free some space.") from error


def public_path(path: Path) -> Path:
    """Where the public half of a key lies that is in a file."""
    return path.with_name(f"{path.name.removesuffix('.key')}.pub")


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            found = stream.read(_LIMIT + 1)
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.", _MAKE) from error
    except ValueError as error:  # a policy's text can hold what no path can
        raise BadInput(f"{str(path)!r} is no path.", _MAKE) from error
    if len(found) > _LIMIT:
        raise BadInput(f"{path} is too large for a key.", _MAKE)
    return found
