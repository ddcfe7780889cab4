"""The demo shows the lanes, the stages and whatever holds seats."""

from admission_client.state import ResourceState, ServerState
from demo.endpoints import Endpoints
from demo.operator import ClientKey
from demo.ports import Ports
from demo.walkthrough import DemoClient, next_steps, state_table


def resource(name, *, limit=8, held=0):
    return ResourceState(
        name=name,
        limit=limit,
        held=held,
        waiting=0,
        overdraft=0,
        paused=False,
        max_wait=0.0,
        max_hold=None,
        reserve=0,
    )


def state(*resources):
    return ServerState(
        server_version="1",
        epoch=1,
        policy_version=1,
        sessions=1,
        recovering=(),
        resources=resources,
        uptime=1.0,
    )


def test_lanes_and_stages_are_shown_always_and_accounts_while_they_hold_seats():
    table = state_table(
        state(
            resource("lanes/proxy_http", held=1),
            resource("stages/token_refresh"),
            resource("accounts/a/streams", held=2),
            resource("accounts/b/streams"),
        )
    )

    assert [line.split()[0] for line in table] == [
        "resource",
        "lanes/proxy_http",
        "stages/token_refresh",
        "accounts/a/streams",
    ]


def test_an_unlimited_resource_is_shown_as_such():
    assert "∞" in state_table(state(resource("lanes/proxy_http", limit=0)))[1]


def test_the_next_steps_hold_ready_made_lines_for_each_tool(tmp_path):
    client = DemoClient(
        endpoints=Endpoints.on_loopback(Ports()),
        key=ClientKey(id="k", key="sk-demo"),
        account_id="a",
        admin_token_file=tmp_path / "admin-token",
    )

    steps = next_steps(client)
    assert "curl -N http://127.0.0.1:8080/v1/responses -H 'Authorization: Bearer sk-demo'" in steps
    assert 'base_url = "http://127.0.0.1:8080/backend-api/codex"' in steps
    assert "grpcurl -plaintext 127.0.0.1:50051 admission.v1.StateService/GetState" in steps
