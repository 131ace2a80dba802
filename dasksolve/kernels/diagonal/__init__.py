"""Diagonal matrices."""
