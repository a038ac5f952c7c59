"""Defect: the time of the build gets into the wheel."""

import os
from datetime import UTC, datetime
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = datetime.now(UTC).isoformat()
Path("embedded_clock.py").write_text(f"LEAK = {leak!r}\n")
setup()
