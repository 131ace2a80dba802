"""The bytes of zarr arrays, here or far away; `internals` alone knows what zarr keeps to itself."""
