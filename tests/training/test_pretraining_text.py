"""PPO-ptx: pieces that lose nothing, one summed gradient an update; and the average of the weights."""

import copy
import gzip
import json
from pathlib import Path

import pytest
import torch

from tests.training.policy_runs import folder_of, run_of
from training.failure import JobFailed
from training.lines.records import BadRecord
from training.models.snapshots import load_policy
from training.reading.pretraining_text import PretrainingText
from training.sampling import rollouts

TEXTS = ["The river rises in spring.", "Bread needs salt, time and heat. " * 3, "A short one"]


def write_texts(data: Path, texts: list[str] = TEXTS) -> None:
    (data / "pretraining.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def test_every_token_is_foretold_once(tmp_path: Path, tokenizer) -> None:
    write_texts(tmp_path)
    texts = PretrainingText.read(tmp_path, tokenizer, tokens=16, seed=0)
    assert texts.texts == 3
    assert all(2 <= len(piece) <= 17 for piece in texts.pieces)
    foretold = [token for piece in texts.pieces for token in piece[1:]]
    whole = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in TEXTS]
    assert foretold == [token for ids in whole for token in ids]
    rows = texts.rows(begin=0, count=len(texts.pieces), device=torch.device("cpu"))
    assert int(rows.mask.sum()) == len(foretold)
    assert sorted(map(tuple, texts.pieces)) == sorted(
        tuple(row[:length].tolist()) for row, length in zip(rows.tokens, rows.length, strict=True)
    )


def test_gzip_is_read_and_bad_files_are_refused(tmp_path: Path, tokenizer) -> None:
    def read() -> PretrainingText:
        return PretrainingText.read(tmp_path, tokenizer, tokens=16, seed=0)

    with pytest.raises(JobFailed, match="ptx_weight or pretraining_share asks for"):
        read()
    with gzip.open(tmp_path / "pretraining.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": "hello"}) + "\n")
    assert len(read().pieces) == 1
    (tmp_path / "pretraining.jsonl.gz").write_bytes(gzip.compress(b"{}")[:12])
    with pytest.raises(BadRecord, match="cannot be unpacked"):
        read()
    (tmp_path / "pretraining.jsonl.gz").unlink()
    for line, why in (("{", "line 2"), ('{"words": "x"}', "line 2.*text"), ('{"text": ""}', "line 2.*has no text")):
        (tmp_path / "pretraining.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
        with pytest.raises(BadRecord, match=why):
            read()
    (tmp_path / "pretraining.jsonl").write_text("\n\n")
    with pytest.raises(JobFailed, match="no text"):
        read()


def test_an_update_is_one_step_along_both_gradients(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """γ E[log π] by a plain forward pass over each piece, added to the gradient that the same run has without it."""
    gradients: dict[float, list[torch.Tensor]] = {}
    for gamma in (0.0, 2.0):
        folder = folder_of(tmp_path / str(gamma), tiny_policy, pm_path, critic_pretraining=0, ptx_weight=gamma,
                           ptx_ratio=0.5, ptx_tokens=16, inner_epochs=1, minibatch_replies=16)  # fmt: skip
        write_texts(folder.data)
        run = run_of(folder)
        start = copy.deepcopy(run.policy)

        def keep(optimizer, module, place, replies, gamma=gamma, run=run) -> float:
            if module is run.policy:
                gradients[gamma] = [weight.grad.clone() for weight in module.parameters()]
            return 0.0

        monkeypatch.setattr(run.learner, "_descend", keep)
        numbers = run.iterate(0)
    rows = run.texts.rows(0, 8, torch.device("cpu"))
    loss = 0.0
    for row in range(8):
        tokens = rows.tokens[row : row + 1, : int(rows.length[row])]
        logp = start(tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])
        loss = loss - logp.sum() / rows.mask.sum()
    assert numbers["ptx_loss"] == pytest.approx(float(loss.detach()), abs=1e-4)
    found = torch.autograd.grad(2.0 * loss, list(start.parameters()))
    for plain, both, text in zip(gradients[0.0], gradients[2.0], found, strict=True):
        assert torch.allclose(both - plain, text, atol=1e-4)


def test_every_update_goes_on_with_the_text_that_comes_next(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minibatches of 8 replies in each of two passes, half a piece a reply; the critic's own iteration reads none."""
    folder = folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=1, ptx_weight=1.0, ptx_ratio=0.5,
                       ptx_tokens=16, approx_kl_stop=0.0)  # fmt: skip
    write_texts(folder.data)
    run = run_of(folder)
    met, rows = [], run.texts.rows
    monkeypatch.setattr(run.texts, "rows", lambda begin, count, device: met.append(begin) or rows(begin, count, device))
    for iteration in range(3):
        run.iterate(iteration)
    assert met == [0, 4, 8, 12, 16, 20, 24, 28]


def test_pretraining_text_in_forward_passes_of_any_size(
    tmp_path: Path, tiny_policy: Path, pm_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for part_tokens in (rollouts.PART_TOKENS, 1):
        monkeypatch.setattr(rollouts, "PART_TOKENS", part_tokens)
        monkeypatch.setattr(rollouts, "PART_EVENNESS", 0.0)
        folder = folder_of(tmp_path / f"{part_tokens}", tiny_policy, pm_path, critic_pretraining=0, ptx_weight=5.0,
                           ptx_ratio=1.0, ptx_tokens=16, inner_epochs=1, adam_eps=1e-3)  # fmt: skip
        write_texts(folder.data)
        run = run_of(folder)
        numbers = run.iterate(0)
        found.append((numbers["ptx_loss"], weights(run.policy)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=2e-5)


@pytest.mark.slow
def test_the_text_stays_foretold_where_it_is_learnt_from(tmp_path: Path, tiny_policy: Path, pm_path: Path) -> None:
    losses = {}
    for gamma in (1e-9, 5.0):
        folder = folder_of(tmp_path / str(gamma), tiny_policy, pm_path, critic_pretraining=0, ptx_weight=gamma,
                           ptx_ratio=1.0, learning_rate=5e-3, episodes=96)  # fmt: skip
        write_texts(folder.data)
        run = run_of(folder)
        losses[gamma] = [run.iterate(turn)["ptx_loss"] for turn in range(5)]
    assert losses[5.0][-1] < losses[5.0][0] - 0.3
    assert losses[5.0][-1] < losses[1e-9][-1] - 0.3


def test_the_average_follows_its_recursion_and_is_what_is_saved(
    tmp_path: Path, tiny_policy: Path, pm_path: Path
) -> None:
    run = run_of(folder_of(tmp_path / "run", tiny_policy, pm_path, critic_pretraining=0, weight_average=0.75))
    average = weights(run.policy)
    descend = run.learner._descend

    def followed(optimizer, module, place, replies) -> float:
        nonlocal average
        norm = descend(optimizer, module, place, replies)
        if module is run.policy:
            average = 0.75 * average + 0.25 * weights(run.policy)
        return norm

    run.learner._descend = followed
    run.iterate(0)
    run.iterate(1)
    assert run.iterate(2)["sampler_gap"] < 1e-4  # the policy itself goes on sampling, not its average
    assert torch.allclose(torch.cat([w.flatten() for w in run.learner.average.weights.values()]), average, atol=1e-6)
    own = weights(run.policy)
    result = run.finish(3)
    saved = weights(load_policy(run.folder.model)[0])
    assert torch.allclose(saved, average, atol=1e-6) and not torch.allclose(saved, own, atol=1e-4)
    assert torch.equal(weights(run.policy), own)
    assert result["kl_k3"] > 0
