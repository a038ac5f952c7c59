"""A package with data and a console script."""


def main() -> None:
    """Say hello."""
    print("hello")
