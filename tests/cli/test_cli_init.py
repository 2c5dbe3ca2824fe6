"""`forecart init` on strangers' logs: a file that parses, says what was guessed, and keeps what is there."""

import json

import pytest
from commands import forecart, write_json_lines, write_log

from forecart.config import load_config


def test_a_csv_with_odd_names(tmp_path):
    log = write_log(
        tmp_path / "shop export (1).csv", header="Customer ID,Action,Brand,SKU,Order Date", separator=";"
    )
    path = tmp_path / "made" / "shop.toml"
    said = forecart("init", log, "--output", path)
    assert said.stdout == f"{path}\n"
    assert (
        "guessed: user_id is the column 'Customer ID'" in said.stderr and "next: forecart run" in said.stderr
    )
    config = load_config(str(path))
    assert config.name == "shop-export-1" and config.source.separator == ";"
    assert config.source.events[0].resolve() == log.resolve()
    assert config.source.columns["occurred_at"] == "Order Date"
    assert config.levels == ["advertiser", "item"]
    assert config.split.as_of == config.split.test_cuts[0] and config.split.validate_before
    assert "# - item_id is the column 'SKU'" in path.read_text()


def test_paths_are_relative_where_the_log_is_beside_the_file(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    write_json_lines(tmp_path / "logs" / "log.jsonl")
    monkeypatch.chdir(tmp_path)
    forecart("init", "logs/log.jsonl")
    assert 'events = ["logs/log.jsonl"]' in (tmp_path / "forecart.toml").read_text()
    monkeypatch.chdir("/")
    assert load_config(str(tmp_path / "forecart.toml")).source.events == [tmp_path / "logs" / "log.jsonl"]


def test_a_feed_is_read_for_content(tmp_path):
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title,brand\n" + "".join(f"i{number},Lamp {number},a1\n" for number in range(9)))
    path = tmp_path / "run.toml"
    forecart("init", write_log(tmp_path / "log.csv"), feed, "--output", path)
    config = load_config(str(path))
    assert config.source.catalogue == feed and config.next_product.model.id_embedding == "none"
    forecart("init", tmp_path / "log.csv", "--output", path, "--force")
    assert load_config(str(path)).next_product.model.id_embedding == "hashed"


@pytest.mark.parametrize(
    ("header", "levels"),
    [
        ("user_id,event_type,advertiser_id,x,occurred_at", ["advertiser"]),
        ("user_id,event_type,x,item_id,occurred_at", ["item"]),
    ],
)
def test_what_the_log_does_not_name_is_not_predicted(tmp_path, header, levels):
    path = tmp_path / "run.toml"
    forecart("init", write_log(tmp_path / "log.csv", header=header), "--output", path)
    assert load_config(str(path)).levels == levels


def test_a_short_log_gets_training_cuts_closer_together(tmp_path):
    paths = [tmp_path / "short.toml", tmp_path / "long.toml"]
    for path, num_days in zip(paths, (30, 100), strict=True):
        forecart("init", write_log(tmp_path / f"{path.stem}.csv", num_days=num_days), "--output", path)
    assert [load_config(str(path)).next_advertiser.training.cut_stride_days for path in paths] == [2, 7]


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    path = tmp_path / "forecart.toml"
    path.write_text("mine")
    log = write_log(tmp_path / "log.csv")
    assert "--force" in forecart("init", log, "--output", path, code=2).stderr
    assert path.read_text() == "mine"
    forecart("init", log, "--output", path, "--force", "--quiet")
    assert load_config(str(path)).name == "log"


def test_a_log_without_users_is_refused_in_words(tmp_path):
    path = tmp_path / "forecart.toml"
    log = write_log(tmp_path / "log.csv", header="x,event_type,brand,sku,date")
    said = forecart("init", log, "--output", path, code=2)
    assert said.stderr.startswith("error: a log must say who acted") and "x, event_type" in said.stderr
    assert not path.exists()


def test_a_log_that_is_not_there(tmp_path):
    assert "none.csv" in forecart("init", tmp_path / "none.csv", code=2).stderr


def test_names_cannot_break_out_of_the_file(tmp_path):
    log = write_log(tmp_path / 'a"b\\c\nseed = 9.csv')
    path = tmp_path / "run.toml"
    forecart("init", log, "--output", path)
    config = load_config(str(path))
    assert config.seed == 1 and config.source.events == [log]


def test_as_json(tmp_path):
    said = forecart("init", write_log(tmp_path / "log.csv"), "-o", tmp_path / "run.toml", "--json", "--quiet")
    found = json.loads(said.stdout)
    assert said.stderr == "" and found["values"]["labels"]["positives"] == {"checkout": 1.0}
    assert any("label window of 7 days" in sentence for sentence in found["guessed"])
