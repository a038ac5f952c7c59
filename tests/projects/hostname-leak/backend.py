"""Defect: the name of the machine gets into the wheel."""

import socket
from pathlib import Path

from flit_core.buildapi import *

leak = socket.gethostname()
Path("hostname_leak.py").write_text(f"LEAK = {leak!r}\n")
