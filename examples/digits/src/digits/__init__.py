"""Handwritten digits of 8 by 8 pixels: a model that learns to read them, and a server that reads them."""
