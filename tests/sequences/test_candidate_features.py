"""Content, metadata and collaborative vectors on catalogues small enough to know the answer by hand."""

import numpy as np
import polars as pl
import pytest
from event_logs import CUTS, DAY, EVENTS, LEVELS, NUM_CANDIDATES, Event, known_at, make_log, poison
from hypothesis import given, settings

from forecart.errors import ConfigError
from forecart.sequences.build import Sequences, build_sequences
from forecart.sequences.candidate_features import (
    CandidateFeatures,
    choose_content_source,
    read_candidate_features,
    read_collaborative,
    read_item_content,
    read_prices,
)

EPOCH = 1_700_006_400_000_000
CATALOGUE = [
    {"item_id": "i1", "advertiser_id": "a1", "title": "Red apple", "category": "Food > Fruit"},
    {"item_id": "i2", "advertiser_id": "a1", "title": "red APPLE", "category": "food > fruit"},
    {"item_id": "i3", "advertiser_id": "a2", "title": "Steel hammer", "category": "Tools"},
    {"item_id": "i4", "advertiser_id": "a1", "title": None, "category": None},
    {"item_id": "i5", "advertiser_id": "a2", "title": "Steel saw", "category": "Food > Fruit"},
]
VECTORS = {"i1": [3.0, 4.0], "i2": [0.0, 2.0], "i3": None, "i4": [0.0, 0.0], "i5": [1.0, 0.0]}


@pytest.fixture
def read_run(write_events, tmp_path):
    """Writes a run of these catalogue rows and one event of an item that no catalogue lists."""

    def read(rows: list[dict]) -> tuple[Sequences, pl.DataFrame]:
        event = {"user_id": "u", "advertiser_id": "a3", "item_id": "i9", "occurred_at": EPOCH}
        events = write_events([event], rows)
        build_sequences(events, tmp_path / "sequences", read_until_us=EPOCH + DAY)
        return Sequences.load(tmp_path / "sequences"), pl.read_parquet(events / "catalogue.parquet")

    return read


def with_vectors(rows: list[dict]) -> list[dict]:
    return [row | {"embedding": VECTORS[row["item_id"]]} for row in rows]


def test_catalogue_vectors_are_brought_to_length_one_and_the_rest_are_zeros(read_run):
    sequences, catalogue = read_run(with_vectors(CATALOGUE))
    content = read_item_content(catalogue, sequences)
    expected = {"i1": [0.6, 0.8], "i2": [0, 1], "i3": [0, 0], "i4": [0, 0], "i5": [1, 0], "i9": [0, 0]}
    assert np.allclose(content[sequences.items.index(list(expected))], list(expected.values()))
    assert not content[:2].any() and content.shape == (len(sequences.items), 2)


def test_items_of_the_same_words_have_the_same_content_and_of_no_common_word_none(read_run):
    sequences, catalogue = read_run(CATALOGUE)
    content = read_item_content(catalogue, sequences)
    i1, i2, i3, i4, i5, i9 = sequences.items.index(["i1", "i2", "i3", "i4", "i5", "i9"])
    assert np.allclose(np.linalg.norm(content[[i1, i2, i3, i5]], axis=1), 1, atol=1e-5)
    assert not content[[0, 1, i4, i9]].any()
    assert content[i1] @ content[i2] == pytest.approx(1, abs=1e-5)
    assert abs(content[i1] @ content[i3]) < 0.01 < content[i1] @ content[i5]
    assert np.array_equal(content, read_item_content(catalogue, sequences))


def test_without_content_there_is_one_column_of_zeros(read_run):
    sequences, catalogue = read_run(with_vectors(CATALOGUE))
    content = read_item_content(catalogue, sequences, wanted="none")
    assert content.shape == (len(sequences.items), 1) and not content.any()


