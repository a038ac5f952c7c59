"""Defect: the home folder gets into the wheel."""

import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # setuptools' own defect, which the project umask is about
leak = str(Path.home())
Path("home_leak.py").write_text(f"LEAK = {leak!r}\n")
setup()
