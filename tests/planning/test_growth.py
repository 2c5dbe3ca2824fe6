"""The growth benchmark: its log, what it counts, its laws and its page."""

import xml.etree.ElementTree as ElementTree
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks import growth
from benchmarks.growth_page import render
from benchmarks.growth_plot import Series, draw
from benchmarks.raw_log import NUM_DAYS, START, Shape, write_catalogue, write_raw_log
from benchmarks.stage_cost import STAGES, build_config, count_bytes, count_sizes, measure_stage, measured

from forecart import artifacts
from forecart.planning.laws import load_laws

ROOT = Path(__file__).parents[2]
SHAPE = Shape(num_events=4_000, num_users=100, num_items=300, num_advertisers=30)
SVG = "{http://www.w3.org/2000/svg}"


def test_a_raw_log_is_of_its_shape_and_the_same_again(tmp_path):
    paths = write_raw_log(tmp_path / "one", SHAPE, block_rows=1_500)
    assert [pl.read_parquet(path).height for path in paths] == [1_500, 1_500, 1_000]
    again = write_raw_log(tmp_path / "two", SHAPE, block_rows=1_500)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    log = pl.concat([pl.read_parquet(path) for path in paths])
    assert log["event_id"].n_unique() == 4_000 and log["user_id"].n_unique() == 100
    assert log["occurred_at"].is_sorted() and (log["arrived_at"] >= log["occurred_at"]).all()
    assert log["occurred_at"].min() >= START and log["occurred_at"].max() < START + timedelta(days=NUM_DAYS)
    item = log["item_id"].str.strip_prefix("i").cast(pl.Int64)
    assert (item % 30 == log["advertiser_id"].str.strip_prefix("a").cast(pl.Int64)).all()
    # The share of rank r is log((r + 2) / (r + 1)) / log(301): .121 and .071 for the first two.
    shares = [(item == rank).mean() for rank in (0, 1)]
    assert shares == pytest.approx([np.log(2) / np.log(301), np.log(1.5) / np.log(301)], abs=0.02)


def test_a_log_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one of each"):
        Shape(0, 1, 1)


def test_what_is_measured_is_the_work_inside():
    with measured() as cost:
        held = np.ones(30_000_000)  # 240 MB
        total = sum(value for value in range(3_000_000))
    facts = cost.to_facts()
    assert held[0] and total and 0.24 < facts["own_gb"] <= facts["resident_gb"]
    assert 0 < facts["cpu_s"] <= facts["wall_s"] + 0.05


def test_every_stage_runs_in_a_process_of_its_own(tmp_path):
    logs = write_raw_log(tmp_path / "raw", SHAPE)
    write_catalogue(tmp_path / "raw/catalogue.parquet", SHAPE)
    config = build_config(
        logs, catalogue=tmp_path / "raw/catalogue.parquet", num_partitions=2, as_of=growth.AS_OF
    )
    for stage in STAGES:
        facts = measure_stage(config, tmp_path / "run", stage)
        assert facts["cpu_s"] > 0 and facts["disk_bytes"] == count_bytes(tmp_path / "run" / stage) > 0
    sizes = {"num_events": 4_000, "num_users": 100, "num_advertisers": 30, "num_items": 300}
    assert count_sizes(tmp_path / "run") == {**sizes, "num_catalogue": 300}
    lists = pl.read_parquet(tmp_path / "run/candidates/advertisers/part-*.parquet")
    assert lists["user_id"].n_unique() == 100, "candidates are of everybody"
    with pytest.raises(RuntimeError, match="must end well"):
        measure_stage(config, tmp_path / "run", "unknown")


