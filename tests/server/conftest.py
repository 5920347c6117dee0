"""Cheap password hashes: the real cost (64 MiB, 3 passes) would be most of the time of these tests."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from server.services.people import people


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id still, with the least work it can do."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(people, "_hasher", lambda: hasher)
    people._nobodys_hash.cache_clear()
