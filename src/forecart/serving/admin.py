"""The endpoints that change something: for operators with a token."""

import asyncio

import msgspec

from forecart.errors import StoreError
from forecart.serving.answers import Done, Readiness, SuppressAsk
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
                "/admin/reload",
                need_token(tokens, "reload", self.reload),
                gives=Readiness,
                scope="reload",
            ),
        ]

    async def suppress(self, incoming: Incoming) -> Reply:
        """Never answer a user personally again, in any process and from any release."""
        ask = msgspec.json.decode(incoming.body, type=SuppressAsk)
        try:
            await asyncio.to_thread(self._parts.store.suppress, ask.user_id, ask.reason)
        except StoreError:
            raise HttpError(503, "the store does not answer, nothing was noted: try again") from None
        self._parts.log.info("suppressed", reason=ask.reason)
        return _DONE

    async def reload(self, incoming: Incoming) -> Reply:
        """Look at once, in this process, which release is to be served; all processes look by themselves."""
        await asyncio.to_thread(self._parts.follower.follow)
        return Reply(msgspec.json.encode(self._parts.readiness()))
