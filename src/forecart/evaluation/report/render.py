"""The page: sections in their order, one style, one small script, and a policy that allows nothing else.

The content security policy lets the page load nothing from anywhere and run only the script that is in it,
so even markup that slipped through could neither fetch nor run.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from forecart.evaluation.report.calibration import calibration
from forecart.evaluation.report.comparison import comparison
from forecart.evaluation.report.data import data
from forecart.evaluation.report.guide import guide, provenance
from forecart.evaluation.report.headline import LEVELS, headline
from forecart.evaluation.report.markup import Html, clip, tag
from forecart.evaluation.report.numbers import mapping
from forecart.evaluation.report.people import people
from forecart.evaluation.report.training import training


def render_report(report: Mapping[str, Any]) -> str:
    """Returns the report as one HTML page that needs no network and no other file.

    Sections whose figures the report lacks are left out; nothing is made up. Ids, titles and every other
    string of the report are shown as text, whatever they hold.

    Args:
        report: the parsed `report.json`.
    """
    chapters = [
        (title, comparison(key, mapping(report.get(key)), title=title)) for key, title in LEVELS.items()
    ]
    sections = [
        ("Result", headline(report)),
        *chapters,
        ("Calibration", calibration(report)),
        ("Users", people(report)),
        ("Training", training(report)),
        ("Data", data(report)),
        ("How to read", guide()),
        ("Provenance", provenance(report)),
    ]
    shown = [(name, section) for name, section in sections if section is not None]
    name = clip(str(report.get("name") or "untitled run"), 80)
    body = tag("body", _navigation(shown), tag("main", *(section for _, section in shown)), _script())
    return f"<!doctype html>\n{tag('html', _head(name), body, lang='en')}\n"


def _head(name: str) -> Html:
    style = _resource("page.css")
    digest = base64.b64encode(hashlib.sha256(_resource("page.js").encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    # An empty icon keeps the browser from asking a server for one.
    icon = Html('<link rel="icon" href="data:,">')
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content=f"{policy}; img-src data:; form-action 'none'",
        ),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", f"{name} · forecart report"),
        icon,
        tag("style", Html(style)),
    )


def _navigation(sections: list[tuple[str, Html]]) -> Html:
    anchors = {
        "Result": "result",
        "Calibration": "calibration",
        "Users": "users",
        "Training": "training",
        "Data": "data",
    }
    anchors |= {"How to read": "guide", "Provenance": "provenance"}
    anchors |= {title: key.replace("_", "-") for key, title in LEVELS.items()}
    links = [tag("a", name, href=f"#{anchors[name]}") for name, _ in sections]
    return tag("nav", *links, aria_label="Sections")


def _script() -> Html:
    return tag("script", Html(_resource("page.js")))


def _resource(name: str) -> str:
    return files("forecart.evaluation.report").joinpath(name).read_text(encoding="utf-8")
