"""API keys of clients: made, shown once, revoked. Only their SHA-256 is stored."""
