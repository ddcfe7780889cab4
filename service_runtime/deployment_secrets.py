"""Makes what the processes of one installation know each other by, on first start, different for everybody.

Each process gets a folder of its own with only the files that are its business, readable by their owner alone. What is
there already stays. Used by the demo and, as `python -m service_runtime.deployment_secrets FOLDER CONTROL_DATA`, by the
containers.

    admission/tokens          every role and its token: `SLUICEGATE_ADMISSION_TOKENS_FILE`
    edge/admission-token      `SLUICEGATE_EDGE_ADMISSION_TOKEN_FILE`
    control/admission-token   `SLUICEGATE_CONTROL_ADMISSION_TOKEN_FILE`
    control/admin-token       `SLUICEGATE_CONTROL_ADMIN_TOKEN_FILE`, for whoever manages accounts
    control/vault.key         `SLUICEGATE_CONTROL_KEY_FILE`, which encrypts the tokens of accounts
    operator/admin-token      the same token, for those who manage accounts from outside
    operator/worker-token, operator/reader-token   for scripts that hold leases, or read a state that is closed

The key of the vault cannot be made twice: whatever it has encrypted is lost without it. One that the control API has
made in its data folder is taken over, and beside a database that came without a key none is made.
"""

import base64
import os
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
    control_data: Path
    """The data folder of the control API, which is only looked at."""

    @property
    def admission_tokens(self) -> Path:
        """Every role and its token, for the admission server."""
        return self.directory / "admission" / "tokens"

    @property
    def admin_token(self) -> Path:
        """The token of whoever manages accounts."""
        return self.directory / "control" / "admin-token"

    @property
    def operator_admin_token(self) -> Path:
        """The same token where no other secret of the control API lies."""
        return self.directory / "operator" / "admin-token"

    @property
    def vault_key(self) -> Path:
        """The key of the control API's vault."""
        return self.directory / "control" / "vault.key"

    def role_token(self, role: str) -> Path:
        """The file with the token of one role, in the folder of the process that has the role."""
        if role in ("edge", "control"):
            return self.directory / role / "admission-token"
        return self.directory / "operator" / f"{role}-token"

    def make(self) -> list[str]:
        """Makes every file that is missing, and returns what an operator has to know about it.

        The roles' own files are what counts: the tokens file follows them, as the operators' admin token its original.
        """
        for path in (self.admin_token, *(self.role_token(role) for role in ROLES)):
            if not path.exists():
                write_private(path, secrets.token_urlsafe(32) + "\n")
        write_private(
            self.admission_tokens, "".join(f"{role} {read_private(self.role_token(role))}\n" for role in ROLES)
        )
        write_private(self.operator_admin_token, read_private(self.admin_token) + "\n")
        return [] if self.vault_key.exists() else self._make_vault_key()

    def _make_vault_key(self) -> list[str]:
        old = self.control_data / "vault.key"
        if old.exists():
            write_private(self.vault_key, read_private(old) + "\n")
            return [f"{self.vault_key} was taken over from {old}: remove that one once the new one is in your backup"]
        if (self.control_data / "control.db").exists():
            reason = f"{self.control_data} has a database: put the key back that encrypted it"
            return [f"{self.vault_key} is missing and was not made, because {reason}"]
        # What Fernet takes: 32 random bytes in URL-safe base64. The image of this step has no `cryptography`.
        write_private(self.vault_key, base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
        return []


if __name__ == "__main__":
    folder, data = map(Path, sys.argv[1:3])
    sys.stdout.writelines(f"{note}\n" for note in DeploymentSecrets(folder, data).make())
