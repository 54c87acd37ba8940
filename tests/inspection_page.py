"""Helpers for the tests of an inspection page: read its data, format its numbers, move its controls.

    PYTHONPATH=. python tests/inspection_page.py

puts the data of docs/inspect_example.html, which docs/inspect.md tells how to make, into the page as it is now.
"""

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np

from minigrad.microscope.page.rendering import page_of

EXAMPLE = Path(__file__).parents[1] / "docs" / "inspect_example.html"


DATA = re.compile('<script id="data" type="application/json">(.*?)</script>', re.S)


def data_in(text):
    """The data of a page."""
    return json.loads(DATA.search(text)[1])


def renewed(text):
    """The data of a page in the page as it is now."""
    return page_of(data_in(text)["title"], DATA.search(text)[1])


def unpacked(x):
    """Unpack an array with NumPy."""
    octets = zlib.decompress(base64.b64decode(x["base64"]))
    if x["kind"] == "double":
        return np.frombuffer(octets, "<f8")
    planes = np.frombuffer(octets, np.uint8).reshape(2, 2, -1)
    m, e = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<i2")[..., 0].tolist()
    odd = [0.0, np.nan, np.inf, -np.inf]
    return np.array([float(f"{m}e{e}") if m else odd[e] for m, e in zip(m, e)]).reshape(x["shape"])


def shown(x):
    """The array rounded as on the page: four digits, by Python."""
    return np.array([float(f"{one:.3e}") for one in np.ravel(x)]).reshape(np.shape(x))


def cell(name, kind="value"):
    return f'#units span[data-name="{name}"][data-kind="{kind}"]'


def digits(x):
    """A number as the page writes it."""
    if not np.isfinite(x) or x == 0:
        return {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}.get(str(x), "0")
    x = float(f"{x:.3e}")
    if not 1e-3 <= abs(x) < 1e4:
        return re.sub(r"e([+-])0*(\d)", lambda e: f"e{e[1]}{e[2]}", f"{x:.3e}")
    return f"{x:#.4g}".removesuffix(".")


def slide(browser, name, to):
    """Move a slider or choose from a list."""
    browser.js("(() => { const s = document.getElementById(arguments[0]); s.value = arguments[1];"
               "for (const kind of ['input', 'change']) s.dispatchEvent(new Event(kind)); })()", name, str(to))


if __name__ == "__main__":
    EXAMPLE.write_text(renewed(EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
    print(EXAMPLE)
