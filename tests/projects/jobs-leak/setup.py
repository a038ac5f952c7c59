"""Defect: the number of jobs gets into the wheel."""

import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = os.environ["MAX_JOBS"]
Path("jobs_leak.py").write_text(f"LEAK = {leak!r}\n")
setup()
