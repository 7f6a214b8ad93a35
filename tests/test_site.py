"""The rendered site in a real browser: nothing leaves the machine, and every page can be read, by everyone, on a phone, in the dark."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin, urlparse

import form_rules
import pytest
from playwright.sync_api import Page

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
GENERATED = {"genindex.html", "search.html"}
"""Pages that the theme writes; they hold no content of ours."""


def settle(page: Page, address: str) -> None:
    """Open a page and wait until its maths, if it holds any, is set."""
    page.goto(address, wait_until="load")
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise : null")


def problems(page: Page) -> list[str]:
    """Serious and critical findings of axe in the article."""
    page.evaluate(AXE)
    found = page.evaluate("() => axe.run(document.querySelector('article') || document.body, {resultTypes: ['violations']})")
    severe = [finding for finding in found["violations"] if finding["impact"] in ("serious", "critical")]
    return [f"{finding['id']}: {node['html'][:160]}" for finding in severe for node in finding["nodes"]]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_page(page: Page, page_path: str, scheme: str, site: Path, served: str) -> None:
    settle(page, urljoin(served, page_path) if scheme == "http" else (site / page_path).as_uri())
    page.evaluate("() => document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    images = page.evaluate("() => [...document.images].map(image => [image.src.slice(-60), image.alt, image.naturalWidth])")
    assert not [image for image in images if not image[1].strip() or not image[2]], "an image without alt text, or that does not load"
    width, wide = page.evaluate(
        """() => [document.scrollingElement.scrollWidth, [...document.querySelectorAll('article *')]
            .filter(part => part.getBoundingClientRect().right > innerWidth).slice(0, 5).map(part => part.outerHTML.slice(0, 120))]"""
    )
    assert width <= 390, f"{width} pixels wide on a phone of 390: {wide}"
    written, typeset, failed = page.evaluate(
        "() => ['.math', '.math mjx-container', 'mjx-merror'].map(selector => document.querySelectorAll('article ' + selector).length)"
    )
    assert typeset >= written and not failed, f"{written} formulas, {typeset} typeset, {failed} with an error"
    bare = page.evaluate(
        """() => { const copy = document.querySelector('article')?.cloneNode(true);
            copy?.querySelectorAll('pre, code, mjx-container, script, style').forEach(part => part.remove());
            return (copy?.textContent.match(/.{0,20}[$].{0,20}/g) || []); }"""
    )
    assert not bare, f"dollars that are no formula: {bare}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible(page: Page, page_path: str, theme: str, served: str) -> None:
    page.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
    settle(page, urljoin(served, page_path))
    assert page.evaluate("() => document.documentElement.dataset.theme") == theme
    assert not problems(page)


def test_axe_finds_a_fault(page: Page, served: str) -> None:
    settle(page, served)
    page.evaluate("() => document.querySelector('article').insertAdjacentHTML('beforeend', '<img src=\"data:,\">')")
    assert any(problem.startswith("image-alt") for problem in problems(page))


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names |= {given.get("id") or "", given.get("name") or ""}
        self.targets += [given["href"]] if tag == "a" and given.get("href") else []


@functools.cache
def links(path: Path) -> Links:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_links_resolve(page_path: str, site: Path) -> None:
    path, broken = site / page_path, []
    for target in links(path).targets:
        address, fragment = urldefrag(target)
        if urlparse(address).scheme or address.startswith("//"):
            continue
        place = (path.parent / unquote(address.split("?")[0])).resolve() if address else path
        if not place.is_file() or (fragment and place.suffix == ".html" and unquote(fragment) not in links(place).names):
            broken.append(target)
    assert not broken


def chapters(site: Path) -> dict[str, str]:
    """The notebooks' pages, each with the longest word of its title."""
    found = {}
    for source in sorted((site / "_sources").rglob("*.ipynb")):
        name = source.relative_to(site / "_sources").with_suffix("").as_posix()
        heading = re.search(r"<h1>(.*?)<", (site / f"{name}.html").read_text(encoding="utf-8"))
        found[name] = max(re.findall(r"\w+", heading.group(1) if heading else ""), key=len, default="")
    return found


def test_each_chapter_has_its_own_colab_link(site: Path) -> None:
    assert chapters(site)
    for name in chapters(site):
        given = {target for target in links(site / f"{name}.html").targets if "colab.research" in target}
        assert given == {f"{form_rules.COLAB}book/{name}.ipynb"}


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_works_offline(page: Page, scheme: str, site: Path, served: str) -> None:
    for name, word in chapters(site).items():
        start = urljoin(served, "search.html") if scheme == "http" else (site / "search.html").as_uri()
        page.goto(f"{start}?q={quote(word)}")
        page.wait_for_selector("#search-results li a", timeout=10_000)
        found = page.evaluate("() => [...document.querySelectorAll('#search-results li a')].map(link => link.href)")
        assert any(f"{name}.html" in address for address in found), f"{word} does not lead to {name}"
