"""Preference models and policies: files and tensors, nothing else of the project."""
