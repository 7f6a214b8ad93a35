"""Last touches on the rendered site: pages without a script that they do not need, and with words and a picture for previews.

The theme loads its icons twice, as a font and as a script that alone weighs more than a chapter. The font is enough.
"""

import html
import re
from pathlib import Path
from urllib.parse import urljoin

import yaml

ICON_SCRIPT = re.compile(r'\s*<script src="[^"]*vendor/fontawesome/[^"]*\.js[^"]*"></script>')
PREVIEW = "_static/preview.png"
PREVIEW_SIZE = (1200, 630)
PREVIEW_ALT = "Twenty distilled chest X-rays, ten of each class, beside the question of the book: can ten images stand for a hospital?"
WORDS = 200
"""Characters of a page's first paragraph that a preview shows."""


def polish(site: Path, config: Path) -> None:
    """Rewrite every page of the site in place. Raises ValueError for a page in which a touch finds no place."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    name, base = settings["title"], settings["html"]["baseurl"]
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.parts:
            continue
        page, cut = ICON_SCRIPT.subn("", path.read_text(encoding="utf-8"))
        if cut != 1:
            raise ValueError(f"{path}: {cut} icon scripts, where the theme has had one. Look at what it loads now.")
        tags = previews(page, urljoin(base, path.relative_to(site).as_posix()), urljoin(base, PREVIEW), name)
        path.write_text(page.replace("</head>", f"{tags}\n  </head>", 1), encoding="utf-8")
    for script in (site / "_static" / "vendor").rglob("fontawesome/*/js/*"):
        script.unlink()


def previews(page: str, address: str, picture: str, site_name: str) -> str:
    """The Open Graph tags of one page: title, first words, address and picture."""
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    whole = html.unescape(title[1]).strip() if title else site_name
    about = {
        "og:type": "article", "og:site_name": site_name, "og:title": whole.split(" — ")[0], "og:description": first_words(page) or site_name, "og:url": address,
        "og:image": picture, "og:image:alt": PREVIEW_ALT, "og:image:width": str(PREVIEW_SIZE[0]), "og:image:height": str(PREVIEW_SIZE[1]),
    }  # fmt: skip
    tags = [f'  <meta property="{key}" content="{html.escape(value)}" />' for key, value in about.items()]
    return "\n".join(
        [*tags, '  <meta name="twitter:card" content="summary_large_image" />', f'  <meta name="description" content="{html.escape(first_words(page))}" />']
    )


def first_words(page: str) -> str:
    """The beginning of the first paragraph of the article, without markup, cut at a word."""
    article = page.partition("<article")[2]
    found = re.search(r"<p>(.*?)</p>", article, re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", found[1])).split()) if found else ""
    return text if len(text) <= WORDS else text[:WORDS].rsplit(" ", 1)[0] + " …"
