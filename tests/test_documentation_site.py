"""The documentation site: it builds, leads nowhere wrong, needs no network and opens from the disk on any screen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import launch_browser, list_low_contrast, list_unnamed_controls, needs_chromium, open_tab
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("documentation")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, check=True, timeout=100)
    return folder / "site"


class PageParser(HTMLParser):
    """Reads what a page of the site links to, what it fetches, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.navigation: set[str] = set()
        self.fetched: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if target := values.get("src") or values.get("href"):
            (self.links if tag == "a" else self.fetched).add(target)
            if "md-nav__link" in (values.get("class") or ""):
                self.navigation.add(target.removeprefix("./"))
        if name := values.get("id"):
            self.anchors.add(name)


def parse_page(page: Path) -> PageParser:
    parser = PageParser()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def test_the_site_has_every_page_in_its_navigation(site: Path) -> None:
    pages = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")}
    assert pages <= {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert pages <= parse_page(site / "index.html").navigation


def test_the_links_of_the_site_lead_to_its_pages_and_anchors(site: Path) -> None:
    parsed = {page.resolve(): parse_page(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, parser in parsed.items():
        for link in parser.links:
            if "://" in link or link.startswith("javascript:"):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.is_file(), (page.name, link)
            if anchor:
                assert anchor in parsed[target].anchors, (page.name, link)


def test_the_site_fetches_nothing_from_the_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not [target for target in parse_page(page).fetched if "://" in target or target.startswith("//")], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@needs_chromium
def test_the_search_finds_pages_that_are_opened_from_the_disk(site: Path) -> None:
    with launch_browser() as browser, open_tab(browser, site / "index.html") as tab:
        tab.page.keyboard.press("/")
        tab.page.get_by_role("combobox").fill("fingerprint")
        expect(tab.page.get_by_text("artifact.json").first).to_be_visible()
        assert all(request.startswith("file:") for request in tab.requests)


@needs_chromium
def test_every_page_fits_a_narrow_screen(site: Path) -> None:
    # Leaving a page cancels what it still loads.
    with launch_browser() as browser, open_tab(browser, site / "index.html", width=360, expect_errors=True) as tab:
        for page in site.rglob("*.html"):
            tab.page.goto(page.as_uri(), wait_until="domcontentloaded")
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360, page.name


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_are_legible_and_their_controls_are_named(site: Path, dark: bool) -> None:
    # Pages with every kind of content: tables, drawings, blocks of code, a warning.
    with launch_browser() as browser:
        for name in ("index", "metrics", "own-data", "benchmarks/grefcoco"):
            with open_tab(browser, site / f"{name}.html", dark=dark) as tab:
                assert not list_unnamed_controls(tab.page), name
                assert not list_low_contrast(tab.page), name
