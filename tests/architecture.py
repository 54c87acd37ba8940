"""Draw docs/images/architecture.svg: the rooms, the imports between them, and one cell on its path through them.

    PYTHONPATH=. python tests/architecture.py

The rooms and their order come from tests/test_rooms.py, and the imports from the source, so that the picture is true.
"""

from __future__ import annotations

from html import escape

from test_rooms import FILES, PACKAGE, ROOMS, file_of, imports

PICTURE = PACKAGE.parent / "docs" / "images" / "architecture.svg"
PATH = [("trace", "program", "run the cell on symbols"), ("program", "program", "values, simplified"),
        ("backward", "engine", "the rules, on symbols"), ("printers", "printers", "NumPy source"),
        ("run", "timeloop", "the loop, on arrays")]
ROW, LEFT, TOP, WIDTH = 26, 180, 150, 760
INK, BLUE, GREY, PAPER, BOX = "#1c1f26", "#1f4e79", "#5c6470", "#fdfdfe", "#cfe0f0"


def room_of(file: str) -> str:
    return file.partition("/")[0]


def edges() -> set[tuple[str, str]]:
    """(importing room, imported room) for every import between two rooms."""
    found = {(room_of(file), room_of(other)) for file in FILES
             for _, module in imports(file) if (other := file_of(module))}
    return {(later, earlier) for later, earlier in found if later != earlier}


def text(x: float, y: float, words: str, size: int = 13, ink: str = INK, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{ink}" {more}>{escape(words)}</text>'


def picture() -> str:
    """Above, the path of one cell; below, a row for each room, with a dot under every room that it imports."""
    height = TOP + ROW * len(ROOMS) + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">',
           f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
           text(18, 24, "One cell, from its text to its gradients", 14, more='font-weight="bold"')]
    for i, (step, room, words) in enumerate(PATH):
        x = 18 + 148 * i
        out += [f'<rect x="{x}" y="38" width="126" height="46" rx="5" fill="{BOX}" stroke="{BLUE}"/>',
                text(x + 63, 57, step, 13, more='text-anchor="middle" font-weight="bold"'),
                text(x + 63, 75, room + "/", 12, BLUE, 'text-anchor="middle"'),
                text(x + 63, 99, words, 9, GREY, 'text-anchor="middle"')]
        if i:
            out.append(f'<path d="M{x - 20} 61h12m-5 -5l6 5l-6 5" fill="none" stroke="{BLUE}" stroke-width="1.6"/>')
    out.append(text(18, TOP - 16, "The rooms: a dot says that the row imports the column", 14,
                    more='font-weight="bold"'))
    pairs = edges()
    for i, name in enumerate(ROOMS):
        y, column = TOP + ROW * i, LEFT + ROW * i
        label = name if name.endswith(".py") else name + "/"
        if i % 2 == 0:
            out.append(f'<rect x="12" y="{y}" width="{WIDTH - 24}" height="{ROW}" fill="#f2f4f8"/>')
        out += [text(18, y + 18, f"{i:2} {label}"),
                text(column + ROW / 2, y + 17, str(i), 10, GREY, 'text-anchor="middle"')]
        out += [f'<circle cx="{LEFT + ROW * j + ROW / 2:g}" cy="{y + ROW / 2:g}" r="5" fill="{BLUE}"/>'
                for j, other in enumerate(ROOMS) if (name, other) in pairs]
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
