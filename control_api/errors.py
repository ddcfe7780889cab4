"""What can go wrong in the control API, one tree, and the one table that turns it into RFC 9457 problem details.

* `ControlError`: base class
    * `InputRefused`: the request is wrong; names the field
        * `BodyTooLarge`, `BodyTooLate`
    * `NotFound`: there is no such account, key, login or session
    * `Conflict`: it does not go with how things are
    * `NotSignedIn`, `TooManyFailures`: the admin token
    * `LaneFull`: the dashboard lane has no seat
    * `PolicyNotAccepted`: the admission server refused what we would have stored
    * `AdmissionAway`: the admission server cannot be asked
    * `UpstreamFailed`: the account's upstream or the auth server did not do its part
        * `AuthServerError`: `AuthRefused` (it said no), `AuthUnreachable` (it did not say anything)
        * `RefreshError`: `RefreshOverloaded`, `RefreshFailed` (`AuthServerTroubled`), `RefreshDead`
    * `DatabaseError`: `DatabaseBusy`, `DatabaseFull`, `DatabaseAway`

Messages are for people and never hold a token or a body of a stranger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

log = structlog.get_logger(__name__)
MEDIA_TYPE = "application/problem+json"
_PREFIX = "urn:sluicegate:problem:"


class ControlError(Exception):
    """Base class of everything that this package raises on purpose."""

    def __init__(self, message: str, *, retry_after: int | None = None, field: str = "", code: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Whole seconds after which trying again is worth it."""
        self.field = field
        """The field of the request that is wrong; empty when it was not about one."""
        self.code = code
        """A finer reason within the type, such as the upstream's own error code."""


class InputRefused(ControlError):
    """The request cannot be understood or is out of bounds."""


class BodyTooLarge(InputRefused):
    """The body is larger than this route reads."""


class BodyTooLate(InputRefused):
    """The body did not arrive in time."""


class NotFound(ControlError):
    """What the path names does not exist."""


class Conflict(ControlError):
    """The request does not go with how things are now."""


class NotSignedIn(ControlError):
    """The admin token is missing or wrong."""


class TooManyFailures(ControlError):
    """This peer has offered too many wrong tokens."""


class LaneFull(ControlError):
    """The dashboard lane has no seat for this request."""


class PolicyNotAccepted(ControlError):
    """The admission server refused the policy as a whole; the one before stays in force there."""


class AdmissionAway(ControlError):
    """The admission server could not be asked in time."""


class UpstreamFailed(ControlError):
    """An upstream or the auth server did not do its part."""


class AuthServerError(UpstreamFailed):
    """A call to the auth server did not succeed."""


class AuthRefused(AuthServerError):
    """The auth server answered no; `code` says why, `retry_after` when it wants to be asked again."""

    def __init__(self, message: str, *, code: str, status: int = 0, retry_after: int | None = None) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.status = status

    @property
    def is_trouble(self) -> bool:
        """Whether the answer tells of the auth server's own state, and nothing of who asked: 5xx and 429."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or self.status == HTTPStatus.TOO_MANY_REQUESTS


class AuthUnreachable(AuthServerError):
    """There was no answer of the auth server. `sent` tells whether it may have acted all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message, code="auth_unreachable", retry_after=5)
        self.sent = sent


class RefreshError(UpstreamFailed):
    """A credential could not be refreshed; `code` says why."""


class RefreshOverloaded(RefreshError):
    """As many refreshes as allowed are running. Says nothing about the account, and is not remembered."""


class RefreshFailed(RefreshError):
    """This attempt failed; a later one may succeed."""


class AuthServerTroubled(RefreshFailed):
    """The auth server is broken, or asked too often. Says nothing about the account."""


class RefreshDead(RefreshError):
    """The refresh token is no good any more: somebody must sign in again, or the account is closed."""


class DatabaseError(ControlError):
    """The database could not do it. Nothing of the request was stored."""


class DatabaseBusy(DatabaseError):
    """Another writer held the database for too long."""


class DatabaseFull(DatabaseError):
    """There is no room left to write."""


class DatabaseAway(DatabaseError):
    """The database cannot be reached or read."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of error is told."""

    status: int
    slug: str
    title: str


RULES: dict[type[ControlError], Rule] = {
    InputRefused: Rule(422, "invalid-input", "The request is not valid"),
    BodyTooLarge: Rule(413, "body-too-large", "The body is too large"),
    BodyTooLate: Rule(408, "body-too-late", "The body did not arrive in time"),
    NotFound: Rule(404, "not-found", "There is no such thing here"),
    Conflict: Rule(409, "conflict", "This does not go with how things are"),
    NotSignedIn: Rule(401, "admin-token-required", "The admin token is missing or wrong"),
    TooManyFailures: Rule(429, "too-many-failures", "Too many wrong tokens from this address"),
    LaneFull: Rule(429, "dashboard-lane-full", "Every seat of the dashboard lane is taken"),
    PolicyNotAccepted: Rule(422, "policy-refused", "The admission server refused the policy"),
    AdmissionAway: Rule(503, "admission-unavailable", "The admission server cannot be asked"),
    UpstreamFailed: Rule(502, "upstream-failed", "The upstream did not do its part"),
    RefreshOverloaded: Rule(503, "refresh-overloaded", "Too many refreshes are running"),
    RefreshDead: Rule(409, "sign-in-required", "The account must sign in again"),
    DatabaseBusy: Rule(503, "database-busy", "The database is busy"),
    DatabaseFull: Rule(507, "database-full", "There is no room left to store anything"),
    DatabaseAway: Rule(503, "database-unavailable", "The database cannot be used"),
}


