"""Decides who may do what right now."""
