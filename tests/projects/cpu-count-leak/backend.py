"""Defect: the number of processors gets into the wheel."""

import os
from pathlib import Path

from flit_core.buildapi import *

leak = len(os.sched_getaffinity(0))
Path("cpu_count_leak.py").write_text(f"LEAK = {leak!r}\n")
