"""Defect: the locale of the build gets into the wheel."""

import locale
from pathlib import Path

from flit_core.buildapi import *

leak = locale.setlocale(locale.LC_ALL, "")
Path("locale_leak.py").write_text(f"LEAK = {leak!r}\n")
