"""Every number that we quote: `make bench`. README.md says how each is measured and what came out."""
