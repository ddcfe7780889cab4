"""What the admission server is told and what it tells: policy down, signals up, state for people."""
