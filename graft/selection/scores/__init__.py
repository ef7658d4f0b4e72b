"""Scores of one source for a target domain: the project's own and published ones."""
