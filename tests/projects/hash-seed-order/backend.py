"""Defect: the order of a set gets into the wheel."""

from pathlib import Path

from flit_core.buildapi import *

leak = list({"red", "green", "blue", "cyan", "magenta", "yellow"})
Path("hash_seed_order.py").write_text(f"LEAK = {leak!r}\n")
