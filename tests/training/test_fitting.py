"""The updates that sft, preference and distill share: what is looked at before anything is kept."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.training.test_distill import make_folder as distill_folder
from tests.training.test_distill import talks
from tests.training.test_preference import comparisons
from tests.training.test_preference import make_folder as preference_folder
from tests.training.test_sft import demonstrations
from tests.training.test_sft import make_folder as sft_folder
from training import distill, preference, sft
from training.runs.run_folder import RunFolder
from training.supervised.fitting import Fit


@pytest.mark.parametrize("job", ["preference", "sft", "distill"])
@pytest.mark.parametrize("wrong", [math.nan, 3e38])
def test_what_the_last_update_tore_is_kept_nowhere(
    job: str, wrong: float, tmp_path: Path, tiny_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3e38 is finite, and what a product makes of it is not."""
    path = tmp_path / "run"
    if job == "preference":
        main = preference.main
        preference_folder(path, comparisons(32), [], model=str(tiny_policy), batch_prompts=8, checkpoint_steps=2)
    elif job == "sft":
        main = sft.main
        sft_folder(path, demonstrations(24), model=str(tiny_policy), batch_sequences=8, checkpoint_steps=2, epochs=1)
    else:
        main = distill.main
        distill_folder(path, tiny_policy, talks(40), [], checkpoint_steps=2)
    update, last = Fit.update, []

    def tearing(self: Fit, batch: list[int]) -> dict[str, float]:
        numbers = update(self, batch)
        last[:] = [len(self.batches)]
        if self.step + 1 == len(self.batches):
            with torch.no_grad():
                for weight in self.model.parameters():
                    weight.fill_(wrong)
        return numbers

    monkeypatch.setattr(Fit, "update", tearing)
    assert main([str(path)]) == 2
    reason = json.loads((path / "failure.json").read_text())["reason"]
    assert f"after step {last[0]} (lines " in reason
    folder = RunFolder(path)
    assert not folder.model.exists()
    checkpoint = folder.load_checkpoint()
    assert checkpoint is not None and checkpoint.step < last[0]
    assert all(bool((tensor < 1e30).all()) for tensor in checkpoint.tensors.values())
