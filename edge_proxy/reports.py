"""Tells the admission server what a try has shown of its account: one report a try, whichever way the try ends."""

from collections.abc import Mapping

from admission_client.lease import AccountReport, Admission, GrantedAccount, Outcome
from edge_proxy.auth import Client
from edge_proxy.headers import TURN_STATE
from edge_proxy.outcome import NEUTRAL, Verdict, credits_in_headers, windows_in_headers
from edge_proxy.turn import TurnWatch, opaque_key, response_key


class AccountReporter:
    """The report of one try. The first call of `settle` makes it; later ones do nothing.

    `suspect`: an upstream has already refused the credential that this very request came with. A second refusal may be
    the request's fault, so it blames nobody: one request costs one refresh at most.
    """

    def __init__(
        self,
        admission: Admission,
        account: GrantedAccount,
        client: Client,
        watch: TurnWatch,
        *,
        suspect: bool = False,
    ) -> None:
        self.headers: Mapping[str, str] = {}
        """Headers of the upstream's answer, in lower case, once there is one."""
        self.settled = False
        self._admission = admission
        self._account = account
        self._client = client
        self._watch = watch
        self._suspect = suspect

    def settle(self, verdict: Verdict) -> None:
        """Sends the report."""
        if self.settled:
            return
        self.settled = True
        blameless = self._suspect and verdict.outcome is Outcome.AUTH_REJECTED
        watch = self._watch
        self._admission.report(
            AccountReport(
                account_id=self._account.account_id,
                credential_version=self._account.credential_version,
                outcome=Outcome.NEUTRAL if blameless else verdict.outcome,
                status=verdict.status,
                code=verdict.code,
                resets_after=verdict.resets_after,
                usage=watch.usage,
                windows=watch.windows or windows_in_headers(self.headers),
                credits=watch.credits or credits_in_headers(self.headers),
                owned_keys=self._owned_keys(),
                key_sha256=self._client.key_sha256 or b"",
            )
        )

    def settle_neutrally(self) -> None:
        """Sends a report without a verdict, unless there was one: the client left, or something else ended the try."""
        self.settle(NEUTRAL)

    def _owned_keys(self) -> tuple[str, ...]:
        keys = []
        if self._watch.response_id:
            keys.append(response_key(self._watch.response_id))
        if turn_state := self.headers.get(TURN_STATE):
            keys.append(opaque_key("turn", turn_state))
        return tuple(keys)
