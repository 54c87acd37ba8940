"""Chromium without a screen, through ChromeDriver's WebDriver protocol: JSON over HTTP, all from the standard library.

Debian has both as `chromium` and `chromium-driver`. A test that needs them skips where they are not; what a page holds
is tested without them.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015", "home": "\ue011", "end": "\ue010",
        "tab": "\ue004"}


class Browser:
    """A window. `open` a file, `js` a value out of it, `press` keys, `click` an element by its CSS selector."""

    def __init__(self, port, profile):
        self.url = f"http://127.0.0.1:{port}"
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        made = self.call("/session", capabilities={"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}})
        self.url += f"/session/{made['sessionId']}"

    def call(self, path, _method="POST", **body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if _method == "POST" else None,
                                         {"Content-Type": "application/json"}, method=_method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as problem:
            raise AssertionError(json.load(problem)["value"]["message"]) from None

    def cdp(self, command, **parameters):
        return self.call("/goog/cdp/execute", cmd=command, params=parameters)

    def open(self, path, width=1200, height=900, scheme="light"):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.complaints()
        self.call("/url", url=path.as_uri())
        self.js("started")  # a promise: the page has drawn itself

    def js(self, expression, *arguments):
        return self.call("/execute/sync", script=f"return ({expression})", args=list(arguments))

    def text(self, selector):
        return self.js("document.querySelector(arguments[0]).textContent", selector)

    def press(self, *keys):
        self.call("/actions", actions=[{"type": "key", "id": "keys", "actions": [
            {"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]}])

    def click(self, selector):
        self.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        found = self.call("/element", using="css selector", value=selector)
        self.call(f"/element/{next(iter(found.values()))}/click")

    def complaints(self):
        """What the console was told since it was last asked."""
        return [entry["message"] for entry in self.call("/se/log", type="browser")]

    def picture(self, path, whole=True):
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium(profile):
    """A browser with an empty profile in this folder."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} here, so the page is not looked at: on Debian, apt install "
                    "chromium chromium-driver")
    with subprocess.Popen([shutil.which("chromedriver"), "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            line = next(line for line in driver.stdout if "successfully on port" in line)
            browser = started(int(line.rpartition("port ")[2].strip(" .\n")), profile)
            try:
                yield browser
            finally:
                browser.call("", _method="DELETE")
        finally:
            driver.terminate()


def started(port, profile, tries=3):
    """A busy machine may not start Chromium in the time that ChromeDriver waits for it."""
    for left in reversed(range(tries)):
        try:
            return Browser(port, profile)
        except AssertionError as problem:
            if "not reachable" not in str(problem) or not left:
                raise
