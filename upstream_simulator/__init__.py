"""A stand-in for the backend."""
