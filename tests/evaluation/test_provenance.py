"""What a result says of how it was made."""

import sys

import pytest

from forecart.evaluation.provenance import read_provenance


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("/opt/data/x.parquet", "x.parquet"),
        ("/opt/my data/x.parquet", "x.parquet"),
        ("name=/opt/env/bin/python", "name=python"),
        ("name=/opt/env/bin/python --checkout /opt/theirs", "name=python --checkout theirs"),
        ("data/x.parquet", "data/x.parquet"),
        ("--model={}", "--model={}"),
    ],
)
def test_the_command_names_no_folder_of_whoever_ran_it(monkeypatch, word, shown):
    monkeypatch.setattr(sys, "orig_argv", ["/opt/env/bin/python", "-m", "benchmarks.speed", word])
    assert read_provenance()["command"] == f"python -m benchmarks.speed {shown}"
