"""The report as a real browser shows it: Debian's Chromium, which its driver is told what to do over HTTP."""

import json
import shutil
import subprocess
from urllib.request import Request, urlopen

import pytest

from experiments.__main__ import main

FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
FLAGS += ("disable-component-update", "disable-sync", "hide-scrollbars")

CONTRAST = """
const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const parts = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const behind = e => {
  if (!e) return [255, 255, 255];
  return over(parts(getComputedStyle(e).backgroundColor), behind(e.parentElement));
};
const low = [];
for (const e of document.body.querySelectorAll('*')) {
  const said = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!said || !e.getClientRects().length || e.closest('title')) continue;
  const style = getComputedStyle(e);
  const ground = behind(e), ink = over(parts(e.closest('svg') ? style.fill : style.color), ground);
  const [a, b] = [luminance(ink), luminance(ground)].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.tagName + ' ' + e.textContent.trim().slice(0, 30));
}
return low;
"""


class Browser:
    """A session of WebDriver."""

    def __init__(self, address, profile):
        options = {"args": [*FLAGS, f"user-data-dir={profile}"], "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.address = f"{address}/session"
        self.address += "/" + self.ask("", capabilities={"alwaysMatch": wanted})["sessionId"]

    def ask(self, command, method="POST", **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = Request(self.address + command, data, {"Content-Type": "application/json"}, method=method)
        return json.load(urlopen(request, timeout=60))["value"]

    def script(self, text):
        return self.ask("/execute/sync", script=text, args=[])

    def devtools(self, command, **parameters):
        return self.ask("/goog/cdp/execute", cmd=command, params=parameters)

    def look(self, page, width, scheme="light"):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("/url", url=page.as_uri())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no Chromium (Debian: apt-get install chromium chromium-driver)")
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(line for line in driver.stdout if "successfully on port" in line).split()[-1].rstrip(".")
        session = Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("profile"))
        yield session
        session.ask("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(20)


@pytest.fixture(scope="module")
def page(tiny_run, tmp_path_factory):
    """Of two runs with predictions: the tiny one, and a copy of it that has lesions, a longer name and another seed."""
    folder = tmp_path_factory.mktemp("page")
    copy = folder / ("a_long_name_of_an_experiment_" * 3) / "20260101-000000-abcdef"
    shutil.copytree(tiny_run, copy)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("seed_everything: 42", "seed_everything: 43"))
    (copy / "unravel").mkdir()
    rows = ["kind,size,deleted,images,error", "none,0,,100,0.1"]
    rows += [f"single,1,layer{i}.0,100,0.{i}" for i in range(1, 6)]
    (copy / "unravel" / "lesion.csv").write_text("\n".join(rows))
    assert main(["report", str(tiny_run), str(copy), "--images", "64", "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


def test_it_is_there_without_an_error(browser, page):
    browser.look(page, 1280)
    assert browser.ask("/se/log", type="browser") == []
    counted = browser.script(
        "return Object.fromEntries(['section', 'figure svg[role=img]', 'table.matrix', '.pictures img', 'pre', 'title']"
        ".map(name => [name, document.querySelectorAll(name).length]))"
    )
    assert counted["section"] == 7
    assert counted["figure svg[role=img]"] >= 4
    assert counted["table.matrix"] == 2
    assert counted[".pictures img"] == 2 * 2 * 9
    assert browser.script("return [...document.images].every(image => image.naturalWidth > 0)")
    assert browser.script("return [...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    assert (
        browser.script("return performance.getEntriesByType('resource').filter(e => !/^data:/.test(e.name)).length")
        == 0
    )


@pytest.mark.parametrize("width", [375, 1280])
def test_no_part_is_wider_than_the_window(browser, page, width):
    browser.look(page, width)
    assert browser.script("return innerWidth") == width
    assert browser.script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser, page, scheme):
    browser.look(page, 1280, scheme)
    browser.script("document.querySelectorAll('details').forEach(part => part.open = true)")
    dark = browser.script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 100")
    assert dark == (scheme == "dark")
    assert browser.script(CONTRAST) == []


def test_it_is_told_to_those_who_do_not_see_it(browser, page):
    browser.look(page, 1280)
    assert browser.script("return [...document.images].every(image => image.alt)")
    assert browser.script(
        "return [...document.querySelectorAll('figure > svg')].every(svg => svg.ariaLabel.length > 20)"
    )
    # Whatever scrolls or opens is reached with the Tab key.
    assert browser.script("return [...document.querySelectorAll('.scroll, pre')].every(part => part.tabIndex === 0)")
    hover = browser.script("return document.querySelector('.hit title').textContent")
    assert "epoch 1: " in hover
