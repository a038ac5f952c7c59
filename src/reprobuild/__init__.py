"""reprobuild: makes wheels, images and training runs, makes them again, and compares raw bytes."""

__version__ = "0.1.0"
