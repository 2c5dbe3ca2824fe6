"""A store gives the rows that were written, and holds no more of its files in memory than it says."""

import numpy as np
import pytest

from forecart.errors import ArtifactError
from forecart.sequences import candidate_store
from forecart.sequences.candidate_features import CandidateFeatures
from forecart.sequences.candidate_store import CandidateStore, write_features


def features_of(num):
    rng = np.random.default_rng(0)
    content, metadata, collaborative = (
        rng.standard_normal((num, width)).astype(np.float16).astype(np.float32) for width in (3, 2, 4)
    )
    return CandidateFeatures(content, metadata, collaborative, rng.integers(0, 9, num).astype(np.int32))


@pytest.mark.parametrize("with_content", [True, False])
def test_rows_are_those_of_the_features_whatever_the_blocks(tmp_path, monkeypatch, with_content):
    monkeypatch.setattr(candidate_store, "_BLOCK_ROWS", 7)
    features = features_of(40)
    write_features(tmp_path, features, with_content=with_content)
    store = CandidateStore.load(tmp_path)
    index = np.array([0, 1, 6, 7, 20, 20, 39])
    static, advertiser = store.read(index)
    expected = np.concatenate([features.collaborative, features.content, features.metadata], axis=1)
    if not with_content:
        expected = np.concatenate([features.collaborative, np.zeros((40, 1), np.float32)], axis=1)
    assert static.dtype == np.float32 and np.array_equal(static, expected[index])
    assert np.array_equal(advertiser, features.advertiser[index])
    assert (store.num_candidates, store.num_collaborative) == (40, 4)


def test_a_store_is_written_whole_or_not_at_all(tmp_path):
    block = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="hold 5 candidates, 6 arrived"):
        CandidateStore.write(tmp_path, [block, block], num_candidates=5, num_collaborative=0)
    with pytest.raises(ArtifactError, match="facts"):
        CandidateStore.load(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_what_half_precision_cannot_hold_is_refused(tmp_path, value):
    block = np.full((3, 2), value, np.float32), np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="at most 65,504, another arrived"):
        CandidateStore.write(tmp_path, [block], num_candidates=3, num_collaborative=0)


def resident_kb(path):
    """What `smaps` says of the pages of a file."""
    total, is_of_file = 0, False
    with open("/proc/self/smaps") as lines:  # noqa: PTH123
        for line in lines:
            if "-" in line.split(" ")[0]:
                is_of_file = line.rstrip().endswith(str(path))
            elif is_of_file and line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


@pytest.mark.parametrize(("kept", "stretch"), [(0, 1 << 20), (1 << 21, 3_000_000), (1 << 22, 1 << 22)])
def test_a_read_keeps_no_more_mapped_than_is_said_and_its_rows_are_right(
    tmp_path, monkeypatch, kept, stretch
):
    num = 1 << 18
    static = (np.arange(num * 16) % 2039).astype(np.float32).reshape(num, 16)
    advertiser = np.arange(num, dtype=np.int32)
    store = CandidateStore.write(tmp_path, [(static, advertiser)], num_candidates=num, num_collaborative=0)
    file, rng = tmp_path / "static.npy", np.random.default_rng(0)

    def read_some():
        index = np.sort(rng.integers(0, num, 400))
        found, owner = store.read(index)
        assert np.array_equal(found, static[index]) and np.array_equal(owner, advertiser[index])

    read_some()
    assert resident_kb(file) > 4000  # of 8 MB: a small file stays mapped
    monkeypatch.setattr(candidate_store, "KEPT_BYTES", kept)
    monkeypatch.setattr(candidate_store, "STRETCH_BYTES", stretch)
    read_some()
    # And a page of the border.
    assert kept // 2048 <= resident_kb(file) <= kept // 1024 + 4
    for index in ([], [0], [num - 1], [5, 5, num - 1]):
        assert np.array_equal(store.read(np.array(index, np.int64))[0], static[index])


def test_no_more_is_mapped_at_once_than_a_stretch_beyond_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(candidate_store, "KEPT_BYTES", 1 << 20)
    monkeypatch.setattr(candidate_store, "STRETCH_BYTES", 1 << 20)
    num, mapped = 1 << 18, []
    block = np.zeros((num, 16), np.float32), np.zeros(num, np.int32)
    store = CandidateStore.write(tmp_path, [block], num_candidates=num, num_collaborative=0)
    take = np.take

    def watched(*args, **options):
        rows = take(*args, **options)
        mapped.append(resident_kb(tmp_path / "static.npy"))
        return rows

    monkeypatch.setattr(np, "take", watched)
    store.read(np.arange(num))
    # What is kept, a stretch, and the pieces of the cache that its ends lie in, of up to 2 MB each.
    assert 1000 < max(mapped) <= 2048 + 4096
