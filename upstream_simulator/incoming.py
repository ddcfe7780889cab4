"""What a request carries: its bearer token, its decoded body, the faults asked for. All refuse by raising `Refused`."""

import asyncio
import zlib
from typing import Any

import orjson
import zstandard
from aiohttp import web

from upstream_simulator.accounts import Account, Surface
from upstream_simulator.faults import Faults, FaultSyntaxError, parse_faults
from upstream_simulator.refusals import Refusal, detail, error, refusal_on_request

LARGEST_BODY = 256 * 1024 * 1024


class Refused(Exception):
    """The request is refused; the one place that answers refusals turns this into a response."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.status} {refusal.body}")
        self.refusal = refusal


def bearer_of(request: web.Request) -> str:
    """Returns the bearer token; empty when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def read_faults(text: str) -> Faults:
    """Reads a list of faults. Raises `Refused` when it cannot be understood."""
    try:
        return parse_faults(text)
    except FaultSyntaxError as problem:
        raise Refused(error(400, code="invalid_x_simulate", message=str(problem))) from None


def faults_for(request: web.Request, account: Account, surface: Surface) -> Faults:
    """Returns what should go wrong with this request: the header's wish over the account's."""
    return read_faults(request.headers.get("x-simulate", "")).over(account.take_faults(surface))


async def obey(faults: Faults, account: Account, now: float) -> None:
    """Hangs for ever, or raises `Refused`, when the faults say so."""
    if faults.hangs_at_once:
        await asyncio.Event().wait()
    refusal = refusal_for(faults, account, now)
    if refusal is not None:
        raise Refused(refusal)


async def obey_whole(faults: Faults, account: Account, now: float) -> None:
    """Does the same for an answer that is no stream of events: `slow` delays it, and every `hang` means none."""
    if faults.slow:
        await asyncio.sleep(faults.slow)
    if faults.hang is not None or faults.hang_once_begun:
        await asyncio.Event().wait()
    await obey(faults, account, now)


def refusal_for(faults: Faults, account: Account, now: float) -> Refusal | None:
    """Returns the refusal that the faults ask for, None when they ask for none."""
    window_resets_in = max(1.0, account.usage.primary.at(now).resets_at - now)
    return refusal_on_request(faults, plan=account.plan, now=now, window_resets_in=window_resets_in)


async def json_body(request: web.Request) -> tuple[Any, int]:
    """Returns the decoded JSON body and its decoded size. Raises `Refused`."""
    data = _decoded(await request.read(), request.headers.get("content-encoding", "identity").strip().lower())
    try:
        return orjson.loads(data), len(data)
    except orjson.JSONDecodeError as problem:
        raise Refused(detail(400, f"Request body is not JSON: {problem}")) from None


def _decoded(data: bytes, encoding: str) -> bytes:
    try:
        match encoding:
            case "identity" | "":
                return data
            case "zstd":
                return _bounded(zstandard.ZstdDecompressor().decompressobj().decompress(data))
            case "gzip" | "x-gzip":
                return _bounded(zlib.decompressobj(wbits=31).decompress(data, LARGEST_BODY + 1))
            case "deflate":
                return _bounded(zlib.decompressobj().decompress(data, LARGEST_BODY + 1))
            case _:
                raise Refused(detail(415, f"Unsupported content-encoding: {encoding}"))
    except (zlib.error, zstandard.ZstdError) as problem:
        raise Refused(detail(400, f"Request body cannot be decoded as {encoding}: {problem}")) from None


def _bounded(data: bytes) -> bytes:
    if len(data) > LARGEST_BODY:
        raise Refused(detail(413, "Request body is too large"))
    return data
