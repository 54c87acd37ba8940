"""The page of `minigrad inspect`: contents of the file, and its display in Chromium if that is installed."""

import base64
import hashlib
import html
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from browser import chromium
from inspection_page import EXAMPLE, cell, data_in, digits, renewed, shown, slide, unpacked

from minigrad.microscope.page import rendering
from minigrad.microscope.page.findings import findings
from minigrad.microscope.page.rendering import POINTS, Inspection, LayerInspection, packed, render, thinned

HOSTILE = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>&amp;{{data}}"
SOURCE = '''"""cell and its backward pass"""


def forward(state, x, W):
    c_prev = state
    ft, c_next = cell(x, W)
    return c_next


def backward(d_output, cache):
    d_c_next = d_output[0]
    d_c_next = d_c_next + d_output[1]  # ft
    d_ft = d_c_next * c_prev
    return d_ft
'''


def made(T=12, H=5, seed=0, names=("ft", "c_next"), **changed):
    """A report of random arrays; gradients fade over time, some below the range of float32."""
    rng = np.random.default_rng(seed)
    fade = np.exp(-np.linspace(120.0, 0.0, T))[:, None]
    layer = LayerInspection(
        "l0", {name: rng.normal(size=(T, H)) for name in names},
        {name: fade * rng.normal(size=(T, H)) for name in names},
        {"weights": np.tril(rng.random((T, T)))[3::4], "c_prev": np.tril(rng.random((T, T)))[3::4]},
        np.sort(rng.random((T, 2 * H)))[:, ::-1], SOURCE, {"largest Lyapunov exponent": "-0.5"})
    steps, loss = np.arange(1.0, 51.0), np.where(np.arange(T) % 4 == 3, np.sort(rng.random(T)), np.nan)
    report = Inspection(
        "runs/made", {"cell": "lstm"}, list("to be or not to be"[:T].ljust(T)), list("o be or not to be "[:T].ljust(T)),
        np.arange(3, T, 4), {"loss": loss, "‖dL/dx‖": fade[:, 0]},
        {"loss": (steps, 4.0 / steps), "metric": (steps[9::10], rng.random(5))}, [layer])
    for name, value in changed.items():
        setattr(report if name in Inspection.__dataclass_fields__ else layer, name, value)
    return report


def hostile(**changed):
    """A report with texts that try to become markup."""
    return made(title=HOSTILE, symbols=[HOSTILE] * 12, targets=[HOSTILE] * 12, facts={HOSTILE: HOSTILE}, **changed)


# -- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [
    [[1.0, -2.5, 0.0, -0.0, 1 / 3, 1000, 9999.5, 123456789]],
    [[np.nan, np.inf, -np.inf, 0.1]],
    [[5e-324, 1e-310, 2.2e-308, 1e-281, 1e-280, 9.9995e-281, 1.7976931348623157e308, 1e23]],
    [[0.999949999, 0.99995, 0.9999500001, 9999.4999, 99995]],
    [[0.015625, 0.0234375, 1.0005, 2.5e22]],  # ties round to even
    np.float32([[1e-45, 1e-40, np.pi, 3.4e38]]),
    np.zeros((2, 0)), np.zeros((0, 3)), np.ones((2, 3)),
])
def test_an_array_is_kept_to_the_digits_that_are_shown(x):
    out = packed(x)
    assert (out["kind"], out["shape"]) == ("decimal", list(np.shape(x)))
    np.testing.assert_array_equal(unpacked(out), shown(x))


def test_random_numbers_of_any_size_are_kept_too():
    rng = np.random.default_rng(0)
    for powers in ((-30, 30), (-320, 300)):
        x = rng.normal(size=(100, 300)) * 10.0 ** rng.integers(*powers, (100, 300))
        np.testing.assert_array_equal(unpacked(packed(x)), shown(x))


@pytest.mark.parametrize("x", [[0.1, np.nan, 1e-300], np.array([3, 7, 123456789]), np.array([], int)])
def test_an_array_with_one_axis_is_kept_exactly(x):
    assert packed(x)["kind"] == "double"
    np.testing.assert_array_equal(unpacked(packed(x)), x)


