"""LU with partial pivoting: N fixed, one system a lane, one at a time; factors that are kept."""
