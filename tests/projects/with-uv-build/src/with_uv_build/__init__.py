"""A package that uv_build builds."""
