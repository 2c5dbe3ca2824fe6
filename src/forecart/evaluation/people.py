"""A few users' histories beside their candidates, for the report and for `forecart candidates show`.

Takes the events of the run and lists; gives plain values. Which users are shown depends on the seed alone,
never on how good their lists are.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from forecart import columns
from forecart.events.ingest import CATALOGUE_FILE
from forecart.sequences.split import ID_COLUMN, PLURAL, Labels
from forecart.sequences.vocabulary import FIRST_INDEX, Vocabulary

_ID_COLUMN_BY_PLURAL: Final = {PLURAL[level]: ID_COLUMN[level] for level in PLURAL}


def pick_users(labels: Labels, *, num_users: int, seed: int) -> list[int]:
    """Returns rows of the labels at random, one per user, at the first cut that has rows."""
    if len(labels) == 0 or num_users == 0:
        return []
    rows = np.flatnonzero(labels.cut_us == labels.cut_us.min())
    chosen = np.random.default_rng(seed).permutation(rows)[:num_users]
    return sorted(int(row) for row in chosen)


def read_titles(catalogue_path: Path) -> dict[str, str]:
    """Returns the title of every product that has one."""
    frame = pl.read_parquet(catalogue_path, columns=[columns.ITEM_ID, columns.TITLE]).drop_nulls()
    return dict(zip(frame[columns.ITEM_ID], frame[columns.TITLE], strict=True))


def recent_events(
    events_folder: Path, user_id: str, *, before: datetime, titles: dict[str, str], limit: int = 20
) -> list[dict[str, Any]]:
    """Returns the user's latest events that had arrived before a moment, the latest first."""
    frame = (
        pl.scan_parquet(sorted(events_folder.glob("part-*.parquet")))
        .filter((pl.col(columns.USER_ID) == user_id) & (pl.col(columns.ARRIVED_AT) < before))
        .sort(columns.OCCURRED_AT, columns.ORDINAL, descending=True, maintain_order=True)
        .head(limit)
        .select(
            columns.OCCURRED_AT, columns.EVENT_TYPE, columns.ADVERTISER_ID, columns.ITEM_ID, columns.VALUE
        )
        .collect()
    )
    return [
        {
            **row,
            columns.OCCURRED_AT: row[columns.OCCURRED_AT].isoformat(),
            columns.TITLE: titles.get(row[columns.ITEM_ID]),
        }
        for row in frame.to_dicts()
    ]


def build_examples(
    events_folder: Path, people: Mapping[str, Mapping[str, Any]], *, cut: datetime
) -> list[dict[str, Any]]:
    """Returns a few users' histories at a cut beside their lists, as `report.json` holds them.

    Args:
        events_folder: of the run.
        people: by `advertisers` and `products`, the lists by user id; the first says who is shown.
        cut: up to when events are shown.
    """
    titles = read_titles(events_folder / CATALOGUE_FILE)
    return [
        {
            "user_id": user_id,
            "as_of": cut.isoformat(),
            "events": recent_events(events_folder, user_id, before=cut, titles=titles),
            **{
                plural: [
                    {
                        **entry,
                        _ID_COLUMN_BY_PLURAL[plural]: entry["id"],
                        columns.TITLE: titles.get(entry["id"]),
                    }
                    for entry in shown.get(user_id, [])
                ]
                for plural, shown in people.items()
            },
        }
        for user_id in next(iter(people.values()), {})
    ]


def describe_list(
    candidate: Any, score: Any, *, vocabulary: Vocabulary, repeats: set[int], converted: set[int] | None
) -> list[dict[str, Any]]:
    """Returns one user's list as plain values, best first; `converted` is None where it is not known yet."""
    known = [(int(c), float(s)) for c, s in zip(candidate, score, strict=True) if c >= FIRST_INDEX]
    ids = vocabulary.ids(np.array([c for c, _ in known], np.int32))
    return [
        {
            "rank": rank,
            "id": id_,
            "score": score_,
            "is_repeat": c in repeats,
            "converted": None if converted is None else c in converted,
        }
        for rank, (id_, (c, score_)) in enumerate(zip(ids, known, strict=True), start=1)
    ]


def to_moment(us: int) -> datetime:
    """Returns a moment in UTC from microseconds since the epoch."""
    return datetime.fromtimestamp(us // 1_000_000, tz=UTC).replace(microsecond=us % 1_000_000)
