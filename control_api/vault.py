"""Encryption of tokens at rest (Fernet). The key never lies in the database that it protects.

Several keys, one a line, are a rotation: the first encrypts, all decrypt.
"""

from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from control_api.made_secrets import read_or_make
from service_runtime.process import StartupError


class VaultError(Exception):
    """A stored secret cannot be decrypted: it was written with a key that this process does not have."""


class Vault:
    """Encrypts and decrypts short secrets."""

    def __init__(self, keys: str) -> None:
        """Takes one key a line. Raises `StartupError` when one is malformed."""
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys.split()])
        except ValueError:
            raise StartupError(
                "the key of the vault is malformed: it must be 32 bytes in URL-safe base64, one key a line"
            ) from None

    @classmethod
    def open(cls, *, key: SecretStr | None, key_file: Path) -> "Vault":
        """Takes the key from the environment, else from the file, which is made when it is missing."""
        if key is not None:
            return cls(key.get_secret_value())
        return cls(read_or_make(key_file, lambda: Fernet.generate_key().decode())[0])

    def encrypt(self, secret: str) -> bytes:
        """Returns the secret as it may be stored."""
        return self._fernet.encrypt(secret.encode())

    def decrypt(self, stored: bytes) -> str:
        """Returns what was encrypted. Raises `VaultError`, which carries nothing of it."""
        try:
            return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            raise VaultError("a stored token was encrypted with another key") from None
