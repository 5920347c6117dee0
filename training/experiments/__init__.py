"""The papers' claims at tiny scale, one script each: `python -m training.experiments.<name>`.

Each prints a table and says which claims held, and writes its numbers, plot and table into docs/experiments/ (or --out).
`--quick` runs a shortened form, which tests that the script works and shows nothing else.
"""
