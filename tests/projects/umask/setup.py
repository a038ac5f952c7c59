"""Defect: the umask of the build gets into the wheel."""

import os
from pathlib import Path

from setuptools import setup

leak = os.umask(0o022)
Path("umask.py").write_text(f"LEAK = {leak!r}\n")
setup()