def test_the_file_contains_the_arrays():
    report = made()
    data, (layer,) = data_in(render(report)), report.layers
    assert data["symbols"] == report.symbols and data["targets"] == report.targets
    assert data["layers"][0]["source"] == SOURCE and data["title"] == "runs/made"
    for kind in ("values", "grads", "reach"):
        there = data["layers"][0][kind]
        assert list(there) == list(getattr(layer, kind))
        for name, x in getattr(layer, kind).items():
            np.testing.assert_array_equal(unpacked(there[name]), shown(x))
    np.testing.assert_array_equal(unpacked(data["layers"][0]["spectrum"]), shown(layer.spectrum))
    for name, x in report.steps.items():
        np.testing.assert_array_equal(unpacked(data["steps"][name]), x)
    for name, curve in report.curves.items():
        np.testing.assert_array_equal([unpacked(x) for x in data["curves"][name]], curve)


def test_the_file_loads_nothing():
    text = render(made())
    assert not re.findall(r"\b(?:src|href|action)=|@import|url\(|https?:(?!//www\.w3\.org/2000/svg\")", text)
    assert not re.findall(r"\b(?:fetch|XMLHttpRequest|WebSocket|import|eval|Function|document\.write)\s*\(", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|\son[a-z]+=\"", text)
    policy = html.unescape(re.search(r'content="(default-src[^"]*)"', text)[1])
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_text_cannot_become_markup():
    report = hostile(source=HOSTILE)
    report.curves = {HOSTILE: report.curves["loss"]}
    report.steps = {HOSTILE: report.steps["loss"]}
    report.layers[0].reach = {HOSTILE: report.layers[0].reach["weights"]}
    text, plain = render(report), render(made())
    for mark in ("<script", "</script", "<img", "<!--"):
        assert text.count(mark) == plain.count(mark)
    data = data_in(text)
    assert data["symbols"] == [HOSTILE] * 12 and list(data["curves"]) == list(data["steps"]) == [HOSTILE]
    assert html.unescape(re.search("<title>(.*?)</title>", text)[1]) == HOSTILE


def test_any_unicode_goes_in():
    symbols = ["\ud800", "\u2028", "\x00", "é", "😀", "\u202e", "\\", '"', "\r", "<!--", "]]>", " "]
    text = render(made(symbols=symbols, title="caf\udce9"))
    assert data_in(text)["symbols"] == symbols
    text.encode("utf-8")  # it can be written to a file


def test_a_file_of_two_layers_of_128_units_over_200_steps_is_below_3_MB():
    rng, fade = np.random.default_rng(0), np.exp(-np.linspace(120.0, 0.0, 200))[:, None]
    names, layers = ("ft", "it", "ot", "cct", "c_next", "a_next"), []  # an LSTM, with data that compress badly
    for layer in ("l0", "l1"):
        values, grads = ({name: size * rng.normal(size=(200, 128)) for name in names} for size in (1.0, fade))
        reach = {name: np.tril(fade * rng.random((200, 200))) for name in ("weights", "a_prev", "c_prev")}
        layers.append(LayerInspection(layer, values, grads, reach, rng.random((200, 256)), SOURCE))
    assert len(render(made(200, 128, asked=np.arange(200), layers=layers)).encode()) < 3e6


def test_the_example_in_the_docs_is_a_page_of_today():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.encode()) < 1e6
    assert renewed(text) == text, "run PYTHONPATH=. python tests/inspection_page.py"
    assert {"findings", "layers", "about"} <= data_in(text).keys()


