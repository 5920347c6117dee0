"""A run and its folder: files that a kill leaves whole, metrics, progress, parts that are done, plots."""
