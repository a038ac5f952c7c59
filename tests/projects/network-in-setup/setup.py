"""Defect: setup.py asks the network while it builds the wheel."""

import os
import sys
from pathlib import Path
from urllib.request import urlopen

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
answer = "not asked yet"
if "bdist_wheel" in sys.argv:
    answer = urlopen(os.environ["ASKED_URL"], timeout=5).read().decode()
Path("network_in_setup.py").write_text(f"LEAK = {answer!r}\n")
setup()
