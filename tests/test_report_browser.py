"""The report in a browser: it fits narrow and wide screens and paper, and can be read in both colour schemes."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples as samples
from browser import Page, chromium, open_browser
from PIL import Image

from deadreckon.experiments import results
from deadreckon.experiments.options import ReportOptions
from deadreckon.experiments.report import command as report

pytestmark = pytest.mark.slow
LEAST_CONTRAST = 4.5  # of text against its background, WCAG 2.1, success criterion 1.4.3
TEXTS = """
(() => {
  const opaque = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 || n[3] > 0; };
  const found = [];
  for (const item of document.querySelectorAll('body *')) {
    const own = [...item.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
    if (!own || item.tagName == 'SCRIPT' || !item.getClientRects().length) continue;
    let behind = item;
    while (behind && !opaque(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    found.push([item.tagName, getComputedStyle(item).color, getComputedStyle(behind || document.body).backgroundColor]);
  }
  return found;
})()
"""
FIRST_FIGURE = """
(() => { const box = document.querySelector('figure img').getBoundingClientRect();
  return [box.left + scrollX, box.top + scrollY, box.width, box.height]; })()
"""


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about two runs of each kind."""
    folder = tmp_path_factory.mktemp("report")
    makers: dict[str, Any] = {"record": samples.record, "compare": samples.compare, "race": samples.race}
    runs = []
    for kind, make in makers.items():
        for name in (kind, f"{kind}_with_a_rather_long_name_for_a_narrow_screen"):
            results.write_result(folder / name, kind, make())
            runs.append(str(folder / name))
    report.run(ReportOptions(tuple(runs), str(folder / "out")))
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A headless browser."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    with open_browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_the_page_never_scrolls_sideways(page: Page, report_file: Path, width: int) -> None:
    """At each width the page is as wide as the window, every picture has loaded, and the console is silent."""
    page.open(report_file, width, "light")
    assert page.value("innerWidth") == width
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("[...document.images].every(item => item.complete && item.naturalWidth > 0)")
    assert page.value("document.images.length") > 20
    page.value("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.messages == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(page: Page, report_file: Path, scheme: str) -> None:
    """The contrast of every text with its background is that of the guidelines, in both colour schemes."""
    page.open(report_file, 1200, scheme)
    page.value("document.querySelectorAll('details').forEach(item => item.open = true)")
    found = {tuple(item) for item in page.value(TEXTS)}
    assert {"H1", "P", "TD", "TH", "LI", "FIGCAPTION", "PRE", "SUMMARY"} <= {name for name, _, _ in found}
    weak = [(item, ratio) for item in found if (ratio := contrast(item[1], item[2])) < LEAST_CONTRAST]
    assert weak == []


@pytest.mark.parametrize(("scheme", "low", "high"), [("light", 230, 255), ("dark", 0, 60)])
def test_figures_follow_the_colour_scheme(page: Page, report_file: Path, scheme: str, low: int, high: int) -> None:
    """A figure's ground is light on a light page and dark on a dark one, and its ink stands out from that."""
    page.open(report_file, 1200, scheme)
    image = Image.open(io.BytesIO(page.picture(*page.value(FIRST_FIGURE)))).convert("L")
    values = np.asarray(image)
    ground = float(np.median(values))
    assert low <= ground <= high
    assert np.abs(values.astype(float) - ground).max() > 150


def test_on_paper_nothing_is_cut_off(page: Page, report_file: Path) -> None:
    """Printed from a dark screen the page is black on white and no wider than the paper."""
    page.open(report_file, 700, "dark")
    page.media("print", "dark")
    assert page.value("document.documentElement.scrollWidth") <= 700
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert contrast(page.value("getComputedStyle(document.body).color"), "rgb(255, 255, 255)") > 7
    assert page.value("getComputedStyle(document.querySelector('figure img')).filter") == "none"
    assert page.pdf().startswith(b"%PDF")


def contrast(first: str, second: str) -> float:
    """The ratio of two colours' luminances, from 1 to 21: WCAG 2.1, `contrast ratio`."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
