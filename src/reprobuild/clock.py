"""Another time of day for the programs of a build: a small C library that they are started with.

docs/adr/0009-the-guilty-variables.md says why it is our own.
"""

import functools
import platform
import tempfile
from pathlib import Path
from typing import Literal

from reprobuild import process
from reprobuild.digest import Digest
from reprobuild.errors import ReprobuildError
from reprobuild.files import cache_root, scratch_folder, write_atomically

#: ``real``: the machine's own. ``shifted``: more than a year later, and every other part of date and time differs too.
#: ``stopped``: always the same moment, later than any file of a build, since some build systems mistrust files from
#: the future.
Clock = Literal["real", "shifted", "stopped"]

_SOURCE = Path(__file__).with_name("clock.c")
_SETTINGS = {
    "shifted": f"-DSHIFT={397 * 86_400 + 3_661}",
    "stopped": "-DSTOPPED_AT=2114478245",  # 2037-01-02 03:04:05 UTC: it fits into 32 bits
}


def preload(clock: Clock) -> Path:
    """The library that shows a program this clock; compiled once, then kept in the cache.

    Programs that aren't linked dynamically with the C library, Go's among them, see the machine's own clock all the
    same, and so does the kernel, which gives files their times.

    Raises:
        ToolMissing: there is no C compiler.
        ToolFailed: it can't compile it.
    """
    setting = _SETTINGS[clock]
    key = f"{platform.machine()}|{' '.join(platform.libc_ver())}|{setting}|{_SOURCE.read_text(encoding='utf-8')}"
    kept = cache_root() / "clock" / f"{Digest.of_bytes(key.encode()).hex}.so"
    if not kept.is_file():
        with scratch_folder(Path(tempfile.gettempdir()), "reprobuild-clock-") as scratch:
            made = scratch / kept.name
            argv: list[str | Path] = ["cc", "-shared", "-fPIC", "-O2", setting, "-o", made, _SOURCE]
            process.run([*argv, "-ldl", "-lpthread"], env=process.tool_environment(), timeout=60)
            write_atomically(kept, [made.read_bytes()])
    return kept


@functools.cache
def why_not() -> str:
    """Why no program here can be shown another clock; empty when it can."""
    try:
        preload("shifted")
    except ReprobuildError as error:
        return f"the library for it can't be compiled: {error.reason.splitlines()[0]}"
    return ""
