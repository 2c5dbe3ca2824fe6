"""Objects over HTTP: read, written, listed, created once; a log among them is read as one of the disk."""

import gzip
import subprocess
import sys
import threading

import polars as pl
import pytest
from tests.cli.commands import forecart, write_json_lines, write_log
from tests.s3_server import pointed_at_nothing

from forecart.config import parse_config
from forecart.errors import ConfigError, DataError, StoreError
from forecart.events.adapters import open_adapter
from forecart.events.ingest import ingest_events
from forecart.object_store import ObjectPath, describe_objects, expand, to_place
from forecart.run_plan import RunPlan

CONFIG = """
name = "log"
[source]
adapter = "files"
events = [{events}]
[labels]
positives = {{ checkout = 1.0 }}
[split]
as_of = 2024-02-20
"""


def make_config(*events):
    return parse_config(CONFIG.format(events=", ".join(f"'{one}'" for one in events)), where="test")


def ingest(folder, *events):
    config = make_config(*events)
    facts = ingest_events(open_adapter(config.source), folder, config=config.events)
    return facts, pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])


def test_bytes_go_there_and_come_back(place, tmp_path):
    one = place / "folder/one.bin"
    assert one.read_bytes() is None and not one.is_file() and place.sizes() == {}
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    one.upload(tmp_path / "file")
    (place / "folder/two").write_bytes(b"two")
    one.download(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x" * 100_000 and one.is_file()
    assert place.sizes() == {"folder/one.bin": 100_000, "folder/two": 3}
    one.remove()
    one.remove()
    assert place.sizes() == {"folder/two": 3}
    with pytest.raises(FileNotFoundError):
        one.download(tmp_path / "gone")


def test_of_eight_who_create_one_object_one_does(place):
    won, barrier = [], threading.Barrier(8)

    def create(number):
        barrier.wait()
        if (place / "one").create(b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and (place / "one").read_bytes() == b"%d" % won[0]


def test_names_are_taken_apart_like_paths():
    place = ObjectPath("s3://bucket/log/day.csv.gz")
    assert (place.name, place.suffix, place.stem) == ("day.csv.gz", ".gz", "day.csv")
    assert str(place / "x") == "s3://bucket/log/day.csv.gz/x"
    assert to_place("file:///tmp/x") == to_place("/tmp/x") and to_place(place) is place
    assert ObjectPath("s3://bucket/*.csv").is_wild and not place.is_wild


@pytest.mark.parametrize(
    ("url", "words"),
    [("s3://", "bucket"), ("s3://an-id:a-secret@bucket/x", "credentials"), ("nil://b/x", "nil")],
)
def test_a_url_that_is_none_is_told(url, words):
    with pytest.raises(ConfigError, match=words) as found:
        ObjectPath(url).read_bytes()
    assert "a-secret" not in str(found.value)


def test_a_configuration_with_credentials_is_refused_without_repeating_them():
    with pytest.raises(ConfigError, match="environment of the process"):
        make_config("s3://an-id:a-secret@bucket/x.csv")


def test_a_store_that_is_down_is_one_line(s3, place):
    with pointed_at_nothing(), pytest.raises(StoreError, match="must answer") as found:
        place.read_bytes()
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in str(found.value)


def test_without_the_client_the_line_says_what_to_install(place):
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from forecart.object_store import ObjectPath\n"
        "try:\n    ObjectPath('s3://bucket/x').read_bytes()\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'forecart[s3]'" in done.stdout


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_log_of_objects_is_the_log_of_the_files(s3, place, tmp_path, kind):
    local = []
    for number in range(2):
        path = tmp_path / f"day-{number}.{kind}"
        plain = (
            write_json_lines(tmp_path / "x") if kind == "jsonl" else write_log(tmp_path / "x", num_days=40)
        )
        if kind == "csv.gz":
            path.write_bytes(gzip.compress(plain.read_bytes()))
        elif kind == "parquet":
            pl.read_csv(plain).write_parquet(path)
        else:
            path.write_bytes(plain.read_bytes())
        (place / f"log/{path.name}").upload(path)
        local.append(path)
    there = ingest(tmp_path / "there", place / f"log/*.{kind}")
    here = ingest(tmp_path / "here", *local)
    assert there[0]["counts"] == here[0]["counts"] and there[0]["counts"]["accepted"] > 0
    assert there[1].equals(here[1])


def test_a_rejected_row_says_which_object_and_where(place, tmp_path):
    lines = write_log(tmp_path / "log.csv").read_text().splitlines()
    lines.insert(8, "u1,checkout,a1,i1,no time")
    (place / "log/day.csv").write_bytes("\n".join(lines).encode() + b"\n")
    ingest(tmp_path / "events", place / "log/*.csv")
    quarantined = pl.read_parquet(tmp_path / "events/quarantine.parquet")
    assert quarantined.height == 1
    row = quarantined.row(0, named=True)
    assert (row["source"], row["offset"]) == (str(place / "log/day.csv"), 7)


def test_a_pattern_is_read_by_name_and_one_that_fits_nothing_is_told(place):
    for name in ("b", "a", "c"):
        (place / f"{name}.csv").write_bytes(b"x")
    assert expand([place / "*.csv"]) == [place / f"{name}.csv" for name in "abc"]
    with pytest.raises(DataError, match="fits none"):
        expand([place / "*.parquet"])


def test_an_object_that_comes_or_changes_makes_the_log_another(place, tmp_path):
    config = make_config(place / "*.csv")

    def key():
        return RunPlan(config, tmp_path).events_key()

    (place / "a.csv").write_bytes(b"one")
    first = key()
    assert key() == first and describe_objects([place / "a.csv"])[0][1] == 3
    (place / "a.csv").write_bytes(b"two")
    second = key()
    (place / "b.csv").write_bytes(b"one")
    assert len({first, second, key()}) == 3


def test_init_writes_a_configuration_for_objects(place, tmp_path):
    (place / "log/a.csv").upload(write_log(tmp_path / "log.csv"))
    forecart("init", place / "log/*.csv", "--output", tmp_path / "log.toml")
    assert f"{place}/log/*.csv" in (tmp_path / "log.toml").read_text()
    found = forecart("events", "validate", tmp_path / "log.toml", "--output", tmp_path / "run")
    assert "300 rows read, 300 accepted" in found.stdout


def test_a_log_that_is_not_there_is_told(place, tmp_path):
    with pytest.raises(DataError, match="none is there"):
        ingest(tmp_path / "events", place / "none.csv")
