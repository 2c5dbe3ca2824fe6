"""Indexes over candidate vectors behind one contract: exact, inverted file, graph; shards; changes."""
