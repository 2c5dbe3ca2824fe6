"""A release of the nano run holds, for every user, what the run's own Parquet tables hold."""

import shutil

import numpy as np
import polars as pl
import pytest

from forecart import artifacts
from forecart.errors import ArtifactError
from forecart.publish.embedded import EmbeddedStore
from forecart.publish.lookup import look_up
from forecart.publish.publisher import Publisher
from forecart.publish.releases import Releases
from forecart.publish.run_parts import read_run
from forecart.publish.suppression import suppression_key
from forecart.retrieval.index.contract import fold_queries
from forecart.sequences.vocabulary import FIRST_INDEX

TTL_S = 86_400


def publish(run, root):
    store = EmbeddedStore(root)
    pointer = Publisher(root, store).publish(
        lambda suppressed: read_run(run, suppressed=suppressed, ttl_s=TTL_S)
    )
    return Releases(root).open(pointer.release_id), store


@pytest.fixture(scope="module")
def published(nano, tmp_path_factory):
    return publish(nano.folder, tmp_path_factory.mktemp("published"))


def read_lists(run, plural, id_column):
    table = pl.read_parquet(run / "candidates" / plural / "part-*.parquet").sort("user_id", "rank")
    return {
        user: rows.select(id_column, "score", "is_repeat").rows()
        for (user,), rows in table.group_by("user_id", maintain_order=True)
    }


def test_everyone_s_lists_are_those_of_the_run(nano, published):
    release, store = published
    advertisers = read_lists(nano.folder, "advertisers", "advertiser_id")
    products = read_lists(nano.folder, "products", "item_id")
    assert len(advertisers) == release.manifest.num_users > 300
    for user in advertisers:
        record = look_up(store, release, user, now_us=release.manifest.as_of_us).record
        for listed, vocabulary, wanted in (
            (record.advertisers, release.advertisers, advertisers[user]),
            (record.items, release.items, products[user]),
        ):
            rows = zip(
                vocabulary.ids(listed.index), listed.score.tolist(), listed.is_repeat.tolist(), strict=True
            )
            assert list(rows) == wanted


def test_vectors_and_prior_give_the_order_of_products_nobody_has_touched(nano, published):
    release, store = published
    index = release.item_index
    events = pl.read_parquet(nano.folder / "events/part-*.parquet")
    seen = {user: set(rows["item_id"]) for (user,), rows in events.group_by("user_id")}
    for user in release.users.users.ids(range(FIRST_INDEX, FIRST_INDEX + 20)):
        record = look_up(store, release, user, now_us=release.manifest.as_of_us).record
        found = index.search(fold_queries(record.vector[None].astype(np.float32)), len(index.candidate_N))
        score_N = np.full(len(release.items), np.nan)
        score_N[found.candidate[0]] = found.score[0]
        new = [
            row for row, item in enumerate(release.items.ids(record.items.index)) if item not in seen[user]
        ]
        assert len(new) > 2
        assert np.allclose(record.items.score[new], score_N[record.items.index[new]], atol=5e-3)


def test_the_fallback_is_what_most_users_converted_with_in_the_last_week(nano, published):
    release, _ = published
    as_of = pl.lit(release.manifest.as_of_us).cast(pl.Datetime("us", "UTC"))
    conversions = pl.read_parquet(nano.folder / "events/part-*.parquet").filter(
        pl.col("event_type").is_in(["checkout", "signup", "add_to_cart"])
    )

    def count_users(rows):
        return rows.group_by("advertiser_id").agg(pl.col("user_id").n_unique().alias("num"))

    week = count_users(conversions.filter(pl.col("occurred_at") > as_of - pl.duration(days=7)))
    ever = count_users(conversions)
    counts = ever.join(week, on="advertiser_id", how="left", suffix="_week").fill_null(0)
    wanted = counts.sort("num_week", "num", descending=True)["advertiser_id"].to_list()
    index, score = release.fallback.advertisers["*"]
    assert release.advertisers.ids(index)[:10] == wanted[:10]
    assert (np.diff(score) <= 0).all()


def test_the_manifest_says_what_was_measured(nano, published):
    report = artifacts.read_json(nano.folder / "evaluation/report.json")
    metrics = published[0].manifest.metrics
    for target, name in (("next_advertiser", "recall_at_10"), ("next_product", "p90_coverage")):
        assert metrics[f"{target}.{name}"] == report[target]["all"]["model"][name]


def copy_run(nano, folder):
    shutil.copytree(nano.folder, folder)
    return folder, folder / "calibration" / "calibrations.json"


def test_the_calibration_is_that_of_the_run(nano, published):
    release, _ = published
    tables = artifacts.read_json(nano.folder / "calibration/calibrations.json")
    assert set(release.calibrations) == set(tables) == {"advertisers", "products"}
    for level, curve in release.calibrations.items():
        assert list(curve.score) == tables[level]["score"]
        assert list(curve.probability) == tables[level]["probability"]


def test_a_calibration_that_does_not_rise_is_refused(nano, tmp_path):
    run, path = copy_run(nano, tmp_path / "run")
    tables = artifacts.read_json(path)
    tables["products"]["probability"].reverse()
    artifacts.write_json(path, tables)
    with pytest.raises(ArtifactError, match="rises through scores"):
        read_run(run, ttl_s=TTL_S)


def test_a_calibration_of_another_model_is_refused(nano, tmp_path):
    run, _ = copy_run(nano, tmp_path / "run")
    manifest = run / "training/next_product/model-0/manifest.json"
    artifacts.write_json(manifest, artifacts.read_json(manifest) | {"key": "another"})
    with pytest.raises(ArtifactError, match="must be of its models"):
        read_run(run, ttl_s=TTL_S)


def test_without_a_calibration_it_is_another_release_and_has_none(nano, published, tmp_path):
    run, path = copy_run(nano, tmp_path / "run")
    shutil.rmtree(path.parent)
    parts = read_run(run, ttl_s=TTL_S)
    assert parts.release_id != published[0].release_id and not parts.calibrations
    assert not publish(run, tmp_path / "releases")[0].calibrations


def test_who_is_suppressed_is_not_in_it(nano, published, tmp_path):
    release, _ = published
    users = release.users.users.ids([2, 40])
    parts = read_run(nano.folder, suppressed={suppression_key(user) for user in users}, ttl_s=TTL_S)
    assert parts.release_id != release.release_id
    assert parts.users.num_ids == release.manifest.num_users - 2
    assert parts.users.index(users).tolist() == [1, 1]
    kept = np.concatenate(list(parts.blocks))
    at = parts.users.find(release.users.users.ids([41])[0]) - FIRST_INDEX
    stored = np.frombuffer(release.users.read(release.users.users.ids([41])[0]), parts.layout.dtype)[0]
    assert kept[at]["advertiser_index"].tolist() == stored["advertiser_index"].tolist()


def test_a_run_of_one_level_makes_a_release(nano, tmp_path):
    shutil.copytree(nano.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/candidates/products")
    release, store = publish(tmp_path / "run", tmp_path / "releases")
    record = look_up(store, release, release.users.users.ids([2])[0], now_us=0).record
    assert len(record.advertisers.index) and record.items.index.size == record.vector.size == 0


def test_a_run_without_candidates_is_refused(nano, tmp_path):
    shutil.copytree(nano.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/candidates")
    with pytest.raises(ArtifactError, match="no candidates to publish"):
        read_run(tmp_path / "run", ttl_s=TTL_S)
