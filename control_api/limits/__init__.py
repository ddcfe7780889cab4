"""Limits: lanes, stages, caps, waits and the fair-share threshold, changeable while everything runs."""
