"""Who signs statements: a local key, or an identity that Sigstore certifies for some minutes (keyless).

Both give a Sigstore bundle. The client library of Sigstore does all of the second kind; of the first it does nothing,
since a bundle without a certificate is none to it.
"""

import base64
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from reprobuild import attest, bundle
from reprobuild.attest import Json
from reprobuild.errors import BadInput, SigningFailed, ToolMissing, redacted, shown
from reprobuild.keys import PrivateKey

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken
    from sigstore.sign import Signer as TheirSigner

_T = TypeVar("_T")
#: Seconds that the services together may take for one signature, or for an identity; a log at work takes some ten.
_LONGEST: float = 120
_NO_CLIENT = "Install reprobuild[sigstore] instead of reprobuild."
_CI_VARIABLE = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
#: Names of the errors of the client and of PyJWT: not all of them are public.
_EXPIRED = ("ExpiredIdentity", "ExpiredSignatureError")
#: Parts of paths of their interfaces.
_SERVICES = (
    ("/signingCert", "the certificate authority (Fulcio)"),
    ("/log/entries", "the log (Rekor)"),
    ("/.well-known/", "the identity provider"),
)


class Signer(Protocol):
    """What signs."""

    @property
    def name(self) -> str:
        """A short name for files and messages: ``key-1f2e3d…``, or ``id-…``."""

    def sign(self, statement: Json) -> bytes:
        """A bundle, as JSON.

        Raises:
            SigningFailed: a service refuses, or can't be reached.
        """

    def attestation(self, path: Path) -> bytes | None:
        """What a package index takes beside a wheel or an sdist (PEP 740); None where a key signs: it knows none.

        Raises:
            SigningFailed, ToolMissing: as :meth:`sign`.
        """


@dataclass(frozen=True, slots=True)
class KeySigner:
    """Signs with a local key: the same statement gives the same bytes."""

    key: PrivateKey

    @property
    def name(self) -> str:
        return f"key-{self.key.public.id.removeprefix('sha256:')[:12]}"

    def sign(self, statement: Json) -> bytes:
        payload = attest.encode(statement)
        signature = self.key.sign(bundle.pae(bundle.STATEMENT_MEDIA_TYPE, payload))
        return bundle.with_key(payload, signature, self.key.public.hint)

    def attestation(self, path: Path) -> bytes | None:  # noqa: ARG002 - the protocol's
        return None


@dataclass(frozen=True, slots=True)
class KeylessSigner:
    """Signs as an OpenID Connect identity; the certificate and the log's entry become public, if the instance is.

    Attributes:
        token: the identity token; it is never shown.
        trust: the instance of Sigstore.
    """

    token: "IdentityToken"
    trust: "ClientTrustConfig"

    @property
    def name(self) -> str:
        # Two workflows on one tag have one subject, and a certificate each: the client's identity isn't all of it.
        identity = f"{self.token.federated_issuer} {self.token.identity} {_workflow(str(self.token))}".rstrip()
        return f"id-{attest.short_name(identity)}"

    def sign(self, statement: Json) -> bytes:
        from sigstore.dsse import Statement  # noqa: PLC0415 - an extra, and slow

        payload = Statement(attest.encode(statement))
        return self._signed(lambda signer: signer.sign_dsse(payload).to_json().encode())

    def attestation(self, path: Path) -> bytes | None:
        try:
            from pypi_attestations import Attestation, Distribution  # noqa: PLC0415 - an extra, and slow
        except ImportError as error:
            raise ToolMissing("There is nothing here that writes PEP 740 attestations.", _NO_CLIENT) from error
        about = Distribution.from_file(path)
        return self._signed(lambda signer: Attestation.sign(signer, about).model_dump_json().encode())

    def _signed(self, sign: Callable[["TheirSigner"], bytes]) -> bytes:
        from sigstore.sign import SigningContext  # noqa: PLC0415 - an extra, and slow

        def work() -> bytes:
            with SigningContext.from_trust_config(self.trust).signer(self.token) as signer:
                return sign(signer)

        try:
            return _in_time(work)
        except Exception as error:  # noqa: BLE001 - the library's have no one root: identity, certificate, log, network
            raise _failed("Sigstore didn't sign", error, [str(self.token)]) from None  # it may quote the token


def _workflow(token: str) -> str:
    """The workflow that a CI job runs, if it says so; for names alone, as nobody has verified it."""
    _, _, rest = token.partition(".")
    body = rest.partition(".")[0]
    try:
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        return ""
    return str(claims.get("job_workflow_ref", "")) if isinstance(claims, dict) else ""


