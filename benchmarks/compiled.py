"""Build packages with compiled code from their sdists: twice with uv alone, then with reprobuild, and verify that.

    python benchmarks/compiled.py NAME==VERSION… [--sandbox KIND] [--no-plain]

Each is locked as of AS_OF. A table in Markdown goes to standard output.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from packaging.utils import canonicalize_name

from reprobuild import process
from reprobuild.archive import extract_tar
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
    target = folder / "unpacked"
    target.mkdir()
    with (folder / sdist.filename).open("rb") as stream:
        extract_tar(stream, target)
    (top,) = target.iterdir()
    return top


def plain(source: Path, scratch: Path) -> str:
    """Whether `uv build` gives the same wheel in two folders, under two umasks."""
    digests = []
    for name, umask in (("one", 0o022), ("another-folder", 0o077)):
        folder = scratch / name / source.name
        shutil.copytree(source, folder)
        for lock in ("constraints.txt", "requirements.txt"):
            (folder / lock).unlink(missing_ok=True)
        command = [str(process.find("uv")), "build", "--wheel", "--quiet", "--exclude-newer", AS_OF]
        command += ["--python", sys.executable]
        done = subprocess.run(command, cwd=folder, umask=umask, capture_output=True, text=True, check=False)
        if done.returncode:
            return "fails"
        (wheel,) = (folder / "dist").glob("*.whl")
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return "identical" if len(set(digests)) == 1 else "differs"


def checked(source: Path, sandbox: str) -> tuple[str, float, float]:
    """The level that verify-wheel gives, and the seconds that the build and the verification took."""
    subprocess.run([*REPROBUILD, "lock", "-q", "--exclude-newer", AS_OF], cwd=source, check=True, capture_output=True)
    started = time.monotonic()
    subprocess.run([*REPROBUILD, "wheel", "-q", "--sandbox", sandbox], cwd=source, check=True, capture_output=True)
    built = time.monotonic()
    command = [*REPROBUILD, "verify-wheel", "--json", "--no-explain", "--sandbox", sandbox]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    held = f" ({', '.join(said['held'])} held)" if said["held"] else ""
    return said["level"] + held, built - started, time.monotonic() - built


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
            try:
                level, build, verification = checked(source, asked.sandbox)
            except subprocess.CalledProcessError as error:
                level, build, verification = f"`{error.cmd[3]}` fails", 0, 0
                print(error.stderr.decode(), file=sys.stderr)
        print(f"| {requirement} | {alone} | {level} | {build:.1f} s | {verification:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
