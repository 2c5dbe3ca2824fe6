"""The tables of docs/benchmarks.md about indexes are those of the stored result."""

from pathlib import Path

from benchmarks.figures import RESULTS
from benchmarks.retrieval_tables import render

from forecart import artifacts

PAGE = Path(__file__).parents[3] / "docs" / "benchmarks.md"


def test_the_page_has_what_is_stored():
    assert render(artifacts.read_json(RESULTS / "scale-retrieval.json")) in PAGE.read_text()
