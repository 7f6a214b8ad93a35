"""A set's card as one HTML page: no script, nothing fetched, every word of the file escaped, images inside."""

import base64
import io
from collections.abc import Sequence
from html import escape

import torch
from PIL import Image

from hoptm.card import SCORES, Card, card, clean
from hoptm.exports import pixels
from hoptm.synthetic import SyntheticSet

_MOST_CLASSES, _MOST_IMAGES, _LARGEST = 50, 10, 128
"""Shown of a set: classes, images a class, and pixels of an image's side."""
_COLOURS = {"accuracy": "#0072b2", "balanced_accuracy": "#c44e00", "auc": "#00795a", "worst_recall": "#a23b85", "ece": "#7a7a7a"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 46rem; margin: 1rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 1.6rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; overflow-wrap: anywhere; }
th { font-weight: 600; width: 30%; } tr + tr { border-top: 1px solid #ddd; }
ul.warnings { background: #fff4e0; border-left: 4px solid #c44e00; padding: .6rem 1rem .6rem 2rem; }
figure { margin: .8rem 0; } img { image-rendering: pixelated; max-width: 100%; } svg { max-width: 100%; height: auto; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(made: SyntheticSet) -> str:
    """The card as one self-contained HTML document. Its policy lets a browser run no script and fetch nothing."""
    found = card(made)
    unscored = f"<p>None stored; <code>{escape(found.scored_by)}</code> writes a copy that has them.</p>"
    parts = [
        f"<h1>{escape(found.title)}</h1>",
        '<ul class="warnings" aria-label="Warnings">' + "".join(f"<li>{escape(words)}</li>" for words in found.warnings) + "</ul>",
        "<h2>Images</h2>", *_pictures(made),
        "<h2>The set</h2>", _table(found.facts),
        "<h2>Scores on test</h2>", _table(found.scores) if found.scores else unscored,
        "<h2>Privacy</h2>", *(f"<p>{escape(words)}</p>" for words in found.privacy),
        *(["<h2>Looks at validation</h2>", _curve(found)] if found.looks else []),
        "<h2>Settings</h2>", _table(found.settings) if found.settings else "<p>None stored.</p>",
        "<h2>To judge it elsewhere</h2>", f"<pre>{escape(found.use)}</pre>",
    ]  # fmt: skip
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}"><title>{escape(found.title)}</title><style>{_STYLE}</style>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<table>" + "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows) + "</table>"


def _pictures(made: SyntheticSet) -> list[str]:
    figures = []
    for label, name in list(enumerate(made.info["class_names"]))[:_MOST_CLASSES]:
        rows = torch.nonzero(made.labels == label).flatten()
        if len(rows):
            shown = rows[:_MOST_IMAGES]
            words = f"{clean(name, 60)}: {len(shown)} of {len(rows)} images"
            source = base64.b64encode(_strip(made, shown)).decode()
            picture = f'<img src="data:image/png;base64,{source}" alt="{escape(words)}">'
            figures.append(f"<figure>{picture}<figcaption>{escape(words)}</figcaption></figure>")
    left = made.classes - _MOST_CLASSES
    return [*figures, f"<p>{left} more classes are not shown.</p>"] if left > 0 else figures


def _strip(made: SyntheticSet, rows: torch.Tensor) -> bytes:
    """Images side by side as one PNG, each at most `_LARGEST` and at least 56 pixels wide; of an unusual number of channels the first is shown."""
    found = pixels(made.images[rows], made.standardisation)
    found = found if found.shape[3] in (1, 3) else found[..., :1]
    size = found.shape[1]
    side = min(_LARGEST, size * max(1, -(-56 // size)))
    strip = Image.new("RGB", (len(rows) * (side + 2) - 2, side), "white")
    for place, one in enumerate(found.numpy()):
        image = Image.fromarray(one[..., 0] if one.shape[2] == 1 else one).convert("RGB")
        resample = Image.Resampling.NEAREST if side >= size else Image.Resampling.BOX
        strip.paste(image.resize((side, side), resample), (place * (side + 2), 0))
    written = io.BytesIO()
    strip.save(written, "PNG")
    return written.getvalue()


def _curve(found: Card) -> str:
    """Scores against iterations as SVG; one line a score, named at its end."""
    names = [name for name in SCORES if any(name in scores for _, scores in found.looks)]
    values = [value for _, scores in found.looks for value in scores.values()]
    (first, last), (low, high) = (found.looks[0][0], found.looks[-1][0]), (min(values), max(values))

    def x(at: float) -> float:
        return 50 + 350 * (at - first) / ((last - first) or 1)

    def y(value: float) -> float:
        return 180 - 160 * (value - low) / ((high - low) or 1)

    lines = []
    for index, name in enumerate(names):
        points = [(x(at), y(scores[name])) for at, scores in found.looks if name in scores]
        drawn = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2"/>')
        lines += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{_COLOURS[name]}"/>' for across, down in points[:200]]
        lines.append(f'<text x="415" y="{30 + 20 * index}" fill="{_COLOURS[name]}" font-size="13">{name.replace("_", " ")}</text>')
    ends = [(5, y(low), f"{low:.3f}"), (5, y(high) + 5, f"{high:.3f}"), (50, 205, f"{first:g}"), (370, 205, f"{last:g}"), (170, 220, "outer iteration")]
    lines += [f'<text x="{across}" y="{down:.1f}" fill="#333333" font-size="13">{words}</text>' for across, down, words in ends]
    words = f"Validation scores from {low:.3f} to {high:.3f} at {len(found.looks)} looks, iterations {first:g} to {last:g}"
    axes = '<path d="M45 15 V185 H400" fill="none" stroke="#333333"/>'
    return f'<svg viewBox="0 0 560 230" width="560" height="230" role="img" aria-label="{words}">{axes}{"".join(lines)}</svg>'
