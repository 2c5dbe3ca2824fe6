"""Indexes of benchmarks, built once: a folder that is given to another benchmark is not built again."""

import time
from pathlib import Path
from typing import Any

from forecart import artifacts
from forecart.retrieval.index.build import build_index, open_index
from forecart.retrieval.index.contract import Index, IndexSettings, IndexSource


def build_once(source: IndexSource, folder: Path, settings: IndexSettings) -> tuple[Index, dict[str, Any]]:
    """Returns the index of a folder, built where it is not there, and what it took: CPU-seconds and bytes."""
    noted = folder.with_name(f"{folder.name}.json")
    if not noted.exists():
        began_s = time.process_time()
        build_index(source, folder, settings)
        artifacts.write_json(noted, {"build_s": time.process_time() - began_s})
    index = open_index(folder, embedding_space_id=source.embedding_space_id)
    return index, {**artifacts.read_json(noted), "disk_mb": index.stats().disk_bytes / 1e6}
