"""Defect: the patch release of Python gets into the wheel."""

import platform
from pathlib import Path

from flit_core.buildapi import *

leak = platform.python_version()
Path("python_leak.py").write_text(f"LEAK = {leak!r}\n")
