"""SIMD vectors as values that numba compiles."""
