"""Days on the nano run: who is listed anew, what is carried, and that a day is what a rebuild would be."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from tests.cli.commands import START as SMALL_START
from tests.cli.commands import forecart, write_log

from forecart.config import load_config, validate_config
from forecart.daily import KEEP_DAYS, Day, run_day
from forecart.days import DAY_FILE, alone, list_days
from forecart.errors import ArtifactError, ConfigError
from forecart.observe import SilentReporter
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.lookup import look_up
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.publish.run_parts import read_run
from forecart.retrieval.candidates import Listing, write_candidates
from forecart.run_mirror import RunMirror
from forecart.sequences.vocabulary import Vocabulary
from forecart.workflow import Workflow

START = datetime(2025, 3, 21, tzinfo=UTC)
PARTS = "part-*.parquet"


@pytest.fixture(scope="module")
def config():
    """Nano with its sequences read up to the cut-off, so that later days bring new ids."""
    config = load_config("nano")
    split = config.split.model_copy(update={"test_cuts": []})
    candidates = config.candidates.model_copy(update={"as_of": config.split.as_of, "max_carry_days": 2})
    target = config.next_advertiser.model_copy(update={"ablate_encoder": False})
    return config.model_copy(update={"split": split, "candidates": candidates, "next_advertiser": target})


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    """A finished run and three days; its events, by user."""
    folder = tmp_path_factory.mktemp("daily") / "run"
    Workflow(config, folder).run()
    for number in range(3):
        run_day(config, folder, START + timedelta(days=number), reporter=SilentReporter())
    return folder


def lists_of(day, plural="advertisers"):
    return pl.read_parquet(day / "candidates" / plural / PARTS)


def users_with_events(folder, since, until):
    events = pl.read_parquet(folder / "events" / PARTS)
    return set(events.filter(pl.col("arrived_at").is_between(since, until, closed="left"))["user_id"])


def test_lists_are_made_anew_for_whom_something_arrived_and_for_nobody_else(config, folder):
    days = list_days(folder)
    assert len(days) == 3
    for number, (before, day) in enumerate(pairwise(days)):
        moment = START + timedelta(days=number + 1)
        news = users_with_events(folder, moment - timedelta(days=1), moment)
        known = set(lists_of(before)["user_id"])
        lists = lists_of(day)
        anew = set(lists.filter(pl.col("as_of") == moment)["user_id"])
        everyone = set(lists["user_id"])
        too_old = set(lists_of(before).filter(pl.col("as_of") < moment - timedelta(days=2))["user_id"])
        assert anew == (news & everyone) | (everyone - known) | too_old
        assert 0 < len(anew) < len(everyone)


def test_what_is_carried_is_what_it_was(folder):
    before, day = list_days(folder)[-2:]
    kept = lists_of(day).filter(pl.col("as_of") < START + timedelta(days=2))
    wanted = lists_of(before).filter(pl.col("user_id").is_in(kept["user_id"].unique().to_list()))
    assert len(kept) and kept.equals(wanted)


@pytest.mark.parametrize("level", ["advertiser", "item"])
def test_who_is_listed_anew_gets_what_a_rebuild_gives(config, folder, tmp_path, level):
    moment = START + timedelta(days=2)
    day = Day(Workflow(config, folder), moment)
    write_candidates(Listing(day.workflow.candidate_task(level)), tmp_path)
    plural = "advertisers" if level == "advertiser" else "products"
    rebuilt = pl.read_parquet(tmp_path / PARTS)
    daily = lists_of(day.folder, plural)
    assert daily["user_id"].unique(maintain_order=True).equals(rebuilt["user_id"].unique(maintain_order=True))
    anew = daily.filter(pl.col("as_of") == moment)
    both = anew.join(rebuilt, on=["user_id", "rank"], suffix="_rebuilt")
    assert len(both) == len(anew) > 1000
    # Other users in a batch: sums differ in their last bits.
    assert np.allclose(both["score"], both["score_rebuilt"], atol=1e-4)


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    """A log in which a user and an advertiser come after the training, and two days of it."""
    root = tmp_path_factory.mktemp("growing")
    path = write_log(root / "log.csv")
    late = [f"u{user},checkout,a9,,{SMALL_START + timedelta(60):%Y-%m-%d}T12:00:00" for user in (3, 9)]
    path.write_text(path.read_text() + "\n".join(late) + "\n")
    trained = (SMALL_START + timedelta(60)).replace(tzinfo=UTC)
    config = validate_config(
        {
            "source": {"adapter": "files", "events": [str(path)]},
            "labels": {"positives": {"checkout": 1.0}, "window_days": 7},
            "split": {"as_of": trained.isoformat(), "validate_before": False},
            "candidates": {"as_of": trained.isoformat()},
            "next_advertiser": {
                "model": {
                    "width": 16,
                    "num_layers": 1,
                    "history_length": 8,
                    "id_embedding": "table",
                    "prior": "learned",
                },
                "training": {"num_epochs": 1},
            },
            "next_product": {"is_enabled": False},
        },
        where="a test",
    )
    Workflow(config, root / "run").run()
    for number in range(2):
        run_day(config, root / "run", trained + timedelta(days=number), reporter=SilentReporter())
    return root / "run"


def test_ids_keep_their_indices_and_new_ones_come_after(growing):
    spaces = [growing / "sequences", *(day / "sequences" for day in list_days(growing))]
    for name, num_new in (("users", 1), ("advertisers", 1), ("items", 0)):
        found = [Vocabulary.load(space / "vocabularies" / name) for space in spaces]
        for old, new in pairwise(found):
            index = np.arange(2, len(old))
            assert new.ids(index) == old.ids(index)
        assert found[-1].num_ids == found[0].num_ids + num_new


def test_who_and_what_came_after_the_training_are_listed(growing):
    before, day = list_days(growing)
    assert "u9" not in set(lists_of(before)["user_id"])
    lists = lists_of(day)
    everyone = {user: rows["advertiser_id"].to_list() for (user,), rows in lists.group_by("user_id")}
    assert set(everyone) == {"u0", "u1", "u2", "u3", "u4", "u9"}
    # Bought by u3 and u9 on the last day: their own histories find it, though no model has seen it.
    assert everyone["u9"][0] == "a9" and "a9" in everyone["u3"]
    carried = lists.filter(pl.col("user_id") == "u0")
    assert carried.equals(lists_of(before).filter(pl.col("user_id") == "u0"))


def test_a_day_again_does_nothing_and_a_killed_one_goes_on(config, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    day = list_days(tmp_path / "run")[-1]
    before = {path: path.stat().st_mtime_ns for path in day.rglob("*.parquet")}
    first = run_day(config, tmp_path / "run", START + timedelta(days=2), reporter=SilentReporter())
    assert {path: path.stat().st_mtime_ns for path in day.rglob("*.parquet")} == before
    (day / "candidates/products/manifest.json").unlink()
    again = run_day(config, tmp_path / "run", START + timedelta(days=2), reporter=SilentReporter())
    assert again.facts["advertisers"] == first.facts["advertisers"]
    assert again.facts["products"]["num_carried"] == first.facts["products"]["num_carried"]


def test_old_days_are_removed_and_lists_go_on(config, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    for number in range(3, 6):
        run_day(config, tmp_path / "run", START + timedelta(days=number), reporter=SilentReporter())
    days = list_days(tmp_path / "run")
    assert len(days) == KEEP_DAYS
    assert lists_of(days[-1])["as_of"].min() >= START + timedelta(days=3)


def test_days_come_in_order_and_after_the_training(config, folder, tmp_path):
    with pytest.raises(
        ConfigError, match=rf"in their order, 20250323T000000Z is there.*remove {folder}/days/20250323"
    ):
        run_day(config, folder, START, reporter=SilentReporter())
    with pytest.raises(ConfigError, match="not before what the models learned from"):
        run_day(config, folder, datetime(2025, 3, 1, tzinfo=UTC), reporter=SilentReporter())
    with pytest.raises(ConfigError, match="over when it is run"):
        run_day(config, folder, datetime(2990, 1, 1, tzinfo=UTC), reporter=SilentReporter())
    with pytest.raises(ArtifactError, match="continues a finished run"):
        run_day(config, tmp_path, START, reporter=SilentReporter())


def test_a_day_is_published_with_the_age_of_each_list(config, folder, tmp_path):
    day, store = list_days(folder)[-1], EmbeddedStore(tmp_path)
    pointer = Publisher(tmp_path, store).publish(
        lambda suppressed: read_run(folder, day=day, suppressed=suppressed, ttl_s=86_400)
    )
    release = Releases(tmp_path).open(pointer.release_id)
    assert pointer.release_id.startswith("20250323T000000Z-")
    ages = lists_of(day).group_by("user_id").agg(pl.col("as_of").min().dt.timestamp("us"))
    products = lists_of(day, "products").group_by("user_id").agg(pl.col("as_of").min().dt.timestamp("us"))
    oldest = {user: at for user, at in ages.rows()}
    for user, at in products.rows():
        oldest[user] = min(at, oldest.get(user, at))
    now_us = release.manifest.as_of_us
    for user, at in list(oldest.items())[:200]:
        found = look_up(store, release, user, now_us=now_us)
        if now_us - at > 86_400 * 1_000_000:
            assert found.absence == "record_expired"
        else:
            assert found.record.as_of_us == at


def test_the_command_runs_a_day_and_publishes_it(nano, tmp_path):
    shutil.copytree(nano.folder, tmp_path / "nano")
    words = ["run", "nano", "--output", tmp_path / "nano", "--as-of", "2025-04-06"]
    done = forecart(*words, "--publish", tmp_path / "releases")
    assert done.stdout.splitlines()[-1].startswith("20250406T000000Z-")
    assert "advertisers: 395 of 395 users anew" in done.stdout
    assert "20250406T000000Z" in forecart("release", "list", "--releases", tmp_path / "releases").stdout
    error = forecart("run", "nano", "--publish", tmp_path / "releases", code=2).stderr
    assert "--publish goes with --as-of" in error


def test_status_says_how_far_a_run_is_and_what_is_served(nano, tmp_path):
    shutil.copytree(nano.folder, tmp_path / "nano")
    words = ["status", tmp_path / "nano", "--releases", tmp_path / "releases"]
    said = forecart(*words).stdout
    assert "complete: events, sequences, evaluation, advertisers, products" in said
    assert "day     none yet" in said and "served  nothing" in said
    assert forecart(*words, "--max-age-hours", "1e9", code=1).stdout == said
    day = ["run", "nano", "--output", tmp_path / "nano", "--as-of", "2025-04-06"]
    forecart(*day, "--publish", tmp_path / "releases")
    found = json.loads(forecart(*words, "--json", "--max-age-hours", "1e9").stdout)
    assert found["run"]["day"]["advertisers"]["num_encoded"] == 395 and not found["run"]["is_worked_on"]
    age = datetime.now(UTC) - datetime(2025, 4, 6, tzinfo=UTC)
    assert found["served"]["age_s"] == pytest.approx(age.total_seconds(), abs=60)
    # Its history is from long ago.
    late = forecart(*words, "--max-age-hours", "24", code=1).stdout
    assert "395 of 395 users' advertisers anew" in late and "history up to 2025-04-06T00:00:00+00:00" in late
    assert "must be the folder of a run" in forecart("status", tmp_path / "typo", code=2).stderr
    with alone(tmp_path / "nano"):
        assert "a process works on it" in forecart(*words).stdout
        error = forecart(*day[:-1], "2025-04-07", code=2).stderr
        assert "one process works on a run at a time" in error


def test_lists_of_another_rule_are_not_carried(config, folder):
    moment = START + timedelta(days=3)
    rerank = config.next_product.rerank.model_copy(update={"is_enabled": True})
    target = config.next_product.model_copy(update={"rerank": rerank})
    for changed, is_carried in ((config, True), (config.model_copy(update={"next_product": target}), False)):
        day = Day(Workflow(changed, folder), moment)
        assert day._table_before("advertiser") is not None
        assert (day._table_before("item") is not None) == is_carried


def test_days_of_a_run_in_an_object_store_are_those_of_a_folder(config, folder, place, tmp_path, monkeypatch):
    monkeypatch.setattr("forecart.daily.KEEP_DAYS", 2)
    shutil.copytree(folder, tmp_path / "first", ignore=shutil.ignore_patterns("days"))
    Workflow(config, tmp_path / "first", mirror=RunMirror(place, tmp_path / "first")).run()
    for number in range(3):  # each on a machine that has nothing
        machine = tmp_path / str(number)
        moment = START + timedelta(days=number)
        day = run_day(config, place, moment, reporter=SilentReporter(), work_folder=machine)
        assert day.run_folder == machine
        local = list_days(folder)[number]
        assert day.folder.name == local.name and lists_of(day.folder).equals(lists_of(local))
        assert (
            day.facts["advertisers"]["num_encoded"]
            == json.loads((local / DAY_FILE).read_text())["advertisers"]["num_encoded"]
        )
    kept = {name.split("/")[1] for name in place.sizes() if name.startswith("days/")}
    assert kept == {path.name for path in list_days(folder)[1:]}
    shown = json.loads(forecart("status", place, "--releases", tmp_path / "none", "--json").stdout)["run"]
    assert (
        shown["complete"] == ["events", "sequences", "advertisers", "products"]
        and shown["is_worked_on"] is None
    )
    assert shown["day"]["as_of"] == moment.isoformat()
    (place / f"days/{day.folder.name}/day.json").remove()  # a mistake, taken back in the store
    (place / "days/20250101T000000Z/day.json").write_bytes(b"{}")  # what a kill left of an earlier day
    again = run_day(
        config, place, moment - timedelta(hours=1), reporter=SilentReporter(), work_folder=machine
    )
    left = {name.split("/")[1] for name in place.sizes() if name.startswith("days/")}
    assert left == {list_days(folder)[1].name, again.folder.name, day.folder.name}
    with pytest.raises(ConfigError, match=f"remove {place}/days/{again.folder.name}"):
        run_day(config, place, moment - timedelta(hours=2), reporter=SilentReporter(), work_folder=machine)
