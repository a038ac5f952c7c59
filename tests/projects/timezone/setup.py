"""Defect: a time is written in the machine's own time zone."""

import os
import time
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(os.environ["SOURCE_DATE_EPOCH"])))
Path("timezone.py").write_text(f"LEAK = {leak!r}\n")
setup()
