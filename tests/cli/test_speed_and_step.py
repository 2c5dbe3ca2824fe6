"""The parts of the speed and step benchmarks: a race of two processes, lists by rank, products by shape."""

import sys

import numpy as np
import polars as pl
import pytest
import torch
from benchmarks.speed import Competitor, compare, measure_lists, race, summarise
from benchmarks.step import count_products

PEER = """
import json, sys, polars as pl
train, folder = pl.read_parquet(sys.argv[1]), sys.argv[2]
for number, _ in enumerate(sys.stdin, 1):
    if number == 3:
        sys.exit(3)
    lists = train.select("user_id", "item_id", rank=pl.lit(1))
    lists.write_parquet(f"{folder}/lists-{number}.parquet")
    line = {"round": number, "epochs": number, "fit_cpu_s": 10.0 * number, "num_users": 8, "recommend_s": 2,
            "recommend_cpu_s": 1, "peak_memory_gb": 1}
    print(json.dumps(line), flush=True)
"""


@pytest.fixture
def competitors(tmp_path):
    """Three systems that find nothing, take ten CPU-seconds a round and die in the third."""
    script, train = tmp_path / "peer.py", tmp_path / "train.parquet"
    script.write_text(PEER)
    pl.DataFrame({"user_id": [1], "item_id": [7]}).write_parquet(train)
    target = pl.DataFrame({"user_id": [1], "item_id": [8]})
    made = [
        Competitor(name, [sys.executable, script, train, tmp_path / name], tmp_path / name, target)
        for name in ("ours", "peer", "other")
    ]
    yield made
    for one in made:
        one.stop()


def test_the_peer_goes_on_until_its_patience_ends_and_a_death_is_said(competitors):
    ours, peer, _ = competitors
    ours.run_round()
    ours.rounds[0]["ndcg_at_10"] = 0.9
    peer.run_round()
    race(ours, [peer], goal=0.5, patience=0.5)
    assert len(ours.rounds) == len(peer.rounds) == 1
    race(ours, [peer], goal=0.5, patience=2.0)
    assert [one["fit_cpu_s"] for one in peer.rounds] == [10, 20]
    found = summarise(peer, 0.5)
    assert found["cpu_s_to_goal"] is None and found["cpu_s_per_epoch"] == 10
    assert (found["users_per_s"], found["users_per_cpu_s"], found["best_ndcg_at_10"]) == (4, 8, 0)
    with pytest.raises(RuntimeError, match=r"peer ended with 3.*stderr\.log"):
        race(ours, [peer], goal=0.5, patience=9.0)


def test_all_race_in_one_run_and_each_peer_stops_by_itself(competitors, monkeypatch):
    ours, peer, other = competitors
    turns = []

    def run_round(self, run=Competitor.run_round):
        turns.append(self.name)
        done = run(self)
        # We get there in our second round, one peer in its first, the other never.
        done["ndcg_at_10"] = {"ours": 0.25 * done["round"], "peer": 0.6, "other": 0.1}[self.name]
        return done

    monkeypatch.setattr(Competitor, "run_round", run_round)
    race(ours, [peer, other], goal=0.5, patience=0.9)
    assert turns == ["ours", "peer", "other", "ours", "other"]
    found = compare(ours, [peer, other], 0.5)
    assert found["cpu_s_to_goal"] == {"ours": 20, "peer": 10, "other": None}
    assert found["peers"]["other"]["cpu_s_spent"] == 20
    assert found["peers"]["other"]["best_ndcg_at_10"] == 0.1
    assert found["ratios"]["other"] == {"users_per_s": 1, "users_per_cpu_s": 1}
    assert list(found["peers"]) == ["peer", "other"] and found["ours"]["cpu_s_to_goal"] == 20


def test_products_are_counted_by_shape():
    a, b, c = torch.randn(3, 4), torch.randn(4, 5), torch.randn(3)
    heads = torch.randn(2, 3, 7, 8, requires_grad=True)

    def step():
        (a @ b).T @ a
        torch.nn.functional.linear(b.T, a, c)
        attended = torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
        attended.sum().backward()

    counted = count_products(step)
    inside = ((6, 7, 8), (6, 8, 7))
    assert counted == {((3, 4), (4, 5)): 1, ((5, 3), (3, 4)): 1, ((5, 4), (4, 3)): 1, inside: 7}


def test_lists_are_measured_by_rank():
    lists = pl.DataFrame({"user_id": [1, 1, 2, 3], "item_id": [7, 8, 8, 9], "rank": [1, 3, 11, 10]})
    target = pl.DataFrame({"user_id": [1, 2, 3, 4], "item_id": [8, 8, 9, 9]})
    measured = measure_lists(lists, target)
    assert measured["hit_rate_at_10"] == 2 / 4
    assert measured["ndcg_at_10"] == pytest.approx((1 / 2 + 1 / np.log2(11)) / 4)
