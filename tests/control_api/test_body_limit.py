"""A body that does not arrive is not waited for; one that did may take its time to be answered."""

import asyncio
import json

import pytest
from fastapi import FastAPI, Request

from control_api.body_limit import BodyLimit
from control_api.errors import install_error_handlers
from control_api.keys.models import KeyInput

WITHIN = 0.2


def application():
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/json")
    async def read_json(request: Request) -> dict[str, int]:
        return {"read": len(await request.body())}

    @app.post("/slow")
    async def answer_slowly(request: Request) -> dict[str, bool]:
        await request.body()
        try:
            await asyncio.wait_for(request.receive(), WITHIN * 3)
        except TimeoutError:
            return {"gone": False}
        return {"gone": True}

    @app.post("/model")
    async def read_a_model(wanted: KeyInput) -> dict[str, str]:
        return {"name": wanted.name}

    return BodyLimit(app, within=WITHIN)


async def post(path, *messages, pause=0.0):
    """Sends a body in parts, then nothing more, and returns the status and the answer."""
    waiting = list(messages)
    sent = []

    async def receive():
        await asyncio.sleep(pause)
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    async with asyncio.timeout(10):
        await application()(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


def part(body, *, more):
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("path", ["/json", "/model"])
async def test_a_body_that_does_not_come_is_408(path):
    status, problem = await post(path)

    assert status == 408
    assert problem["type"] == "urn:sluicegate:problem:body-too-late"


async def test_a_body_that_drips_is_408_in_the_end():
    status, _ = await post("/json", *[part(b" ", more=True)] * 100, pause=WITHIN / 8)

    assert status == 408


async def test_a_body_that_came_in_parts_is_read_whole():
    status, answer = await post("/json", part(b"ab", more=True), part(b"c", more=False))

    assert (status, answer) == (200, {"read": 3})


async def test_after_the_body_a_client_may_stay_as_long_as_it_likes():
    status, answer = await post("/slow", part(b"", more=False))

    assert (status, answer) == (200, {"gone": False})
