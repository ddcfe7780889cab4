"""What every `Admission` does, asked of the twin in memory and of the real client with the real server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from admission_client.errors import AcquireRejected, Denied
from admission_client.lease import AccountKind, AccountNeeds, Admission, DenialReason, GrantedAccount
from admission_client.memory import MemoryAdmission
from admission_client.policy import AccountPolicy, KeyPolicy, Policy, ResourceSettings
from admission_client.session import AdmissionClient
from tests.admission_client.real_server import running_server
from tests.admission_client.scripted_server import eventually

KEY = b"k" * 32
SETTINGS = (
    ResourceSettings(name="lanes/proxy_http", limit=2),
    ResourceSettings(name="stages/response_create", limit=3, max_wait=5.0),
    ResourceSettings(name="stages/compact_response_create", limit=1, max_wait=0.05),
    ResourceSettings(name="accounts/-/streams", limit=2, max_wait=5.0),
    ResourceSettings(name="accounts/-/response_creates", limit=1, max_wait=0.05),
    ResourceSettings(name="keys/-/streams", limit=0),
)
ACCOUNTS = tuple(
    GrantedAccount(
        account_id=account_id, kind=kind, base_url="http://127.0.0.1:9", access_token="t", credential_version=1
    )
    for account_id, kind in (("acc_1", AccountKind.CHATGPT), ("acc_2", AccountKind.API_KEY))
)
WORK = ("stages/response_create", "accounts/-/streams")


@dataclass
class Subject:
    """One implementation, and how to see what it holds."""

    admission: Admission
    held: Callable[[str], int]
    waiting: Callable[[], int]


@asynccontextmanager
async def memory_subject() -> AsyncIterator[Subject]:
    admission = MemoryAdmission(SETTINGS, accounts=ACCOUNTS, keys={KEY: "key_1"})
    yield Subject(
        admission=admission,
        held=lambda name: admission.held[name],
        waiting=lambda: sum(admission.waiting(settings.name) for settings in SETTINGS),
    )


@asynccontextmanager
async def server_subject() -> AsyncIterator[Subject]:
    policy = Policy(
        resources=SETTINGS,
        accounts=tuple(
            AccountPolicy(
                account_id=account.account_id,
                kind=account.kind,
                base_url=account.base_url,
                access_token=account.access_token,
                credential_version=account.credential_version,
            )
            for account in ACCOUNTS
        ),
        keys=(KeyPolicy(key_id="key_1", key_sha256=KEY),),
    )
    async with (
        running_server() as server,
        server.controlled_by(policy),
        AdmissionClient(server.target, server.edge_token, "edge-1") as client,
    ):
        await client.wait_until_ready(5)
        yield Subject(
            admission=client,
            held=server.held,
            waiting=lambda: server.waiting,
        )


@pytest.fixture(params=[memory_subject, server_subject], ids=["memory", "server"])
async def subject(request):
    async with request.param() as subject:
        yield subject


async def test_a_grant_names_what_it_holds(subject):
    async with subject.admission.acquire(WORK, key_sha256=KEY, account=AccountNeeds(kind=AccountKind.CHATGPT)) as grant:
        assert grant.resources == ("stages/response_create", "accounts/acc_1/streams")
        assert grant.account.account_id == "acc_1"
        assert grant.key_id == "key_1"
        assert grant.live


async def test_leaving_the_block_frees_everything(subject):
    async with subject.admission.acquire(WORK, account=AccountNeeds(required_account_id="acc_2")):
        await eventually(lambda: subject.held("accounts/acc_2/streams") == 1)
    await eventually(lambda: subject.held("accounts/acc_2/streams") == 0)

    assert subject.held("stages/response_create") == 0


async def test_an_exception_frees_everything(subject):
    with pytest.raises(KeyError):
        async with subject.admission.acquire(["lanes/proxy_http"], peer="127.0.0.1"):
            raise KeyError

    await eventually(lambda: subject.held("lanes/proxy_http") == 0)


async def test_a_part_can_be_released_early_and_twice(subject):
    async with subject.admission.acquire(WORK, account=AccountNeeds(required_account_id="acc_1")) as grant:
        grant.release("stages/response_create")
        grant.release("stages/response_create", "keys/-/streams")
        await eventually(lambda: subject.held("stages/response_create") == 0)

        assert grant.resources == ("accounts/acc_1/streams",)
        assert grant.live


async def test_a_released_grant_is_not_live(subject):
    async with subject.admission.acquire(["lanes/proxy_http"], peer="127.0.0.1") as grant:
        grant.release()

        assert not grant.live
        assert grant.resources == ()


async def test_a_full_lane_is_denied_at_once_and_says_why(subject):
    async with (
        subject.admission.acquire(["lanes/proxy_http"], peer="a"),
        subject.admission.acquire(["lanes/proxy_http"], peer="b"),
    ):
        with pytest.raises(Denied) as denied:
            async with subject.admission.acquire(["lanes/proxy_http"], peer="c"):
                pass

    denial = denied.value.denial
    assert denial.reason is DenialReason.LANE_FULL
    assert (denial.resource, denial.limit, denial.held) == ("lanes/proxy_http", 2, 2)
    assert denial.retry_after is not None
    assert denial.retry_after >= 1


async def test_a_stage_that_stays_full_is_denied_after_its_wait(subject):
    async with subject.admission.acquire(["stages/compact_response_create"], peer="a"):
        with pytest.raises(Denied) as denied:
            async with subject.admission.acquire(["stages/compact_response_create"], peer="b"):
                pass

    assert denied.value.denial.reason is DenialReason.STAGE_FULL


async def test_a_waiter_gets_the_seat_that_is_freed(subject):
    needs = AccountNeeds(required_account_id="acc_1")
    order = []

    async def turn(name):
        async with subject.admission.acquire(WORK, peer=name, account=needs):
            order.append(name)

    async with (
        subject.admission.acquire(WORK, peer="a", account=needs) as first,
        subject.admission.acquire(WORK, peer="b", account=needs),
    ):
        third = asyncio.create_task(turn("c"))
        await eventually(subject.waiting)
        first.release()
        await asyncio.wait_for(third, 5)

    assert order == ["c"]


async def test_waiters_of_one_flow_are_served_in_order(subject):
    needs = AccountNeeds(required_account_id="acc_1")
    order = []

    async def turn(n):
        async with subject.admission.acquire(WORK, peer="same", account=needs):
            order.append(n)

    turns = []
    async with (
        subject.admission.acquire(WORK, peer="a", account=needs),
        subject.admission.acquire(WORK, peer="a", account=needs),
    ):
        for n in range(4):
            turns.append(asyncio.create_task(turn(n)))
            await eventually(lambda: subject.waiting() == len(turns))
    await asyncio.wait_for(asyncio.gather(*turns), 5)

    assert order == [0, 1, 2, 3]


async def test_a_cancelled_waiter_leaves_no_trace(subject):
    needs = AccountNeeds(required_account_id="acc_1")
    async with (
        subject.admission.acquire(WORK, peer="a", account=needs),
        subject.admission.acquire(WORK, peer="b", account=needs),
    ):
        waiter = asyncio.create_task(subject.admission.acquire(WORK, peer="c", account=needs).__aenter__())
        await eventually(subject.waiting)
        waiter.cancel()
        await asyncio.wait([waiter])
        await eventually(lambda: not subject.waiting())

    await eventually(lambda: subject.held("accounts/acc_1/streams") == 0)


async def test_a_caller_may_be_less_patient_than_the_resource(subject):
    needs = AccountNeeds(required_account_id="acc_1")
    async with (
        subject.admission.acquire(WORK, peer="a", account=needs),
        subject.admission.acquire(WORK, peer="b", account=needs),
    ):
        with pytest.raises(Denied) as denied:
            async with subject.admission.acquire(WORK, peer="c", account=needs, max_wait=0):
                pass

    assert denied.value.denial.resource == "accounts/acc_1/streams"
    assert denied.value.denial.held == 2


async def test_a_full_account_is_passed_over_for_one_with_room(subject):
    creates = ("accounts/-/response_creates",)
    async with (
        subject.admission.acquire(creates, peer="a", account=AccountNeeds()) as one,
        subject.admission.acquire(creates, peer="a", account=AccountNeeds()) as other,
    ):
        taken = {one.account.account_id, other.account.account_id}
        with pytest.raises(Denied) as denied:
            async with subject.admission.acquire(creates, peer="a", account=AccountNeeds()):
                pass

    assert taken == {"acc_1", "acc_2"}
    assert denied.value.denial.reason is DenialReason.ACCOUNT_RESPONSE_CREATES_FULL


async def test_avoided_accounts_are_avoided(subject):
    needs = AccountNeeds(avoid_account_ids=("acc_1",))
    async with subject.admission.acquire(WORK, peer="a", account=needs) as grant:
        assert grant.account.account_id == "acc_2"


async def test_an_unknown_key_is_refused(subject):
    with pytest.raises(Denied) as denied:
        async with subject.admission.acquire(["lanes/proxy_http"], key_sha256=b"x" * 32):
            pass

    assert denied.value.denial.reason is DenialReason.KEY_UNKNOWN


@pytest.mark.parametrize("resources", [["lanes/nonsense"], [], ["lanes/proxy_http", "stages/response_create"]])
async def test_malformed_acquires_are_rejected(subject, resources):
    with pytest.raises(AcquireRejected):
        async with subject.admission.acquire(resources, peer="a"):
            pass
