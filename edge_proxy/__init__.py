"""The edge proxy."""
