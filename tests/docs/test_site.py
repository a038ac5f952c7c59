"""The site that Sphinx makes of docs/: without a warning, the same twice, and sufficient unto itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 240  # seconds; it takes about ten


def build(source: Path, out: Path, seed: str) -> str:
    """Build the site; what Sphinx says, which is nothing where all is well."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-E", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(out.parent / f"{out.name}-trees"), str(source), str(out)],
        env=os.environ | {"SOURCE_DATE_EPOCH": "1790856000", "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    return (done.stdout + done.stderr).strip() if done.returncode else ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once."""
    out = tmp_path_factory.mktemp("site") / "first"
    assert build(ROOT / "docs", out, "1") == ""
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_builds_are_the_same(site: Path, tmp_path: Path) -> None:
    second = tmp_path / "elsewhere" / "second"
    second.parent.mkdir()
    assert build(ROOT / "docs", second, "2") == ""
    first = digests(site)
    assert len(first) > 50
    assert digests(second) == first


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """On two pages, so that it is quick."""
    source = tmp_path / "docs"
    source.mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1"\n')
    shutil.copyfile(ROOT / "docs" / "conf.py", source / "conf.py")
    index = source / "index.md"
    index.write_text("# A\n\n[causes](causes.md#somewhere)\n\n```{toctree}\ncauses\n```\n")
    (source / "causes.md").write_text("# B\n\n## Somewhere\n\nText.\n")
    assert build(source, tmp_path / "sound", "1") == ""
    index.write_text(index.read_text() + "\n[a page](no-page.md) [a place](causes.md#no-place) [here](#not-here)\n")
    said = build(source, tmp_path / "broken", "1")
    assert [each for each in ("no-page", "no-place", "not-here") if each not in said] == []


class _Fetched(HTMLParser):
    """What a browser fetches by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source", "video", "audio", "embed"}:
            self.addresses.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") in {"stylesheet", "preload", "icon", "preconnect", "dns-prefetch"}:
            self.addresses.append(given.get("href") or "")


def test_nothing_is_fetched_from_other_hosts(site: Path) -> None:
    found: list[str] = []
    for page in site.rglob("*.html"):
        reader = _Fetched()
        reader.feed(page.read_text())
        found += reader.addresses
    for sheet in site.rglob("*.css"):
        found += re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")\s;]+)", sheet.read_text())
    assert len(found) > 100
    assert [address for address in found if re.match(r"(?:https?:)?//", address)] == []


def test_every_page_is_in_the_navigation(site: Path) -> None:
    """Sphinx would warn of a page in no list; what it leaves out altogether it doesn't mention."""
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    made = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert pages - made == {Path("README")}  # which is the index
    assert Path("index") in made
