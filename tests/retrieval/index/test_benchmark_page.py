"""The tables of docs/benchmarks.md about indexes are those of the stored results."""

from pathlib import Path

import pytest
from benchmarks import retrieval_tables
from benchmarks.figures import RESULTS

from forecart import artifacts

PAGE = Path(__file__).parents[3] / "docs" / "benchmarks.md"
TABLES = {
    "scale-retrieval": retrieval_tables.render,
    "scale-retrieval-frontier": retrieval_tables.render_frontier,
    "scale-retrieval-large": retrieval_tables.render_large,
    "scale-compression": retrieval_tables.render_compression,
}


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_what_is_stored(name):
    assert TABLES[name](artifacts.read_json(RESULTS / f"{name}.json")) in PAGE.read_text()