class FieldProblem(BaseModel):
    """One field that is wrong."""

    field: str = Field(description="Path of the field, with dots.", examples=["resources.lanes/proxy_http.limit"])
    message: str = Field(description="What is wrong with it.", examples=["Input should be at least 0"])


class Problem(BaseModel):
    """RFC 9457 problem details. `type` is stable and meant for programs, the rest for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": f"{_PREFIX}invalid-input",
                "title": "The request is not valid",
                "status": 422,
                "detail": "limit: Input should be greater than or equal to 0",
                "errors": [{"field": "limit", "message": "Input should be greater than or equal to 0"}],
            }
        }
    )

    type: str = Field(description="Which kind of problem this is. Stable.")
    title: str = Field(description="The kind, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(default="", description="This occurrence, in words. Do not parse it.")
    code: str | None = Field(default=None, description="A finer reason, such as the upstream's own error code.")
    errors: list[FieldProblem] = Field(default_factory=list, description="The fields that are wrong.")
    retry_after: int | None = Field(default=None, description="Seconds after which trying again is worth it.")


def rule_of(error: ControlError) -> Rule:
    """Returns the rule of an error: its own or that of its nearest ancestor in the table."""
    for kind in type(error).__mro__:
        if kind in RULES:
            return RULES[kind]
    return Rule(500, "internal", "Something went wrong here")


def problem_of(error: ControlError) -> Problem:
    """Returns what the client is told."""
    rule = rule_of(error)
    fields = [FieldProblem(field=error.field, message=str(error))] if error.field else []
    return Problem(
        type=_PREFIX + rule.slug,
        title=rule.title,
        status=rule.status,
        detail=str(error),
        code=error.code or None,
        errors=fields,
        retry_after=error.retry_after,
    )


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns the answer that carries a problem."""
    extra = dict(headers or {})
    if problem.retry_after is not None:
        extra["retry-after"] = str(problem.retry_after)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        extra["www-authenticate"] = 'Bearer realm="sluicegate"'
    body = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, status_code=problem.status, headers=extra, media_type=MEDIA_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Makes every failure of the application a problem document."""
    app.add_exception_handler(ControlError, _on_control_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI description of the problems that a route may answer."""
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": reference}}}
        for status in statuses
    }


def describe(app: FastAPI, examples: Sequence[BaseModel]) -> None:
    """Completes the OpenAPI description: the problem document, what the body limit may answer, examples of answers."""
    make = app.openapi
    too_much = {str(status): response for status, response in problem_responses(408, 413).items()}

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = make()
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            components = made.setdefault("components", {}).setdefault("schemas", {})
            components.update(schema.pop("$defs", {}))
            components["Problem"] = schema
            for example in examples:
                components[type(example).__name__]["example"] = example.model_dump(mode="json")
            for operations in made["paths"].values():
                for operation in operations.values():
                    if "requestBody" in operation:
                        operation["responses"].update(too_much)
        return make()

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


async def _on_control_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ControlError):
        raise TypeError("registered for ControlError only")
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request failed", problem=problem.type, detail=problem.detail)
    return problem_response(problem)


async def _on_validation_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise TypeError("registered for RequestValidationError only")
    fields = [FieldProblem(field=_path_of(item["loc"]), message=item["msg"]) for item in error.errors()]
    rule = RULES[InputRefused]
    detail = "; ".join(f"{item.field}: {item.message}" if item.field else item.message for item in fields)
    return problem_response(
        Problem(type=_PREFIX + rule.slug, title=rule.title, status=rule.status, detail=detail, errors=fields)
    )


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise TypeError("registered for HTTPException only")
    if isinstance(error.__cause__, ControlError):  # FastAPI wraps what a body reader raises
        return problem_response(problem_of(error.__cause__))
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    problem = Problem(type=_PREFIX + slug, title=status.phrase, status=status, detail=str(error.detail))
    return problem_response(problem, error.headers)


async def _on_unexpected(_request: Request, _error: Exception) -> JSONResponse:
    # Not logged here: the server above sees the same error, and logs it once.
    return problem_response(
        Problem(type=f"{_PREFIX}internal", title="Something went wrong here", status=500, detail="See the log.")
    )


def _path_of(location: tuple[int | str, ...]) -> str:
    parts = location[1:] if location and location[0] in {"body", "query", "path", "header"} else location
    return ".".join(str(part) for part in parts)
