"""Defect: the locale of the build gets into the wheel."""

import locale
import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = locale.setlocale(locale.LC_ALL, "")
Path("locale.py").write_text(f"LEAK = {leak!r}\n")
setup()
