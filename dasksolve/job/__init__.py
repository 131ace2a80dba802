"""The zarr job: a batch larger than memory, solved block by block, resumable."""
