"""Who may use the admin endpoints: bearer tokens, of which the service knows only hashes and scopes."""

import hashlib
from collections.abc import Collection, Mapping
from functools import wraps
from typing import Final

from forecart.serving.asgi import Handler, HttpError, Incoming, Reply
from forecart.serving.settings import Scope

_BEARER: Final = b"bearer "


def need_token(tokens: Mapping[str, Collection[Scope]], scope: Scope, handler: Handler) -> Handler:
    """Returns a handler that answers 401 without a known token, and 403 with one for other things.

    Args:
        tokens: sha256 of a token, in hexadecimal -> what it is for.
        scope: what it must be for.
        handler: that is protected.
    """

    @wraps(handler)
    async def check(incoming: Incoming) -> Reply:
        given = incoming.headers.get(b"authorization", b"")
        scopes = None
        if given[: len(_BEARER)].lower() == _BEARER:
            scopes = tokens.get(hashlib.sha256(given[len(_BEARER) :]).hexdigest())
        if scopes is None:
            raise HttpError(401, "a token is needed", ((b"www-authenticate", b"Bearer"),))
        if scope not in scopes:
            raise HttpError(403, f"the token is not for {scope}")
        return await handler(incoming)

    return check
