from with_meson_python._core import say

__all__ = ["say"]
