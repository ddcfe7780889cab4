"""What the twin can besides: tests script it and look into it."""

import pytest

from admission_client.errors import AdmissionUnavailable, Denied
from admission_client.lease import AccountNeeds, AccountReport, Admission, Denial, DenialReason
from admission_client.memory import MemoryAdmission, memory_account


async def test_a_refusal_can_be_scripted_for_the_next_acquire_of_a_resource():
    admission = MemoryAdmission(accounts=[memory_account()])
    admission.refuse_next("accounts/-/streams", DenialReason.OWNER_GONE)
    async with admission.acquire(["lanes/proxy_http"]):
        with pytest.raises(Denied) as denied:
            async with admission.acquire(["accounts/-/streams"], account=AccountNeeds()):
                pass
        async with admission.acquire(["accounts/-/streams"], account=AccountNeeds()) as grant:
            assert grant.account == memory_account()

    assert denied.value.denial.reason is DenialReason.OWNER_GONE


async def test_refusals_may_be_whole_denials_or_errors():
    admission = MemoryAdmission()
    admission.refuse_next("lanes/proxy_http", Denial(reason=DenialReason.LANE_FULL, retry_after=9))
    admission.refuse_next("lanes/proxy_http", AdmissionUnavailable("away"))
    with pytest.raises(Denied) as denied:
        async with admission.acquire(["lanes/proxy_http"]):
            pass
    with pytest.raises(AdmissionUnavailable):
        async with admission.acquire(["lanes/proxy_http"]):
            pass

    assert denied.value.denial.retry_after == 9


async def test_a_server_that_is_away_grants_nothing():
    admission = MemoryAdmission()
    admission.ready = False
    with pytest.raises(AdmissionUnavailable):
        async with admission.acquire(["lanes/proxy_http"]):
            pass


async def test_a_lapsed_session_makes_grants_unfit_for_anything_new():
    admission = MemoryAdmission()
    async with admission.acquire(["lanes/proxy_http"]) as lane:
        admission.lapsed = True

        assert not lane.live
        assert lane.resources == ("lanes/proxy_http",)


async def test_reports_and_acquires_are_remembered():
    admission: Admission = MemoryAdmission()
    assert isinstance(admission, MemoryAdmission)
    admission.report(AccountReport(account_id="acc_1"))
    async with admission.acquire(["lanes/proxy_http"]):
        held = dict(admission.held)

    assert [report.account_id for report in admission.reports] == ["acc_1"]
    assert admission.asked == [("lanes/proxy_http",)]
    assert held == {"lanes/proxy_http": 1}
    assert dict(admission.held) == {}


async def test_raising_a_limit_lets_waiters_in():
    admission = MemoryAdmission()
    admission.set_limit("stages/response_create", 0)
    async with admission.acquire(["stages/response_create"]):
        admission.set_limit("stages/response_create", 1)
        with pytest.raises(Denied):
            async with admission.acquire(["stages/response_create"]):
                pass
        admission.set_limit("stages/response_create", 2)
        async with admission.acquire(["stages/response_create"]):
            assert admission.held["stages/response_create"] == 2
