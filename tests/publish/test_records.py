"""Records: what is read is what was written, and nothing else is ever read as a record."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.publish.small_release import AS_OF_US, LAYOUT, advertisers_of, items_of, make_records

from forecart.errors import SkewError, StoreError
from forecart.publish.records import RecordLayout, hash_name, hash_user, open_record, seal

RELEASE, SPACE, USER = hash_name("a release"), hash_name("a space"), hash_user("user-5")


def sealed(numbers=(5,), generation=2):
    records = make_records(list(numbers), generation)
    records["release"], records["space"], records["user"] = RELEASE, SPACE, USER
    return seal(records)


def test_a_record_is_read_as_it_was_written():
    record = open_record(sealed()[0].tobytes(), LAYOUT, user=USER, release=RELEASE, space=SPACE)
    assert record.as_of_us == AS_OF_US + 2 * 86_400_000_000
    assert record.advertisers.index.tolist() == advertisers_of(5, 2)
    assert record.items.index.tolist() == items_of(5, 2)
    assert np.allclose(record.advertisers.score, [1, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert record.items.is_repeat.tolist() == [True, False, False, False]
    assert record.vector.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


def test_a_short_list_is_as_long_as_it_is():
    record = open_record(sealed([8])[0].tobytes(), LAYOUT, user=USER, release=RELEASE, space=SPACE)
    assert record.advertisers.index.tolist() == advertisers_of(8, 2)
    assert len(record.advertisers.index) == 3


def test_a_layout_without_products_or_vectors_is_read():
    layout = RecordLayout(3, 0, 0)
    records = layout.empty(1)
    records["num_advertisers"], records["advertiser_index"] = 2, [[4, 5, 0]]
    record = open_record(seal(records)[0].tobytes(), layout, user=0, release=0, space=0)
    assert record.advertisers.index.tolist() == [4, 5]
    assert record.items.index.size == record.vector.size == 0


@given(st.integers(0, LAYOUT.dtype.itemsize * 8 - 1))
def test_no_flipped_bit_is_read_as_good(bit):
    payload = bytearray(sealed()[0].tobytes())
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreError, match="checksum"):
        open_record(bytes(payload), LAYOUT, user=USER, release=RELEASE, space=SPACE)


@given(st.binary(max_size=2 * LAYOUT.dtype.itemsize))
def test_garbage_is_no_record(payload):
    with pytest.raises(StoreError):
        open_record(payload, LAYOUT, user=USER, release=RELEASE, space=SPACE)


@pytest.mark.parametrize(("release", "space"), [(RELEASE + 1, SPACE), (RELEASE, SPACE + 1)])
def test_a_record_of_another_release_or_space_is_refused(release, space):
    with pytest.raises(SkewError, match="of the release that is served"):
        open_record(sealed()[0].tobytes(), LAYOUT, user=USER, release=release, space=space)


def test_the_record_of_another_user_is_refused():
    with pytest.raises(StoreError, match="of the user that was asked for"):
        open_record(sealed()[0].tobytes(), LAYOUT, user=hash_user("user-6"), release=RELEASE, space=SPACE)
