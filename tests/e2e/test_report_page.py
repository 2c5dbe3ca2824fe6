"""The report in a real browser: it opens without a network, its script runs, and it fits a telephone."""

import html
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from forecart.evaluation.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SAMPLE = Path(__file__).parents[1] / "evaluation" / "report_sample.py"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
)
# What a page that frames the report finds in it, written where a dump of the page shows it.
PROBE = """
<iframe srcdoc="%s" style="border:0;width:%dpx;height:800px"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  const visible = (group) => [...group.children].filter((c) => c.matches(".panel") && !c.hidden).length;
  document.getElementById("found").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth,
    panels: [...page.querySelectorAll(".tabs.live")].map(visible),
    chosen: [...page.querySelectorAll("[aria-selected=true]")].map((tab) => tab.textContent),
    pictures: [...page.querySelectorAll("svg")].filter((s) => s.closest("[hidden]") === null)
      .map((s) => Math.min(s.getBoundingClientRect().width, s.getBoundingClientRect().height)),
  });
});
</script>
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    report: dict[str, Any] = runpy.run_path(str(SAMPLE))["sample_report"]()
    return report


def browse(folder: Path, markup: str) -> tuple[str, list[str]]:
    """Returns the page as the browser sees it, and what it wrote to its console."""
    page = folder / "report.html"
    page.write_text(markup, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, profile, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_opens_and_its_script_runs_without_a_complaint(
    tmp_path: Path, sample: dict[str, Any]
) -> None:
    seen, console = browse(tmp_path, render_report(sample))
    assert console == []
    assert seen.count('role="tablist"') == 3
    assert "<title>Complete Journey" in seen


def test_a_hostile_log_runs_nothing(tmp_path: Path, sample: dict[str, Any]) -> None:
    attack = (
        "</title></script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    )
    sample = sample | {"name": attack, "examples": [sample["examples"][0] | {"user_id": attack}]}
    seen, console = browse(tmp_path, render_report(sample))
    assert console == []
    assert "<title>owned" not in seen
    assert "<img" not in seen


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_its_window_and_shows_one_panel_of_each_group(
    tmp_path: Path, sample: dict[str, Any], width: int
) -> None:
    seen, _ = browse(tmp_path, PROBE % (html.escape(render_report(sample), quote=True), width))
    written = re.search('<pre id="found">(.+?)</pre>', seen)
    assert written is not None
    found = json.loads(html.unescape(written[1]))
    assert found["width"] <= width
    assert found["panels"] == [1, 1, 1]
    assert found["chosen"] == ["K = 10", "K = 10", "User 1228"]
    assert min(found["pictures"]) > 5
