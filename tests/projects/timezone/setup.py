"""Defect: a time is written in the machine's own time zone."""

import os
import time
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # setuptools' own defect, which the project umask is about
leak = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(os.environ["SOURCE_DATE_EPOCH"])))
Path("timezone.py").write_text(f"LEAK = {leak!r}\n")
setup()
