from with_cython._core import doubled

__all__ = ["doubled"]
