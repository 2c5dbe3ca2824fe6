"""From a log as it comes to one clean, partitioned event store.

Takes a source (an adapter over Parquet, CSV or JSONL files) and gives the folder `events/`: one Parquet file
per partition of a stable user hash, the catalogue, and every rejected row with its reason, source and
offset. A log is read in chunks and routed to its partition on disk, so that memory holds one chunk, then one
partition.
"""
