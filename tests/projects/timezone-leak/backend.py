"""Defect: a time is written in the machine's own time zone."""

import os
import time
from pathlib import Path

from flit_core.buildapi import *

leak = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(os.environ["SOURCE_DATE_EPOCH"])))
Path("timezone_leak.py").write_text(f"LEAK = {leak!r}\n")