def test_a_long_curve_keeps_its_extremes():
    y = np.random.default_rng(0).normal(size=100_000)
    y[12_345], y[70_000], y[50_000] = 99.0, -99.0, np.nan
    x, kept = thinned(np.arange(100_000), y)
    assert len(x) == len(kept) <= POINTS and (np.diff(x) > 0).all()
    assert (kept[0], kept[-1]) == (y[0], y[-1]) and {(12_345, 99.0), (70_000, -99.0)} <= set(zip(x, kept))
    assert not np.isnan(kept).any()
    np.testing.assert_array_equal(thinned([1, 2, 3], [1.0, np.nan, 3.0]), ([1, 3], [1, 3]))


@pytest.mark.parametrize("changed, sentence", [
    ({"symbols": []}, "at least one step and one layer; this one has 0 steps and 1 layers"),
    ({"layers": []}, "has 12 steps and 0 layers"),
    ({"layers": made().layers * 2}, "different names, not l0, l0"),
    ({"values": {}}, "l0 has none"),
    ({"values": {"ft": np.zeros((11, 5))}}, r"l0.values\['ft'\] has shape \(11, 5\) and must be \(12, n\)"),
    ({"grads": {"ft": np.zeros((12, 4))}}, r"l0.grads\['ft'\] has shape \(12, 4\) and must be \(12, 5\)"),
    ({"grads": {"other": np.zeros((12, 5))}}, r"l0.grads\['other'\] has shape"),
    ({"reach": {"weights": np.zeros((12, 12))}}, r"must be \(3, 12\): of 12 steps, 3 have a loss"),
    ({"spectrum": np.zeros(12)}, r"l0.spectrum has shape \(12,\)"),
    ({"steps": {"loss": np.zeros(3)}}, r"steps\['loss'\] has shape \(3,\) and must be \(12\)"),
    ({"targets": ["a"]}, r"targets has shape \(1,\)"),
])
def test_arrays_that_do_not_fit_are_refused(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        render(made(**changed))


def test_an_installed_package_has_the_page_with_it():
    assert "template.html" in (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert Path(rendering.__file__).with_name("template.html").is_file()


# -- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def show(browser, tmp_path):
    """Open the page of a report; after the test, check that the console is empty and nothing was requested."""
    def show(report, **options):
        file = tmp_path / "report.html"
        file.write_text(render(report), encoding="utf-8")
        browser.open(file, **options)
        return browser
    yield show
    assert browser.complaints() == [] and browser.js("performance.getEntriesByType('resource').length") == 0


def test_the_numbers_on_the_page_are_those_of_the_arrays(show):
    """Check every number on the page, for two layers at several steps, units and losses."""
    report = made()
    report.layers.append(made(seed=1, name="l1").layers[0])
    browser = show(report)
    places = [(0, 0, 0), (3, 4, 2), (11, 2, 2), (7, 0, 1)]
    for (i, layer), (t, u, s) in itertools.product(enumerate(report.layers), places):
        for name, to in (("layer", i), ("t", t), ("u", u), ("asked", s)):
            slide(browser, name, to)
        assert browser.text("#t-read") == f"{t} / 11" and browser.text("#u-read") == f"{u} / 4"
        for name in layer.values:
            assert browser.text(cell(name)) == digits(layer.values[name][t, u])
            assert browser.text(cell(name, "gradient")) == digits(layer.grads[name][t, u])
            for kind, label, arrays in (("", name, layer.values), ("d/", f"dL/d{name}", layer.grads)):
                slide(browser, "shown", kind + name)
                assert browser.text("#map-read").endswith(f"unit {u}: {label} = {digits(arrays[name][t, u])}")
        now = browser.text("#now")
        assert f"read ‘{report.symbols[t].replace(' ', '␣')}’" in now
        assert f"‖dL/dx‖ {digits(report.steps['‖dL/dx‖'][t])}" in now
        loss = report.steps["loss"][t]
        assert ("loss " in now) == np.isfinite(loss) and (np.isnan(loss) or f"loss {digits(loss)}" in now)
        step, sizes = report.asked[s], {name: digits(x[s, t]) for name, x in layer.reach.items()}
        for name in layer.reach:
            slide(browser, "creditor", name)
            assert browser.text("#ledger-read") == f"loss at step {step} → {name} at step {t}: {sizes[name]}"
        fading = {name: (shown(x)[s, 0] / shown(x)[s, step])**(1 / step) for name, x in layer.reach.items()}
        assert browser.text("#lag-read") == (
            f"lag {step - t}, at step {t}: weights {sizes['weights']}, c_prev {sizes['c_prev']}. Mean factor per "
            f"step back: weights × {fading['weights']:#.3g}, c_prev × {fading['c_prev']:#.3g}")
        sigma = layer.spectrum[t]
        assert browser.text("#spectrum-read") == f"step {t}, rank 1 of 10: {digits(sigma[0])}"
        assert f"largest {digits(sigma[0])}, median {digits(sigma[5])}, least {digits(sigma[9])}" \
            in browser.text("#spectra-read")
    for i, (name, (x, y)) in enumerate(report.curves.items()):
        assert browser.js("[...document.querySelectorAll('[data-curve]')].map(x => x.dataset.curve)")[i] == name
        assert browser.text(f'[data-curve="{name}"] .read') == f"step {x[-1]:.0f}: {digits(y[-1])}"
    assert browser.text("#layer-facts") == "largest Lyapunov exponent-0.5" and browser.text("#facts") == "celllstm"


def test_the_source_has_the_numbers_beside_their_last_assignment(show):
    report = made()
    browser, (layer,) = show(report), report.layers
    assert browser.js("[...document.querySelectorAll('#source .line')].map(line => line.textContent)"
                      ".map((text, i) => text.slice(document.querySelectorAll('#source .now')[i].textContent.length))"
                      ".join('\\n')") == SOURCE
    slide(browser, "t", 9)
    slide(browser, "u", 3)
    beside = browser.js("[...document.querySelectorAll('#source .line')].flatMap((line, i) =>"
                        "line.firstChild.textContent.trim() ? [[i, line.firstChild.textContent.trim()]] : [])")
    v, d = ({name: digits(x[9, 3]) for name, x in arrays.items()} for arrays in (layer.values, layer.grads))
    assert beside == [[5, f"{v['ft']}, {v['c_next']}"], [11, d["c_next"]], [12, d["ft"]]]
    browser.click("#source .live[data-kind=gradient]")
    assert browser.text("#map-title") == "Every unit over time: dL/dc_next"
    assert browser.js("document.querySelectorAll('#source .shown').length") == 4  # d_c_next, not c_next
    assert browser.js("document.querySelector('#source .comment').textContent") == "# ft"


def test_keys_move_step_and_unit(show):
    browser = show(made())
    where = "[at.t, at.u, at.s]"

    def pressed(focus, *keys):
        browser.js("arguments[0] ? $(arguments[0]).focus() : document.activeElement.blur()", focus)
        browser.press(*keys)
        return browser.js(where)

    assert browser.js("document.activeElement.id") == "t" and browser.js(where) == [11, 0, 2]  # the last loss
    assert pressed("t", "left", "left", "up", "down", "down") == [8, 0, 2]
    assert pressed("t", "home", "left") == [0, 0, 2] and pressed("t", "end", "right") == [11, 0, 2]
    assert pressed("u", "right", "up", "up", "left") == [11, 2, 2]
    assert pressed("u", "end", "right") == [11, 4, 2] and pressed("u", "home") == [11, 0, 2]
    assert pressed("map", "left", "up", "up", "down") == [10, 1, 2]
    assert pressed("map", "home", "left") == [0, 1, 2] and pressed("map", "end", "right") == [11, 1, 2]
    assert pressed("ledger", "up", "left") == [10, 1, 1]
    assert browser.text("#ledger-read").startswith("loss at step 7 → weights at step 10")
    assert pressed(None, "left", "down") == [9, 1, 1]  # ↓ scrolls
    assert pressed("asked", "up") == [9, 1, 0]  # a list keeps its own keys


def test_the_page_opens_at_what_it_finds(show):
    report = made(keeps={"c_next": np.array([[0.1, 0.96, 0.3, 0.2, 0.1], [0.5, 0.97, 0.6, 0.5, 0.4]])})
    report.steps["loss"][7] = 9.0
    report.layers.append(made(seed=1, name="l1").layers[0])
    browser = show(report)
    assert browser.js("[...$('findings').children].map(x => x.textContent)") == [
        f"{f.text} {link}" for f, link in zip(findings(report), [
            "step 7", "step 8, the loss at step 11", "unit 1", "step 7, the loss at step 11"], strict=True)]
    assert browser.js("[at.t, at.u, data.asked.at(at.s), at.layer.name]") == [7, 1, 7, "l0"]
    assert "the unit keeps 97.0 % of c_next a step" in browser.text("#now")
    browser.click("#findings li:last-child a")
    assert browser.js("[at.t, at.u, data.asked.at(at.s), at.layer.name, $('layer').value]") == [7, 1, 11, "l1", "1"]


@pytest.mark.parametrize("address, place", [
    ("#t=6&unit=3", [6, 3, 2, "l0"]), ("#t=99&unit=99", [11, 4, 2, "l0"]), ("#t=x&unit=-1&other=1", [11, 0, 2, "l0"]),
    ("#layer=l1&loss=7", [11, 0, 1, "l1"]), ("#layer=l9&loss=0", [11, 0, 2, "l0"]), ("#loss=9", [11, 0, 1, "l0"]),
    ("#t", [11, 0, 2, "l0"]),
])
def test_an_address_names_a_step_and_a_unit(show, tmp_path, address, place):
    report, where = made(), "[at.t, at.u, at.s, at.layer.name]"
    report.layers.append(made(seed=1, name="l1").layers[0])
    browser = show(report)
    browser.js("new Promise(done => { addEventListener('hashchange', () => done(), {once: true});"
               "location.hash = arguments[0]; })", address)
    assert browser.js(where) == place
    written = browser.js("new Promise(done => setTimeout(() => done(location.hash), 400))")
    t, u, s, layer = place
    assert written == f"#layer={layer}&t={t}&unit={u}&loss={report.asked[s]}"  # which may be copied
    browser.js("go({t: 0, u: 0, s: 0})")
    browser.js("location.hash = arguments[0]", written)
    browser.js("location.reload()")
    browser.js("started")
    assert browser.js(where) == place


def test_values_and_the_sequence_are_explained(show):
    browser = show(made(meanings={"ft": "forget gate: it keeps"}, about="A step reads a character."))
    assert browser.text("#meanings") == "ftforget gate: it keeps"
    assert browser.text("#about") == "A step reads a character."


def test_the_axis_of_the_jacobian_is_clipped(show):
    spectrum = np.tile(10.0 ** -np.array([0.5, 6.0, 290.0]), (12, 1))
    browser = show(made(spectrum=spectrum))
    heights = browser.js("[...document.querySelectorAll('#spectra path')]"
                         ".map(x => parseFloat(x.getAttribute('d').split(' ')[1]))")
    bottom = 210 - 38
    assert heights[0] < heights[1] < heights[2] == bottom
    assert "the bottom edge: 1e-8 or less" in browser.text("#spectra") and "1e-290" not in browser.text("#spectra")
    assert "least 1.000e-290" in browser.text("#spectra-read")
    assert "bottom edge" not in show(made()).text("#spectra")


def test_the_focus_is_visible(show):
    browser = show(made())
    found = set()
    for _ in range(20):
        browser.press("tab")
        style, name = browser.js("[getComputedStyle(document.activeElement).outlineStyle,"
                                 "document.activeElement.id || document.activeElement.tagName]")
        found.add(name)
        assert style == "solid" or name == "BODY", name
    assert {"u", "map", "source", "shown", "ledger", "theme", "BUTTON"} <= found


def test_everything_has_an_accessible_name(show):
    report = made()
    report.layers.append(made(name="l1").layers[0])
    tree = show(report).cdp("Accessibility.getFullAXTree")["nodes"]
    names = {}
    for node in tree:
        if not node["ignored"]:
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value"))
    assert names["slider"] == ["step", "unit"] and len(names["combobox"]) == 5 and names["checkbox"] == ["log scale"]
    for role in ("button", "slider", "combobox", "checkbox", "image", "heading"):
        assert all(names[role]) and len(set(names[role])) == len(names[role]), names[role]


def test_clicks_go_where_they_point(show):
    report = made()
    browser = show(report)
    browser.click('#strip [data-t="4"]')
    assert browser.js("at.t") == 4 and browser.js("document.querySelector('#strip .on').dataset.t") == "4"
    browser.click("#map")  # its middle, away from the numbers of the axes
    t, u = browser.js("[at.t, at.u]")
    assert (t, u) == (5, 1) and browser.text("#map-read").startswith("step 5 ")
    browser.click('#units button[data-name="c_next"][data-kind="gradient"]')
    assert browser.text("#map-title") == "Every unit over time: dL/dc_next"
    assert browser.js("document.getElementById('decades').checked")
    slide(browser, "creditor", "c_prev")
    assert browser.text("#ledger-read") == f"loss at step 11 → c_prev at step {t}: " \
                                           f"{digits(report.layers[0].reach['c_prev'][-1, t])}"


def test_light_and_dark(show):
    background = "getComputedStyle(document.body).backgroundColor"
    browser = show(made())
    light = browser.js(background)
    assert browser.text("#theme") == "Dark mode"
    browser.click("#theme")
    dark = browser.js(background)
    assert dark != light and browser.text("#theme") == "Light mode"
    browser = show(made(), scheme="dark")
    assert browser.js(background) == dark
    browser.click("#theme")
    assert browser.js(background) == light


def contrast(a, b):
    """The contrast of two CSS colours by WCAG 2, from 1 to 21."""
    light = []
    for colour in (a, b):
        x = np.array(re.findall(r"\d+", colour)[:3], float) / 255
        light.append(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055)**2.4) @ [0.2126, 0.7152, 0.0722])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme, show):
    """Contrast of at least 4.5 : 1, which WCAG 2.2 requires of text (1.4.3)."""
    report = made(200, 5, symbols=["a"] * 200, targets=None, asked=np.array([], int), reach={})
    report.steps = {"rising": np.linspace(0.0, 1.0, 200), "both signs": np.linspace(-1.0, 1.0, 200)}
    browser = show(report, scheme=scheme)
    for ground in ("page", "panel"):
        for name in ("ink", "soft", "one", "two", "three", "four", "many", "bad"):
            assert contrast(*(browser.js("css(rgb(arguments[0]))", x) for x in (name, ground))) >= 4.5, (name, ground)
    assert contrast(*(browser.js("css(rgb(arguments[0]))", x) for x in ("ink", "mark"))) >= 4.5
    for name in report.steps:
        slide(browser, "tint", name)
        boxes = browser.js("[...$('strip').children].map(box => getComputedStyle(box))"
                           ".map(style => [style.color, style.backgroundColor])")
        assert min(contrast(*pair) for pair in boxes) >= 4.5


