"""A package that setuptools.build_meta builds."""
