"""A day whose lists are made by processes is the day of one process, with what it carries."""

import shutil
from importlib import resources

import polars as pl
from tests.cli.commands import forecart

from forecart import artifacts

DAYS = ("2025-04-05", "2025-04-06")


def test_a_day_by_processes_is_the_same_day(nano, tmp_path):
    config = tmp_path / "forecart.toml"
    text = resources.files("forecart.configs").joinpath("nano.toml").read_text()
    config.write_text(f"{text}\n[candidates]\nblock_users = 2\n")
    first, alone, two = (tmp_path / name for name in ("first", "alone", "two"))
    shutil.copytree(nano.folder, first)
    forecart("run", config, "--output", first, "--as-of", DAYS[0])
    for folder, num_workers in ((alone, 1), (two, 2)):
        shutil.copytree(first, folder)
        told = forecart("run", config, "--output", folder, "--as-of", DAYS[1], "--workers", num_workers)
        assert f"(local, {num_workers} at once)" in told.stderr
    days = [artifacts.hash_folder(folder / "days") for folder in (alone, two)]
    for files in days:
        for path in [path for path in files if path.endswith("day.json")]:
            del files[path]  # says how long it took
    assert days[0] == days[1]
    lists = pl.read_parquet(two / "days/20250406T000000Z/candidates/advertisers/part-*.parquet")
    moments = lists.group_by("user_id").agg(pl.col("as_of").unique())["as_of"]
    assert lists["as_of"].n_unique() == 2 and moments.list.len().max() == 1


def test_an_address_goes_with_ray(tmp_path):
    words = ["run", "nano", "--output", tmp_path / "run", "--ray-address", "127.0.0.1:1"]
    assert "goes with the engine ray, local was asked for" in forecart(*words, code=2).stderr
    words = ["candidates", "generate", "nano", "--output", tmp_path / "run", "--ray-address", "127.0.0.1:1"]
    assert "goes with the engine ray" in forecart(*words, code=2).stderr
    assert not (tmp_path / "run").exists()
