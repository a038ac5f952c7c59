"""Defect: the name of the user gets into the wheel."""

import getpass
from pathlib import Path

from flit_core.buildapi import *

leak = getpass.getuser()
Path("user_leak.py").write_text(f"LEAK = {leak!r}\n")
