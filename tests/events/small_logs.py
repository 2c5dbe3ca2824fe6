"""Small logs whose right answer is known because the test wrote every row."""

import gzip
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from forecart.artifacts import hash_folder
from forecart.events.adapters import open_adapter
from forecart.events.ingest import ingest_events
from forecart.events.schema import EventsConfig, SourceConfig

TYPES = ("view", "add_to_cart", "checkout", "page_visit")


def make_rows(num_rows: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Sound events of 40 users over 30 days, late arrivals among them, in random order."""
    draw = random.Random(seed)
    rows = []
    for number in range(num_rows):
        second = draw.randrange(30 * 86_400)
        occurred = 1_700_000_000 + second
        rows.append(
            {
                "event_id": f"e{number}",
                "user_id": f"user-{draw.randrange(40)}",
                "event_type": draw.choice(TYPES),
                "advertiser_id": f"shop {draw.randrange(9)}",
                "item_id": f"item-{draw.randrange(60)}" if draw.random() < 0.8 else None,
                "occurred_at": occurred,
                "arrived_at": occurred + draw.choice([0, 0, 3, 90_000]),
                "value": round(draw.random() * 90, 2) if draw.random() < 0.5 else None,
                "currency": "EUR",
                "quantity": float(draw.randrange(1, 4)),
            }
        )
    return rows


def to_json_lines(rows: Iterable[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


def to_csv_lines(rows: Sequence[dict[str, Any]]) -> list[bytes]:
    lines = [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    return [line.encode() for line in (",".join(rows[0]), *lines)]


def write_lines(path: Path, lines: Iterable[bytes]) -> Path:
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def ingest(paths: Path | Sequence[Path], folder: Path, **settings: Any) -> dict[str, Any]:
    """Ingests files whose columns have their canonical names; SourceConfig fields go by `source`."""
    files = [paths] if isinstance(paths, Path) else list(paths)
    source = SourceConfig(events=files, **settings.pop("source", {}))
    config = EventsConfig(**({"num_partitions": 3} | settings))
    return ingest_events(open_adapter(source), folder, config=config)


def hash_parts(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in hash_folder(folder).items() if name.startswith("part-")}


def read_store(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])


def read_quarantine(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "quarantine.parquet")


def check_sum(counts: dict[str, Any]) -> None:
    kept = counts["accepted"] + counts["duplicates"]
    assert counts["rows_read"] == kept + sum(counts["filtered"].values()) + sum(counts["rejected"].values())
