"""Snapshots and where they serve: registering them, deploying them, drawing the candidates that they write."""
