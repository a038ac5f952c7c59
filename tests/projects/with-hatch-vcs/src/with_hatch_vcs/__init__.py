"""A package whose version is a git tag."""
