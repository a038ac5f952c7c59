"""A package that poetry.core.masonry.api builds."""
