"""Two C sources, with the path of one of them in an assertion."""

import os

from setuptools import Extension, setup

os.umask(0o022)  # setuptools' own defect, which the project umask is about
setup(ext_modules=[Extension("with_c_extension", ["src/first.c", "src/second.c"], include_dirs=["src"])])
