"""Build packages with compiled code from their sdists: twice with uv alone, and with `reprobuild wheel` and `verify-wheel`.

    python benchmarks/compiled.py NAME==VERSION… [--sandbox KIND] [--again FOLDER]

Each is locked as of AS_OF. A table in Markdown goes to standard output.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from packaging.utils import canonicalize_name

from reprobuild import process
from reprobuild.index import Index

AS_OF = "2026-11-01"
REPROBUILD = [sys.executable, "-m", "reprobuild"]


def unpacked(requirement: str, folder: Path) -> Path:
    """The sdist of NAME==VERSION, unpacked in a folder."""
    name, _, version = requirement.partition("==")
    index = Index(folder)
    files = [each.file for each in index.release(canonicalize_name(name), version)]
    (sdist,) = (file for file in files if file.filename.endswith(".tar.gz"))
    index.fetch([sdist], folder)
    with tarfile.open(folder / sdist.filename) as tar:
        tar.extractall(folder, filter="data")
    return folder / sdist.filename.removesuffix(".tar.gz")


def plain(source: Path, scratch: Path) -> str:
    """Whether `uv build` gives the same wheel in two folders, under two umasks."""
    digests = []
    for name, umask in (("one", 0o022), ("another-folder", 0o077)):
        folder = scratch / name / source.name
        shutil.copytree(source, folder)
        for lock in ("constraints.txt", "requirements.txt"):
            (folder / lock).unlink(missing_ok=True)
        command = [process.find("uv"), "build", "--wheel", "--quiet", "--python", sys.executable, "--exclude-newer", AS_OF]
        done = subprocess.run(command, cwd=folder, umask=umask, capture_output=True, text=True, check=False)
        if done.returncode:
            return "fails"
        (wheel,) = (folder / "dist").glob("*.whl")
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return "identical" if len(set(digests)) == 1 else "differs"


def checked(source: Path, sandbox: str) -> tuple[str, float, float]:
    """The level that verify-wheel gives, and the seconds that the build and the verification took."""
    out: list[float] = []
    subprocess.run([*REPROBUILD, "lock", "-q", "--exclude-newer", AS_OF], cwd=source, check=True)
    for command in (["wheel", "-q"], ["verify-wheel", "--json", "--no-explain"]):
        started = time.monotonic()
        done = subprocess.run(
            [*REPROBUILD, *command, "--sandbox", sandbox], cwd=source, capture_output=True, text=True, check=False
        )
        out.append(time.monotonic() - started)
        if not done.stdout and done.returncode:
            print(done.stderr, file=sys.stderr)
            return "fails", out[0], 0
    said = json.loads(done.stdout)
    held = f" ({', '.join(said['held'])} held)" if said["held"] else ""
    return said["level"] + held, out[0], out[1]


def main() -> None:
    """Print one line for each package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("requirement", nargs="+")
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--no-plain", action="store_true")
    asked = parser.parse_args()
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    print("| package | `uv build` twice | `reprobuild verify-wheel` | build | verification |\n|---|---|---|---|---|")
    for requirement in asked.requirement:
        with tempfile.TemporaryDirectory() as scratch:
            source = unpacked(requirement, Path(scratch))
            alone = "" if asked.no_plain else plain(source, Path(scratch))
            level, build, verification = checked(source, asked.sandbox)
        print(f"| {requirement} | {alone} | {level} | {build:.1f} s | {verification:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
