"""Draw docs/images/lstm_equations.svg: the LSTM of docs/document.md and its derived backward, as equations.

    PYTHONPATH=. python tests/equations.py

The equations are those of `mg.derive(…).latex`, typeset by matplotlib. An SVG of outlines looks the same on GitHub, on
a site and from disk, without a network or a script; its <desc> contains the LaTeX.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from derive_cells import document, examples

import minigrad as mg

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "lstm_equations.svg"
SIZE, GAP, MARGIN = 16.0, 10.0, 16.0  # of the font, between lines, and around all, in pixels
STYLE = ("svg{color:#1a1f24;background:#fdfdfe}"
         "@media(prefers-color-scheme:dark){svg{color:#e4e7ea;background:#101316}}")


def latex() -> str:
    """The equations of the document's cell."""
    return mg.derive(document, *examples()[document]).latex


def typeset(formula: str, glyphs: dict) -> tuple[list[str], tuple[float, float, float]]:
    """(elements of an SVG, (width, height above and depth below the line)); `glyphs` gets the outlines."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser
    from matplotlib.textpath import text_to_path

    properties = FontProperties(size=SIZE)
    placed, found, rules = text_to_path.get_glyphs_mathtext(properties, f"${formula}$")
    glyphs.update(found)
    scale = SIZE / text_to_path.FONT_SCALE
    elements = [f'<use href="#{name_of(glyph)}" transform="translate({x * scale:.2f} {-y * scale:.2f}) '
                f'scale({size * scale:.4f} {-size * scale:.4f})"/>' for glyph, x, y, size in placed]
    for corners, _ in rules:
        (x0, y0), _, (x1, y1) = np.multiply(corners[:3], scale)
        elements.append(f'<rect x="{x0:.2f}" y="{-y1:.2f}" width="{x1 - x0:.2f}" height="{max(y1 - y0, 0.6):.2f}"/>')
    box = MathTextParser("path").parse(f"${formula}$", 72, properties)
    return elements, (box.width, box.height - box.depth, box.depth)


def name_of(glyph: object) -> str:
    return "".join(c if c.isalnum() else "-" for c in str(glyph))


def outline(vertices: np.ndarray, codes: np.ndarray) -> str:
    """An outline as the d of an SVG path."""
    letters, d, i = {1: ("M", 1), 2: ("L", 1), 3: ("Q", 2), 4: ("C", 3), 79: ("Z", 1)}, "", 0
    while i < len(codes):
        letter, n = letters[int(codes[i])]
        d += letter + ("" if letter == "Z" else " ".join(f"{x:.1f}" for x in np.ravel(vertices[i:i + n])))
        i += n
    return d


def picture(text: str) -> str:
    """The equations below one another, aligned at their =."""
    import matplotlib
    matplotlib.rcParams["mathtext.fontset"] = "cm"
    glyphs: dict = {}
    rows = []
    for line in text.splitlines()[1:-1]:
        line, gap, _ = line.replace(r"\frac", r"\dfrac").partition(r" \\[2ex]")
        left, right = line.removesuffix(r" \\").split(" &= ")
        rows.append((typeset(left, glyphs), typeset(rf"= {right}", glyphs), bool(gap)))
    middle = MARGIN + max(left[0] for (_, left), _, _ in rows)
    width, y, body = middle + 6 + max(right[0] for _, (_, right), _ in rows) + MARGIN, MARGIN, []
    for (left, size), (right, size_2), gap in rows:
        y += max(size[1], size_2[1])
        body += [f'<g transform="translate({middle - size[0]:.2f} {y:.2f})">', *left, "</g>",
                 f'<g transform="translate({middle + 6:.2f} {y:.2f})">', *right, "</g>"]
        y += max(size[2], size_2[2]) + GAP + (2 * GAP if gap else 0)
    y += MARGIN - GAP
    shapes = [f'<path id="{name_of(name)}" d="{outline(*glyph)}"/>' for name, glyph in sorted(glyphs.items())]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y:.0f}" width="{width:.0f}" '
        f'height="{y:.0f}" fill="currentColor">', "<title>The LSTM and its derived backward</title>",
        f"<desc>{escape(text)}</desc>", f"<style>{STYLE}</style>", "<defs>", *shapes, "</defs>", *body, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(latex()), encoding="utf-8")
    print(PICTURE)
