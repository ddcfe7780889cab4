"""Request bodies: read within a budget over all requests, decoded within the route's limit, and looked into.

The bytes are kept as they came, because most go on untouched; what they decode to is needed for a look and, on `/v1`,
for another body to be made of it. Budget is given back when the block ends, or earlier by `drop`.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import zstandard
from msgspec import Raw

from edge_proxy.document import all_keys, known_keys
from edge_proxy.errors import BodyBudgetExhausted, BodyMalformed, BodyTooLarge
from edge_proxy.exchange import Exchange
from edge_proxy.turn import TurnRequest

_WORTH_A_THREAD = 1024 * 1024
_DECODED_AT_ONCE = 4 * 1024 * 1024
_LARGEST_WINDOW = 128 * 1024 * 1024


class ByteBudget:
    """How many bytes may be in memory at once. Taking never waits: what does not fit is refused."""

    def __init__(self, limit: int, *, on_change: Callable[[int], None] = lambda taken: None) -> None:
        self.limit = limit
        self.taken = 0
        self._on_change = on_change

    def take(self, size: int) -> None:
        """Takes `size` bytes. Raises `BodyBudgetExhausted`."""
        if self.taken + size > self.limit:
            raise BodyBudgetExhausted
        self.taken += size
        self._on_change(self.taken)

    def give_back(self, size: int) -> None:
        """Gives `size` bytes back."""
        self.taken -= size
        self._on_change(self.taken)


class Body:
    """A request body in memory."""

    def __init__(
        self, raw: bytes, decoded: bytes, encoding: str, turn: TurnRequest, give_back: Callable[[], None]
    ) -> None:
        self.raw = raw
        self.encoding = encoding
        """Content encoding of `raw`; empty for none."""
        self.turn = turn
        self._decoded = decoded
        self._give_back = give_back

    def document(self) -> dict[str, Raw]:
        """Returns the body as an object, parsed anew. Raises `BodyMalformed`."""
        return all_keys(self._decoded)

    def drop(self) -> None:
        """Lets go of the bytes: nothing will be sent again."""
        self.raw = self._decoded = b""
        self._give_back()


class BodyReader:
    """Reads bodies of clients."""

    def __init__(self, budget: ByteBudget, *, timeout: float, progress_timeout: float) -> None:
        self._budget = budget
        self._timeout = timeout
        self._progress_timeout = progress_timeout

    @asynccontextmanager
    async def read(self, exchange: Exchange, *, limit: int) -> AsyncIterator[Body]:
        """Yields the whole body, which must be a JSON object.

        Raises `BodyTooLarge` before reading where the client says how much will come, `BodyBudgetExhausted`,
        `BodyTimeout`, `BodyMalformed` and `ClientGone`.
        """
        share = _Share(self._budget)
        try:
            raw = await self._receive(exchange, limit, share)
            encoding = _encoding_of(exchange.request.headers.get("content-encoding", ""))
            decoded = raw
            if encoding:
                decoded = await _decoded(raw, encoding, limit)
                share.take(len(decoded))
            yield Body(raw, decoded, encoding, TurnRequest.of(known_keys(decoded)), share.close)
        finally:
            share.close()

    async def _receive(self, exchange: Exchange, limit: int, share: "_Share") -> bytes:
        announced = _announced(exchange.request.headers.get("content-length", ""))
        if announced > limit:
            raise BodyTooLarge(limit)
        share.take(announced)
        chunks = []
        size = 0
        async for chunk in exchange.chunks(timeout=self._timeout, progress_timeout=self._progress_timeout):
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(limit)
            share.grow_to(size)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Share:
    """What one body has taken of the budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, size: int) -> None:
        self._budget.take(size)
        self._taken += size

    def grow_to(self, size: int) -> None:
        if size > self._taken:
            self.take(size - self._taken)

    def close(self) -> None:
        if self._taken:
            self._budget.give_back(self._taken)
            self._taken = 0


async def _decoded(raw: bytes, encoding: str, limit: int) -> bytes:
    # A few bytes can decode to very many: what turns out to be large is decoded again, where it holds nobody up.
    if len(raw) < _WORTH_A_THREAD:
        try:
            return decode(raw, encoding, min(limit, _DECODED_AT_ONCE))
        except BodyTooLarge:
            pass
    return await asyncio.to_thread(decode, raw, encoding, limit)


def decode(raw: bytes, encoding: str, limit: int) -> bytes:
    """Returns decoded bytes, never holding more than `limit` of them. Raises `BodyTooLarge` and `BodyMalformed`."""
    try:
        if encoding == "zstd":
            reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(raw)
            decoded: bytes = reader.read(limit + 1)
        else:
            decoded = _inflate(raw, encoding, limit)
    except (zstandard.ZstdError, zlib.error):
        raise BodyMalformed(f"The body is not valid {encoding}.") from None
    if len(decoded) > limit:
        raise BodyTooLarge(limit)
    return decoded


def _inflate(raw: bytes, encoding: str, limit: int) -> bytes:
    if encoding == "gzip":
        return zlib.decompressobj(wbits=31).decompress(raw, limit + 1)
    try:
        return zlib.decompressobj().decompress(raw, limit + 1)
    except zlib.error:  # "deflate" without the zlib header, as some clients understand it
        return zlib.decompressobj(wbits=-15).decompress(raw, limit + 1)


def _encoding_of(header: str) -> str:
    encoding = header.strip().lower()
    if encoding in {"", "identity"}:
        return ""
    if encoding == "x-gzip":
        return "gzip"
    if encoding not in {"gzip", "deflate", "zstd"}:
        raise BodyMalformed("The content encoding is not one of zstd, gzip and deflate.")
    return encoding


def _announced(content_length: str) -> int:
    return int(content_length) if content_length.isascii() and content_length.isdigit() else 0
