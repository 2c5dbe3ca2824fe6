"""Lists chosen anew on the nano run: written, measured, published, and nothing else done again."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from forecart.config import load_config, to_us, validate_config
from forecart.errors import ConfigError
from forecart.evaluation.frontier import BY_SCORE, measure_frontier, name_rule
from forecart.publish.run_parts import read_run
from forecart.retrieval.candidates import Listing, write_candidates
from forecart.retrieval.diversity import RerankRule
from forecart.run_plan import RunPlan
from forecart.workflow import Workflow

TOP_K, POOL = 20, 60
RULE = RerankRule(popularity=0.7, similarity=0.2, kept_share=0.5, pool_factor=3.0)
ORDER = RerankRule(popularity=0.0, similarity=0.0)
UNLIKE = RerankRule(popularity=0.0, similarity=0.5, kept_share=0.0)


def change_config(*, is_enabled, frontier=(), top_k=TOP_K, rule=RULE):
    """Nano whose lists of products are chosen anew."""
    tree = load_config("nano").model_dump(mode="json")
    tree["next_product"] |= {"rerank": {**rule.model_dump(), "is_enabled": is_enabled}, "top_k": top_k}
    tree["evaluation"] |= {"frontier": [one.model_dump() for one in frontier], "num_samples": 50}
    return validate_config(tree, where="nano")


@pytest.fixture(scope="module")
def folder(nano, tmp_path_factory):
    """The nano run gone on with lists of products that are chosen anew."""
    folder = tmp_path_factory.mktemp("reranked") / "run"
    shutil.copytree(nano.folder, folder)
    Workflow(change_config(is_enabled=True, frontier=[ORDER, UNLIKE, RULE]), folder).run()
    return folder


def read_lists(folder):
    rows = pl.read_parquet(folder / "part-*.parquet")
    return rows.group_by("user_id", maintain_order=True).agg("item_id", "score", "is_repeat")


def test_written_lists_are_the_naive_choice_out_of_the_best_by_score(folder, tmp_path):
    workflow = Workflow(change_config(is_enabled=False, top_k=POOL), folder)
    task = workflow.candidate_task("item")
    write_candidates(Listing(task), tmp_path)
    best, found = read_lists(tmp_path), read_lists(folder / "candidates" / "products")
    embedded = task.scorer.candidates_at(task.as_of_us)
    ids = task.candidates.ids(np.arange(2, len(task.candidates)))
    vectors = dict(zip(ids, embedded.vector_ND.numpy()[2:].astype(np.float64), strict=True))
    # Popularity is counted here from the log.
    bought = pl.read_parquet(folder / "events" / "part-*.parquet").filter(
        pl.col("event_type").is_in(list(workflow.config.labels.positives)),
        pl.col("arrived_at").dt.timestamp("us") < task.as_of_us,
        pl.col("item_id").is_not_null(),
    )
    num_users = bought["user_id"].n_unique()
    count = dict(bought.group_by("item_id").agg(pl.col("user_id").n_unique()).iter_rows())
    log_share = {one: np.log((count.get(one, 0) + 0.5) / (num_users + 1)) for one in ids}

    def worth(candidate, score, listed):
        price = RULE.popularity * embedded.temperature * log_share[candidate]
        alike = max((vectors[candidate] @ vectors[other] for other in listed), default=0.0)
        return (1 - RULE.similarity) * (score - price) - RULE.similarity * alike

    num_moved = 0
    for user, items, scores, _ in best.sample(40, seed=0).iter_rows():
        listed = items[: TOP_K // 2]
        left = dict(zip(items[TOP_K // 2 :], scores[TOP_K // 2 :], strict=True))
        while len(listed) < TOP_K:
            listed.append(max(left, key=lambda one: worth(one, left[one], listed)))
            del left[listed[-1]]
        row = found.row(by_predicate=pl.col("user_id") == user, named=True)
        score_of = dict(zip(items, scores, strict=True))
        assert row["item_id"] == listed
        assert row["score"] == [score_of[one] for one in listed]
        num_moved += listed != items[:TOP_K]
    assert num_moved == 40


def test_nothing_is_trained_again_and_other_lists_stay(nano, folder):
    for manifest in (nano.folder / "training").rglob("manifest.json"):
        assert (folder / manifest.relative_to(nano.folder)).read_bytes() == manifest.read_bytes()
    facts = json.loads((folder / "candidates/products/manifest.json").read_text())
    assert facts["rerank"] == RULE.model_dump()
    assert "rerank" not in json.loads((folder / "candidates/advertisers/manifest.json").read_text())


def test_lists_chosen_anew_have_their_own_row_and_their_place_on_the_frontier(nano, folder):
    report = json.loads((folder / "evaluation/report.json").read_text())
    before = json.loads((nano.folder / "evaluation/report.json").read_text())
    assert "frontier" not in before["next_product"]
    table, points = report["next_product"]["all"], report["next_product"]["frontier"]["points"]
    assert table["model"] == before["next_product"]["all"]["model"]
    by_score, order, unlike, chosen = points
    names = [BY_SCORE, *map(name_rule, (ORDER, UNLIKE, RULE))]
    assert [point["name"] for point in points] == names and len(set(names)) == 4
    assert [point["is_listed"] for point in points] == [False, False, False, True]
    assert by_score["values"] == order["values"]
    assert order["difference"]["recall_at_100"] == {"mean": 0.0, "ci_low": 0.0, "ci_high": 0.0}
    for values, point in ((table["model"], by_score), (table["baselines"]["reranked"], chosen)):
        for metric in ("recall_at_10", "recall_at_100", "p90_coverage", "gini"):
            assert point["values"][metric] == pytest.approx(values[metric], abs=1e-12)
    change = table["baselines"]["reranked"]["recall_at_10"] - table["model"]["recall_at_10"]
    assert chosen["difference"]["recall_at_10"]["mean"] == pytest.approx(change, abs=1e-12)
    assert unlike["values"]["intra_list_similarity"] < by_score["values"]["intra_list_similarity"]
    assert "reranked" not in report["next_advertiser"]["all"]["baselines"]
    # Of the advertisers, whose lists are by score, the rules are measured all the same.
    others = report["next_advertiser"]["frontier"]["points"]
    assert [point["is_listed"] for point in others] == [True, False, False, False]
    page = (folder / "report.html").read_text()
    assert "Lists chosen anew" in page and name_rule(RULE) in page
    assert "Recall against coverage" not in (nano.folder / "report.html").read_text()


def test_a_release_says_what_its_own_lists_reach(folder):
    report = json.loads((folder / "evaluation/report.json").read_text())
    parts = read_run(folder, ttl_s=1)
    found = report["next_product"]["all"]["baselines"]["reranked"]["p90_coverage"]
    assert parts.metrics["next_product.p90_coverage"] == found
    found = report["next_advertiser"]["all"]["model"]["p90_coverage"]
    assert parts.metrics["next_advertiser.p90_coverage"] == found


def test_keys_follow_the_rule_where_it_holds_and_are_as_they_were_where_not(nano):
    def keys(**changes):
        plan = RunPlan(change_config(**changes), nano.folder)
        lists = {level: plan.candidates_key(level) for level in ("advertiser", "item")}
        trained = [plan.trained_key(level) for level in ("advertiser", "item")]
        return {**lists, "evaluation": plan.evaluation_key(), "calibration": plan.calibration_key()}, trained

    off, trained = keys(is_enabled=False)
    assert keys(is_enabled=False, rule=RerankRule(popularity=9)) == (off, trained)
    on, others = keys(is_enabled=True), keys(is_enabled=True, rule=RerankRule(popularity=9))
    for found in (on, others):
        assert found[1] == trained
        assert {name for name in off if found[0][name] != off[name]} == {"item", "evaluation", "calibration"}
    assert {name for name in off if on[0][name] != others[0][name]} == {"item", "evaluation", "calibration"}
    measured, _ = keys(is_enabled=False, frontier=[RULE])
    assert {name for name in off if measured[name] != off[name]} == {"evaluation"}
    # What nano was trained and listed with knows of no rule at all.
    plan = RunPlan(load_config("nano"), nano.folder)
    for level, plural in (("advertiser", "advertisers"), ("item", "products")):
        manifest = nano.folder / "candidates" / plural / "manifest.json"
        assert json.loads(manifest.read_text())["key"] == plan.candidates_key(level)


def test_the_same_rule_twice_is_measured_once(folder):
    workflow = Workflow(change_config(is_enabled=True), folder)
    data = workflow.target_data("item", [to_us(workflow.config.split.test_cuts[0])])
    rules = [RULE, ORDER, RULE]
    found = measure_frontier(data, workflow.scorer("item"), rules, listed=RULE, num_samples=2)
    assert [point["name"] for point in found["points"]] == [BY_SCORE, name_rule(RULE), name_rule(ORDER)]


def test_a_key_that_does_not_exist_is_told():
    tree = load_config("nano").model_dump(mode="json")
    tree["next_product"]["rerank"] = {"is_enabled": True, "popularty": 0.2}
    with pytest.raises(ConfigError, match=r"next_product\.rerank\.popularty.*did you mean popularity\?"):
        validate_config(tree, where="nano")
    tree["next_product"]["rerank"] = {}
    tree["evaluation"]["frontier"] = [{"similarity": 2}]
    with pytest.raises(ConfigError, match=r"evaluation\.frontier\.0\.similarity"):
        validate_config(tree, where="nano")
