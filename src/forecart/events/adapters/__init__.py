"""The loaders of known logs: each takes the source's configuration and gives an opened `Source`.

An adapter says what a row of its log means (which column is the user, what a purchase is called, what stands
in for a missing event id); checking, counting and storing rows is the ingest's work, the same for all.
"""

from dataclasses import dataclass

from forecart.events.adapters.complete_journey import open_complete_journey
from forecart.events.adapters.files import open_files
from forecart.events.adapters.rees46 import open_rees46
from forecart.events.adapters.synthetic import open_synthetic
from forecart.events.adapters.tmall import open_tmall
from forecart.events.schema import Source, SourceConfig
from forecart.object_store import expand


def open_adapter(config: SourceConfig) -> Source:
    """Returns the opened log that the configuration names.

    Raises:
        ConfigError: `synthetic` without a description of the world.
        DataError: a file or a package is missing, or a file cannot be what its name says.
        StoreError: an object store does not answer.
    """
    config = config.model_copy(update={"events": expand(config.events)})
    if config.adapter == "complete_journey":
        return open_complete_journey(config)
    if config.adapter == "tmall_2014":
        return open_tmall(config)
    if config.adapter == "rees46":
        return open_rees46(config)
    if config.adapter == "synthetic":
        return open_synthetic(config)
    return open_files(config)


@dataclass(frozen=True)
class ReopenedSource:
    """Opens the log of a configuration, given as JSON, in a worker."""

    config: str

    def __call__(self) -> Source:
        """Returns the opened log."""
        return open_adapter(SourceConfig.model_validate_json(self.config))
