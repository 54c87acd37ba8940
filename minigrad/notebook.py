"""What a notebook shows of a result: an HTML table. Without colours of its own, it follows the notebook's theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table with a caption above it. Texts never become markup."""
    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
    body = "".join(line(row, "td") for row in rows)
    return f"<p>{escape(caption)}</p><table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def milestones(last: int) -> list[int]:
    """Some of the numbers 0 … last, for the rows of a table: 0, 1, 2, 5, 10, 20, 50, …, last."""
    steps = (digit * 10**power for power in range(len(str(last))) for digit in (1, 2, 5))
    return [0, *(k for k in steps if k < last), *[last] * (last > 0)]
