"""Defect: the home folder gets into the wheel."""

from pathlib import Path

from flit_core.buildapi import *

leak = str(Path.home())
Path("home_leak.py").write_text(f"LEAK = {leak!r}\n")