def test_a_stage_that_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "shape_of", lambda axis, size: Shape(size, 100, 300, 30))
    asked = []

    def fail_at(last):
        def measure_stage(config, folder, stage):
            asked.append(stage)
            if stage == last:
                raise RuntimeError("killed")
            artifacts.write_json(folder / "events/manifest.json", {"counts": {"accepted": 4_000}})
            pl.DataFrame({"item_id": []}).write_parquet(folder / "events/catalogue.parquet")
            return {"cpu_s": float(len(asked))}

        return measure_stage

    monkeypatch.setattr(growth, "measure_stage", fail_at("training"))
    with pytest.raises(RuntimeError, match="killed"):
        growth.measure("events", 4_000, tmp_path)
    written = (tmp_path / "raw/events-00000.parquet").stat().st_mtime_ns
    monkeypatch.setattr(growth, "measure_stage", fail_at(None))
    rows = growth.measure("events", 4_000, tmp_path)
    assert asked == ["events", "sequences", "training", "training", "candidates", "publish"]
    assert [row["stage"] for row in rows] == ["raw log", *STAGES]
    assert [row["cpu_s"] for row in rows[1:]] == [1, 2, 4, 5, 6] and rows[0]["wall_s"] > 0
    assert (tmp_path / "raw/events-00000.parquet").stat().st_mtime_ns == written


def row(axis, stage, size, cpu_s, own_gb):
    return {"axis": axis, "stage": stage, growth.AXES[axis].size: size, "cpu_s": cpu_s, "own_gb": own_gb}


def test_laws_are_fitted_to_what_took_its_time():
    rows = [row("events", "events", size, 3e-6 * size, 0.5 + size / 1e8) for size in (1e5, 1e6, 1e7)]
    # Half a second is not fitted: the law must not see it.
    rows.append(row("events", "events", 3e4, 0.5, 0.5))
    rows += [row("items", "events", size, 1e-6 * size, 0.3) for size in (2e6, 4e6)]
    rows += [row("items", "sequences", size, 2e-6 * size, 0.6) for size in (2e6, 4e6)]
    found = growth.fit(rows)
    law = found["laws"]["events by events"]
    assert (law["power"], law["smallest"], law["num_sizes"]) == (pytest.approx(1.0), 1e6, 2)
    both = found["laws"]["items by items"]
    assert both["factor"] == pytest.approx(3e-6, rel=1e-6), "reading the feed and the vocabulary together"
    assert found["memory"]["items by items"]["base_gb"] == pytest.approx(0.6)
    assert "training by users" not in found["laws"]


def test_the_plot_shows_every_point_and_every_law():
    laws = {"events by events": {"factor": 1e-6, "power": 1.0, "smallest": 1e6, "largest": 1e7}}
    laws["events by events"] |= {"num_sizes": 2, "residual": 0.0}
    series = [
        Series("events by events", [(1e5, 0.1), (1e6, 2.0), (1e7, 10.0)]),
        Series("a < b", [(1e6, 5.0)]),
    ]
    picture = ElementTree.fromstring(draw(series, laws, least_cpu_s=2.0))
    dots = picture.findall(f"{SVG}circle")
    assert len(dots) == 4 + len(series)  # the legend has one each
    assert [dot.get("fill") for dot in dots].count("none") == 1, "what took less than two seconds is hollow"
    texts = [text.text for text in picture.findall(f"{SVG}text")]
    assert "events by events: n^1.00" in texts and "a < b" in texts
    lines = [line for line in picture.findall(f"{SVG}line") if line.get("class") == "law"]
    assert len(lines) == 1 and float(lines[0].get("x1")) < float(lines[0].get("x2"))
    assert float(lines[0].get("y1")) > float(lines[0].get("y2"))


def test_the_page_and_its_plot_are_what_is_stored():
    result, found = artifacts.read_json(growth.RESULT), load_laws()
    written = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert written == render(result, found), "run: python -m benchmarks.growth --render"
    plot = (ROOT / "docs" / "scaling.svg").read_text(encoding="utf-8")
    assert plot == growth.draw_rows(result["rows"], found["laws"])


def test_the_laws_of_the_package_are_those_of_the_stored_rows():
    stored, found = artifacts.read_json(growth.RESULT), load_laws()
    fitted = growth.fit(stored["rows"])
    assert fitted["laws"].keys() == found["laws"].keys()
    for name, law in fitted["laws"].items():
        assert found["laws"][name] == pytest.approx(law, rel=1e-9)
    assert found["bytes"] == pytest.approx(growth.read_bytes(stored["rows"]))
    # Other benchmarks write what most of them are of: their figures may be newer, not of another form.
    assert growth.read_rates(stored["rows"]).keys() == found["rates"].keys()
