"""Defect: the path of the build folder gets into the wheel."""

import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = str(Path.cwd())
Path("build_path.py").write_text(f"LEAK = {leak!r}\n")
setup()
