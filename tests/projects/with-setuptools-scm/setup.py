"""The rest is in pyproject.toml."""

import os

from setuptools import setup

os.umask(0o022)  # setuptools' own defect, which the project umask is about
setup()
