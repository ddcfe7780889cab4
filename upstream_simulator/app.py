"""The composition root: builds every part once, and the application around them."""

import asyncio
import secrets
import time

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from service_runtime.process import StartupError
from upstream_simulator.accounts import AccountBook, UnknownAccount
from upstream_simulator.admin import Admin
from upstream_simulator.api_key_service import ApiKeyService
from upstream_simulator.auth_server import AuthServer
from upstream_simulator.backend import Backend
from upstream_simulator.conversations import PreviousResponseNotFound
from upstream_simulator.incoming import LARGEST_BODY, Refused
from upstream_simulator.logins import Logins
from upstream_simulator.outgoing import refusal_answer
from upstream_simulator.refusals import detail
from upstream_simulator.settings import SimulatorSettings
from upstream_simulator.sockets import Sockets
from upstream_simulator.stats import Stats
from upstream_simulator.tokens import TokenBook
from upstream_simulator.turns import Turns
from upstream_simulator.turnstates import TurnStates

log = structlog.get_logger(__name__)


def new_id(kind: str) -> str:
    """Returns a new id such as `resp_4f…`."""
    return f"{kind}_{secrets.token_hex(16)}"


def build_app(settings: SimulatorSettings) -> web.Application:
    """Builds the application with accounts and statistics of its own."""
    clock = time.time
    stats = Stats(time.monotonic)
    accounts = AccountBook(tokens=TokenBook(clock=clock), clock=clock, access_token_ttl=settings.access_token_ttl)
    turns = Turns(stats=stats, clock=clock, new_id=new_id, event_delay=settings.event_delay)
    turn_states = TurnStates(new_id=new_id, on_foreign=stats.foreign_turn_state)
    sockets = Sockets(turns=turns)
    parts = (
        Backend(accounts=accounts, turns=turns, sockets=sockets, turn_states=turn_states, clock=clock),
        AuthServer(accounts=accounts, logins=Logins(clock=clock), stats=stats, clock=clock),
        ApiKeyService(accounts=accounts, turns=turns, sockets=sockets, clock=clock),
        Admin(accounts=accounts, stats=stats, clock=clock),
    )
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_answering(stats)])
    for part in parts:
        app.add_routes(part.routes())
    return app


async def open_runner(settings: SimulatorSettings) -> web.AppRunner:
    """Returns a runner that is set up and listens nowhere yet."""
    # Bodies are decoded by us, because aiohttp does not know zstd everywhere; a client that leaves ends its handler.
    runner = web.AppRunner(
        build_app(settings), access_log=None, auto_decompress=False, handler_cancellation=True, shutdown_timeout=0.2
    )
    await runner.setup()
    return runner


async def serve(settings: SimulatorSettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. Raises `StartupError` when the port is taken."""
    runner = await open_runner(settings)
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        log.info("upstream simulator is ready", url=f"http://{host}:{port}")
        await stop.wait()
    except OSError as problem:
        raise StartupError(f"cannot listen on {settings.host}:{settings.port}: {problem.strerror}") from problem
    finally:
        await runner.cleanup()


def _answering(stats: Stats) -> Middleware:
    """Returns the one place where refusals become responses and answers are counted."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = "cut"
        try:
            response = await _answered(request, handler)
            status = str(response.status)
        except web.HTTPException as redirect_or_unknown_route:
            status = str(redirect_or_unknown_route.status)
            raise
        finally:
            stats.request(f"{request.method} {request.path}", status)
        return response

    return answer


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return refusal_answer(refused.refusal)
    except PreviousResponseNotFound as unknown:
        return refusal_answer(unknown.refusal)
    except UnknownAccount as unknown:
        return refusal_answer(detail(404, f"No such account: {unknown}"))
