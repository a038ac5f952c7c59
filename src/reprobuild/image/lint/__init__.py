"""What in a Dockerfile keeps its image from coming out the same twice, before anything is built."""

from reprobuild.image.lint.linter import Finding, Report, lint, lint_text, rules

__all__ = ["Finding", "Report", "lint", "lint_text", "rules"]
