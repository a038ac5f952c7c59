"""Defect: the umask of the build gets into the wheel."""

import os
from pathlib import Path

from flit_core.buildapi import *

leak = os.umask(0o022)
Path("umask_leak.py").write_text(f"LEAK = {leak!r}\n")
