"""The rendered site in a real browser: nothing leaves the machine, and every page can be read, by everyone, on a phone, in the dark."""

import functools
import gzip
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin, urlparse

import form_rules
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Page

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
GENERATED = {"genindex.html", "search.html"}
"""Pages that the theme writes; they hold no content of ours."""


def settle(page: Page, address: str) -> None:
    """Open a page and wait until its maths, if it holds any, is set."""
    page.goto(address, wait_until="load")
    page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise : null")


LIGHTS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block", "image-alt", "role-img-alt", "svg-img-alt", "object-alt"]}}
"""What a theme can change on a page: colours, and which of two pictures is shown. All else is the same document."""


def problems(page: Page, **options: object) -> list[str]:
    """Serious and critical findings of axe in the article."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE)
    asked = {"resultTypes": ["violations"], **options}
    found = page.evaluate("options => axe.run(document.querySelector('article') || document.body, options)", asked)
    severe = [finding for finding in found["violations"] if finding["impact"] in ("serious", "critical")]
    return [f"{finding['id']}: {node['html'][:160]}" for finding in severe for node in finding["nodes"]]


MOST = 1_500_000
"""Bytes that one page may load, itself included, from a host that compresses text, as GitHub Pages does."""
TEXT = (".html", ".js", ".css", ".svg", ".json")


def on_the_wire(site: Path, address: str) -> int:
    path = site / unquote(urlparse(address).path).lstrip("/")
    whole = path.read_bytes()
    return len(gzip.compress(whole, 6)) if path.suffix in TEXT else len(whole)


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_page(page: Page, page_path: str, scheme: str, site: Path, served: str) -> None:
    loaded: set[str] = set()
    page.on("request", lambda request: loaded.add(urldefrag(request.url)[0]) if request.url.startswith(served) else None)
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
    weights = {urlparse(address).path: on_the_wire(site, address) for address in loaded}
    assert len(weights) > 5 or scheme == "file", "a page that loads nothing was not loaded"
    assert sum(weights.values()) < MOST, sorted(weights.items(), key=lambda pair: -pair[1])[:6]
    if scheme == "http":  # the same document as from the disk, and axe takes seconds
        accessible(page)


def accessible(page: Page) -> None:
    """Nothing severe in the light theme, by all rules, nor in the dark one, by those that a theme can touch."""
    turn(page, "light")
    assert not problems(page)
    turn(page, "dark")
    assert not problems(page, **LIGHTS)


def turn(page: Page, theme: str) -> None:
    """What the theme's own button does, without its fading."""
    page.add_style_tag(content="*, *::before, *::after { transition: none !important }")
    page.evaluate("name => { document.documentElement.dataset.mode = name; document.documentElement.dataset.theme = name }", theme)


def test_axe_finds_a_fault(page: Page, served: str) -> None:
    settle(page, served)
    page.evaluate("() => document.querySelector('article').insertAdjacentHTML('beforeend', '<img src=\"data:,\">')")
    assert any(problem.startswith("image-alt") for problem in problems(page))
    assert any(problem.startswith("image-alt") for problem in problems(page, **LIGHTS))
    page.evaluate("() => document.querySelector('article p').style.color = '#999999'")
    for theme in ("light", "dark"):
        turn(page, theme)
        seen = [problem for problem in problems(page, **LIGHTS) if problem.startswith("color-contrast:")]
        assert bool(seen) == (theme == "light"), "grey words are faint on white alone"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_of_explorables_are_legible_in_both_themes(page: Page, theme: str, site: Path, served: str) -> None:
    """Ink and paper of what a script draws part by at least 4.5 to 1, whatever the theme is; axe does not read into SVG."""
    page.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')")
    looked = 0
    for name in chapters(site):
        settle(page, urljoin(served, f"{name}.html"))
        assert page.evaluate("() => document.documentElement.dataset.theme") == theme
        found = page.evaluate(
            """() => [...document.querySelectorAll('.explorable')].flatMap(root => [...root.querySelectorAll('text, th, td, output, span, label, button')]
                .filter(part => part.textContent.trim() && part.getClientRects().length).map(part => {
                    const ink = getComputedStyle(part)[part.tagName === 'text' ? 'fill' : 'color'], own = getComputedStyle(part).backgroundColor;
                    return [ink, /, 0\\)$/.test(own) ? getComputedStyle(root).backgroundColor : own, part.textContent]; }))"""
        )
        looked += len(found)
        for ink, paper, text in found:
            lights = sorted(luminance(colour) + 0.05 for colour in (ink, paper))
            assert lights[1] / lights[0] >= 4.5, f"{name}: {text!r} is {ink} on {paper}"
    assert looked > 20


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, as WCAG has it."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


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


def search_results(page: Page) -> list[str]:
    """The addresses that a search page found; it lists them one by one, so it is read when it says that it has finished."""
    page.wait_for_function("() => document.querySelector('#search-results .search-summary')?.innerText.startsWith('Search finished')", timeout=20_000)
    found: list[str] = page.evaluate("() => [...document.querySelectorAll('#search-results li a')].map(link => link.href)")
    return found


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_works_offline(page: Page, scheme: str, site: Path, served: str) -> None:
    for name, word in chapters(site).items():
        start = urljoin(served, "search.html") if scheme == "http" else (site / "search.html").as_uri()
        page.goto(f"{start}?q={quote(word)}")
        found = search_results(page)
        assert any(f"{name}.html" in address for address in found), f"{word} does not lead to {name}"


