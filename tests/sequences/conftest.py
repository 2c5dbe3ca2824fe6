"""Small event folders in the format of the events stage, written without that stage."""

import random
from pathlib import Path

import polars as pl
import pytest

from forecart import artifacts

TIME = pl.Datetime("us", "UTC")
EVENT_SCHEMA = {
    "event_id": pl.String,
    "user_id": pl.String,
    "event_type": pl.String,
    "advertiser_id": pl.String,
    "item_id": pl.String,
    "occurred_at": TIME,
    "arrived_at": TIME,
    "ordinal": pl.Int64,
    "value": pl.Float64,
    "currency": pl.String,
    "quantity": pl.Float64,
    "country": pl.String,
}
CATALOGUE_SCHEMA = {
    "item_id": pl.String,
    "advertiser_id": pl.String,
    "title": pl.String,
    "category": pl.String,
    "price": pl.Float64,
    "availability": pl.String,
    "embedding": pl.List(pl.Float32),
}
DAY = 86_400_000_000
EPOCH = 1_700_006_400_000_000


def _event(number: int, **given) -> dict:
    defaults = {
        "event_id": f"e{number}",
        "event_type": "checkout",
        "item_id": None,
        "ordinal": number,
        "value": None,
        "currency": "EUR",
        "quantity": 1.0,
        "country": None,
    }
    event = defaults | given
    return event | {"arrived_at": event.get("arrived_at", event["occurred_at"])}


@pytest.fixture
def write_events(tmp_path: Path):
    """Writes events (dicts, missing keys get defaults) and catalogue rows as a finished events folder."""

    def write(
        events: list[dict], catalogue: list[dict] = (), *, name: str = "events", num_parts: int = 3
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rows = [_event(number, **event) for number, event in enumerate(events)]
        frame = pl.DataFrame(rows, schema=EVENT_SCHEMA)
        for part in range(num_parts):
            mine = pl.col("user_id").map_elements(
                lambda u, p=part: sum(u.encode()) % num_parts == p, pl.Boolean
            )
            sorted_part = frame.filter(mine).sort(
                "user_id", "arrived_at", "occurred_at", "ordinal", "event_id"
            )
            sorted_part.write_parquet(folder / f"part-{part:05d}.parquet")
        items = [dict.fromkeys(CATALOGUE_SCHEMA) | row for row in catalogue]
        pl.DataFrame(items, schema=CATALOGUE_SCHEMA).sort("item_id").write_parquet(
            folder / "catalogue.parquet"
        )
        artifacts.complete_stage(folder, "test", {})
        return folder

    return write


@pytest.fixture
def random_events():
    """Makes `num` seeded events over 30 days, a third of them late by up to 5 days."""

    def make(seed: int, num: int, *, num_users: int = 12, prefix: str = "") -> list[dict]:
        rng = random.Random(seed)
        events = []
        for number in range(num):
            occurred = EPOCH + rng.randrange(30 * DAY)
            late = rng.randrange(5 * DAY) if rng.random() < 1 / 3 else 0
            item = rng.randrange(40)
            events.append(
                {
                    "event_id": f"{prefix}e{seed}-{number}",
                    "user_id": f"{prefix}u{rng.randrange(num_users)}",
                    "event_type": rng.choice(["view", "add_to_cart", "checkout", "signup"]),
                    "advertiser_id": f"{prefix}a{item % 9}",
                    "item_id": f"{prefix}i{item}" if rng.random() < 0.8 else None,
                    "occurred_at": occurred,
                    "arrived_at": occurred + late,
                    "ordinal": number,
                    "value": round(rng.uniform(1, 50), 2),
                    "quantity": rng.choice([1.0, 2.0]),
                }
            )
        return events

    return make