def keyless(token: str | None, trust_config: Path | None, *, interactive: bool, rekor: int = 1) -> KeylessSigner:
    """A signer for the identity that is there: a token, the one of a CI job, or whoever logs in with a browser.

    Args:
        token: an identity token; none means whatever the surroundings offer.
        trust_config: a ClientTrustConfig of a private instance; none means the public one.
        interactive: whether a browser may be opened.
        rekor: version of the log, where the instance has several: other tools can't read 2 yet.

    Raises:
        ToolMissing: there is no Sigstore client here.
        BadInput: ``trust_config`` is none.
        SigningFailed: there is no identity, or the instance can't be reached.
    """
    try:
        from sigstore.models import ClientTrustConfig  # noqa: PLC0415 - an extra, and slow
        from sigstore.oidc import IdentityToken, Issuer, detect_credential  # noqa: PLC0415
    except ImportError as error:
        raise ToolMissing("There is no Sigstore client here.", _NO_CLIENT) from error
    own = trust_config and _instance(trust_config)
    hidden = [token or "", os.environ.get(_CI_VARIABLE, "")]
    try:
        found = token or _in_time(detect_credential)
    except Exception as error:  # noqa: BLE001 - as above
        raise _failed("There is no identity to sign with", error, hidden) from None
    if not (found or interactive):
        raise SigningFailed(
            "There is no identity to sign with: no token, no CI job that offers one, and nobody to log in.",
            "Sign with a local key, or set REPROBUILD_IDENTITY_TOKEN; in GitHub Actions: `id-token: write`.",
        )
    try:
        trust = own or _in_time(ClientTrustConfig.production)
    except Exception as error:  # noqa: BLE001 - as above
        raise _failed("The public instance of Sigstore can't be asked for its services", error, hidden) from None
    trust.force_tlog_version = rekor
    try:
        if found:
            return KeylessSigner(IdentityToken(found), trust)
        issuer = _in_time(lambda: Issuer(trust.signing_config.get_oidc_url()))
        return KeylessSigner(issuer.identity_token(), trust)  # as long as somebody needs to log in
    except Exception as error:  # noqa: BLE001 - as above, and what a token that is none raises
        raise _failed("There is no identity to sign with", error, hidden) from None


def _in_time(work: Callable[[], _T]) -> _T:
    """What work comes to, unless it takes too long: the client waits without end for some services.

    What takes too long is left to itself, in a thread that nobody waits for: nothing can end a request from outside.

    Raises:
        TimeoutError: it takes longer than :data:`_LONGEST`; any error of the work's own.
    """
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, where somebody handles it
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_LONGEST)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"its services didn't answer within {_LONGEST:g} seconds")
    return done[0]


def _instance(path: Path) -> "ClientTrustConfig":
    from sigstore.models import ClientTrustConfig  # noqa: PLC0415 - an extra, and slow

    try:
        return ClientTrustConfig.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}.", "--trust-config names a file.") from error
    except ValueError as error:  # pydantic's, and of a text that is none
        raise BadInput(
            f"{path} is no ClientTrustConfig of Sigstore.", "A trusted_root.json alone doesn't say where to sign."
        ) from error


def _failed(what: str, error: BaseException, hidden: Sequence[str]) -> SigningFailed:
    """What the client ran into, in words without secrets; it often says it in the cause of what it raises alone."""
    chain: list[BaseException] = [error]
    while len(chain) < 10 and (deeper := chain[-1].__cause__ or chain[-1].__context__):
        chain.append(deeper)
    if any(type(each).__name__ in _EXPIRED for each in chain):
        return SigningFailed(f"{what}: the identity token has expired.", "Ask for a new one just before you sign.")
    for each in chain:
        if url := getattr(getattr(each, "request", None), "url", ""):
            answer = getattr(each, "response", None)
            service = next((name for path, name in _SERVICES if path in url), "a service of Sigstore")
            if answer is None:
                return SigningFailed(
                    f"{what}: {service} can't be reached at {redacted(url, hidden)}.",
                    "Is the instance up, and are you online? Or sign with a local key.",
                )
            said = shown(redacted(answer.text.strip(), hidden))
            return SigningFailed(
                f"{what}: {service} answered {answer.status_code}: {said}",
                "Does the instance accept this identity? Or sign with a local key.",
            )
    why = next((str(each) for each in chain if str(each)), type(error).__name__)
    return SigningFailed(
        f"{what}: {shown(redacted(why, hidden), 500)}.",
        "Check the network, the identity token and --trust-config, or sign with a local key.",
    )
