from with_scikit_build_core._core import say

__all__ = ["say"]
