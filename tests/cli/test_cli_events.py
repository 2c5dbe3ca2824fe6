"""`forecart events validate`: counts, reasons, examples, and an exit code for a log that is too broken."""

import json

from commands import forecart, write_log


def configure(tmp_path, *, num_broken):
    log = write_log(tmp_path / "log.csv")
    lines = log.read_text().splitlines()
    lines[3:3] = ["u1,checkout,a1,i1,yesterday"] * num_broken
    forecart("init", log, "--output", tmp_path / "run.toml", "--quiet")
    log.write_text("\n".join(lines) + "\n")
    return tmp_path / "run.toml"


def test_a_sound_log(tmp_path):
    path = configure(tmp_path, num_broken=2)
    said = forecart("events", "validate", path, "--output", tmp_path / "run")
    assert "log: 302 rows read, 300 accepted, 0 duplicates" in said.stdout
    assert "log.csv row 2: " in said.stdout and "yesterday" in said.stdout and "users: 5" in said.stdout
    found = json.loads(forecart("events", "validate", path, "-o", tmp_path / "run", "--json", "-q").stdout)
    assert found["is_accepted"] and sum(found["counts"]["rejected"].values()) == 2
    assert [row["offset"] for row in found["sample"]] == [2, 3]


def test_a_log_with_too_many_broken_rows_exits_with_1(tmp_path):
    path = configure(tmp_path, num_broken=30)
    words = ["events", "validate", path, "--output", tmp_path / "run", "--sample", 1]
    said = forecart(*words, code=1)
    assert "at most 2.0% of the events may be rejected" in said.stderr and "rejected: 30" in said.stdout
    found = json.loads(forecart(*words, "--json", code=1).stdout)
    assert not found["is_accepted"] and len(found["sample"]) == 1 and sum(found["rejected"].values()) == 30


def test_a_log_that_is_gone_is_a_mistake_and_not_a_broken_log(tmp_path):
    path = configure(tmp_path, num_broken=30)
    forecart("events", "validate", path, "--output", tmp_path / "run", code=1)
    (tmp_path / "log.csv").unlink()
    said = forecart("events", "validate", path, "--output", tmp_path / "run", code=2)
    assert said.stdout == "" and "log.csv" in said.stderr
