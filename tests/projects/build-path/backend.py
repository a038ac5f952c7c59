"""Defect: the path of the build folder gets into the wheel."""

from pathlib import Path

from flit_core.buildapi import *

leak = str(Path.cwd())
Path("build_path.py").write_text(f"LEAK = {leak!r}\n")
