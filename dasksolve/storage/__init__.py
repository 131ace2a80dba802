"""The bytes of zarr arrays, here or far away; the only place that knows zarr's internals."""
