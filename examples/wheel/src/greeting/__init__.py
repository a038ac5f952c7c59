"""Says hello."""

import click


@click.command()
def greet() -> None:
    """Say hello."""
    click.echo("hello")
