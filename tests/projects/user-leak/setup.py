"""Defect: the name of the user gets into the wheel."""

import getpass
import os
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = getpass.getuser()
Path("user_leak.py").write_text(f"LEAK = {leak!r}\n")
setup()
