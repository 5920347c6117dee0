"""One interface for every kind of policy: a prompted one answers like the same model told the prompt, and nobody else hears it."""

import json
from pathlib import Path

import pytest
import torch

from training.failure import JobFailed
from training.models.models import PreferenceModel
from training.models.snapshots import PromptTooLong, render
from training.sampling.variants import Policy, Prefix, Sampling, scores

SHORT = Sampling(max_new_tokens=12)
ASKED = [[{"role": "user", "content": text}] for text in ("ash?", "which tree is the tallest", "elm")]
SHOWN = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]


def test_a_plain_policy_answers_each_conversation_by_its_seed_alone(any_policy: Path):
    policy = Policy.load(any_policy, slots=2)
    found = policy.reply(ASKED, [1, 2, 3], SHORT)
    alone = policy.reply(ASKED[1:2], [2], SHORT)
    assert found.texts[1] == alone.texts[0]
    logp = policy.log_probs(ASKED, found)
    torch.testing.assert_close(logp, found.generated.logp, atol=1e-4, rtol=0)
    assert not any("<|end|>" in text for text in found.texts)


@pytest.mark.parametrize("content", ["Be kind. ", SHOWN], ids=["text", "messages"])
def test_a_prompted_policy_is_the_model_behind_its_prompt(tiny_policy: Path, content: str | list):
    plain, prompted = Policy.load(tiny_policy), Policy.load(tiny_policy, Prefix(content))
    ids = prompted.prompt(ASKED[0], 12).ids
    if isinstance(content, str):
        written = list(content.encode())
        bare = plain.prompt(ASKED[0], 12).ids
        assert plain.tokenizer.decode(ids) == "<|bos|>" + content + plain.tokenizer.decode(bare[1:])
        assert len(ids) == len(bare) + len(written)
    else:
        assert ids == render(plain.tokenizer, SHOWN + ASKED[0])
    replies = prompted.reply(ASKED, [1, 2, 3], SHORT)
    said = replies.generated
    assert (prompted.log_probs(ASKED, replies)[said.mask] - said.logp[said.mask]).abs().max() < 1e-4
    assert (
        plain.log_probs(ASKED, replies)[said.mask] - said.logp[said.mask]
    ).abs().max() > 1e-2  # it has not heard the prompt


def test_the_oldest_turns_go_and_the_prompt_stays(tiny_policy: Path):
    policy = Policy.load(tiny_policy, Prefix("C" * 40))
    talk = [*SHOWN, {"role": "user", "content": "u" * 150}]
    whole, fitted = policy.prompt(talk, 10), policy.prompt(talk, 60)
    assert (whole.dropped, fitted.dropped) == (0, 2)
    assert policy.tokenizer.decode(fitted.ids).startswith("<|bos|>" + "C" * 40 + "<|user|>u")
    with pytest.raises(PromptTooLong, match="the last message behind its prompt takes"):
        policy.prompt(talk, 100)


def test_a_preference_model_reads_the_conversation_and_not_the_prompt(tiny_policy: Path, pm_path: Path):
    pm, tokenizer = PreferenceModel.load(pm_path)
    replies = Policy.load(tiny_policy, Prefix("Be kind. ")).reply(ASKED, [1, 2, 3], SHORT)
    found = scores(pm, tokenizer, ASKED, replies)
    for row, (conversation, text) in enumerate(zip(ASKED, replies.generated.tokens, strict=True)):
        said = text[replies.generated.mask[row]].tolist()
        end = [] if said[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
        ids = torch.tensor([render(tokenizer, conversation) + said + end])
        assert found[row].item() == pytest.approx(pm.scores(ids, torch.tensor([ids.shape[1] - 1])).item(), abs=1e-5)


def test_a_refreshed_policy_samples_from_the_weights_as_they_are(tiny_policy: Path):
    policy = Policy.load(tiny_policy)
    before = policy.reply(ASKED, [1, 2, 3], SHORT)
    with torch.no_grad():
        for weights in policy.model.parameters():
            weights.mul_(1.5)
    policy.refresh()
    after = policy.reply(ASKED, [1, 2, 3], SHORT)
    assert after.texts != before.texts
    torch.testing.assert_close(policy.log_probs(ASKED, after), after.generated.logp, atol=1e-4, rtol=0)


def test_prompts_are_read_from_files_or_refused(tmp_path: Path):
    text, messages = tmp_path / "hhh.txt", tmp_path / "hhh.json"
    text.write_text("Be helpful, honest and harmless.\n")
    messages.write_text(json.dumps(SHOWN))
    assert Prefix.read(text).content == "Be helpful, honest and harmless.\n"
    assert Prefix.read(messages).content == SHOWN
    for content, reason in (
        ("", "cannot be read"),
        ("[]", "must be a text or a list of messages"),
        (json.dumps(SHOWN[:1]), "must end with the assistant's"),
        ("3", "must be a text or a list of messages"),
        (json.dumps([*SHOWN, {"role": "system", "content": "x"}]), "message 3 of 'prompt' has the role 'system'"),
        (json.dumps([*SHOWN, "x"]), "message 3 of 'prompt' has no text in 'content'"),
    ):
        messages.write_text(content)
        with pytest.raises(JobFailed, match=reason):
            Prefix.read(messages)
    text.write_text(" \n")
    with pytest.raises(JobFailed, match="is empty"):
        Prefix.read(text)
    with pytest.raises(JobFailed, match="cannot be read"):
        Prefix.read(tmp_path / "none.txt")
