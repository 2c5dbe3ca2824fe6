"""The endpoints that change something: for operators with a token."""

import asyncio

import msgspec

from forecart.errors import StoreError
from forecart.serving.answers import Done, InventoryAnswer, InventoryAsk, Readiness, SuppressAsk
from forecart.serving.asgi import HttpError, Incoming, Reply, Route
from forecart.serving.parts import Parts
from forecart.serving.tokens import need_token

_DONE = Reply(msgspec.json.encode(Done()))


class Admin:
    """The handlers of one process.

    Args:
        parts: what they stand on.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[Route]:
        """Returns the endpoints."""
        tokens = self._parts.settings.tokens
        return [
            Route(
                "POST",
                "/admin/suppress",
                need_token(tokens, "suppress", self.suppress),
                takes=SuppressAsk,
                gives=Done,
                scope="suppress",
            ),
            Route(
                "POST",
                "/admin/inventory/updates",
                need_token(tokens, "inventory", self.update_inventory),
                takes=InventoryAsk,
                gives=InventoryAnswer,
                scope="inventory",
            ),
            Route(
                "POST",
                "/admin/reload",
                need_token(tokens, "reload", self.reload),
                gives=Readiness,
                scope="reload",
            ),
        ]

    async def update_inventory(self, incoming: Incoming) -> Reply:
        """Change the inventory: in this process at once, in all others within a moment, and for good."""
        stock = self._parts.stock
        if stock is None:
            raise HttpError(409, "there is no inventory to change: serve with --inventory")
        updates = msgspec.json.decode(incoming.body, type=InventoryAsk).updates
        served = self._parts.follower.served
        applied, rejected, reasons = await asyncio.to_thread(stock.change_and_explain, updates, served)
        self._parts.log.info("inventory_changed", applied=applied, rejected=rejected)
        return Reply(msgspec.json.encode(InventoryAnswer(applied, rejected, reasons)))

    async def suppress(self, incoming: Incoming) -> Reply:
        """Never answer a user personally again, in any process and from any release."""
        ask = msgspec.json.decode(incoming.body, type=SuppressAsk)
        try:
            await asyncio.to_thread(self._parts.store.suppress, ask.user_id, ask.reason)
        except StoreError:
            raise HttpError(
                503, "not noted everywhere, folder and store must both take it: try again"
            ) from None
        self._parts.log.info("suppressed", reason=ask.reason)
        return _DONE

    async def reload(self, incoming: Incoming) -> Reply:
        """Look at once, in this process, which release is to be served; all processes look by themselves."""
        await asyncio.to_thread(self._parts.follower.follow)
        return Reply(msgspec.json.encode(self._parts.readiness()))
