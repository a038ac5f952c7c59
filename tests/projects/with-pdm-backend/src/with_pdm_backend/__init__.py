"""A package that pdm.backend builds."""
