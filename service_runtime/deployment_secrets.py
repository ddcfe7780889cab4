"""Makes what the processes of one installation know each other by, on first start, different for everybody.

Each process gets a folder of its own with only the files that are its business, readable by their owner alone. What is
there already stays. Used by the demo and, as `python -m service_runtime.deployment_secrets FOLDER`, by the containers.

    admission/tokens          every role and its token: `SLUICEGATE_ADMISSION_TOKENS_FILE`
    edge/admission-token      `SLUICEGATE_EDGE_ADMISSION_TOKEN_FILE`
    control/admission-token   `SLUICEGATE_CONTROL_ADMISSION_TOKEN_FILE`
    control/admin-token       `SLUICEGATE_CONTROL_ADMIN_TOKEN_FILE`, for whoever manages accounts
    operator/worker-token, operator/reader-token   for scripts that hold leases, or read a state that is closed
"""

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from service_runtime.private_files import read_private, write_private

ROLES = ("edge", "worker", "control", "reader")


@dataclass(frozen=True, slots=True)
class DeploymentSecrets:
    """Where the secrets of one installation are."""

    directory: Path

    @property
    def admission_tokens(self) -> Path:
        """Every role and its token, for the admission server."""
        return self.directory / "admission" / "tokens"

    @property
    def admin_token(self) -> Path:
        """The token of whoever manages accounts."""
        return self.directory / "control" / "admin-token"

    def role_token(self, role: str) -> Path:
        """The file with the token of one role, in the folder of the process that has the role."""
        if role in ("edge", "control"):
            return self.directory / role / "admission-token"
        return self.directory / "operator" / f"{role}-token"

    def make(self) -> None:
        """Makes every file that is missing. The roles' own files are what counts: the tokens file follows them."""
        for path in (self.admin_token, *(self.role_token(role) for role in ROLES)):
            if not path.exists():
                write_private(path, secrets.token_urlsafe(32) + "\n")
        write_private(
            self.admission_tokens, "".join(f"{role} {read_private(self.role_token(role))}\n" for role in ROLES)
        )


if __name__ == "__main__":
    DeploymentSecrets(Path(sys.argv[1])).make()