def test_search_finds_the_back_matter(page: Page, site: Path) -> None:
    places = {"membership": "glossary", "licence": "your-own-folder", "gradcheck": "adding-a-path-loss", "three_point_cosines": "api/"}
    for words, name in places.items():
        page.goto(f"{(site / 'search.html').as_uri()}?q={quote(words)}")
        found = search_results(page)
        assert any(f"/{name}" in address for address in found), f"{words} does not lead to {name}"


# ---- the read door ---------------------------------------------------------------------------------------------


def test_icons_are_drawn_without_the_icon_script(page: Page, site: Path, served: str) -> None:
    settle(page, served)
    page.evaluate("() => document.fonts.ready")
    assert page.evaluate("() => [...document.fonts].some(font => font.family.includes('Font Awesome') && font.status === 'loaded')")
    assert not page.evaluate("() => [...document.scripts].filter(script => script.src.includes('fontawesome')).length")


def pictures_in(pdf: bytes) -> Counter[tuple[int, int]]:
    """Width and height of each picture that a PDF of Chromium holds; shadows are pictures to it, too."""
    return Counter((int(wide), int(high)) for wide, high in re.findall(rb"/Subtype\s*/Image\s*/Width (\d+)\s*/Height (\d+)", pdf))


def lost_on_paper(page: Page) -> tuple[int, Counter[tuple[int, int]]]:
    """How many pictures and films the article shows, folded solutions aside, and the sizes of those that its PDF lacks."""
    shown = page.evaluate(
        """() => [...document.querySelectorAll('article img, article canvas')].filter(part => part.checkVisibility())
            .map(part => part.tagName === 'CANVAS' ? [part.width, part.height] : [part.naturalWidth, part.naturalHeight])"""
    )
    wanted = Counter((int(wide), int(high)) for wide, high in shown)
    return wanted.total(), wanted - pictures_in(page.pdf(format="A4"))


def test_a_printed_page_keeps_its_figures(page: Page, site: Path) -> None:
    """Every picture and film that is seen on a page is in its PDF, lazy ones too, and no line of code is cut off."""
    printed = 0
    for name in chapters(site):
        page.set_viewport_size({"width": 1280, "height": 900})
        settle(page, (site / f"{name}.html").as_uri())
        page.wait_for_function("() => [...document.querySelectorAll('.explorable[data-explorable=film]')].every(film => film.dataset.at)")
        shown, lost = lost_on_paper(page)
        assert not lost, f"{name}: {lost} of {shown} pictures are not on paper"
        printed += shown
        page.emulate_media(media="print")
        cut = page.evaluate("() => [...document.querySelectorAll('article pre')].filter(part => part.scrollWidth > part.clientWidth + 1).length")
        page.emulate_media(media="null")
        assert not cut, f"{name}: {cut} blocks of code are cut off on paper"
    assert printed > 10
    page.add_style_tag(content="@media print { article img { display: none !important } }")
    shown, lost = lost_on_paper(page)
    assert shown and lost.total() > 0, "a picture that is hidden on paper was not missed"


def test_a_zip_of_the_site_is_a_book(page: Page, site: Path, tmp_path: Path) -> None:
    """Packed, unpacked elsewhere and opened from the disk: the way from the first page to the last by *next*, with pictures and maths."""
    archive = shutil.make_archive(str(tmp_path / "book"), "zip", site)
    shutil.unpack_archive(archive, tmp_path / "a place with spaces")
    settle(page, (tmp_path / "a place with spaces" / "index.html").as_uri())
    walked = []
    while True:
        assert not page.evaluate("() => [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)")
        walked.append(page.url)
        following = page.locator("a.right-next")
        if not following.count():
            break
        following.first.click()
        page.wait_for_load_state("load")
        assert page.url not in walked, "the way runs in a circle"
        back = page.locator("a.left-prev").first.evaluate("link => link.href")
        assert back == walked[-1], "previous does not undo next"
    pages = [path for path in site.rglob("*.html") if path.relative_to(site).as_posix() not in GENERATED and "_static" not in path.parts]
    assert len(walked) == len(pages), "a page that the way does not pass"


def test_every_page_has_words_and_a_picture_for_previews(site: Path) -> None:
    config = yaml.safe_load((form_rules.ROOT / "_config.yml").read_text(encoding="utf-8"))
    owner, name = config["repository"]["url"].removeprefix("https://github.com/").split("/")
    assert config["html"]["baseurl"] == f"https://{owner}.github.io/{name}/"
    with Image.open(site / "_static" / "preview.png") as picture:
        assert picture.size == (1200, 630)
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.parts:
            continue
        tags = dict(re.findall(r'<meta property="(og:[\w:]+)" content="(.*?)" />', path.read_text(encoding="utf-8")))
        assert tags["og:url"] == config["html"]["baseurl"] + path.relative_to(site).as_posix()
        assert tags["og:image"] == config["html"]["baseurl"] + "_static/preview.png" and len(tags["og:image:alt"]) > 40
        assert (tags["og:image:width"], tags["og:image:height"]) == ("1200", "630") and tags["og:title"] and "<" not in tags["og:title"]
        assert path.relative_to(site).as_posix() in GENERATED or len(tags["og:description"]) > 10, path
