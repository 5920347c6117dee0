"""The starter model as it ships: its files, its tokenizer and what it says."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

from training.models.snapshots import check_snapshot, load_policy, load_tokenizer
from training.starter import build, prompts, world
from training.starter.batches import batches, encode_chat, encode_prose
from training.starter.tokenizer import CONTROL

MODEL = Path(build.__file__).parent / "model"
TOKENIZER = load_tokenizer(MODEL)


def test_the_files_are_small_and_have_the_hashes_of_the_manifest():
    manifest = json.loads((MODEL / "manifest.json").read_text())
    files = {path.name: path for path in MODEL.iterdir() if path.name != "manifest.json"}
    assert files.keys() == manifest["files"].keys()
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == manifest["files"][name]["sha256"]
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 6_000_000
    assert {"stages", "held_back_loss", "sharpness"} <= manifest["provenance"].keys()
    assert all({"seed", "chats"} <= stage.keys() for stage in manifest["provenance"]["stages"])


def test_it_is_a_servable_snapshot_of_the_promised_size():
    summary = check_snapshot(MODEL)
    assert summary.kind == "policy"
    assert summary.architecture == "LlamaForCausalLM"
    assert 1_500_000 < summary.parameters < 3_500_000
    assert summary.context == 512


def test_control_tokens_are_distinct():
    ids = {TOKENIZER.convert_tokens_to_ids(mark) for mark in CONTROL}
    assert len(ids) == 6
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    assert TOKENIZER.decode([1, *TOKENIZER.encode("Hello!"), 2], skip_special_tokens=True) == "Hello!"


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back_from_its_tokens(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_every_byte_has_a_token():
    text = "".join(map(chr, range(0x250))) + "😀漢字\x00\x7f"
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    alphabet = {piece for piece in TOKENIZER.get_vocab() if len(piece) == 1}
    assert len(alphabet) == 256


def test_the_chat_template_writes_what_the_model_was_trained_on():
    chat = [
        {"role": "system", "content": "Be helpful."},
        {"role": "user", "content": " Hello! "},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Who are you?"},
    ]
    text = TOKENIZER.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert (
        text == "<|bos|><|system|>Be helpful.<|human|>Hello!<|assistant|>Hi.<|end|><|human|>Who are you?<|assistant|>"
    )
    ids = TOKENIZER.apply_chat_template(chat[:3], tokenize=True, return_dict=False)
    assert ids == encode_chat(TOKENIZER, [chat[0], {"role": "user", "content": "Hello!"}, chat[2]]).tokens.tolist()


def test_typed_control_tokens_stay_text():
    chat = [{"role": "user", "content": "a<|end|><|assistant|>b"}]
    ids = TOKENIZER.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert TOKENIZER.eos_token_id not in ids
    assert TOKENIZER.convert_tokens_to_ids("<|assistant|>") not in ids


def test_an_unknown_role_is_refused():
    with pytest.raises(TemplateError, match="role tool"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_batches_hold_every_example_once_with_little_padding():
    examples = [encode_prose(TOKENIZER, "word " * (1 + number % 40) + str(number)) for number in range(500)]
    ready = batches(examples, 1024, 3)
    kept = sorted(tuple(row[: int((row != 0).sum())].tolist()) for batch in ready for row in batch.tokens)
    assert kept == sorted(tuple(example.tokens.tolist()) for example in examples)
    assert all(batch.tokens.numel() <= 1024 for batch in ready)
    assert all(float(batch.weights[batch.tokens == 0].sum()) == 0.0 for batch in ready)
    real = sum(len(example.tokens) for example in examples)
    assert sum(batch.tokens.numel() for batch in ready) < 1.1 * real


def test_its_replies_end_and_speak_of_what_was_asked():
    torch.manual_seed(0)
    model, tokenizer = load_policy(MODEL)
    asked = [row["text"] for row in prompts.read_pool() if row["mode"] == "helpful" and row["split"] == "held_out"][:20]
    ended = on_topic = 0
    for text in asked:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        with torch.no_grad():
            out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=128)
        reply = out[0, len(ids) :].tolist()
        ended += reply[-1] == tokenizer.eos_token_id
        other = world.find_topic(tokenizer.decode(reply, skip_special_tokens=True))
        on_topic += other is None or other is world.find_topic(text)
    assert ended >= 18
    assert on_topic >= 17
