"""Asks a stranger over HTTP, and gets the whole answer in time or an error.

The timeouts of httpx hold for one read each: a server that sends a byte now and then would keep us for ever, and one
that never stops would fill the memory. Here both ends are certain.
"""

import asyncio
from typing import Any

import httpx

LONGEST_RETRY_AFTER = 600
"""Seconds; what a stranger names beyond it is cut."""
MAX_ANSWER = 1024 * 1024
_CONNECT_SHARE = 0.5
"""Share of the time that connecting may take, so that not getting through is told from not being answered."""


class AnswerTooLarge(httpx.RequestError):
    """The answer is longer than anything that was asked for."""


async def whole_answer(
    client: httpx.AsyncClient, method: str, url: str, *, within: float, **request: Any
) -> httpx.Response:
    """Sends a request and returns its answer, read to the end. Raises `httpx.HTTPError`, and nothing else.

    Args:
        client: Who sends it.
        method: The HTTP method.
        url: The whole URL.
        within: Seconds for all of it.
        request: What else `httpx.AsyncClient.stream` takes: headers, body.
    """
    timeout = httpx.Timeout(within, connect=within * _CONNECT_SHARE, pool=within * _CONNECT_SHARE)
    try:
        async with asyncio.timeout(within), client.stream(method, url, timeout=timeout, **request) as response:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER:
                    raise AnswerTooLarge(f"more than {MAX_ANSWER} bytes")
            # The body is unpacked already; of the headers only what says when to come back is ever looked at.
            headers = {name: response.headers[name] for name in ("retry-after",) if name in response.headers}
            return httpx.Response(response.status_code, headers=headers, content=bytes(body))
    except TimeoutError:
        raise httpx.ReadTimeout(f"no whole answer within {within:g} s") from None


def retry_after(response: httpx.Response) -> int | None:
    """Returns the whole seconds, 1 to 600, after which an answer wants the next request; None when it names none."""
    told = response.headers.get("retry-after", "").strip()
    if not (told.isascii() and told.isdigit()):
        return None
    # More digits than this are too long in any case, and slow to read.
    return max(1, min(LONGEST_RETRY_AFTER, int(told[:9])))
