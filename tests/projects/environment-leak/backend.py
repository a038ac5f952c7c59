"""Defect: a variable of the environment gets into the wheel."""

import os
from pathlib import Path

from flit_core.buildapi import *

leak = os.environ.get("EDITOR")
Path("environment_leak.py").write_text(f"LEAK = {leak!r}\n")
