"""Starts, watches and stops the processes on one machine."""