def test_the_map_has_the_colours_of_its_numbers(show):
    """In light mode, from white to one colour for values from 0 upwards; two colours for both signs."""
    x = np.zeros((12, 5))
    x[3, 4], x[3, 0], x[8, 0] = 1.0, 0.5, np.nan
    report = made(names=("ft",))
    report.layers[0].values["ft"] = x
    browser = show(report)
    picture = browser.js("[...$('map').picture.getContext('2d').getImageData(0, 0, 12, 5).data]")
    colours = np.array(picture).reshape(5, 12, 4)[::-1, :, :3].transpose(1, 0, 2).tolist()  # unit 0 is at the bottom
    assert colours[0][0] == [255, 255, 255] and colours[3][4] == [8, 48, 92] and colours[8][0] == [209, 0, 91]
    np.testing.assert_allclose(colours[3][0], [131.5, 151.5, 173.5], atol=0.5)  # halfway
    assert "1 NaN or Inf" in browser.text("#map-legend")


def test_it_can_be_read_at_400_pixels(show):
    wide = "document.documentElement.scrollWidth"
    report = made(200, 30, facts={"a long name of a thing": "cells.py:" + "Long" * 30}, title="runs/" + "long" * 40)
    browser = show(report, width=400)
    assert browser.js(wide) == 400
    assert browser.js("[...document.querySelectorAll('button, select, input, output, .number')].filter(x =>"
                      "x.offsetParent && x.getBoundingClientRect().right > 400).map(x => x.outerHTML)") == []
    sizes = browser.js("[...document.querySelectorAll('body *')].filter(x => x.offsetParent)"
                       ".map(x => parseFloat(getComputedStyle(x).fontSize))")
    assert min(sizes) >= 12
    assert browser.js("document.querySelector('#map').clientWidth") > 300


