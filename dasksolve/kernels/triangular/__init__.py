"""Substitution: one system a lane, or one at a time."""
