"""The vocabulary against a dict, its append-only promise, and what it does with colliding hashes."""

import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecart.errors import ArtifactError, DataError
from forecart.sequences import vocabulary as module
from forecart.sequences.vocabulary import Vocabulary, hash_ids

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(known=st.lists(IDS, max_size=40), asked=st.lists(IDS, max_size=20))
def test_lookup_is_a_dict_lookup(known, asked):
    vocabulary = Vocabulary.build(known)
    expected = {id_: index for index, id_ in enumerate(dict.fromkeys(known), start=2)}
    queries = known + asked
    assert vocabulary.index(queries).tolist() == [expected.get(id_, 1) for id_ in queries]
    assert vocabulary.ids(list(expected.values())) == list(expected)
    assert len(vocabulary) == len(expected) + 2


@settings(max_examples=60, deadline=None)
@given(generations=st.lists(st.lists(IDS, max_size=15), min_size=1, max_size=5))
def test_an_id_keeps_its_index_across_generations(generations):
    vocabulary = Vocabulary.build([])
    kept: dict[str, int] = {}
    for new_ids in generations:
        before, vocabulary = vocabulary, vocabulary.append(new_ids)
        for id_ in new_ids:
            kept.setdefault(id_, len(kept) + 2)
        assert vocabulary.index(list(kept)).tolist() == list(kept.values())
        assert vocabulary.generation == before.generation + (len(vocabulary) > len(before))
    assert vocabulary.content_hash == Vocabulary.build(list(kept)).content_hash


def test_an_append_of_known_ids_is_no_new_generation():
    vocabulary = Vocabulary.build(["a", "b"])
    assert vocabulary.append(["b", "a"]) is vocabulary


def test_null_is_padding_and_a_foreign_id_is_unknown():
    vocabulary = Vocabulary.build(["a", "b"])
    index = vocabulary.index(pl.Series(["b", None, "zzz", "", "a"]))
    assert index.tolist() == [3, 0, 1, 1, 2]
    assert index.dtype == np.int32


@pytest.mark.parametrize("ids", [[], ["only"], ["b", "a", "ü", "x" * 700, "x" * 701, "y" * 512, "y" * 513]])
def test_a_saved_vocabulary_loads_as_it_was(tmp_path, ids):
    built = Vocabulary.build(ids)
    built.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert loaded.ids(range(2, len(loaded))) == ids
    assert loaded.index([*ids, "foreign"]).tolist() == [*range(2, len(ids) + 2), 1]
    assert loaded.describe() == built.describe()
    assert loaded.append(["more"]).index([*ids, "more"]).tolist() == list(range(2, len(ids) + 3))


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        Vocabulary.build(["b", "a", "c"]).save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_content_hash_depends_on_order_and_on_where_ids_end():
    hashes = {Vocabulary.build(ids).content_hash for ids in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", "c"])}
    assert len(hashes) == 4


def test_two_ids_with_one_hash_are_refused(monkeypatch):
    monkeypatch.setattr(module, "hash_ids", lambda ids: np.zeros(len(ids), np.uint64))
    with pytest.raises(DataError, match="'a' and 'b'"):
        Vocabulary.build(["a", "b"])
    single = Vocabulary.build(["a"])
    with pytest.raises(DataError, match="hash"):
        single.append(["b"])


def test_a_foreign_id_with_a_taken_hash_is_unknown(monkeypatch):
    monkeypatch.setattr(module, "hash_ids", lambda ids: np.full(len(ids), 7, np.uint64))
    assert Vocabulary.build(["a"]).index(["a", "b"]).tolist() == [2, 1]


@pytest.mark.parametrize("ids", [["a", ""], pl.Series(["a", None])])
def test_empty_and_null_ids_are_refused(ids):
    with pytest.raises(DataError, match="non-empty"):
        Vocabulary.build(ids)


@pytest.mark.parametrize("index", [0, 1, 4, -1])
def test_an_index_without_an_id_is_refused(index):
    with pytest.raises(ValueError, match="drop padding"):
        Vocabulary.build(["a", "b"]).ids([2, index])


def test_hashes_are_pinned():
    """Known values: a change of the hash would orphan every vocabulary on disk.

    They were worked out with Python integers from the published XXH64 rounds.
    """
    expected = [_reference_hash(text.encode()) for text in ("", "a", "12345678", "advertiser-000123")]
    arrow = pa.array(["", "a", "12345678", "advertiser-000123"], pa.large_string())
    assert hash_ids(arrow).tolist() == expected
    assert hash_ids(arrow.slice(1)).tolist() == expected[1:]


def _reference_hash(raw: bytes) -> int:
    p1, p2, p3, p4, p5 = (
        11400714785074694791,
        14029467366897019727,
        1609587929392839161,
        9650029242287828579,
        2870177450012600261,
    )
    mask = (1 << 64) - 1

    def rotate(value: int, bits: int) -> int:
        return ((value << bits) | (value >> (64 - bits))) & mask

    state = (p5 + len(raw)) & mask
    for begin in range(0, len(raw), 8):
        word = int.from_bytes(raw[begin : begin + 8], "little")
        state ^= rotate(word * p2 & mask, 31) * p1 & mask
        state = (rotate(state, 27) * p1 + p4) & mask
    state = (state ^ state >> 33) * p2 & mask
    state = (state ^ state >> 29) * p3 & mask
    return state ^ state >> 32


def test_hashes_do_not_collide_on_a_million_similar_ids():
    ids = pl.select(pl.format("item-{}", pl.int_range(1_000_000))).to_series()
    hashes = hash_ids(ids.to_arrow().cast(pa.large_string()))
    assert len(np.unique(hashes)) == 1_000_000
    share_of_ones = np.array([(hashes >> np.uint64(bit) & np.uint64(1)).mean() for bit in range(64)])
    assert np.abs(share_of_ones - 0.5).max() < 0.003


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    Vocabulary.build(["a", "b"]).save(tmp_path)
    np.save(tmp_path / "sorted_hashes.npy", np.zeros(5, np.uint64))
    with pytest.raises(ArtifactError, match="one size"):
        Vocabulary.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ArtifactError, match="build it again"):
        Vocabulary.load(tmp_path)


def test_hashing_and_finding_in_blocks_change_nothing(monkeypatch):
    ids = [f"{number % 7}-{number}" * (1 + number % 90) for number in range(60)]
    monkeypatch.setattr(module, "_HASHED_IDS", 7)
    hashes = hash_ids(pa.array(ids, pa.large_string()))
    assert hashes.tolist() == [module.hash_one(one.encode()) for one in ids]
    assert Vocabulary.build(ids).index(ids[::-1]).tolist() == list(range(61, 1, -1))
