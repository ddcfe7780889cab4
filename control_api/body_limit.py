"""Refuses bodies that are larger than anything this API reads, before and while they arrive, and those that never do:
one without end would keep its seat of the dashboard lane for good.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_api.errors import BodyTooLarge, BodyTooLate, problem_of, problem_response

MAX_BODY = 2 * 1024 * 1024
BODY_WITHIN = 30.0


class BodyLimit:
    """ASGI middleware that bounds request bodies, with or without a Content-Length, and the time that they take."""

    def __init__(self, app: ASGIApp, *, limit: int = MAX_BODY, within: float = BODY_WITHIN) -> None:
        self._app = app
        self._limit = limit
        self._within = within

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        error = BodyTooLarge(f"A body has at most {self._limit} bytes here.")
        if declared.isdigit() and int(declared) > self._limit:
            await problem_response(problem_of(error))(scope, receive, send)
            return
        read = 0
        ended = False
        deadline = asyncio.get_running_loop().time() + self._within

        async def bounded() -> Message:
            nonlocal read, ended
            if ended:  # what comes now is the client hanging up, which nobody is in a hurry for
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTooLate(f"A body has {self._within:g} s to arrive here.") from None
            ended = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._limit:
                raise error
            return message

        await self._app(scope, bounded, send)