def test_text_stays_text_in_the_browser(show):
    names = ("constructor", "__proto__", "base64", "toString")  # names that a user may choose
    report = hostile(names=names)
    layer = report.layers[0]
    layer.source = (f"def forward(x):\n    constructor = x  # {HOSTILE}\n"
                    f"    valueOf = '{HOSTILE}'\n    return toString\n")
    layer.name = HOSTILE
    report.layers.append(made().layers[0])
    browser = show(report)
    assert browser.js("[window.hit, document.scripts.length, document.images.length]") == [None, 2, 0]
    for place in ("h1", '#strip [data-t="3"]', "#facts dd"):
        assert browser.text(place) == HOSTILE
    assert HOSTILE in browser.text("#now") and HOSTILE in browser.text("#source")
    for name in names:
        assert browser.text(cell(name)) == digits(layer.values[name][11, 0])
    slide(browser, "layer", 1)
    assert browser.text(cell("ft")) == digits(report.layers[1].values["ft"][11, 0])
    assert browser.js("window.hit === undefined")


def test_invisible_characters_are_shown_by_name(show):
    seen = {" ": "␣", "\n": "↵", "\x00": "␀", "\x1b": "␛", "\x7f": "U+007F", "\u0301": "◌\u0301", "😀": "😀",
            "\u202e": "U+202E", "\u200d": "U+200D", "\ud800": "U+D800", "\u2028": "U+2028", "é": "é"}
    browser = show(made(symbols=list(seen), targets=list(seen)))
    assert browser.js("[...document.querySelectorAll('#strip span')].map(x => x.textContent)") == list(seen.values())
    slide(browser, "t", 7)
    assert browser.text("#now").startswith("read ‘U+202E’ · target ‘U+202E’ · loss ")