@pytest.mark.parametrize("title", [["one"], ["one", "one"], ["one", ""], ["a b", "c d"]])
def test_tiny_catalogues_have_narrow_content(read_run, title):
    rows = [{"item_id": f"i{at}", "advertiser_id": "a", "title": one} for at, one in enumerate(title)]
    sequences, catalogue = read_run(rows)
    content = read_item_content(catalogue, sequences)
    assert np.isfinite(content).all()
    has_title = [bool(one) for one in title]
    known = sequences.items.index([row["item_id"] for row in rows])
    assert np.allclose(np.linalg.norm(content[known], axis=1), has_title, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (with_vectors(CATALOGUE), "catalogue"),
        (CATALOGUE, "text"),
        ([CATALOGUE[3]], "none"),
        ([CATALOGUE[3] | {"title": " ", "category": ">"}], "none"),
        ([], "none"),
    ],
)
def test_auto_takes_the_best_that_is_there(write_events, rows, expected):
    catalogue = pl.read_parquet(write_events([], rows) / "catalogue.parquet")
    assert choose_content_source(catalogue, "auto") == expected
    assert choose_content_source(catalogue, "none") == "none"
    for wanted in {"catalogue", "text"} if expected == "none" else {"vectors"}:
        with pytest.raises(ConfigError, match=wanted):
            choose_content_source(catalogue, wanted)


def test_an_advertiser_is_the_mean_of_its_products(read_run):
    sequences, catalogue = read_run(with_vectors(CATALOGUE))
    content = read_item_content(catalogue, sequences)
    shown = read_candidate_features(
        sequences,
        content,
        level="advertiser",
        collaborative=np.ones((len(sequences.advertisers), 3)),
    )
    a1, a2, a3 = sequences.advertisers.index(["a1", "a2", "a3"])
    mean = np.array([0.6, 1.8])
    assert np.allclose(shown.content[a1], mean / np.linalg.norm(mean))
    assert np.allclose(shown.content[a2], [1, 0]) and not shown.content[[0, 1, a3]].any()
    # Top levels by id: "Food", "Tools", "food"; a product without a category counts in none of them.
    assert np.allclose(shown.metadata[a1, :3], [1 / 3, 0, 1 / 3])
    assert np.allclose(shown.metadata[a2, :3], [1 / 2, 1 / 2, 0])
    assert not shown.metadata[[0, 1, a3]].any() and not shown.advertiser.any()
    assert shown.num_candidates == len(sequences.advertisers)


def test_an_item_is_in_its_top_category(read_run):
    sequences, catalogue = read_run(CATALOGUE)
    content = read_item_content(catalogue, sequences)
    shown = read_candidate_features(
        sequences, content, level="item", collaborative=np.ones((len(sequences.items), 3))
    )
    expected = {"i1": [1, 0, 0], "i2": [0, 0, 1], "i3": [0, 1, 0], "i4": [0, 0, 0], "i9": [0, 0, 0]}
    assert shown.metadata[sequences.items.index(list(expected)), :3].tolist() == list(expected.values())
    assert np.array_equal(shown.content, content)


def test_an_item_has_its_advertiser(read_run):
    sequences, catalogue = read_run(CATALOGUE)
    content = read_item_content(catalogue, sequences)
    shown = read_candidate_features(
        sequences, content, level="item", collaborative=np.ones((len(sequences.items), 3))
    )
    advertiser = shown.advertiser[sequences.items.index(["i1", "i3", "i9"])]
    assert sequences.advertisers.ids(advertiser) == ["a1", "a2", "a3"]
    assert shown.advertiser[:2].tolist() == [0, 1]


def test_a_price_is_the_catalogues_and_its_logs_are_standardised(read_run):
    prices = {"i1": 2.0, "i2": 16.0, "i3": 4.0, "i5": 4.0}
    sequences, catalogue = read_run([row | {"price": prices.get(row["item_id"])} for row in CATALOGUE])
    logs = np.log(list(prices.values()))
    expected = dict(zip(prices, (logs - logs.mean()) / logs.std(), strict=True)) | {"i4": 0.0, "i9": 0.0}
    found = read_prices(sequences)
    assert np.allclose(found[sequences.items.index(list(expected))], list(expected.values()), atol=1e-6)
    assert not found[:2].any() and found.dtype == np.float32
    content = read_item_content(catalogue, sequences)
    vectors = {"item": len(sequences.items), "advertiser": len(sequences.advertisers)}
    items, advertisers = (
        read_candidate_features(sequences, content, level=level, collaborative=np.ones((num, 3)))
        for level, num in vectors.items()
    )
    assert np.array_equal(items.metadata[:, -1], found) and items.metadata.shape[1] == 3 + 1
    a1, a2 = sequences.advertisers.index(["a1", "a2"])
    assert advertisers.metadata[a1, -1] == pytest.approx((expected["i1"] + expected["i2"] + 0) / 3, abs=1e-6)
    assert advertisers.metadata[a2, -1] == pytest.approx((expected["i3"] + expected["i5"]) / 2, abs=1e-6)


