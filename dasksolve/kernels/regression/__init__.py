"""Least squares: one design for many series, or a design for each."""
