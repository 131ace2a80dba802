"""Tridiagonal matrices, dense or as three diagonals."""
