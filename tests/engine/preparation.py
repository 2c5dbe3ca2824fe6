"""A log in several files of several kinds, with garbage and repeats, made into events and sequences."""

import random

from tests.events.small_logs import make_rows, to_csv_lines, to_json_lines, write_lines

from forecart.artifacts import hash_folder
from forecart.events.adapters import ReopenedSource, open_adapter
from forecart.events.ingest import ingest_events
from forecart.events.schema import EventsConfig, SourceConfig
from forecart.sequences.build import build_sequences

NUM_REPEATS = 150


def write_files(folder):
    """Five files in the working folder; each has rows that are rejected, and two are repeats in part."""
    rows, draw = make_rows(900, seed=3), random.Random(3)
    names = []
    for number in range(5):
        some = rows[number * 180 : (number + 1) * 180]
        if number in (1, 3):
            some += draw.sample(rows[:180], NUM_REPEATS // 2)
        bad = {**some[0], "event_id": f"bad-{number}", "occurred_at": "never"}
        path = folder / f"{number}.{'csv' if number % 2 else 'jsonl.gz'}"
        write_lines(path, to_csv_lines([*some, bad]) if number % 2 else to_json_lines([bad, *some]))
        names.append(path.name)
    return names


def prepare(names, folder, **engine):
    """Returns the hashes of what comes of the files, which are named from the working folder, and counts."""
    source = SourceConfig(events=names)
    config = EventsConfig(num_partitions=3, max_rejected_share=0.1)
    if engine:
        engine["reopen"] = ReopenedSource(source.model_dump_json())
    facts = ingest_events(open_adapter(source), folder / "events", config=config, **engine)
    engine.pop("reopen", None)
    manifest = build_sequences(
        folder / "events", folder / "sequences", read_until_us=1_702_000_000_000_000, **engine
    )
    return hash_folder(folder), facts["counts"], manifest["num_events"]
