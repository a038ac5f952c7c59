"""Defect: the order of a set gets into the wheel."""

import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = list({"red", "green", "blue", "cyan", "magenta", "yellow"})
Path("hash_seed_order.py").write_text(f"LEAK = {leak!r}\n")
setup()
