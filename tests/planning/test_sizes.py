"""Sizes that formats fix against the files of a run: each array to the byte."""

import json
from pathlib import Path

import numpy as np
import pytest

from forecart.planning import sizes
from forecart.publish.records import RecordLayout


def payload(*paths: Path) -> int:
    """Bytes of the arrays in these files, without their headers."""
    return sum(path.stat().st_size - header_of(path) for path in paths)


def header_of(path: Path) -> int:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


@pytest.fixture(scope="module")
def counts(nano) -> dict[str, int]:
    manifest = json.loads((nano.folder / "sequences/manifest.json").read_text())
    found = {name: one["num_ids"] for name, one in manifest["vocabularies"].items()}
    return {**found, "events": manifest["num_events"]}


def test_histories_are_as_large_as_planned(nano, counts):
    files = (nano.folder / "sequences/histories").glob("*.npy")
    # Padding and unknown have a row too.
    assert payload(*files) == sizes.histories_bytes(counts["events"], counts["users"] + 2)


@pytest.mark.parametrize("name", ["users", "advertisers", "items"])
def test_vocabularies_are_as_large_as_planned(nano, counts, name):
    folder = nano.folder / "sequences/vocabularies" / name
    text = (folder / "id_bytes.npy").stat().st_size - header_of(folder / "id_bytes.npy")
    bytes_an_id = text / counts[name]
    assert payload(*folder.glob("*.npy")) == pytest.approx(sizes.vocabulary_bytes(counts[name], bytes_an_id))


def test_item_facts_are_as_large_as_planned(nano, counts):
    folder = nano.folder / "sequences"
    files = [folder / f"{name}.npy" for name in ("item_advertiser", "categories", "item_price")]
    assert payload(*files) == (counts["items"] + 2) * sizes.BYTES_AN_ITEM_FACT


@pytest.mark.parametrize("level", ["advertisers", "products"])
def test_vectors_are_as_large_as_planned(nano, counts, level):
    folder = nano.folder / "candidates" / level
    num_candidates = counts["items" if level == "products" else level] + 2
    width = np.load(folder / "candidate_vectors.npy").shape[1]
    found = payload(folder / "candidate_vectors.npy", folder / "candidate_prior.npy")
    assert found == sizes.candidate_vectors_bytes(num_candidates, width)
    assert payload(*folder.glob("vectors-*.npy")) == sizes.user_vectors_bytes(counts["users"], width)


def test_records_are_as_large_as_planned():
    # Told in docs/artifacts.md: 36 bytes before the lists, 9 a candidate, 2 a dimension.
    assert sizes.records_bytes(10, RecordLayout(100, 50, 64)) == 10 * (36 + 9 * 150 + 2 * 64)
