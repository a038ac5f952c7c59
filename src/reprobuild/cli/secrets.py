"""Where commands get secrets from: a terminal, a file or the environment, never an argument."""

import os
import sys
from pathlib import Path

import click

from reprobuild.errors import BadInput, SigningFailed
from reprobuild.keys import PrivateKey
from reprobuild.sign import KeySigner, Signer, keyless

PASSPHRASE, TOKEN = "REPROBUILD_KEY_PASSPHRASE", "REPROBUILD_IDENTITY_TOKEN"
_TOKEN_LIMIT = 1 << 16


def passphrase() -> str:
    """Of a key that there is.

    Raises:
        SigningFailed: there is nobody to ask.
    """
    if PASSPHRASE in os.environ:
        return os.environ[PASSPHRASE]
    if not sys.stdin.isatty():
        raise SigningFailed("The key needs a passphrase, and there is no terminal to ask on.", f"Set {PASSPHRASE}.")
    return str(click.prompt("Passphrase", hide_input=True, err=True))


def new_passphrase(*, wanted: bool) -> str:
    """Of a key that is being made; asked for twice. Empty for a key that needs none.

    Args:
        wanted: whether to ask; a passphrase that is in the environment is always used.

    Raises:
        SigningFailed: there is nobody to ask, or it is empty.
    """
    if not wanted:
        return os.environ.get(PASSPHRASE, "")
    if PASSPHRASE in os.environ:
        found = os.environ[PASSPHRASE]
    elif sys.stdin.isatty():
        found = str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))
    else:
        raise SigningFailed("There is no terminal to ask for a passphrase on.", f"Set {PASSPHRASE}.")
    if not found:
        raise SigningFailed("The passphrase is empty.", "Leave out --passphrase for a key without one.")
    return found


def signer_of(key: Path | None, token: Path | None, trust_config: Path | None, rekor: int) -> Signer:
    """Who signs: the key that is named, else the identity that is there.

    Args:
        token: a file with an identity token.

    Raises:
        As :meth:`PrivateKey.load` and :func:`reprobuild.sign.keyless`.
    """
    if key is not None:
        return KeySigner(PrivateKey.load(key, passphrase))
    return keyless(_token(token), trust_config, interactive=sys.stdin.isatty(), rekor=rekor)


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN) or None
    try:
        with path.open(encoding="ascii") as stream:
            return stream.read(_TOKEN_LIMIT).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"The identity token in {path} can't be read.", "Name a file with nothing but the token."
        ) from error
