"""A stock that says what it kept out: in the log, and to whoever sends updates.

A row that breaks a rule costs its ad and nothing else, so that nobody would notice. An inventory is logged
once when it is read, with the first reasons; what is kept out later, of updates, when it comes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from forecart.ads.inventory import Inventory
from forecart.serving.current import Served
from forecart.serving.stock import Stock

_MAX_REASONS: Final = 5


class LoggedStock(Stock):
    """Inventories of the releases that are open, with a log.

    Args:
        folder: of the inventory.
        log: structured log.
    """

    def __init__(self, folder: Path, log: Any) -> None:
        super().__init__(folder)
        self._log = log
        self._told: tuple[Inventory | None, int] = None, 0

    def follow(self, served: Served) -> int:
        """Follows like `Stock`, and logs what was read or kept out."""
        try:
            return super().follow(served)
        finally:
            self._tell(self.inventory_of(served))

    def change_and_explain(
        self, updates: Sequence[Mapping[str, Any]], served: Served
    ) -> tuple[int, int, list[str]]:
        """Changes like `change`; returns the first reasons too."""
        inventory = self.inventory_of(served)
        before = 0 if inventory is None else len(inventory.rejected)
        applied, rejected = self.change(updates, served)
        return applied, rejected, [] if inventory is None else _explain(inventory, before)

    def _tell(self, inventory: Inventory | None) -> None:
        before, num_before = self._told
        if inventory is None:
            return
        self._told = inventory, inventory.num_rejected
        if inventory is not before:
            tell = self._log.warning if inventory.num_rejected else self._log.info
            tell(
                "inventory_read",
                ads=inventory.snapshot.num_ads,
                left_out=dict(inventory.snapshot.left_out),
                rejected=inventory.num_rejected,
                reasons=_explain(inventory),
            )
        elif inventory.num_rejected > num_before:
            num = inventory.num_rejected - num_before
            self._log.warning("inventory_rejected", rejected=num, reasons=_explain(inventory, num_before))


def _explain(inventory: Inventory, begin: int = 0) -> list[str]:
    """Returns the first reasons after so many, each with its file and the number of its row, from 1."""
    told = inventory.rejected[begin : begin + _MAX_REASONS]
    return [f"{one.source} row {one.offset + 1}: {one.reason}" for one in told]
