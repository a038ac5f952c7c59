"""A package that flit_core.buildapi builds."""
