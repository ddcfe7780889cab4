"""One whole example of every answer, for the API's own description.

Examples are instances of the models that they show, so one that does not fit its model cannot be written down, and
a model that changes takes its example along.
"""

from pydantic import BaseModel

from admission_client.lease import AccountKind
from admission_client.policy import AccountStatus, SelectionStrategy
from control_api.accounts.models import (
    AccountPage,
    AccountView,
    ChangePage,
    ChangeView,
    LoginPage,
    LoginView,
    StartedLoginView,
)
from control_api.keys.models import KeyPage, KeyUsageView, KeyView, NewKey
from control_api.limits.models import LimitsChanged, LimitsView, ResourceView, Source
from control_api.push.models import Forgotten, RecoveringView, ResourceStateView, SessionPage, SessionView, StateView
from control_api.refresh.models import RefreshedView
from control_api.usage.models import PolledView, SamplePage, SampleView, UsagePage, UsageView, WindowView
from control_api.usage.served import (
    CodexUsage,
    PoolUsage,
    ServedCredits,
    ServedRateLimit,
    ServedResetCredits,
    ServedWindow,
    V1Usage,
)
from service_runtime.version import VERSION

_NOW = 1_893_456_000.0
_ACCOUNT = "acct_demo_1a2b3c4d"


def answer_examples() -> tuple[BaseModel, ...]:
    """Returns an example of each model that a route answers with."""
    return (*_of_accounts(), *_of_logins(), *_of_keys(), *_of_limits(), *_of_usage(), *_of_clients(), *_of_state())


def _of_accounts() -> tuple[BaseModel, ...]:
    account = AccountView(
        id=_ACCOUNT,
        kind=AccountKind.CHATGPT,
        name="Team seat 3",
        email="ann@example.com",
        plan="team",
        workspace_id="org-1",
        workspace_label="Lab",
        seat_type="standard",
        upstream_account_id="0f1e2d3c",
        base_url="https://chatgpt.com/backend-api",
        status=AccountStatus.ACTIVE,
        status_reason="",
        status_changed_at=_NOW - 86_400,
        reset_at=None,
        cooldown_until=None,
        cooldown_reason="",
        credential_version=2,
        credential_obtained_at=_NOW - 3_600,
        access_expires_at=_NOW + 864_000,
        weight=1.0,
        models=[],
        max_streams=4,
        max_response_creates=None,
        created_at=_NOW - 86_400,
    )
    change = ChangeView(
        at=_NOW,
        event="rate_limited",
        from_status=AccountStatus.ACTIVE,
        to_status=AccountStatus.RATE_LIMITED,
        reason="rate_limit_exceeded (429)",
    )
    return (
        account,
        AccountPage(items=[account], next_cursor=None),
        ChangePage(items=[change], next_cursor=None),
        RefreshedView(account_id=_ACCOUNT, credential_version=3, rotated=True),
    )


def _of_logins() -> tuple[BaseModel, ...]:
    login = LoginView(
        id="login_5d2c9a7e41b80f36",
        method="device",
        status="pending",
        error="",
        target_account_id=None,
        account_id=None,
        user_code="ABCD-EFGH",
        created_at=_NOW,
        expires_at=_NOW + 900,
    )
    started = StartedLoginView(
        **dict(login),
        authorize_url=None,
        callback_url=None,
        verification_url="https://auth.openai.com/codex/device",
    )
    return login, started, LoginPage(items=[login], next_cursor=None)


def _of_keys() -> tuple[BaseModel, ...]:
    key = KeyView(
        id="key_4f2a9c1b7d3e",
        name="laptop",
        hint="sk-sg-ab…yz",
        created_at=_NOW,
        expires_at=None,
        revoked_at=None,
        models=["gpt-5.5"],
        account_ids=[],
        max_streams=4,
    )
    usage = KeyUsageView(
        key_id=key.id,
        told_at=_NOW,
        succeeded=123,
        failed=2,
        input_tokens=1_200_000,
        cached_input_tokens=900_000,
        output_tokens=80_000,
        reasoning_tokens=30_000,
    )
    return key, NewKey(**dict(key), key="sk-sg-…"), KeyPage(items=[key], next_cursor=None), usage


def _of_limits() -> tuple[BaseModel, ...]:
    lane = ResourceView(
        limit=2,
        max_wait=0.0,
        queue_limit=0,
        max_hold=0.0,
        paused=False,
        reserve=0,
        sources={"limit": Source.CHANGED, "max_wait": Source.DEFAULT},
    )
    limits = LimitsView(
        version=42,
        resources={"lanes/proxy_http": lane},
        fair_share_threshold_percent=80,
        strategy=SelectionStrategy.CAPACITY_WEIGHTED,
        sources={"fair_share_threshold_percent": Source.DEFAULT, "strategy": Source.DEFAULT},
    )
    return limits, LimitsChanged(version=43, applied=True)


def _of_usage() -> tuple[BaseModel, ...]:
    usage = UsageView(
        account_id=_ACCOUNT,
        plan="team",
        windows=[WindowView(length=18_000, used_percent=12.5, resets_at=_NOW + 7_200, told_at=_NOW)],
        told_at=_NOW,
        has_credits=False,
        unlimited_credits=False,
        credit_balance="0",
        cooldown_until=None,
        cooldown_reason="",
        remaining=6_615.0,
        succeeded=120,
        failed=3,
        input_tokens=1_200_000,
        cached_input_tokens=900_000,
        output_tokens=80_000,
    )
    sample = SampleView(length=18_000, used_percent=12.5, recorded_at=_NOW)
    return (
        usage,
        UsagePage(items=[usage], next_cursor=None),
        SamplePage(items=[sample], next_cursor=None),
        PolledView(account_id=_ACCOUNT, outcome="stored"),
    )


def _of_clients() -> tuple[BaseModel, ...]:
    window = ServedWindow(
        used_percent=12, limit_window_seconds=18_000, reset_after_seconds=7_200, reset_at=round(_NOW) + 7_200
    )
    return (
        CodexUsage(
            plan_type="plus",
            rate_limit=ServedRateLimit(
                allowed=True, limit_reached=False, primary_window=window, secondary_window=None, monthly_window=None
            ),
            credits=ServedCredits(has_credits=False, unlimited=False, balance="0"),
            rate_limit_reset_credits=ServedResetCredits(),
            additional_rate_limits=[],
        ),
        V1Usage(
            request_count=123,
            total_tokens=1_280_000,
            cached_input_tokens=900_000,
            total_cost_usd=0.0,
            limits=[],
            upstream_limits=[],
            account_pool_usage=PoolUsage(primary=12.0, secondary=None),
        ),
    )


def _of_state() -> tuple[BaseModel, ...]:
    lane = ResourceStateView(
        name="lanes/proxy_http",
        limit=200,
        held=17,
        waiting=0,
        overdraft=0,
        paused=False,
        reserve=0,
        max_wait=0.0,
        max_hold=None,
    )
    session = SessionView(
        session_id="e4b1c07a",
        instance="edge-1/w0",
        role="edge",
        leases=17,
        waiting=0,
        age=3_600.0,
        expires_in=29.5,
        connected=True,
    )
    return (
        StateView(
            server_version=VERSION,
            epoch=7,
            policy_version=42,
            sessions=3,
            uptime=86_400.0,
            recovering=[RecoveringView(session_id="9c20d1f5", instance="edge-2/w1", time_left=12.0)],
            resources=[lane],
        ),
        SessionPage(items=[session], next_cursor=None),
        Forgotten(ended=17),
    )
