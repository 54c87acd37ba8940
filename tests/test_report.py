"""The page of `minigrad inspect`: what is in the file, and in Chromium, where there is one, what it shows."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import chromium

import minigrad.report
from minigrad.report import POINTS, Lens, Report, packed, page, thinned

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
    """A report of random arrays; gradients fade over time, some to below what a float32 holds."""
    rng = np.random.default_rng(seed)
    fade = np.exp(-np.linspace(120.0, 0.0, T))[:, None]
    lens = Lens(
        "l0", {name: rng.normal(size=(T, H)) for name in names},
        {name: fade * rng.normal(size=(T, H)) for name in names},
        {"weights": np.tril(rng.random((T, T)))[3::4], "c_prev": np.tril(rng.random((T, T)))[3::4]},
        np.sort(rng.random((T, 2 * H)))[:, ::-1], SOURCE, {"largest Lyapunov exponent": "-0.5"})
    steps = np.arange(1.0, 51.0)
    report = Report(
        "runs/made", {"cell": "lstm"}, list("to be or not to be"[:T].ljust(T)), list("o be or not to be "[:T].ljust(T)),
        np.arange(3, T, 4), {"loss": np.where(np.arange(T) % 4 == 3, rng.random(T), np.nan), "‖dL/dx‖": fade[:, 0]},
        {"loss": (steps, 4.0 / steps), "metric": (steps[9::10], rng.random(5))}, [lens])
    for name, value in changed.items():
        setattr(report if name in Report.__dataclass_fields__ else lens, name, value)
    return report


def hostile(**changed):
    """One whose texts would like to be more than that."""
    return made(title=HOSTILE, symbols=[HOSTILE] * 12, targets=[HOSTILE] * 12, facts={HOSTILE: HOSTILE}, **changed)


def data_in(text):
    return json.loads(re.search('<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])


def unpacked(x):
    """The array back, by NumPy."""
    octets = base64.b64decode(x["base64"])
    if x["kind"] == "upper":
        return (np.frombuffer(octets, "<u4").astype("<u8") << 32).view("<f8").reshape(x["shape"])
    return np.frombuffer(octets, {"single": "<f4", "double": "<f8"}[x["kind"]]).astype(float).reshape(x["shape"])


# -- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x, kind, error", [
    ([[1.0, -2.5, 0.0, 1 / 3]], "single", 2**-24),
    (np.float32([[1e-45, 1e-40, np.pi, 3.4e38]]), "single", 0),
    ([[1e-45, 1.0]], "upper", 2**-21),
    ([[1e-60, 1.0, -np.pi, 1e300, 1e39]], "upper", 2**-21),
    ([[np.nan, np.inf, -np.inf, 0.1, -0.0]], "single", 2**-24),
    ([[np.nan, np.inf, -np.inf, 1e-50]], "upper", 2**-21),
    ([[1e-70, 1 - 1e-9, 0.5 - 1e-9]], "upper", 2**-21),  # rounded up into the next power of two
    ([[1e-310, 1.0]], "upper", 2**-10),  # what is subnormal has fewer digits
    (np.zeros((2, 0)), "single", 0),
    (np.zeros((0, 3)), "single", 0),
    ([0.1, np.nan, 1e-300], "double", 0),
    (np.array([3, 7, 123456789]), "double", 0),
    (np.array([], int), "double", 0),
])
def test_packed_numbers_keep_their_digits(x, kind, error):
    x = np.asarray(x)
    out = packed(x)
    assert (out["kind"], out["shape"]) == (kind, list(x.shape))
    np.testing.assert_allclose(unpacked(out), x, rtol=error, atol=0)


def test_random_arrays_keep_six_digits():
    rng = np.random.default_rng(0)
    for scale, error in ((1.0, 2**-24), (1e-60, 2**-21)):
        x = scale * rng.normal(size=(100, 100)) * 10.0 ** rng.integers(-30, 30, (100, 100))
        np.testing.assert_allclose(unpacked(packed(x)), x, rtol=error, atol=0)


def test_the_file_holds_the_arrays():
    report = made()
    data, (lens,) = data_in(page(report)), report.lenses
    assert data["symbols"] == report.symbols and data["targets"] == report.targets
    assert data["lenses"][0]["source"] == SOURCE and data["title"] == "runs/made"
    for kind in ("values", "grads", "reach"):
        there = data["lenses"][0][kind]
        assert list(there) == list(getattr(lens, kind))
        for name, x in getattr(lens, kind).items():
            np.testing.assert_allclose(unpacked(there[name]), x, rtol=2**-21)
    np.testing.assert_allclose(unpacked(data["lenses"][0]["spectrum"]), lens.spectrum, rtol=2**-21)
    for name, x in report.steps.items():
        np.testing.assert_array_equal(unpacked(data["steps"][name]), x)
    for name, curve in report.curves.items():
        np.testing.assert_array_equal([unpacked(x) for x in data["curves"][name]], curve)


def test_the_file_asks_nothing_of_anyone():
    text = page(made())
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
    report.lenses[0].reach = {HOSTILE: report.lenses[0].reach["weights"]}
    text, plain = page(report), page(made())
    for mark in ("<script", "</script", "<img", "<!--"):
        assert text.count(mark) == plain.count(mark)
    data = data_in(text)
    assert data["symbols"] == [HOSTILE] * 12 and list(data["curves"]) == list(data["steps"]) == [HOSTILE]
    assert html.unescape(re.search("<title>(.*?)</title>", text)[1]) == HOSTILE


def test_any_unicode_goes_in():
    symbols = ["\ud800", "\u2028", "\x00", "é", "😀", "\u202e", "\\", '"', "\r", "<!--", "]]>", " "]
    text = page(made(symbols=symbols, title="caf\udce9"))
    assert data_in(text)["symbols"] == symbols
    text.encode("utf-8")  # a file can be made of it


def test_a_file_of_200_steps_and_128_units_is_below_3_MB():
    rng = np.random.default_rng(0)
    names = ("ft", "it", "ot", "cct", "tanh_c", "c_next", "a_next")  # of an LSTM, and one more
    report = made(200, 128, names=names)
    report.lenses[0].reach = {name: np.tril(rng.random((200, 200))) for name in ("weights", "a_prev", "c_prev")}
    report.asked = np.arange(200)
    assert any(packed(x)["kind"] == "upper" for x in report.lenses[0].grads.values())
    assert len(page(report).encode()) < 3e6


def test_a_long_curve_keeps_its_extremes():
    y = np.random.default_rng(0).normal(size=100_000)
    y[12_345], y[70_000], y[50_000] = 99.0, -99.0, np.nan
    x, kept = thinned(np.arange(100_000), y)
    assert len(x) == len(kept) <= POINTS and (np.diff(x) > 0).all()
    assert (kept[0], kept[-1]) == (y[0], y[-1]) and {(12_345, 99.0), (70_000, -99.0)} <= set(zip(x, kept))
    assert not np.isnan(kept).any()
    np.testing.assert_array_equal(thinned([1, 2, 3], [1.0, np.nan, 3.0]), ([1, 3], [1, 3]))


@pytest.mark.parametrize("changed, sentence", [
    ({"symbols": []}, "one step and one lens or more, and this one has 0 and 1"),
    ({"lenses": []}, "has 12 and 0"),
    ({"lenses": made().lenses * 2}, "names of their own, and these are l0, l0"),
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
        page(made(**changed))


def test_an_installed_package_has_the_page_with_it():
    assert "report.html" in (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert Path(minigrad.report.__file__).with_name("report.html").is_file()


# -- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def show(browser, tmp_path):
    """Open the page of a report; after the test the console must have stayed silent."""
    def show(report, **options):
        file = tmp_path / "report.html"
        file.write_text(page(report), encoding="utf-8")
        browser.open(file, **options)
        return browser
    yield show
    assert browser.complaints() == []


def cell(name, kind="value"):
    return f'#units span[data-name="{name}"][data-kind="{kind}"]'


def digits(x):
    """As the page writes a number."""
    if not np.isfinite(x) or x == 0:
        return {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}.get(str(x), "0")
    if not 1e-3 <= abs(x) < 1e5:
        return re.sub(r"e([+-])0*(\d)", lambda e: f"e{e[1]}{e[2]}", f"{x:.3e}")
    return f"{x:#.4g}".removesuffix(".")


def slide(browser, name, to):
    browser.js("(() => { const s = document.getElementById(arguments[0]); s.value = arguments[1];"
               "s.dispatchEvent(new Event('input')); })()", name, to)


def test_the_numbers_on_the_page_are_those_of_the_arrays(show):
    report = made()
    browser, (lens,) = show(report), report.lenses
    for t, u in ((0, 0), (3, 4), (11, 2), (7, 0)):
        slide(browser, "t", t)
        slide(browser, "u", u)
        assert browser.text("#t-read") == f"{t} / 11" and browser.text("#u-read") == f"{u} / 4"
        for name in lens.values:
            assert browser.text(cell(name)) == digits(lens.values[name][t, u])
            assert browser.text(cell(name, "gradient")) == digits(lens.grads[name][t, u])
        now = browser.text("#now")
        assert f"read ‘{report.symbols[t].replace(' ', '␣')}’" in now
        assert f"‖dL/dx‖ {digits(report.steps['‖dL/dx‖'][t])}" in now
        loss = report.steps["loss"][t]
        assert ("loss " in now) == np.isfinite(loss) and (np.isnan(loss) or f"loss {digits(loss)}" in now)
        assert browser.text("#map-read").endswith(f"unit {u}: ft = {digits(lens.values['ft'][t, u])}")
        reach = lens.reach["weights"][-1, t]
        assert browser.text("#ledger-read") == f"loss at step 11 → weights at step {t}: {digits(reach)}"
        assert f"lag {11 - t}, at step {t}: weights {digits(reach)}, c_prev {digits(lens.reach['c_prev'][-1, t])}" \
            in browser.text("#lag-read")
        sigma = lens.spectrum[t]
        assert browser.text("#spectrum-read") == f"step {t}, rank 1 of 10: {digits(sigma[0])}"
        assert f"largest {digits(sigma[0])}, median {digits(sigma[5])}, least {digits(sigma[9])}" \
            in browser.text("#spectra-read")
    for i, (name, (x, y)) in enumerate(report.curves.items()):
        assert browser.js("[...document.querySelectorAll('[data-curve]')].map(x => x.dataset.curve)")[i] == name
        assert browser.text(f'[data-curve="{name}"] .read') == f"step {x[-1]:.0f}: {digits(y[-1])}"
    assert browser.text("#lens-facts") == "largest Lyapunov exponent-0.5" and browser.text("#facts") == "celllstm"


def test_the_source_has_the_numbers_beside_the_lines_that_settle_them(show):
    report = made()
    browser, (lens,) = show(report), report.lenses
    assert browser.js("[...document.querySelectorAll('#source .line')].map(line => line.textContent)"
                      ".map((text, i) => text.slice(document.querySelectorAll('#source .now')[i].textContent.length))"
                      ".join('\\n')") == SOURCE
    slide(browser, "t", 9)
    slide(browser, "u", 3)
    beside = browser.js("[...document.querySelectorAll('#source .line')].flatMap((line, i) =>"
                        "line.firstChild.textContent.trim() ? [[i, line.firstChild.textContent.trim()]] : [])")
    v, d = ({name: digits(x[9, 3]) for name, x in arrays.items()} for arrays in (lens.values, lens.grads))
    assert beside == [[5, f"{v['ft']}, {v['c_next']}"], [11, d["c_next"]], [12, d["ft"]]]
    browser.click("#source .live[data-kind=gradient]")
    assert browser.text("#map-title") == "Every unit over time: dL/dc_next"
    assert browser.js("document.querySelectorAll('#source .shown').length") == 4  # d_c_next, and not c_next
    assert browser.js("document.querySelector('#source .comment').textContent") == "# ft"


def test_keys_move_step_and_unit(show):
    browser = show(made())
    focus = "document.activeElement.id"
    where = "[at.t, at.u, at.s]"
    assert browser.js(focus) == "t" and browser.js(where) == [11, 0, 2]  # the last loss
    browser.press("left", "left", "up", "up", "down")
    assert browser.js(where) == [9, 1, 2]
    browser.press("home", "left", "down", "down")
    assert browser.js(where) == [0, 0, 2]
    browser.press("end", "right")
    assert browser.js(where) == [11, 0, 2]
    browser.js("document.getElementById('ledger').focus()")
    browser.press("up", "left")
    assert browser.js(where) == [10, 0, 1]
    assert browser.text("#ledger-read").startswith("loss at step 7 → weights at step 10")
    browser.js("document.activeElement.blur()")
    browser.press("left", "down")  # ↓ scrolls, as anywhere
    assert browser.js(where) == [9, 0, 1]
    browser.js("document.getElementById('asked').focus()")
    browser.press("up")  # a list keeps its own keys
    assert browser.js(where) == [9, 0, 0]


def test_what_has_the_focus_is_seen(show):
    browser = show(made())
    found = set()
    for _ in range(20):
        browser.press("tab")
        style, name = browser.js("[getComputedStyle(document.activeElement).outlineStyle,"
                                 "document.activeElement.id || document.activeElement.tagName]")
        found.add(name)
        assert style == "solid" or name == "BODY", name
    assert {"u", "map", "source", "shown", "ledger", "theme", "BUTTON"} <= found


def test_clicks_go_where_they_point(show):
    report = made()
    browser = show(report)
    browser.click('#strip [data-t="4"]')
    assert browser.js("at.t") == 4 and browser.js("document.querySelector('#strip .on').dataset.t") == "4"
    browser.click("#map")  # its middle: left of it and below it are the numbers of the axes
    t, u = browser.js("[at.t, at.u]")
    assert (t, u) == (5, 1) and browser.text("#map-read").startswith("step 5 ")
    browser.click('#units button[data-name="c_next"][data-kind="gradient"]')
    assert browser.text("#map-title") == "Every unit over time: dL/dc_next"
    assert browser.js("document.getElementById('decades').checked")
    browser.js("(() => { const s = document.getElementById('creditor'); s.value = 'c_prev'; s.onchange(); })()")
    assert browser.text("#ledger-read") == f"loss at step 11 → c_prev at step {t}: " \
                                           f"{digits(report.lenses[0].reach['c_prev'][-1, t])}"


def test_light_and_dark(show):
    background = "getComputedStyle(document.body).backgroundColor"
    browser = show(made())
    light = browser.js(background)
    assert browser.text("#theme") == "Dark"
    browser.click("#theme")
    dark = browser.js(background)
    assert dark != light and browser.text("#theme") == "Light"
    browser = show(made(), scheme="dark")
    assert browser.js(background) == dark
    browser.click("#theme")
    assert browser.js(background) == light


def test_the_map_has_the_colours_of_its_numbers(show):
    """Light: from white to one colour as values rise from 0; two colours where there are both signs."""
    x = np.zeros((12, 5))
    x[3, 4], x[3, 0], x[8, 0] = 1.0, 0.5, np.nan
    report = made(names=("ft",))
    report.lenses[0].values["ft"] = x
    browser = show(report)
    picture = browser.js("[...$('map').picture.getContext('2d').getImageData(0, 0, 12, 5).data]")
    colours = np.array(picture).reshape(5, 12, 4)[::-1, :, :3].transpose(1, 0, 2).tolist()  # unit 0 is below
    assert colours[0][0] == [255, 255, 255] and colours[3][4] == [8, 48, 92] and colours[8][0] == [209, 0, 91]
    np.testing.assert_allclose(colours[3][0], [131.5, 151.5, 173.5], atol=0.5)  # half-way
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
    names = ("constructor", "__proto__", "base64", "toString")  # what a user may call a variable
    report = hostile(names=names)
    lens = report.lenses[0]
    lens.source = f"def forward(x):\n    constructor = x  # {HOSTILE}\n    valueOf = '{HOSTILE}'\n    return toString\n"
    lens.name = HOSTILE
    report.lenses.append(made().lenses[0])
    browser = show(report)
    assert browser.js("[window.hit, document.scripts.length, document.images.length]") == [None, 2, 0]
    for place in ("h1", '#strip [data-t="3"]', "#facts dd"):
        assert browser.text(place) == HOSTILE
    assert HOSTILE in browser.text("#now") and HOSTILE in browser.text("#source")
    for name in names:
        assert browser.text(cell(name)) == digits(lens.values[name][11, 0])
    browser.js("(() => { const s = document.getElementById('lens'); s.value = '1'; s.onchange(); })()")
    assert browser.text(cell("ft")) == digits(report.lenses[1].values["ft"][11, 0])
    assert browser.js("window.hit === undefined")


@pytest.mark.parametrize("changed", [
    {"curves": {}}, {"targets": None}, {"steps": {}}, {"reach": {}}, {"spectrum": None}, {"source": ""}, {"grads": {}},
    {"asked": np.array([], int), "reach": {}}, {"facts": {}},
    {"spectrum": np.zeros((12, 1))}, {"curves": {"loss": (np.array([1.0]), np.array([2.0]))}},
    {"curves": {"loss": (np.array([]), np.array([]))}},
    {"values": {"ft": np.full((12, 5), np.nan), "wide": np.zeros((12, 9))}, "grads": {}},
    {"spectrum": np.full((12, 4), np.inf)},
], ids=lambda changed: ", ".join(changed))
def test_what_is_not_there_is_left_out(show, changed):
    browser = show(made(**changed))
    browser.press("left", "up")
    assert browser.js("[at.t, at.u]") == [10, 1]
    assert browser.js("$('spectra').checkVisibility()") == (changed.get("spectrum", ()) is not None)


def test_one_step_is_a_sequence(show):
    report = made(1, 1, asked=np.array([0]), reach={"weights": np.ones((1, 1))})
    browser = show(report)
    assert browser.text("#t-read") == "0 / 0"
    assert browser.text(cell("ft")) == digits(report.lenses[0].values["ft"][0, 0])
