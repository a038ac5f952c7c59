"""A package like any other."""
