"""What this machine has for building and verifying, and what each missing thing costs."""

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from reprobuild import process, toolchain
from reprobuild.errors import ReprobuildError
from reprobuild.sandbox import KINDS


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for.

    Attributes:
        name: what it is.
        found: what is here, such as a version; empty when it is missing.
        cost: what doesn't work, or works less well, without it.
        required: whether reprobuild can't build a wheel without it.
        note: what else to know of what is here.
    """

    name: str
    found: str
    cost: str
    required: bool = False
    note: str = ""


_PROGRAMS = (
    ("uv", ("--version",), "Nothing can be locked or built.", True),
    ("git", ("--version",), "Only sdists and folders without git can be built.", False),
    ("cc", ("--version",), "C extensions can't be built, and verify-wheel can't vary the clock.", False),
    ("c++", ("--version",), "C++ extensions can't be built.", False),
    ("rustc", ("--version",), "Rust extensions can't be built.", False),
    ("nvcc", ("--version",), "CUDA extensions can't be built.", False),
    ("docker", ("--version",), "Images whose Dockerfile has RUN can't be built here.", False),
    ("cosign", ("version",), "Signatures can't be cross-checked with cosign.", False),
)
_COMPILERS = ("cc", "c++", "rustc", "nvcc")
#: Where a build looks for programs, of what sandboxes show.
_BUILD_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
_SHOWN = ("/usr", "/bin", "/nix/store")


def examine() -> list[Finding]:
    """Look for everything; each program is asked for its version, each sandbox kind is tried out."""
    findings = [Finding("python", f"{platform.python_version()} ({sys.executable})", "", required=True)]
    for name, arguments, cost, required in _PROGRAMS:
        found = _asked(name, arguments)
        note = _unseen(name) if found and name in _COMPILERS else ""
        findings.append(Finding(name, found, cost, required, note))
    costs = {
        "bubblewrap": "Builds see more of this machine than they should.",
        "unshare": "There is no second-best sandbox.",
    }
    for name, cost in costs.items():
        why = KINDS[name].why_not()
        findings.append(Finding(f"sandbox {name}", "" if why else "works", f"{cost} ({why})" if why else cost))
    best = next(kind for kind in KINDS.values() if not kind.why_not())
    findings.append(Finding("sandbox in use", best.name, ""))
    findings.append(_module("auditwheel", "Wheels with compiled code can't be given a manylinux tag here."))
    return findings


def _asked(name: str, arguments: tuple[str, ...]) -> str:
    try:
        done = process.run([name, *arguments], env=process.tool_environment(), timeout=20)
    except ReprobuildError:
        return ""
    lines = (done.stdout.decode(errors="replace") or done.log).strip().splitlines()
    versions = [line for line in lines if any(character.isdigit() for character in line)]
    return (versions[-1] if name == "nvcc" else versions[0]) if versions else "here"


def _unseen(name: str) -> str:
    """What to do about a compiler that is on the user's PATH but not on a build's."""
    here = shutil.which(name)
    seen = [Path(folder, name).resolve() for folder in _BUILD_PATH if Path(folder, name).exists()]
    if here is None or any(Path(here).resolve().is_relative_to(Path(home).resolve()) for home in toolchain.TOOLKITS):
        return ""
    if any(path.is_relative_to(folder) for path in seen for folder in _SHOWN):
        return ""
    folder = Path(here).parent
    return f"Builds don't see {folder}: set [tool.reprobuild.wheel] path to it, and readable to what else it needs."


def _module(name: str, cost: str) -> Finding:
    return Finding(name, "here" if importlib.util.find_spec(name) else "", cost)
