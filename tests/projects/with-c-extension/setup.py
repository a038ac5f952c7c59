"""Two C sources, with the path of one of them in an assertion."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("with_c_extension", ["src/first.c", "src/second.c"], include_dirs=["src"])])
