"""Lists and figures against a naive reading of the protocol, on a small random world."""

import dataclasses
import math

import numpy as np
import polars as pl
import pytest

from forecart.baselines.contract import BaselineScorer
from forecart.baselines.conversions import read_conversions
from forecart.baselines.standard import build_baselines
from forecart.columns import EVENT_TYPE_CODES
from forecart.evaluation import slices as slices_module
from forecart.evaluation.lists import write_lists
from forecart.evaluation.protocol import POOLS, EvaluationSettings, evaluate
from forecart.evaluation.tables import measure_rows, name_cut, summarise
from forecart.retrieval.diversity import Reranker, RerankRule
from forecart.retrieval.top_k import TopK
from forecart.sequences.histories import Histories
from forecart.sequences.split import DAY_US, LabelContract, label_windows
from forecart.sequences.vocabulary import Vocabulary

CHECKOUT = EVENT_TYPE_CODES["checkout"]
CODES = frozenset({CHECKOUT})
NUM_USERS, N, TOP_K = 24, 40, 12
CUTS_US = [30 * DAY_US, 37 * DAY_US, 44 * DAY_US]
SETTINGS = EvaluationSettings("advertiser", N, CODES, top_k=TOP_K, index_size=15, batch_size=7)


@pytest.fixture(scope="module")
def histories():
    generator = np.random.default_rng(21)
    length = generator.integers(4, 50, NUM_USERS)
    length[:2] = 0
    num_events = int(length.sum())
    user = np.repeat(np.arange(NUM_USERS), length)
    at = generator.integers(0, 55 * 24, num_events) * (DAY_US // 24)
    at = at[np.lexsort((at, user))]
    return Histories(
        start=np.cumsum(length) - length,
        length=length,
        event_type=np.full(num_events, CHECKOUT, np.uint8),
        advertiser=(2 + (N - 2) * generator.random(num_events) ** 2).astype(np.int32),
        item=np.zeros(num_events, np.int32),
        occurred_us=at,
        arrived_us=at,
        price=np.full(num_events, np.nan, np.float32),
    )


@pytest.fixture(scope="module")
def labels(histories):
    contract = LabelContract(positives={"checkout": 1.0}, max_positives=None)
    return label_windows(histories, cuts_us=CUTS_US, contract=contract, level="advertiser")


@dataclasses.dataclass
class RandomScorer:
    """Scores with many ties, some candidates never listed."""

    name: str
    seed: int

    def score_at(self, cut_us, user_index):
        score = [
            np.random.default_rng([self.seed, cut_us, user]).integers(0, 9, N) for user in user_index.tolist()
        ]
        return np.where(np.array(score) == 0, -np.inf, score).astype(np.float32)


@pytest.fixture(scope="module")
def scorers(histories):
    seeds = [RandomScorer("model", 0), RandomScorer("model", 1), RandomScorer("no_encoder", 2)]
    names = ["popularity_all", "frequency_popularity"]
    return seeds + [BaselineScorer(b, histories, "advertiser", N, CODES) for b in build_baselines(names)]


@pytest.fixture(scope="module")
def evaluation(scorers, histories, labels):
    return evaluate(scorers, histories=histories, labels=labels, settings=SETTINGS)


def naive_rows(scorer, histories, pool):
    """(user, cut, list, relevant) of every row with something relevant, by loops over events."""
    made = []
    for cut in CUTS_US:
        for user in range(NUM_USERS):
            events = range(histories.start[user], histories.start[user] + histories.length[user])
            seen = {int(histories.advertiser[e]) for e in events if histories.occurred_us[e] < cut}
            bought = {
                int(histories.advertiser[e])
                for e in events
                if cut <= histories.occurred_us[e] < cut + 7 * DAY_US
            }
            relevant = {"all": bought, "novel": bought - seen, "repeat": bought & seen}[pool]
            if not seen or not relevant:
                continue
            listed = {"all": range(2, N), "novel": set(range(2, N)) - seen, "repeat": seen}[pool]
            score = scorer.score_at(cut, np.array([user], np.int32))[0]
            ranked = sorted((c for c in listed if score[c] > -math.inf), key=lambda c: (-score[c], c))
            made.append((user, cut, ranked[:TOP_K], relevant))
    return made


@pytest.mark.parametrize("pool", POOLS)
def test_lists_and_recall_equal_the_naive_protocol(pool, scorers, evaluation, histories, labels):
    table = summarise(evaluation, num_samples=20)[pool]
    for at, name in ((0, "model"), (1, "model_seed1"), (3, "popularity_all"), (4, "frequency_popularity")):
        expected = naive_rows(scorers[at], histories, pool)
        rows = evaluation.pool_rows[pool]
        ranked = evaluation.lists[pool][name].candidate
        assert labels.user_index[rows].tolist() == [row[0] for row in expected]
        assert labels.cut_us[rows].tolist() == [row[1] for row in expected]
        assert [[c for c in row.tolist() if c >= 0] for row in ranked] == [row[2] for row in expected]
        recall = [len(set(listed[:5]) & relevant) / len(relevant) for _, _, listed, relevant in expected]
        values = table["baselines"].get(name, table["model"])
        if name != "model_seed1":
            assert values["recall_at_5"] == pytest.approx(np.mean(recall), abs=1e-12)
            assert table["num_rows"] == len(expected)
        else:
            seeds = table["seeds"]["values"]["model"]["recall_at_5"]
            assert seeds[1] == pytest.approx(np.mean(recall), abs=1e-12)


def test_table_has_the_shape_of_record(evaluation):
    result = summarise(evaluation, num_samples=50)
    assert set(result) == {"all", "novel", "repeat", "per_cut"}
    assert list(result["per_cut"]) == ["1970-01-31", "1970-02-07", "1970-02-14"]
    for table in (result["all"], result["per_cut"]["1970-01-31"]["novel"]):
        assert set(table["baselines"]) == {"no_encoder", "popularity_all", "frequency_popularity"}
        for metric in ("recall_at_1", "recall_at_10", "ndcg_at_10", "hit_rate_at_10", "mrr"):
            difference = table["difference"][metric]["popularity_all"]
            gap = table["model"][metric] - table["baselines"]["popularity_all"][metric]
            assert difference["mean"] == pytest.approx(gap, abs=1e-12)
            assert difference["ci_low"] <= difference["mean"] <= difference["ci_high"]
        assert {"p90_coverage", "catalogue_coverage", "gini"} <= set(table["model"])
    assert "index_recall_at_10" in result["all"]["model"] and "recall_at_50" not in result["all"]["model"]
    assert "index_recall_at_10" not in result["novel"]["model"]
    assert sum(cut["all"]["num_rows"] for cut in result["per_cut"].values()) == result["all"]["num_rows"]


def test_seeds_stand_beside_the_served_one(evaluation):
    table = summarise(evaluation, num_samples=50)["all"]
    seeds = table["seeds"]
    values = seeds["values"]["model"]["recall_at_10"]
    assert len(values) == 2 and values[0] == table["model"]["recall_at_10"]
    assert seeds["mean"]["model"]["recall_at_10"] == pytest.approx(sum(values) / 2)
    assert seeds["standard_deviation"]["model"]["recall_at_10"] == pytest.approx(np.std(values, ddof=1))
    gap = sum(values) / 2 - table["baselines"]["no_encoder"]["recall_at_10"]
    assert seeds["difference"]["recall_at_10"]["no_encoder"]["mean"] == pytest.approx(gap)


def test_index_recall_between_catalogue_and_certainty(scorers, evaluation, histories, labels):
    """An index of everything is the catalogue; in a smaller one nothing is harder to find."""
    whole = dataclasses.replace(SETTINGS, index_size=10_000)
    over_all = evaluate(scorers[:1], histories=histories, labels=labels, settings=whole)
    measures = measure_rows(over_all, "all", "model", np.ones(len(labels.candidate), bool))
    assert np.array_equal(measures["index_recall_at_1"], measures["recall_at_1"])
    assert np.array_equal(measures["index_recall_at_10"], measures["recall_at_10"])
    smaller = measure_rows(evaluation, "all", "model", np.ones(len(labels.candidate), bool))
    assert (smaller["index_recall_at_10"] >= measures["recall_at_10"] - 1e-12).all()
    assert smaller["index_recall_at_10"].mean() > measures["recall_at_10"].mean()
    none = dataclasses.replace(SETTINGS, index_size=0)
    assert evaluate(scorers[:1], histories=histories, labels=labels, settings=none).index_recall == {}


def test_written_lists_recompute_the_figures(evaluation, labels, tmp_path):
    users = Vocabulary.build([f"u{i}" for i in range(2, NUM_USERS)])
    candidates = Vocabulary.build([f"a{i}" for i in range(2, N)])
    path = tmp_path / "advertisers_top100.parquet"
    write_lists(path, evaluation, users=users, candidates=candidates)
    frame = pl.read_parquet(path)
    assert frame.columns == ["pool", "list", "cut", "user_id", "rank", "advertiser_id", "score"]
    assert frame.schema["cut"] == pl.Datetime("us", "UTC")
    assert set(frame["list"]) == {
        "model",
        "model_seed1",
        "no_encoder",
        "popularity_all",
        "frequency_popularity",
    }
    positive = pl.DataFrame(
        {
            "cut": pl.Series(labels.cut_us[labels.rows()]).cast(pl.Datetime("us", "UTC")),
            "user_id": users.id_series(labels.user_index[labels.rows()]),
            "advertiser_id": candidates.id_series(labels.candidate),
            "is_repeat": labels.is_repeat,
        }
    )
    result = summarise(evaluation, num_samples=10)
    for pool, relevant in (("all", positive), ("novel", positive.filter(~pl.col("is_repeat")))):
        for name in ("model", "no_encoder", "popularity_all"):
            listed = frame.filter(pool=pool, list=name).filter(pl.col("rank") <= 10)
            hits = relevant.join(listed, on=["cut", "user_id", "advertiser_id"], how="left")
            recall = hits.group_by("cut", "user_id").agg(pl.col("rank").is_not_null().mean())["rank"].mean()
            values = result[pool]["baselines"].get(name) or result[pool]["model"]
            assert values["recall_at_10"] == pytest.approx(recall, abs=1e-12)


def test_the_same_evaluation_twice(scorers, evaluation, histories, labels):
    again = evaluate(scorers, histories=histories, labels=labels, settings=SETTINGS)
    assert summarise(again, num_samples=30) == summarise(evaluation, num_samples=30)


def test_without_a_model_there_is_no_difference(scorers, histories, labels):
    only = evaluate(scorers[3:], histories=histories, labels=labels, settings=SETTINGS)
    table = summarise(only, num_samples=10)["all"]
    assert table["model"] == {} and table["difference"] == {} and "seeds" not in table
    assert table["baselines"]["popularity_all"]["recall_at_10"] > 0


def test_a_wrong_shape_is_refused(histories, labels):
    class Short(RandomScorer):
        def score_at(self, cut_us, user_index):
            return super().score_at(cut_us, user_index)[:, :-1]

    with pytest.raises(ValueError, match="a score for each user and candidate"):
        evaluate([Short("model", 0)], histories=histories, labels=labels, settings=SETTINGS)


def test_nobody_has_seen_anything(histories, labels):
    fresh = dataclasses.replace(labels, is_repeat=np.zeros_like(labels.is_repeat))
    late = dataclasses.replace(histories, arrived_us=histories.arrived_us + 10**9 * DAY_US // 10**6)
    result = summarise(
        evaluate([RandomScorer("model", 0)], histories=late, labels=fresh, settings=SETTINGS), num_samples=10
    )
    assert result["repeat"]["num_rows"] == 0 and result["repeat"]["model"] == {}
    assert result["novel"]["model"]["recall_at_10"] == result["all"]["model"]["recall_at_10"]


def test_slices_split_the_positives(evaluation, histories, labels):
    known = read_conversions(
        histories, cut_us=CUTS_US[0], level="advertiser", num_candidates=N, conversion_codes=CODES
    )
    made = slices_module.build_slices(labels, known, cold_below=10)
    assert (made["head"].astype(int) + made["torso"] + made["tail"] == 1).all()
    assert (made["repeat"] ^ made["novel"]).all()
    assert not (made["unseen"] & ~made["tail"]).any()
    count = np.bincount(known.candidate, minlength=N)
    assert set(labels.candidate[~made["without_dominant"]]) <= {int(count.argmax())}
    sliced = summarise(evaluation, slices=made, num_samples=10)["slices"]
    assert sliced["novel"]["num_relevant"] + sliced["repeat"]["num_relevant"] == len(labels.candidate)
    assert "index_recall_at_10" not in sliced["novel"]["model"]
    found = 0
    for row, user in enumerate(labels.user_index):
        relevant = set(labels.candidate[labels.offsets[row] : labels.offsets[row + 1]])
        tail = {c for c in relevant if made["tail"][labels.rows() == row].any() and is_tail(c, count)}
        listed = evaluation.lists["all"]["model"].candidate[row, :10]
        found += len(tail & set(listed.tolist())) / len(tail) if tail else 0.0
        assert user >= 2
    assert sliced["tail"]["model"]["recall_at_10"] * sliced["tail"]["num_rows"] == pytest.approx(found)


def is_tail(candidate, count):
    before = sum(
        count[c] for c in range(N) if (count[c], -c) > (count[candidate], -candidate) and c != candidate
    )
    return before >= 0.9 * count.sum() or count[candidate] == 0


def test_bands_by_hand():
    assert slices_module.candidate_bands(np.array([0, 50, 30, 15, 5, 0])).tolist() == [2, 0, 1, 1, 2, 2]


def test_cut_names():
    assert name_cut(0) == "1970-01-01"
    assert name_cut(DAY_US // 2) == "1970-01-01T12:00:00Z"


@dataclasses.dataclass
class PickyScorer(RandomScorer):
    """The same scores, its lists chosen anew."""

    rule: RerankRule | None = None

    def reranker_at(self, cut_us):
        generator = np.random.default_rng(cut_us % 2**32)
        vector_ND = generator.standard_normal((N, 3)).astype(np.float32)
        vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
        log_share_N = np.log(generator.random(N)).astype(np.float32)
        return self.rule and Reranker(self.rule, vector_ND, log_share_N, temperature=2.0)


@pytest.mark.parametrize("pool", POOLS)
def test_lists_chosen_anew_are_a_row_of_their_own_in_every_pool(pool, histories, labels):
    rule = RerankRule(popularity=0.5, similarity=0.3, kept_share=0.25, pool_factor=1.5)
    model, picky = RandomScorer("model", 0), PickyScorer("reranked", 0, rule)
    idle = PickyScorer("idle", 0)
    found = evaluate([model, picky, idle], histories=histories, labels=labels, settings=SETTINGS)
    lists, rows = found.lists[pool], found.pool_rows[pool]
    assert lists["idle"].candidate.tolist() == lists["model"].candidate.tolist()
    longer = dataclasses.replace(SETTINGS, top_k=18)
    best = evaluate([model], histories=histories, labels=labels, settings=longer).lists[pool]["model"]
    num_moved = 0
    for at, row in enumerate(rows):
        reranker = picky.reranker_at(int(labels.cut_us[row]))
        one = TopK(best.candidate[at : at + 1], best.score[at : at + 1])
        expected = reranker.rerank(one, top_k=TOP_K)
        assert lists["reranked"].candidate[at].tolist() == expected.candidate[0].tolist()
        num_moved += lists["reranked"].candidate[at].tolist() != lists["model"].candidate[at].tolist()
    assert num_moved
    assert "reranked" in summarise(found, num_samples=20)[pool]["baselines"]