@pytest.mark.parametrize("changed", [
    {"curves": {}}, {"targets": None}, {"steps": {}}, {"reach": {}}, {"spectrum": None}, {"source": ""}, {"grads": {}},
    {"asked": np.array([], int), "reach": {}}, {"facts": {}},
    {"spectrum": np.zeros((12, 1))}, {"curves": {"loss": (np.array([1.0]), np.array([2.0]))}},
    {"curves": {"loss": (np.array([]), np.array([]))}},
    {"values": {"ft": np.full((12, 5), np.nan), "wide": np.zeros((12, 9))}, "grads": {}},
    {"spectrum": np.full((12, 4), np.inf)},
], ids=lambda changed: ", ".join(changed))
def test_absent_parts_are_left_out(show, changed):
    browser = show(made(**changed))
    browser.press("left")
    slide(browser, "u", 1)
    assert browser.js("[at.t, at.u]") == [0 if "values" in changed else 7 if "steps" in changed else 10, 1]
    assert browser.js("$('spectra').checkVisibility()") == (changed.get("spectrum", ()) is not None)


def test_one_step_is_a_sequence(show):
    report = made(1, 1, asked=np.array([0]), reach={"weights": np.ones((1, 1))})
    browser = show(report)
    assert browser.text("#t-read") == "0 / 0"
    assert browser.text(cell("ft")) == digits(report.layers[0].values["ft"][0, 0])
