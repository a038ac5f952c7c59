"""Defect: the name of the machine gets into the wheel."""

import os
import socket
from pathlib import Path

from setuptools import setup

os.umask(0o022)  # or the modes in the wheel follow the umask
leak = socket.gethostname()
Path("hostname_leak.py").write_text(f"LEAK = {leak!r}\n")
setup()
