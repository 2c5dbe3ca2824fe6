"""The page says what the report says: no figure of its own, the interval's verdict, no foreign markup."""

import copy
import functools
import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from report_sample import sample_report

from forecart.evaluation.report import render_report

VOID = {"meta", "link", "br", "hr", "img", "input"}
NUMBER = re.compile(r"[+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style><img src=x onerror=alert(3)>",
    "\"><svg onload=alert(4)>",
    "' onmouseover='alert(5)",
    "javascript:alert(6)",
    "<a href=\"https://evil.example\">x</a>",
    "<!-- --><iframe srcdoc='x'>",
    "&lt;b&gt; &#60;script&#62; &amp;",
    "]]><![CDATA[<x>",
    "\x00\x1b\u202eevil\ud800",
    "{{7*7}} ${7*7} </title></table></svg></bdi>",
)  # fmt: skip


class Page(HTMLParser):
    """What a page is made of: elements, attributes, and the texts that a person reads."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script":
            self.scripts.append(data)
        elif tag != "style" and attributes.get("class") != "tick":
            self.texts.append(data)

    @property
    def tips(self) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get("data-tip"))]

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


@functools.cache
def sample_html() -> str:
    return render_report(sample_report())


@functools.cache
def sample_page() -> Page:
    return Page(sample_html())


def leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def forms(value: float) -> set[str]:
    """Every way a figure may be written, from its decimals alone."""
    size = abs(value)
    bare = {f"{size:.4f}", f"{size:.6f}", f"{size:.4g}"}
    if value == int(value) or size >= 1000:
        bare.add(f"{size:,.0f}")
    bare |= {form.removeprefix("0") for form in bare if form.startswith("0.")}
    return bare | {("+" if value > 0 else "−") + form for form in bare}


def known_numbers(report: dict[str, Any]) -> set[str]:
    known: set[str] = set()
    for leaf in leaves(report):
        if isinstance(leaf, str):
            known |= set(NUMBER.findall(leaf))
        elif not isinstance(leaf, bool) and leaf is not None:
            known |= forms(leaf)
    events = report["data"]["events"]
    parts = [*leaves(events), *report["data"]["events_by_type"].values()]
    wholes = (events["rows_read"], sum(report["data"]["events_by_type"].values()))
    known |= {f"{100 * part / whole:.1f}" for part in parts if isinstance(part, int) for whole in wholes}
    return known


def shown_numbers(page: Page) -> set[str]:
    return {token.rstrip(",") for text in [*page.texts, *page.tips] for token in NUMBER.findall(text)}


def test_every_number_on_the_page_is_one_of_the_report() -> None:
    report = sample_report()
    prose = shown_numbers(Page(render_report({"name": "x"})))
    # Counts of the report's own entries (baselines ahead of, events not shown), and what the prose says.
    counted = {str(size) for size in range(len(report["next_advertiser"]["all"]["baselines"]) + 2)}
    said = {"95", "90", "40", ".1"}
    unknown = shown_numbers(sample_page()) - known_numbers(report) - prose - counted - said
    assert unknown == set()


def test_a_changed_figure_changes_the_page() -> None:
    report = sample_report()
    report["next_advertiser"]["novel"]["model"]["recall_at_100"] = 0.987654
    report["next_product"]["per_cut"]["2017-12-08"]["all"]["model"]["recall_at_10"] = 0.87654
    report["next_product"]["slices"]["tail"]["num_relevant"] = 7_654_321
    report["data"]["events"]["rejected"]["no user"] = 123_456_789
    shown = Page(render_report(report)).text
    assert all(figure in shown for figure in (".9877", ".8765", "7,654,321", "123,456,789"))
    assert "the counts do not add up" in shown


def table_of(verdict: tuple[float, float, float]) -> dict[str, Any]:
    mean, low, high = verdict
    entry = {"mean": mean, "ci_low": low, "ci_high": high, "minimum_detectable": 0.0123}
    metrics = ("recall_at_10", "recall_at_100")
    return {
        "model": dict.fromkeys(metrics, 0.3),
        "baselines": {
            "weak": dict.fromkeys(metrics, 0.1),
            "strong": dict.fromkeys(metrics, 0.3 - mean),
            "model_no_encoder": dict.fromkeys(metrics, 0.9),
        },
        "difference": {
            metric: {
                "weak": {"mean": 0.2, "ci_low": 0.1, "ci_high": 0.3},
                "strong": entry,
                "model_no_encoder": {"mean": -0.6, "ci_low": -0.7, "ci_high": -0.5},
            }
            for metric in metrics
        },
    }


@pytest.mark.parametrize(
    ("verdict", "claim", "tally", "class_"),
    [
        ((0.05, 0.01, 0.09), "is ahead of the best baseline", "ahead of 2, level with 0, behind 0", "ahead"),
        (
            (0.01, -0.01, 0.03),
            "is level with the best baseline",
            "ahead of 1, level with 1, behind 0",
            "level",
        ),
        ((0.01, 0.0, 0.02), "is level with the best baseline", "ahead of 1, level with 1, behind 0", "level"),
        ((-0.05, -0.09, -0.01), "loses to the best baseline", "ahead of 1, level with 0, behind 1", "behind"),
    ],
)
def test_the_verdict_is_the_interval_against_the_best_baseline(
    verdict: tuple[float, float, float], claim: str, tally: str, class_: str
) -> None:
    page = Page(render_report({"name": "x", "next_product": {"all": table_of(verdict)}}))
    assert claim in page.text
    assert tally in page.text
    assert ("article", {"class": f"verdict-card {class_}"}) in page.elements
    others = {"ahead of the best", "level with the best", "loses to the best"} - {claim[3:-9], claim[:-9]}
    assert not any(other in page.text for other in others)
    assert ("smallest detectable difference .0123" in page.text) == (class_ == "level")


def test_losing_without_the_encoder_is_said_as_the_encoders_own_loss() -> None:
    page = Page(render_report({"next_product": {"all": table_of((0.05, 0.01, 0.09))}}))
    place = page.texts.index(next(text for text in page.texts if "encoder's own gain" in text))
    assert "behind" in "".join(page.texts[place : place + 4])
    assert "all −.6000 [−.7000,\N{NO-BREAK SPACE}−.5000]" in page.text


def small_report() -> dict[str, Any]:
    """A report with one of everything."""
    report, table = sample_report(), table_of((0.05, 0.01, 0.09))
    level = {
        "all": table,
        "novel": table,
        "per_cut": {"2017-12-01": {"all": table}},
        "slices": {"head": table},
    }
    for trained in report["training"].values():
        trained["curve"] = trained["curve"][:2]
    report["examples"] = report["examples"][:1]
    report["examples"][0] |= {
        key: report["examples"][0][key][:2] for key in ("events", "advertisers", "products")
    }
    report["data"]["events_by_week"] = report["data"]["events_by_week"][:2]
    report |= {"config": {"labels": {"window_days": 7}}, "provenance": {"commit": "bf9e1be4"}}
    report["training"] = {"next_advertiser": report["training"]["next_advertiser"]}
    return report | {"next_advertiser": level, "next_product": {"all": table}}


def poison(tree: Any, at: Iterator[str]) -> Any:
    """Returns the tree with something hostile behind every string and before every free name."""
    if isinstance(tree, dict):
        free = {"versions", "filtered", "rejected", "events_by_type", "slices", "baselines"}
        return {
            key: {f"{next(at)}{name}": poison(part, at) for name, part in value.items()}
            if key in free
            else poison(value, at)
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [poison(part, at) for part in tree]
    return f"{tree}{next(at)}" if isinstance(tree, str) else tree


@pytest.mark.parametrize("payload", HOSTILE)
def test_whatever_the_log_says_is_shown_as_text(payload: str) -> None:
    clean = Page(render_report(small_report()))

    def forever() -> Iterator[str]:
        while True:
            yield payload

    rendered = render_report(poison(small_report(), forever()))
    rendered.encode("utf-8")
    page = Page(rendered)
    assert not page.open
    assert page.scripts == clean.scripts
    assert {name for name, _ in page.elements} <= {name for name, _ in clean.elements}
    assert {key for _, attributes in page.elements for key in attributes} <= {
        key for _, attributes in clean.elements for key in attributes
    }
    readable = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "\ufffd", payload)
    assert readable in page.text


def test_the_page_asks_nobody_for_anything() -> None:
    rendered, page = sample_html(), sample_page()
    for name, attributes in page.elements:
        assert name not in {"img", "iframe", "object", "embed", "form", "base"}
        assert not {"src", "srcset", "action", "xlink:href", "background"} & set(attributes)
        assert not any(key.startswith("on") for key in attributes)
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp|import\(", rendered)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'")


def test_links_inside_the_page_lead_somewhere_and_ids_are_unique() -> None:
    page = sample_page()
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    targets = {href[1:] for _, a in page.elements if (href := a.get("href")) and href.startswith("#")}
    assert len(ids) == len(set(ids))
    assert targets == set(ids)


def test_every_picture_says_what_it_shows() -> None:
    page = sample_page()
    pictures = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(pictures) > 50
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)


def paths(tree: Any, depth: int) -> Iterator[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:1]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in paths(value, depth - 1))


def replace(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.copy(tree)
    if len(path) > 1:
        changed[path[0]] = replace(tree[path[0]], path[1:], value)
    elif value is ...:
        del changed[path[0]]
    else:
        changed[path[0]] = value
    return changed


def test_whatever_is_missing_or_of_another_kind_is_left_out() -> None:
    report = small_report()
    wrong = itertools.cycle((..., None, {}, [], "text", 0))
    for path in paths(report, 3):
        value = next(wrong)
        page = Page(render_report(replace(report, path, value)))
        assert not page.open, (path, value)
        assert not {"nan", "None"} & set(page.text.split()), (path, value)


def without_numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: without_numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_numbers(value) for value in tree]
    return float("nan") if isinstance(tree, int | float) and not isinstance(tree, bool) else tree


def test_what_is_not_a_number_is_never_written_as_one() -> None:
    report = without_numbers(small_report()) | {"config": {}, "schema_version": 1, "label_window_days": 7}
    page = Page(render_report(report))
    assert not {"nan", "NaN", "inf"} & set(re.findall(r"\w+", page.text))


def test_an_empty_report_says_that_there_is_nothing_yet() -> None:
    page = Page(render_report({}))
    assert "This report has no measures" in page.text
    assert "untitled run" in page.text


def test_a_report_of_baselines_alone_has_curves_and_no_verdict() -> None:
    report = sample_report()
    for table in (report["next_advertiser"][pool] for pool in ("all", "novel", "repeat")):
        table["model"], table["difference"] = {}, {}
    report["next_product"] = report["training"] = None
    page = Page(render_report(report))
    assert "The report has no model for this target" in page.text
    assert "Recall by length of the list" in page.text
    assert "The model against every baseline" not in page.text


def test_the_same_report_gives_the_same_page() -> None:
    assert render_report(sample_report()) == sample_html()
