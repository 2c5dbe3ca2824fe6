"""The inverted file on vectors in clusters: recall without a mask, under masks, and after changes."""

from dataclasses import replace

import numpy as np
import pytest

from forecart.errors import ArtifactError, SkewError
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import Eligible, IndexSettings, IndexSource
from forecart.retrieval.index.lists import VECTORS_A_LIST
from forecart.retrieval.index.live import LiveIndex
from forecart.retrieval.index.masks import Effort, choose_effort
from forecart.retrieval.index.scan import scan
from forecart.retrieval.index.shards import build_shards, open_shards, seal_shards, shard_name
from forecart.retrieval.index.tuning import find_effort, index_recall_at_k
from forecart.retrieval.top_k import TopK

NUM, WIDTH, TOP_K = 20_000, 16, 20
SETTINGS = IndexSettings(target_recall=0.99, top_k=TOP_K, num_sampled=200, num_lists=200)


def make_vectors(num, seed):
    """Unit vectors around 150 directions."""
    directions = np.random.default_rng(0).standard_normal((150, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    cluster = generator.integers(0, 150, num)
    vectors = directions[cluster] + 0.15 * generator.standard_normal((num, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), cluster


VECTORS, CLUSTER = make_vectors(NUM, 1)
CANDIDATES = np.arange(2, NUM + 2, dtype=np.int32)
USERS, _ = make_vectors(200, 2)
SOURCE = IndexSource(VECTORS, CANDIDATES, "space", make_vectors(200, 3)[0])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inverted") / "index"
    build_index(SOURCE, folder, SETTINGS)
    return open_index(folder)


def recall(found, is_eligible=None, vectors=VECTORS, candidates=CANDIDATES):
    is_eligible = np.ones(len(candidates), np.bool_) if is_eligible is None else is_eligible
    exact = scan(vectors[is_eligible], candidates[is_eligible], USERS, top_k=TOP_K)
    return index_recall_at_k(found, exact).mean()


def test_recall_is_what_was_asked_for_and_few_lists_are_read(index):
    assert recall(index.search(USERS, TOP_K)) >= 0.985
    levels = index.stats().facts["levels"]
    assert levels[0]["share"] == 1 and levels[0]["num_probes"] < 50
    probes = [level["num_probes"] for level in levels]
    assert probes == sorted(probes)


def test_lists_are_read_on_by_how_good_the_first_ones_were(index):
    num_lists = SETTINGS.num_lists
    first = index.search_lists(USERS, TOP_K, Effort(1, 0, 0.0))
    none_near = index.search_lists(USERS, TOP_K, Effort(1, num_lists, -10.0))
    np.testing.assert_array_equal(none_near.candidate, first.candidate)
    everything = index.search_lists(USERS, TOP_K, Effort(1, num_lists, 10.0))
    assert recall(first) < 0.97 and recall(everything) > 0.999
    some = index.search_lists(USERS, TOP_K, Effort(1, num_lists, 0.2))
    assert (some.score[:, -1] >= first.score[:, -1]).all() and recall(some) > recall(first)
    alone = [index.search_lists(USERS[row : row + 1], TOP_K, Effort(1, num_lists, 0.2)) for row in range(50)]
    np.testing.assert_array_equal(np.concatenate([one.candidate for one in alone]), some.candidate[:50])


class MadeRows:
    """Vectors that are nowhere in one piece; remembers how many were asked for at once."""

    def __init__(self, vectors):
        self.vectors, self.shape, self.most = vectors, vectors.shape, 0

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, rows):
        made = self.vectors[rows].copy()
        self.most = max(self.most, len(made))
        return made


def test_vectors_are_read_by_blocks_and_lists_written_by_them(tmp_path, monkeypatch):
    options = SETTINGS.model_copy(update={"codes": "int8", "num_lists": 50})
    build_index(SOURCE, tmp_path / "at_once", options)
    monkeypatch.setattr("forecart.retrieval.index.files._BLOCK_ROWS", 700)
    monkeypatch.setattr("forecart.retrieval.index.lists._BLOCK_BYTES", 3000 * WIDTH)
    monkeypatch.setattr("forecart.retrieval.index.tuning._SCANNED", (100, 700))
    rows = MadeRows(VECTORS)
    build_index(replace(SOURCE, vector_ND=rows), tmp_path / "by_blocks", options)
    assert rows.most == 50 * VECTORS_A_LIST < NUM
    for name in ("lists.bin", "list_of.npy", "vectors.npy", "candidates.npy", "faiss.bin"):
        assert (tmp_path / "by_blocks" / name).read_bytes() == (tmp_path / "at_once" / name).read_bytes()


@pytest.mark.parametrize("max_flat", [1 << 12, 20], ids=["flat", "regions"])
def test_a_byte_a_coordinate_costs_no_recall(tmp_path, monkeypatch, max_flat):
    monkeypatch.setattr("forecart.retrieval.index.centroids.MAX_FLAT", max_flat)
    build_index(SOURCE, tmp_path / "index", SETTINGS.model_copy(update={"codes": "int8"}))
    index = open_index(tmp_path / "index")
    found = index.search(USERS, TOP_K)
    assert recall(found) >= 0.985
    stored = VECTORS.astype(np.float16).astype(np.float32)
    score = np.einsum("bd,bkd->bk", USERS, stored[found.candidate - 2])
    np.testing.assert_allclose(found.score, score, rtol=1e-5)
    assert (tmp_path / "index" / "lists.bin").stat().st_size == NUM * (WIDTH + 8)
    for share in (0.5, 0.1):
        mask = np.concatenate([[False, False], mask_of("clusters", share)])
        assert recall(index.search(USERS, TOP_K, eligible=Eligible(mask)), mask[2:]) >= 0.985


def mask_of(kind, share):
    generator = np.random.default_rng(5)
    if kind == "random":
        return generator.random(NUM) < share
    return np.isin(CLUSTER, generator.permutation(150)[: max(1, int(150 * share))])


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("kind", ["random", "clusters"])
def test_a_mask_costs_no_recall_and_lists_are_full(index, kind, share, monkeypatch):
    is_eligible = mask_of(kind, share)
    mask = np.concatenate([[False, False], is_eligible])
    for scan_us in (0.0, 1e9):  # by whatever is cheaper, and by lists wherever they were measured
        monkeypatch.setitem(index.measured, "scan_us", scan_us)
        found = index.search(USERS, TOP_K, eligible=Eligible(mask))
        assert recall(found, is_eligible) >= 0.985
        assert ((found.candidate > 0).sum(axis=1) == min(TOP_K, is_eligible.sum())).all()
        assert mask[found.candidate[found.candidate > 0]].all()


def test_a_wide_mask_that_is_not_kept_twice_is_read_by_its_bits(index, monkeypatch):
    monkeypatch.setattr("forecart.retrieval.index.masks._MAX_LISTED", 0)
    monkeypatch.setitem(index.measured, "scan_us", 1e9)
    is_eligible = mask_of("clusters", 0.5)
    mask = np.concatenate([[False, False], is_eligible])
    assert recall(index.search(USERS, TOP_K, eligible=Eligible(mask)), is_eligible) >= 0.985


def test_lists_or_a_scan_whichever_was_cheaper(index):
    measured = {
        "top_k": 100,
        "scan_us": 10.0,
        "scan_us_each": 1.0,
        "levels": [
            {"share": 1.0, "num_first": 2, "num_probes": 8, "margin": 0.1, "search_us": 50.0},
            {"share": 0.1, "num_first": 4, "num_probes": 32, "margin": 0.2, "search_us": 500.0},
        ],
    }
    masked = index.prepare(Eligible(np.concatenate([[False, False], mask_of("random", 0.2)])))
    assert choose_effort(measured, None, 100) == Effort(2, 8, 0.1)
    assert choose_effort(measured, None, 250) == Effort(5, 20, 0.1)
    assert choose_effort(measured, masked, 100) == Effort(4, 32, 0.2)
    assert choose_effort({**measured, "scan_us_each": 0.01}, masked, 100) is None
    narrow = index.prepare(Eligible(np.concatenate([[False, False], mask_of("random", 0.01)])))
    assert choose_effort({**measured, "scan_us_each": 1e6}, narrow, 100) is None


def test_effort_is_the_least_that_reaches_the_target():
    exact = TopK(np.arange(1, 101, dtype=np.int32)[None], np.zeros((1, 100), np.float32))

    def search_at(_, effort):
        return TopK(np.arange(1, min(effort, 100) + 1, dtype=np.int32)[None], np.zeros((1, 1), np.float32))

    assert 50 <= find_effort(search_at, np.zeros((1, 1)), exact, 0.5, limit=1000) <= 57
    assert find_effort(search_at, np.zeros((1, 1)), exact, 1.0, limit=80) == 80


def changed_source(generator):
    """A fifth of the candidates removed, replaced or new: what is to be there afterwards."""
    order = generator.permutation(NUM)
    removed, replaced = order[: NUM // 10], order[NUM // 10 : NUM // 5]
    vectors = VECTORS.copy()
    vectors[replaced] = make_vectors(len(replaced), 7)[0]
    new = make_vectors(NUM // 10, 8)[0]
    is_left = np.ones(NUM, np.bool_)
    is_left[removed] = False
    candidates = np.concatenate([CANDIDATES[is_left], np.arange(NUM + 2, NUM + 2 + len(new), dtype=np.int32)])
    return removed, replaced, np.concatenate([vectors[is_left], new]), candidates


def test_changes_cost_no_recall_and_compacting_keeps_them(index, tmp_path):
    removed, replaced, vectors, candidates = changed_source(np.random.default_rng(6))
    live = LiveIndex(index)
    live.remove(CANDIDATES[removed])
    is_new = np.isin(candidates, CANDIDATES[replaced]) | (candidates >= NUM + 2)
    live.upsert(candidates[is_new], vectors[is_new])
    build_index(IndexSource(vectors, candidates, "space", SOURCE.user_SD), tmp_path / "anew", SETTINGS)
    anew = recall(open_index(tmp_path / "anew").search(USERS, TOP_K), None, vectors, candidates)
    found = live.search(USERS, TOP_K)
    assert recall(found, None, vectors, candidates) >= anew - 0.005
    assert not np.isin(found.candidate, CANDIDATES[removed]).any()
    is_eligible = np.random.default_rng(9).random(len(candidates)) < 0.1
    mask = np.zeros(int(candidates[-1]) + 1, np.bool_)
    mask[candidates[is_eligible]] = True
    masked = live.search(USERS, TOP_K, eligible=Eligible(mask))
    assert recall(masked, is_eligible, vectors, candidates) >= 0.985
    assert mask[masked.candidate].all()
    live.compact(tmp_path / "compact", SETTINGS, user_SD=SOURCE.user_SD)
    compact = open_index(tmp_path / "compact", embedding_space_id="space")
    assert compact.candidate_N.tolist() == candidates.tolist() == live.candidate_N.tolist()
    assert recall(compact.search(USERS, TOP_K), None, vectors, candidates) >= anew - 0.005
    facts = live.stats().facts
    assert (facts["num_added"], facts["num_gone"]) == (NUM // 5, NUM // 5)


def test_a_list_that_lost_everything_is_filled_again(index):
    live = LiveIndex(index)
    nearest = index.search(USERS[:1], 500).candidate[0]
    live.remove(nearest)
    found = live.search(USERS[:1], TOP_K)
    assert (found.candidate > 0).all() and not np.isin(found.candidate, nearest).any()
    assert found.score[0, 0] <= index.search(USERS[:1], 500).score[0, -1] + 1e-3


@pytest.mark.parametrize("candidates", [[0], [1], [2, 3]])
def test_what_is_no_change_is_refused(index, candidates):
    with pytest.raises(ValueError, match="arrived"):
        LiveIndex(index).upsert(np.array(candidates, np.int32), VECTORS[:1])


def test_shards_are_listed_and_another_is_refused(tmp_path):
    few = IndexSource(VECTORS[:300], CANDIDATES[:300], "space")
    exact = IndexSettings(kind="exact")
    build_shards(few, tmp_path / "shards", exact, num_shards=2)
    index = open_shards(tmp_path / "shards", embedding_space_id="space")
    assert index.stats().num_candidates == 300 and index.stats().facts == {"num_shards": 2}
    with pytest.raises(SkewError):
        open_shards(tmp_path / "shards", embedding_space_id="another")
    other = IndexSource(VECTORS[150:290], CANDIDATES[150:290], "another")
    build_index(other, tmp_path / "shards" / shard_name(1), exact)
    with pytest.raises(ArtifactError, match="listed"):
        open_shards(tmp_path / "shards")
    seal_shards(tmp_path / "shards", 2)
    with pytest.raises(SkewError, match="one embedding space"):
        open_shards(tmp_path / "shards")
    with pytest.raises(ArtifactError, match="none is there"):
        seal_shards(tmp_path / "shards", 3)


def test_where_no_margin_is_enough_every_list_is_read(tmp_path):
    settings = SETTINGS.model_copy(update={"target_recall": 1.0})
    build_index(SOURCE, tmp_path / "index", settings)
    index = open_index(tmp_path / "index")
    is_eligible = CLUSTER < 75
    mask = np.zeros(NUM + 2, np.bool_)
    mask[CANDIDATES[is_eligible]] = True
    masked = index.prepare(Eligible(mask))
    effort = choose_effort(index.measured | {"scan_us": 1e9}, masked, TOP_K)
    assert recall(index.search_lists(USERS, TOP_K, effort, masked=masked), is_eligible) > 0.998


def test_vectors_that_are_all_the_same_are_listed(tmp_path):
    same = np.tile(VECTORS[:1], (2000, 1))
    source = IndexSource(same, CANDIDATES[:2000], "space", USERS)
    build_index(source, tmp_path / "index", IndexSettings(top_k=TOP_K, num_sampled=50))
    found = open_index(tmp_path / "index").search(USERS[:5], TOP_K)
    assert (found.candidate > 0).all() and len(np.unique(found.candidate[0])) == TOP_K
