"""From a description of what to serve to the objects that serve it, in each process anew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from forecart.ads.outcomes import OutcomeLog
from forecart.publish.calibrations import read_calibrations
from forecart.publish.releases import Releases
from forecart.publish.store import Store
from forecart.publish.stores import open_store
from forecart.serving.answers import Readiness
from forecart.serving.breaker import Breaker
from forecart.serving.choosing import AdChooser, rank_by_release
from forecart.serving.current import OpenRelease, ReleaseFollower, Served
from forecart.serving.guard import GuardedStore
from forecart.serving.launch import Launch
from forecart.serving.logged_stock import LoggedStock
from forecart.serving.outcome_writer import OutcomeWriter
from forecart.serving.service import CandidateService, Clock, read_clock
from forecart.serving.settings import ServingSettings
from forecart.serving.telemetry import Telemetry, make_logger

_US: Final = 1e6


@dataclass(frozen=True, eq=False)
class Parts:
    """The objects of one process.

    Attributes:
        settings: budgets and limits.
        store: of the records.
        is_remote: the store is behind a connection, so that reading it may take long.
        follower: of the releases.
        breaker: of the store.
        service: that answers.
        stock: inventories of the releases; None where there is no inventory.
        outcomes: the outcome log; None where there is none.
        clock: of the answers, microseconds.
        telemetry: metrics.
        log: structured log.
    """

    settings: ServingSettings
    store: Store
    is_remote: bool
    follower: ReleaseFollower
    breaker: Breaker
    service: CandidateService
    stock: LoggedStock | None
    outcomes: OutcomeWriter | None
    clock: Clock
    telemetry: Telemetry
    log: Any

    def readiness(self) -> Readiness:
        """Returns whether there is a release to answer from."""
        served = self.follower.served
        opened = served.current or served.previous
        release = None if opened is None else opened.release.release_id
        return Readiness(release, self.follower.problem, self.breaker.state)

    def age_s(self, opened: OpenRelease) -> float:
        """Returns how old the histories of a release are."""
        return (self.clock() - opened.release.manifest.as_of_us) / _US


class AsOfClock:
    """Time that begins at the `as_of` of the first release, and then passes as usual.

    Args:
        served: returns the releases that are served now.
    """

    def __init__(self, served: Callable[[], Served]) -> None:
        self._served = served
        self._ahead_us: int | None = None

    def __call__(self) -> int:
        """Returns microseconds since the epoch."""
        now_us = read_clock()
        if self._ahead_us is None:
            current = self._served().current
            if current is None:
                return now_us
            self._ahead_us = current.release.manifest.as_of_us - now_us
        return now_us + self._ahead_us


def build_parts(launch: Launch) -> Parts:
    """Returns the objects that serve what is described.

    Raises:
        ForecartError: a client of the store is not installed, or a file of the settings is no such file.
    """
    settings, log = launch.settings, make_logger()
    store = open_store(launch.releases, launch.store, timeout_s=settings.store_budget_ms / 1e3)
    stock = LoggedStock(launch.inventory, log) if launch.inventory is not None else None
    follower = ReleaseFollower(
        store,
        Releases(launch.releases),
        poll_s=settings.poll_s,
        prepare=lambda served: _follow_stock(stock, served, log),
        tell=lambda what, which: _tell(log, what, which),
    )
    breaker = Breaker(max_failures=settings.breaker_failures, reset_s=settings.breaker_reset_s)
    clock = read_clock if launch.clock == "now" else AsOfClock(lambda: follower.served)
    outcomes = None
    if launch.outcomes is not None:
        outcomes = OutcomeWriter(OutcomeLog(launch.outcomes), key=settings.pseudonym_key, clock=clock)
    service = CandidateService(
        GuardedStore(store, breaker),
        lambda: follower.served,
        max_staleness_s=settings.max_staleness_s,
        ads=_make_chooser(settings),
        outcomes=outcomes,
        clock=clock,
    )
    return Parts(
        settings=settings,
        store=store,
        is_remote=launch.store is not None,
        follower=follower,
        breaker=breaker,
        service=service,
        stock=stock,
        outcomes=outcomes,
        clock=clock,
        telemetry=Telemetry(),
        log=log,
    )


def _make_chooser(settings: ServingSettings) -> AdChooser:
    own = {} if settings.calibrations is None else read_calibrations(settings.calibrations)
    return AdChooser(rank_by_release(own), settings.blend_rules)


def _tell(log: Any, what: str, which: str) -> None:
    """Logs what happened to a release: one that is refused is a warning."""
    if what == "release_refused":
        log.warning(what, reason=which)
    else:
        log.info(what, which=which)


def _follow_stock(stock: LoggedStock | None, served: Served, log: Any) -> None:
    """Keeps the inventory up; where it cannot be read, what was read before stays, or nothing is shown."""
    if stock is None:
        return
    try:
        if num_applied := stock.follow(served):
            log.info("inventory_updated", updates=num_applied)
    except Exception as error:  # files of others: nothing in them may end the follower
        log.error("inventory_refused", error=type(error).__name__, reason=str(error))
