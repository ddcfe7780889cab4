"""The lane of the control API's own requests: every request below `/api/` holds a seat of `lanes/dashboard`.

While the admission server is away, or cannot decide yet, a local semaphore of the same size stands in, so that
operators always get in. Health and metrics take no seat; what the edge carries here has one already.
"""

import math
from collections.abc import Callable
from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from admission_client.errors import AdmissionError, Denied
from admission_client.lease import Admission
from control_api.auth import ADMIN_PREFIX
from control_api.errors import LaneFull, problem_of, problem_response
from control_api.local_seats import UNDECIDED, LocalSeats

LANE = "lanes/dashboard"


class DashboardLane:
    """ASGI middleware that holds a seat for each request of the API."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission: Admission,
        is_connected: Callable[[], bool],
        local: LocalSeats,
        exempt: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._admission = admission
        self._is_connected = is_connected
        self._local = local
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(ADMIN_PREFIX) or path in self._exempt:
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as seat:
            try:
                await self._take(seat)
            except LaneFull as error:
                await problem_response(problem_of(error))(scope, receive, send)
                return
            await self._app(scope, receive, send)

    async def _take(self, seat: AsyncExitStack) -> None:
        # A server that is away is noticed by its lost session; nobody waits for it here.
        if self._is_connected():
            try:
                await seat.enter_async_context(self._admission.acquire([LANE], label="api", max_wait=0.0))
            except Denied as denied:
                if denied.denial.reason not in UNDECIDED:
                    wait = denied.denial.retry_after or 1.0
                    raise LaneFull(str(denied), retry_after=math.ceil(wait), code=denied.denial.reason) from None
            except AdmissionError:
                pass
            else:
                return
        if not self._local.take():
            raise LaneFull("Every seat of the dashboard lane is taken.", retry_after=1, code="lane_full")
        seat.callback(self._local.give_back)