def test_a_typing_error_in_a_price_stays_small(read_run):
    rows = [{"item_id": f"i{at}", "advertiser_id": "a", "price": 10.0 + at} for at in range(40)]
    sequences, _ = read_run([*rows, {"item_id": "odd", "advertiser_id": "a", "price": 1e9}])
    assert read_prices(sequences)[sequences.items.index(["odd"])].tolist() == [3.0]


def test_without_any_price_all_are_zero(read_run):
    sequences, _ = read_run(CATALOGUE)
    found = read_prices(sequences)
    assert found.shape == (len(sequences.items),) and not found.any()


def test_features_come_back_from_disk(tmp_path):
    arrays = [np.arange(6, dtype=np.float32).reshape(3, 2) + at for at in range(3)]
    arrays.append(np.arange(3, dtype=np.int32))
    CandidateFeatures(*arrays).save(tmp_path)
    loaded = CandidateFeatures.load(tmp_path)
    for name, array in zip(("content", "metadata", "collaborative", "advertiser"), arrays, strict=True):
        assert np.array_equal(getattr(loaded, name), array)


def log_counts(events: list[Event], level: str, cut_us: int) -> np.ndarray:
    """The matrix log(1 + events) of users by candidates, one event at a time."""
    counts = np.zeros((7, NUM_CANDIDATES))
    for event in known_at(events, cut_us):
        if event.candidate(level) >= 2:
            counts[event.user, event.candidate(level)] += 1
    return np.log1p(counts)


def random_purchases(seed: int, *, num_users: int, num_candidates: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    return [
        Event(int(rng.integers(2, 2 + num_users)), "view", int(rng.integers(2, 2 + num_candidates)), 0, 1)
        for _ in range(40)
    ]


@pytest.mark.parametrize(("num_users", "num_candidates"), [(4, 5), (5, 3)])
def test_collaborative_vectors_rebuild_the_best_approximation_of_the_matrix(num_users, num_candidates):
    events = random_purchases(3, num_users=num_users, num_candidates=num_candidates)
    vectors = read_collaborative(make_log(events), as_of_us=DAY, width=2)
    assert vectors.shape == (NUM_CANDIDATES, 2) and vectors.dtype == np.float32
    _, singular, right = np.linalg.svd(log_counts(events, "advertiser", DAY))
    expected = right[:2].T * np.sqrt(singular[:2])
    for column in expected.T:
        column *= np.sign(column[np.abs(column).argmax()])
    expected /= expected[2 : 2 + num_candidates].std()
    assert np.allclose(vectors, expected, atol=1e-4)


@settings(max_examples=60)
@given(EVENTS, LEVELS, CUTS)
def test_nothing_that_arrives_at_or_after_the_cut_changes_a_collaborative_vector(events, level, cut):
    clean = read_collaborative(make_log(known_at(events, cut), level), as_of_us=cut, width=3)
    poisoned = read_collaborative(make_log(events + poison(cut), level), as_of_us=cut, width=3)
    assert np.array_equal(clean, poisoned) and np.isfinite(clean).all()
    matrix = log_counts(events, level, cut)
    assert not clean[~matrix.any(axis=0)].any()
    num_users, num_candidates = matrix.any(axis=1).sum(), matrix.any(axis=0).sum()
    assert clean.shape[1] == max(1, min(3, num_users - 1, num_candidates - 1))


@pytest.mark.parametrize("width", [0, 5])
def test_without_events_or_width_the_collaborative_vector_is_one_zero(width):
    events = [Event(2, "view", 3, 0, 200)] if width else random_purchases(3, num_users=4, num_candidates=4)
    vectors = read_collaborative(make_log(events), as_of_us=DAY, width=width)
    assert vectors.shape == (NUM_CANDIDATES, 1) and not vectors.any()
