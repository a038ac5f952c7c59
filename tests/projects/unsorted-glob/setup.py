"""Defect: the order of a folder's entries gets into the wheel."""

import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = [path.name for path in Path("data").glob("*.txt")]
Path("unsorted_glob.py").write_text(f"LEAK = {leak!r}\n")
setup()
