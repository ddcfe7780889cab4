"""Refuses bodies that are larger than anything this API reads, before and while they arrive."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_api.errors import BodyTooLarge, problem_of, problem_response

MAX_BODY = 2 * 1024 * 1024


class BodyLimit:
    """ASGI middleware that bounds request bodies, with or without a Content-Length."""

    def __init__(self, app: ASGIApp, *, limit: int = MAX_BODY) -> None:
        self._app = app
        self._limit = limit

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

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise error
            return message

        await self._app(scope, bounded, send)
