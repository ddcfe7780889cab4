"""REST routes of the admission server's state: read it, and end a session whose holder is gone."""

from typing import Annotated, Protocol

from fastapi import APIRouter
from fastapi import Path as PathParameter

from admission_client.errors import AdmissionUnavailable, UnknownSession
from admission_client.state import StateReader
from control_api.errors import AdmissionAway, InputRefused, NotFound, problem_responses
from control_api.paging import Cursor, PageLimit, decode_cursor, encode_cursor
from control_api.push.models import Forgotten, SessionPage, SessionView, StateView

SessionId = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9_.:/-]+$", max_length=128)]


class Forgetter(Protocol):
    """Who can end a session: `admission_client.sync.SyncClient`."""

    async def forget_session(self, session_id: str) -> int:
        """Ends it and returns how many leases ended with it."""


def state_routes(reader: StateReader, forgetter: Forgetter) -> APIRouter:
    """Returns the routes of `/api/state` and `/api/sessions`."""
    router = APIRouter(prefix="/api", tags=["state"])

    @router.get("/state", summary="The admission server at this moment", responses=problem_responses(503))
    async def read_state() -> StateView:
        try:
            return StateView.model_validate(await reader.state())
        except AdmissionUnavailable as error:
            raise _away(error) from None

    @router.get("/sessions", summary="Who holds leases", responses=problem_responses(503))
    async def list_sessions(limit: PageLimit = 100, cursor: Cursor = None) -> SessionPage:
        try:
            page = await reader.sessions(page_size=limit, page_token=decode_cursor(cursor))
        except ValueError:
            raise InputRefused("This is not a cursor of this list.", field="cursor") from None
        except AdmissionUnavailable as error:
            raise _away(error) from None
        items = [SessionView.model_validate(session) for session in page.items]
        return SessionPage(items=items, next_cursor=encode_cursor(page.next_page_token) or None)

    @router.post(
        "/sessions/{session_id}/forget",
        summary="End a session whose holder is gone",
        responses=problem_responses(404, 503),
    )
    async def forget_session(session_id: SessionId) -> Forgotten:
        try:
            return Forgotten(ended=await forgetter.forget_session(session_id))
        except UnknownSession:
            raise NotFound("There is no such session.") from None
        except AdmissionUnavailable as error:
            raise _away(error) from None

    return router


def _away(error: AdmissionUnavailable) -> AdmissionAway:
    return AdmissionAway("The admission server did not answer.", retry_after=max(1, round(error.retry_after)))
