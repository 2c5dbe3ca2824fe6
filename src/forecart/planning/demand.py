"""What is planned for: the size of a business, and the machines that it may have."""

from dataclasses import dataclass

from forecart.errors import ConfigError
from forecart.publish.records import RecordLayout


@dataclass(frozen=True)
class Demand:
    """The size of a business.

    Attributes:
        num_items: products.
        num_users: with a history.
        events_per_day: that arrive.
        history_days: of events that histories hold.
        num_advertisers: whose lists are made by scoring all of them.
        requests_per_s: at the peak.
        width: of the vectors.
        top_k: candidates of each kind in a list.
        bytes_an_id: mean length of an external id.
    """

    num_items: float
    num_users: float
    events_per_day: float
    history_days: float = 30
    num_advertisers: float = 5_000
    requests_per_s: float = 10_000
    width: int = 64
    top_k: int = 100
    bytes_an_id: float = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 1:
                raise ConfigError(f"{name} must be at least 1, {value:g} arrived")

    @property
    def num_events(self) -> float:
        """Events of all histories."""
        return self.events_per_day * self.history_days

    @property
    def layout(self) -> RecordLayout:
        """The record of a user, with lists of advertisers and of products."""
        return RecordLayout(self.top_k, self.top_k, self.width)


@dataclass(frozen=True)
class Machine:
    """One kind of machine, and how long a night is.

    Attributes:
        cores: that work at the speed of those that were measured.
        memory_gb: 10^9 bytes.
        hours: within which a rebuild is over.
    """

    cores: float = 32
    memory_gb: float = 256
    hours: float = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"a machine's {name} must be above 0, {value:g} arrived")
