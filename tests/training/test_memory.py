"""Memory that is given back: the pages go, what stands beside them stays."""

from pathlib import Path

import pytest
import torch

from training.native.memory import give_back


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_pages_go_and_can_be_written_anew() -> None:
    table = torch.ones(64 * 2**20, dtype=torch.uint8)
    held = resident()
    give_back(table)
    assert held - resident() > 60 * 2**20
    table.fill_(7)
    assert bool((table == 7).all())


def test_what_shares_the_first_and_the_last_page_stays() -> None:
    table = torch.ones(8 * 4096, dtype=torch.uint8)
    middle = table[1000 : 6 * 4096 + 500]
    give_back(middle)
    assert bool((table[:1000] == 1).all())
    assert bool((table[6 * 4096 + 500 :] == 1).all())
    give_back(table[:0])
    give_back(table[:100])
    assert bool((table[:1000] == 1).all())
