"""dasksolve."""
