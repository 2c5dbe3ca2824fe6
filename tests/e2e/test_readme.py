"""What README and tutorial show works as it stands there."""

import shutil
from pathlib import Path

import polars as pl
from documents import run_document

ROOT = Path(__file__).parents[2]


def test_the_commands_of_the_readme_work(nano, tmp_path):
    (tmp_path / "runs").mkdir()
    shutil.copytree(nano.folder, tmp_path / "runs" / "nano")
    (tmp_path / "runs" / "demo").symlink_to(tmp_path / "runs" / "nano")
    (tmp_path / "forecart").symlink_to(ROOT)
    parts = sorted((nano.folder / "events").glob("part-*.parquet"))
    log = pl.concat([pl.read_parquet(path) for path in parts]).head(4000)
    log.select("user_id", "event_type", "advertiser_id", "item_id", "occurred_at").write_csv(
        tmp_path / "events.csv"
    )
    catalogue = pl.read_parquet(nano.folder / "events" / "catalogue.parquet").drop("embedding")
    catalogue.write_csv(tmp_path / "catalogue.csv")
    run_document(ROOT / "README.md", tmp_path, user=log["user_id"][0])


def test_the_tutorial_works_from_its_first_line(tmp_path):
    assert run_document(ROOT / "docs" / "tutorial.md", tmp_path, with_output=True) >= 4
    report = (tmp_path / "runs" / "events" / "report.html").read_text(encoding="utf-8")
    assert "popularity_7d" in report
