"""`reprobuild lint`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from reprobuild.cli.console import plain, print_json
from reprobuild.errors import BadInput, ExitCode
from reprobuild.image.lint import Finding, Report, rules
from reprobuild.image.lint import lint as lint_file
from reprobuild.image.lint.rules import RULES, Rule

_COLOURS = {"error": "red", "warning": "yellow"}


class _Where(click.ParamType[str]):
    """An image's name, a file or a folder; the shell completes all three."""

    name = "where"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        names = (path.parent.name for path in _dockerfiles(Path()))
        return [
            *(CompletionItem(name) for name in names if name.startswith(incomplete)),
            CompletionItem(incomplete, "file"),
        ]


@click.command(
    epilog="""\b
Examples:
  reprobuild lint                               each images/*/Dockerfile
  reprobuild lint training                      images/training/Dockerfile
  reprobuild lint docker/Dockerfile.gpu --json
  reprobuild lint --explain apt-lists
  reprobuild lint --list

\b
A waiver stands above its instruction, with a reason:
  # reprobuild: allow moving-archive the packages are in no snapshot"""
)
@click.argument("where", nargs=-1, type=_Where(), metavar="[NAME | FILE | FOLDER]...")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option("--list", "as_list", is_flag=True, help="Show all rules, and why they are there.")
@click.option("--explain", type=click.Choice(list(RULES)), metavar="RULE", help="Say all that is known of a rule.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def lint(where: tuple[str, ...], strict: bool, as_list: bool, explain: str | None, as_json: bool) -> None:
    """Look in Dockerfiles for what keeps their images from coming out the same twice.

    Nothing is built or fetched. Without a name it takes images/*/Dockerfile of the project; a folder is looked through
    for files called Dockerfile. It ends with 24 where it found an error.
    """
    if as_list or explain:
        _tell_rules(
            tuple(each for each in rules() if not explain or each.name == explain), as_json, whole=bool(explain)
        )
        return
    files = [path for each in where for path in _named(each)] if where else _dockerfiles(Path())
    if not files:
        raise BadInput("There is no images/*/Dockerfile here.", "Name a Dockerfile, or a folder.")
    reports = [lint_file(path, _contexts(path)) for path in dict.fromkeys(files)]
    findings = [finding for report in reports for finding in report.findings]
    counting = [each for each in findings if strict or each.rule.severity == "error"]
    if as_json:
        print_json(_json(reports, len(files)))
    else:
        _tell(findings, reports)
    if counting:
        raise click.exceptions.Exit(ExitCode.LINT_FOUND)


def _dockerfiles(root: Path) -> list[Path]:
    return sorted(root.glob("images/*/Dockerfile"))


def _named(text: str) -> list[Path]:
    """The files that an argument means."""
    path = Path(text)
    image = Path("images", text, "Dockerfile")
    if "/" not in text and image.is_file() and not path.is_file():
        return [image]
    if path.is_dir():
        if found := sorted(each for each in path.rglob("*") if _is_dockerfile(each)):
            return found
        raise BadInput(f"{text} holds no Dockerfile.", "Name the file itself if it is called otherwise.")
    if path.is_file():
        return [path]
    raise BadInput(f"{text} is neither a file, nor a folder, nor an image of this project.", f"{image} isn't there.")


def _is_dockerfile(path: Path) -> bool:
    name = path.name
    fits = name in ("Dockerfile", "Containerfile") or name.startswith("Dockerfile.") or name.endswith(".Dockerfile")
    return fits and not name.endswith(".dockerignore") and path.is_file()


def _contexts(path: Path) -> tuple[Path, ...]:
    """Folders that may be a Dockerfile's build context: this one, and its project's."""
    above = path.absolute().parents
    projects = (each for each in above if (each / "pyproject.toml").is_file() or (each / ".git").exists())
    return (Path(), *(each for each in (next(projects, None),) if each))


def _tell(findings: list[Finding], reports: list[Report]) -> None:
    for each in findings:
        severity = click.style(each.rule.severity, fg=_COLOURS[each.rule.severity], bold=True)
        click.echo(
            f"{plain(each.where)}:{each.line}: {severity} {click.style(each.rule.name, bold=True)}: {plain(each.what)}"
        )
    for rule in dict.fromkeys(each.rule for each in findings):
        click.echo(f"\n{click.style(rule.name, bold=True)}: {rule.why}\n  {rule.remedy}")
    errors = sum(each.rule.severity == "error" for each in findings)
    waived = sum(report.waived for report in reports)
    said = f"{len(reports)} looked at: {errors} errors, {len(findings) - errors} warnings, {waived} waived"
    click.echo(f"\n{said}" if findings else said)


def _tell_rules(chosen: tuple[Rule, ...], as_json: bool, *, whole: bool) -> None:
    if as_json:
        print_json([{**asdict(rule), "link": rule.link} for rule in chosen])
        return
    for rule in chosen:
        click.echo(f"{click.style(rule.name, bold=True)} ({rule.severity}): {rule.why}")
        if whole:
            click.echo(f"remedy: {rule.remedy}\nmore: {rule.link}\nwaiver: # reprobuild: allow {rule.name} REASON")


def _json(reports: list[Report], files: int) -> dict[str, Any]:
    return {
        "files": files,
        "waived": sum(report.waived for report in reports),
        "findings": [
            {
                "file": each.where,
                "line": each.line,
                "rule": each.rule.name,
                "severity": each.rule.severity,
                "what": each.what,
                "why": each.rule.why,
                "remedy": each.rule.remedy,
                "link": each.rule.link,
            }
            for report in reports
            for each in report.findings
        ],
    }
