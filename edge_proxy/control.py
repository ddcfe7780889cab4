"""Questions that the control API answers: usage. The edge only carries them, on the dashboard lane."""

import aiohttp

from edge_proxy.errors import ControlUnavailable

_TIMEOUT = 10.0


class ControlApi:
    """Asks the control API."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def usage(self, path: str, *, key_sha256: bytes | None, request_id: str) -> tuple[int, bytes]:
        """Returns status and JSON body of the pool's usage, in the shape of `path`. Raises `ControlUnavailable`.

        The client is named by the hash of its key: the admission server has let it in already.
        """
        headers = {"x-request-id": request_id}
        if key_sha256 is not None:
            headers["x-sluicegate-key-sha256"] = key_sha256.hex()
        try:
            async with self._session.get(f"{self._base_url}{path}", headers=headers) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ControlUnavailable from error

    async def close(self) -> None:
        """Closes its connections."""
        await self._session.close()
