"""Make the little signed archive in this folder anew: `python tests/apt/make.py`, where gpg is.

What apt has to check can't be made in the tests, which run where there is no gpg: the keys are thrown away.
"""

import hashlib
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: Nothing unpacks these in unit tests, so that any bytes do. Fields beside the usual ones, by package.
PACKAGES = {
    "base-lib": ("2.0", "all", ""),
    "tool": ("1:1.0+b1", "amd64", "Depends: tool-lib (>= 1)\n"),
    "tool-lib": ("1.5", "all", "Depends: base-lib (>= 1)\nRecommends: leaf\n"),
    "early": ("1.0", "amd64", "Pre-Depends: tool-lib\n"),
    "leaf": ("1.0", "all", ""),
    "rival": ("1.0", "all", "Conflicts: essential-one\n"),
    "lonely": ("1.0", "all", "Depends: nowhere\n"),
}


def content(name: str) -> bytes:
    """The bytes of a package."""
    return f"the package {name}\n".encode() * 50


def path(name: str) -> str:
    """Where it is below the archive's address."""
    version, architecture, _ = PACKAGES[name]
    return f"pool/main/{name[0]}/{name}/{name}_{version.partition(':')[2] or version}_{architecture}.deb"


def index() -> bytes:
    """Packages."""
    stanzas = []
    for name, (version, architecture, more) in PACKAGES.items():
        data = content(name)
        stanzas.append(
            f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: a test\n{more}"
            f"Filename: {path(name)}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
            f"Description: of a test\n"
        )
    return "\n".join(stanzas).encode()


def main() -> None:
    """Write keyring.gpg, another.gpg and InRelease."""
    packages = index()
    place = "main/binary-amd64/Packages"
    release = (
        "Origin: Test\nLabel: Test\nSuite: hamlet\nCodename: hamlet\nDate: Mon, 01 Jan 2024 00:00:00 UTC\n"
        "Acquire-By-Hash: yes\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} {place}\n"
    )
    with tempfile.TemporaryDirectory() as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
        gpg += ["--faked-system-time", "20240101T000000"]  # no clock is before it
        for name in ("keyring", "another"):
            who = f"{name}@example.org"
            subprocess.run([*gpg, "--quick-generate-key", who, "rsa2048", "sign", "never"], check=True)
            keys = subprocess.run([*gpg, "--export", who], check=True, capture_output=True).stdout
            (HERE / f"{name}.gpg").write_bytes(keys)
        sign = [*gpg, "--local-user", "keyring@example.org", "--digest-algo", "SHA256", "--clearsign"]
        signed = subprocess.run(sign, input=release.encode(), check=True, capture_output=True).stdout
    (HERE / "InRelease").write_bytes(signed)


if __name__ == "__main__":
    main()
