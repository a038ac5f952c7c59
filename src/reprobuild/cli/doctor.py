"""`reprobuild doctor`."""

from dataclasses import asdict

import click

from reprobuild import doctor as doctors
from reprobuild.cli.console import plain, print_json
from reprobuild.errors import ExitCode


@click.command(epilog="\b\nExamples:\n  reprobuild doctor\n  reprobuild doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(as_json: bool) -> None:
    """Say what this machine has (uv, git, sandbox kinds, compilers, …), and what each missing thing costs."""
    findings = doctors.examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = click.style("yes", fg="green") if finding.found else click.style("no ", fg="yellow")
            click.echo(f"{mark}  {finding.name:<20} {plain(finding.found or finding.cost)}")
            if finding.note:
                click.echo(f"     {plain(finding.note)}")
    if any(finding.required and not finding.found for finding in findings):
        raise click.exceptions.Exit(ExitCode.TOOL_MISSING)
