"""Defect: the number of jobs gets into the wheel."""

import os
from pathlib import Path

from flit_core.buildapi import *

leak = os.environ["MAX_JOBS"]
Path("jobs_leak.py").write_text(f"LEAK = {leak!r}\n")
