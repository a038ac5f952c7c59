"""Write the locks of the projects in this folder again: all of them, or those named on the command line."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from conftest import commit_all, make_sdist  # noqa: E402 - found only through the line above

AS_OF = "2026-11-01"


def relock(name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, name)
        shutil.copytree(HERE / name, folder)
        for lock in ("constraints.txt", "requirements.txt"):
            (folder / lock).unlink(missing_ok=True)
        env = os.environ | {
            role: "x" for role in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
        }
        if name == "sdist-only-requirement":
            links = Path(scratch, "links")
            make_sdist(folder / "only-as-sdist", links)
            env["UV_FIND_LINKS"] = str(links)
        commit_all(folder, env=env)
        command = [sys.executable, "-m", "reprobuild", "lock", "--quiet", "--exclude-newer", AS_OF]
        subprocess.run(command, cwd=folder, check=True, env=env)
        for lock in ("constraints.txt", "requirements.txt"):
            text = (folder / lock).read_text()
            if name == "wrong-hash":
                text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, text)
            (HERE / name / lock).write_text(text)


for each in sys.argv[1:] or sorted(path.parent.name for path in HERE.glob("*/pyproject.toml")):
    relock(each)
