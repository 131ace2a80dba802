"""A batch of systems in memory or on dask: one eager path, one lazy one over it."""
