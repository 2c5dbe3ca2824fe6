"""Events and sequences by processes are those of this process."""

import polars as pl
import pytest
from tests.engine.preparation import NUM_REPEATS, prepare, write_files

from forecart import artifacts
from forecart.engine.local import LocalEngine
from forecart.errors import ArtifactError
from forecart.sequences.build import build_sequences


def test_files_and_partitions_by_processes_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = write_files(tmp_path)
    alone = prepare(names, tmp_path / "alone")
    assert prepare(names, tmp_path / "two", engine=LocalEngine(2)) == alone
    hashes, counts, _ = alone
    assert {"events/quarantine.parquet", "events/part-00002.parquet", "sequences/histories/item.npy"} <= set(
        hashes
    )
    assert counts["accepted"] == 900 and counts["duplicates"] == NUM_REPEATS // 2 * 2
    # In the order of the files, whoever read them.
    rejected = pl.read_parquet(tmp_path / "two/events/quarantine.parquet")
    assert rejected["source"].to_list() == names and counts["rejected"] == {rejected["reason"][0]: 5}
    assert not list((tmp_path / "two").rglob(".*"))


def test_a_user_in_two_partitions_is_seen_whoever_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = write_files(tmp_path)
    prepare(names, tmp_path / "run")
    events = tmp_path / "run/events"
    first = pl.read_parquet(events / "part-00000.parquet")
    second = pl.concat([pl.read_parquet(events / "part-00001.parquet"), first.head(1)])
    artifacts.write_parquet(events / "part-00001.parquet", second)
    with pytest.raises(ArtifactError, match="in one partition"):
        build_sequences(events, tmp_path / "again", read_until_us=2**62, engine=LocalEngine(2))
