"""A package that hatchling.build builds."""
