"""One suite that every index passes: the answers of sorting every score, exactly K, no damage read."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecart.errors import ArtifactError, SkewError
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import (
    Eligible,
    IndexSettings,
    IndexSource,
    fold_prior,
    fold_queries,
    fold_source,
)
from forecart.retrieval.index.group_max import GroupMaxScan
from forecart.retrieval.index.live import LiveIndex
from forecart.retrieval.index.shards import build_shards, open_shards

WIDTH = 8
SPACE = "space-1"
SYSTEMS = ("exact", "group_max", "inverted_file", "int8", "regions", "graph", "shards", "live")


def make_source(num, seed=0, *, gap=3):
    """Vectors of small whole numbers: products are exact in any precision, and ties are everywhere."""
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-3, 4, (num, WIDTH)).astype(np.float32)
    candidates = np.sort(generator.permutation(gap * num)[:num]).astype(np.int32) + 2
    return IndexSource(vectors, candidates, SPACE)


def make_queries(num, seed=1):
    return np.random.default_rng(seed).integers(-3, 4, (num, WIDTH)).astype(np.float32)


def build(name, source, folder):
    """Returns an index of this system over the source."""
    options = IndexSettings(
        kind=name if name in ("inverted_file", "graph") else "exact",
        target_recall=1.0,
        top_k=10,
        num_sampled=20,
    )
    if name == "shards":
        build_shards(source, folder, replace_kind(options, "inverted_file"), num_shards=3)
        return open_shards(folder, embedding_space_id=SPACE)
    if name == "live":
        return build_live(source, folder, replace_kind(options, "inverted_file"))
    if name in ("int8", "regions"):
        options = options.model_copy(update={"kind": "inverted_file", "codes": "int8", "num_lists": 60})
    with pytest.MonkeyPatch.context() as patch:
        if name == "regions":
            patch.setattr("forecart.retrieval.index.centroids.MAX_FLAT", 10)
        build_index(source, folder, options)
    index = open_index(folder, embedding_space_id=SPACE)
    return replace(index, scan=GroupMaxScan()) if name == "group_max" else index


def replace_kind(options, kind):
    return options.model_copy(update={"kind": kind})


def build_live(source, folder, options):
    """Half of the source is built, some with other vectors, and there is what must not be found."""
    num = len(source.candidate_N)
    is_built = np.arange(num) % 2 == 0
    extra = np.setdiff1d(np.arange(2, 3 * num + 2, dtype=np.int32), source.candidate_N)[:5]
    candidates = np.concatenate([source.candidate_N[is_built], extra])
    vectors = np.concatenate([source.vector_ND[is_built], np.full((len(extra), WIDTH), 9, np.float32)])
    vectors[::3] = 9
    order = np.argsort(candidates)
    build_index(IndexSource(vectors[order], candidates[order], SPACE), folder, options)
    live = LiveIndex(open_index(folder))
    live.upsert(source.candidate_N, np.full_like(source.vector_ND, 5))
    changed = np.unique(
        np.concatenate([np.flatnonzero(~is_built), np.flatnonzero(is_built)[::3], np.arange(num)])
    )
    live.upsert(source.candidate_N[changed], source.vector_ND[changed])
    live.remove(extra)
    return live


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request, tmp_path_factory):
    source = make_source(600)
    return (
        build(request.param, source, tmp_path_factory.mktemp(request.param) / "index"),
        source,
        request.param,
    )


def naive_lists(source, query_BD, top_k, mask=None):
    """Sorting every score in plain Python."""
    lists = []
    for query in query_BD:
        scores = [
            (-float(np.dot(query, vector)), int(candidate))
            for vector, candidate in zip(source.vector_ND, source.candidate_N, strict=True)
            if mask is None or (candidate < len(mask) and mask[candidate])
        ]
        best = [(candidate, -negative) for negative, candidate in sorted(scores)[:top_k]]
        lists.append(best + [(0, -math.inf)] * (top_k - len(best)))
    return lists


def check(found, expected, *, is_exact=True):
    """Scores and their order are those of the lists; of candidates with the last score any may be listed."""
    assert found.candidate.dtype == np.int32 and found.score.dtype == np.float32
    for row, one in enumerate(expected):
        listed = list(zip(found.candidate[row].tolist(), found.score[row].tolist(), strict=True))
        assert [score for _, score in listed] == [score for _, score in one]
        last = one[-1][1]
        if is_exact:
            assert listed == one
        else:
            assert [pair for pair in listed if pair[1] > last] == [pair for pair in one if pair[1] > last]
            real = [candidate for candidate, _ in listed if candidate]
            assert len(set(real)) == len(real)


def is_exact(name):
    return name in ("exact", "group_max")


@settings(max_examples=15)
@given(st.integers(1, 700), st.sampled_from([0.0, 0.002, 0.05, 0.5, 1.0]), st.integers(0, 1000))
def test_lists_are_the_best_eligible_and_exactly_k(system, top_k, share, seed):
    index, source, name = system
    mask = np.random.default_rng(seed).random(int(source.candidate_N[-1]) + 1) < share
    queries = make_queries(2, seed)
    found = index.search(queries, top_k, eligible=Eligible(mask))
    check(found, naive_lists(source, queries, top_k, mask), is_exact=is_exact(name))


@pytest.mark.parametrize("top_k", [1, 10, 600, 800])
def test_without_a_mask_lists_are_the_best(system, top_k):
    index, source, name = system
    queries = make_queries(5)
    check(index.search(queries, top_k), naive_lists(source, queries, top_k), is_exact=is_exact(name))


def test_what_the_mask_does_not_reach_is_not_eligible(system):
    index, source, name = system
    queries = make_queries(3)
    for length in (0, 1, 50, int(source.candidate_N[-1])):
        mask = np.ones(length, np.bool_)
        found = index.search(queries, 20, eligible=Eligible(mask))
        check(found, naive_lists(source, queries, 20, mask), is_exact=is_exact(name))


def test_no_users_no_lists(system):
    index, _, _ = system
    found = index.search(np.zeros((0, WIDTH), np.float32), 7)
    assert found.candidate.shape == found.score.shape == (0, 7)


def test_vectors_are_given_back_and_counted(system):
    index, source, name = system
    stats = index.stats()
    assert (stats.num_candidates, stats.width) == source.vector_ND.shape and stats.disk_bytes > 0
    assert index.embedding_space_id == SPACE
    assert index.candidate_N.tolist() == source.candidate_N.tolist()
    if name != "live":
        places = np.array([0, 599, 300, 17])
        assert index.read_vectors(places).tolist() == source.vector_ND[places].tolist()


@pytest.mark.parametrize("queries", [np.zeros((2, WIDTH + 1)), np.zeros(WIDTH), np.full((1, WIDTH), np.nan)])
def test_what_is_no_query_is_refused(system, queries):
    index, _, _ = system
    with pytest.raises(ValueError, match="arrived"):
        index.search(queries.astype(np.float32), 5)


@pytest.mark.parametrize("kind", ["exact", "inverted_file", "graph"])
@pytest.mark.parametrize("num", [0, 1, 3])
def test_few_candidates_or_none(tmp_path, kind, num):
    source = make_source(num)
    build_index(source, tmp_path / "index", IndexSettings(kind=kind))
    index = open_index(tmp_path / "index")
    queries = make_queries(2)
    check(index.search(queries, 5), naive_lists(source, queries, 5), is_exact=False)
    mask = np.ones(100, np.bool_)
    check(
        index.search(queries, 5, eligible=Eligible(mask)),
        naive_lists(source, queries, 5, mask),
        is_exact=False,
    )


@pytest.fixture(scope="module", params=["exact", "inverted_file", "graph"])
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "index"
    build_index(make_source(200), folder, IndexSettings(kind=request.param, num_sampled=10))
    return folder


def test_a_folder_that_was_moved_is_the_same_index(built, tmp_path):
    shutil.copytree(built, tmp_path / "moved")
    lists = [open_index(folder).search(make_queries(3), 10) for folder in (built, tmp_path / "moved")]
    assert lists[0].candidate.tolist() == lists[1].candidate.tolist()


def test_an_index_takes_a_folder_of_its_own(tmp_path):
    (tmp_path / "report.html").write_text("of a run")
    with pytest.raises(ArtifactError, match=r"report\.html"):
        build_index(make_source(5), tmp_path, IndexSettings(kind="exact"))
    assert (tmp_path / "report.html").exists()
    for num in (5, 7):  # and one after another
        build_index(make_source(num), tmp_path / "index", IndexSettings(kind="exact"))
    assert len(open_index(tmp_path / "index").candidate_N) == 7


def test_damage_is_found_before_a_parser_reads_it(built, tmp_path):
    for path in sorted(built.iterdir()):
        for at in (0, path.stat().st_size // 2, path.stat().st_size - 2):
            copy = tmp_path / "copy"
            shutil.copytree(built, copy)
            damaged = bytearray((copy / path.name).read_bytes())
            damaged[at] ^= 0x15
            (copy / path.name).write_bytes(bytes(damaged))
            with pytest.raises(ArtifactError):
                open_index(copy)
            shutil.rmtree(copy)


def test_what_is_missing_or_too_much_is_refused(built, tmp_path):
    for path in sorted(built.iterdir()):
        copy = tmp_path / "copy"
        shutil.copytree(built, copy)
        (copy / path.name).unlink()
        with pytest.raises(ArtifactError):
            open_index(copy)
        shutil.rmtree(copy)
    shutil.copytree(built, tmp_path / "more")
    (tmp_path / "more" / "surprise.npy").write_bytes(b"?")
    with pytest.raises(ArtifactError):
        open_index(tmp_path / "more")


def test_a_tower_of_another_space_is_refused(built):
    with pytest.raises(SkewError, match=r"space-1.*space-2"):
        open_index(built, embedding_space_id="space-2")


@pytest.mark.parametrize("kind", ["exact", "inverted_file", "graph"])
def test_a_prior_is_one_more_coordinate(tmp_path, kind):
    source = make_source(300)
    prior = np.random.default_rng(2).integers(-20, 20, 300).astype(np.float32)
    folded = replace(source, vector_ND=fold_prior(source.vector_ND, prior))
    build_index(folded, tmp_path / "index", IndexSettings(kind=kind, target_recall=1.0, top_k=10))
    queries = make_queries(20)
    found = open_index(tmp_path / "index").search(fold_queries(queries), 10)
    scores = np.sort(queries @ source.vector_ND.T + prior, axis=1)[:, :-11:-1]
    assert (found.score == scores).mean() > 0.99


def test_what_has_no_prior_is_not_indexed_and_stand_ins_are_like_users():
    vectors = np.arange(40, dtype=np.float16).reshape(10, 4)
    prior = np.arange(10, dtype=np.float32)
    prior[[0, 4, 7]] = -np.inf
    source = fold_source(vectors, prior, SPACE)
    assert source.candidate_N.tolist() == [2, 3, 5, 6, 8, 9]
    assert source.vector_ND[2].tolist() == [20, 21, 22, 23, 5]
    assert source.user_SD[2].tolist() == [20, 21, 22, 23, 1]


@pytest.mark.parametrize("candidates", [[2, 2, 3], [3, 2, 4], [1, 2, 3]])
def test_candidates_that_do_not_ascend_from_the_first_are_refused(candidates):
    with pytest.raises(ValueError, match="ascend"):
        IndexSource(np.zeros((3, WIDTH), np.float32), np.array(candidates, np.int32), SPACE)
