"""Small releases whose every list is known: what a user is shown follows from the user and the generation."""

from pathlib import Path

import numpy as np

from forecart.publish.records import RecordLayout
from forecart.publish.release import Release, ReleaseParts, build_release
from forecart.publish.suppression import suppression_key
from forecart.retrieval.candidate_files import EVERYONE
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

LAYOUT = RecordLayout(num_advertisers=6, num_items=4, width=8)
NUM_ADVERTISERS, NUM_ITEMS = 40, 60
DAY_US = 86_400 * 1_000_000
AS_OF_US = 20_000 * DAY_US
TTL_S = 7 * 86_400


def user_ids(num_users):
    return [f"user-{number}" for number in range(num_users)]


def advertisers_of(number, generation):
    """The advertisers of a user in a generation, best first; every fourth user has a short list."""
    length = 3 if number % 4 == 0 else LAYOUT.num_advertisers
    return [
        FIRST_INDEX + (7 * number + 11 * generation + 3 * place) % NUM_ADVERTISERS for place in range(length)
    ]


def items_of(number, generation):
    return [
        FIRST_INDEX + (5 * number + 13 * generation + place) % NUM_ITEMS for place in range(LAYOUT.num_items)
    ]


def make_records(numbers, generation):
    records = LAYOUT.empty(len(numbers))
    records["as_of_us"] = AS_OF_US + generation * DAY_US
    for row, number in enumerate(numbers):
        for kind, listed in (
            ("advertiser", advertisers_of(number, generation)),
            ("item", items_of(number, generation)),
        ):
            records[f"num_{kind}s"][row] = len(listed)
            records[f"{kind}_index"][row, : len(listed)] = listed
            records[f"{kind}_score"][row, : len(listed)] = [1 - 0.1 * place for place in range(len(listed))]
            records[f"is_repeat_{kind}"][row, 0] = True
    records["vector"][:, generation % LAYOUT.width] = 1
    return records


def make_parts(
    generation=0,
    *,
    num_users=50,
    suppressed=frozenset(),
    change=None,
    metrics=None,
    space="space-1",
    block=16,
):
    """Parts of a generation; `change` gets the records of each block before they are written."""
    numbers = [
        number for number, user in enumerate(user_ids(num_users)) if suppression_key(user) not in suppressed
    ]
    ids = [user_ids(num_users)[number] for number in numbers]

    def blocks():
        for first in range(0, len(numbers), block):
            records = make_records(numbers[first : first + block], generation)
            if change is not None:
                change(records)
            yield records

    source = {
        "generation": str(generation),
        "users": str(num_users),
        "changed": str(change and change.__name__),
        "suppressed": str(sorted(suppressed)),
        "metrics": str(metrics),
    }
    advertisers = Vocabulary.build([f"advertiser-{number}" for number in range(NUM_ADVERTISERS)])
    popular = [(FIRST_INDEX + place, 1 - 0.01 * place) for place in range(10)]
    generator = np.random.default_rng(generation)
    return ReleaseParts(
        as_of_us=AS_OF_US + generation * DAY_US,
        embedding_space_id=space,
        layout=LAYOUT,
        users=Vocabulary.build(ids),
        advertisers=advertisers,
        items=Vocabulary.build([f"item-{number}" for number in range(NUM_ITEMS)]),
        blocks=blocks(),
        fallback={"advertisers": {EVERYONE: popular, "DE": popular[::-1]}, "products": {EVERYONE: popular}},
        metrics={"next_advertiser.recall_at_10": 0.4} if metrics is None else metrics,
        source=source,
        ttl_s=TTL_S,
        item_vectors=(
            generator.normal(size=(NUM_ITEMS + FIRST_INDEX, LAYOUT.width)).astype(np.float16),
            np.zeros(NUM_ITEMS + FIRST_INDEX, np.float32),
        ),
    )


def build(folder: Path, generation=0, **options) -> Release:
    """A release in a folder of its own."""
    build_release(make_parts(generation, **options), folder)
    return Release.open(folder)
