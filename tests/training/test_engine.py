"""The engine against the models' own `generate` and training forward, and against itself in other company."""

from types import SimpleNamespace

import pytest
import torch
import transformers

from training import native
from training.sampling.decoders import FusedDecoder, GeneralDecoder, NativeDecoder, decodes_fused
from training.sampling.engine import Engine, Request, generate
from training.sampling.sampling import log_probs, reply_states

WORDS, END = 97, 1
TOKENIZER = SimpleNamespace(eos_token_id=END, pad_token_id=0)
SHAPE = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": END,
    "bos_token_id": 2,
}
GPT2 = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "eos_token_id": END}
SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama with biases": lambda: transformers.LlamaConfig(
        **SHAPE, attention_bias=True, mlp_bias=True, rope_parameters=SCALED
    ),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=16),
    "mistral, sliding": lambda: transformers.MistralConfig(**SHAPE, sliding_window=4),
    "gemma2": lambda: transformers.Gemma2Config(**SHAPE, head_dim=8, sliding_window=4, query_pre_attn_scalar=8),
    "gpt2": lambda: transformers.GPT2Config(**GPT2, bos_token_id=2, pad_token_id=0),
}
FUSED = {"llama", "llama with biases", "qwen2", "qwen3"}


def build(kind: str, seed: int = 0):
    """A random model whose distributions are neither flat nor certain."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * (0.2 if weight.ndim > 1 else 0.1))
    return model


def some_prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(3, WORDS, (n,), generator=generator).tolist() for n in lengths]


def reply(generated, row: int) -> list[int]:
    return generated.tokens[row][generated.mask[row]].tolist()


@pytest.fixture(scope="module")
def llama():
    return build("llama")


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_equals_generate_and_log_probs_equal_the_training_forward(kind: str) -> None:
    model = build(kind)
    assert decodes_fused(model) == (kind in FUSED)
    engine = Engine(model, TOKENIZER, slots=3, max_length=40)  # fewer slots than prompts: rows are freed and refilled
    prompts = some_prompts(5, 9, 2, 5, 14)
    greedy = generate(engine, prompts, range(5), 20, temperature=0.0)
    for row, prompt in enumerate(prompts):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=20,
        )
        assert reply(greedy, row) == expected[0, len(prompt) :].tolist()

    drawn = generate(engine, prompts, range(5), 20)
    lengths = torch.tensor([len(p) for p in prompts])
    sequences = [prompt + reply(drawn, row) for row, prompt in enumerate(prompts)]
    tokens = torch.zeros(5, max(map(len, sequences)), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    with torch.no_grad():
        forward = log_probs(reply_states(model, tokens, lengths, drawn.mask), drawn.mask)
    assert (forward - drawn.logp).abs().max() < 1e-5


def test_a_temperature_other_than_one_divides_the_logits_of_the_log_prob(llama) -> None:
    engine, (prompt,) = Engine(llama, TOKENIZER, slots=1, max_length=40), some_prompts(6)
    drawn = generate(engine, [prompt], [3], 10, temperature=0.5)
    tokens = torch.tensor([prompt + reply(drawn, 0)])
    with torch.no_grad():
        states = reply_states(llama, tokens, torch.tensor([6]), drawn.mask, temperature=0.5)
    assert (log_probs(states, drawn.mask) - drawn.logp).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_company_and_joining_midway_change_nothing(kind: str) -> None:
    model, prompts = build(kind), some_prompts(4, 11, 4, 7)
    alone = []
    for row, prompt in enumerate(prompts):
        alone.append(reply(generate(Engine(model, TOKENIZER, slots=1, max_length=60), [prompt], [row], 30), 0))
    engine = Engine(model, TOKENIZER, slots=4, max_length=60)
    written: dict[object, list[int]] = {row: [] for row in range(4)}
    for row in range(4):  # each joins three tokens after the one before
        engine.submit(Request(row, prompts[row], 30, seed=row))
        for _ in range(3):
            for event in engine.step():
                written[event.key].append(event.token_id)
    while not engine.idle:
        for event in engine.step():
            written[event.key].append(event.token_id)
    assert [written[row] for row in range(4)] == alone


def test_candidates_of_one_turn_share_a_prefill_and_differ_by_seed(llama) -> None:
    engine, (prompt, other) = Engine(llama, TOKENIZER, slots=8, max_length=60), some_prompts(6, 3)
    decoder, read = engine._decoder, []
    plain = decoder.read
    decoder.read = lambda prompts, rows: read.extend(map(list, prompts)) or plain(prompts, rows)
    drawn = generate(engine, [prompt, prompt, other, prompt], [1, 2, 3, 1], 20)
    assert read == [prompt, other]  # each prompt once
    assert reply(drawn, 0) == reply(drawn, 3) != reply(drawn, 1)


def test_a_reply_stops_at_the_end_token_or_says_that_it_was_cut(llama) -> None:
    engine, prompts = Engine(llama, TOKENIZER, slots=16, max_length=24), some_prompts(*[20] * 40)
    drawn = generate(engine, prompts, range(40), 30)
    for row in range(40):
        tokens = reply(drawn, row)
        assert END not in tokens[:-1]
        assert bool(drawn.ended[row]) == (tokens[-1] == END)
        assert drawn.ended[row] or len(tokens) == 4  # 24 columns less the prompt, though 30 were asked for
    assert 0 < drawn.ended.sum() < 40


def test_finish_reasons_of_events(llama) -> None:
    engine = Engine(llama, TOKENIZER, slots=2, max_length=40)
    engine.submit(Request("a", [5, 6], 1))
    (event,) = engine.step()
    assert (event.key, event.finished) == ("a", True)
    assert event.finish_reason == ("stop" if event.token_id == END else "length")
    assert engine.idle


def test_cancel_frees_the_row_and_leaves_the_others_alone(llama) -> None:
    prompts = some_prompts(4, 6, 5)
    alone = reply(generate(Engine(llama, TOKENIZER, slots=1, max_length=60), [prompts[2]], [2], 25), 0)
    engine = Engine(llama, TOKENIZER, slots=2, max_length=60)
    for key, prompt in zip("abc", prompts, strict=True):
        engine.submit(Request(key, prompt, 25, seed="abc".index(key)))
    engine.step()
    assert engine.cancel("a") and not engine.cancel("a")
    written = []
    while not engine.idle:
        written += [event.token_id for event in engine.step() if event.key == "c"]
        assert engine.cancel("nobody") is False
    assert written == alone
    engine.submit(Request("a", prompts[0], 5))  # the key is free again
    assert engine.cancel("a") and engine.idle


def test_refresh_changes_what_is_sampled_and_is_refused_midway(llama) -> None:
    model, prompts = build("llama"), some_prompts(5, 8)
    engine = Engine(model, TOKENIZER, slots=4, max_length=60)
    before = generate(engine, prompts, [0, 1], 20)
    model.load_state_dict(build("llama", seed=1).state_dict())
    assert torch.equal(generate(engine, prompts, [0, 1], 20).tokens, before.tokens)  # the engine keeps its own copy
    engine.refresh(model)
    after = generate(engine, prompts, [0, 1], 20)
    fresh = generate(Engine(model, TOKENIZER, slots=4, max_length=60), prompts, [0, 1], 20)
    assert not torch.equal(after.tokens, before.tokens)
    assert torch.equal(after.tokens, fresh.tokens) and torch.equal(after.logp, fresh.logp)
    engine.stop_ids = frozenset()  # nothing ends the reply before its length
    engine.submit(Request("x", prompts[0], 20))
    engine.step()
    assert not engine.idle
    with pytest.raises(ValueError, match="cannot change"):
        engine.refresh(model)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt_ids": []}, "at least one token"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"top_p": 0.0}, "top_p"),
        ({"temperature": -1.0}, "temperature"),
        ({"prompt_ids": [3] * 40}, "oldest turns"),
        ({"key": "taken"}, "already being written"),
    ],
)
def test_requests_that_cannot_be_served_are_refused(llama, bad: dict, message: str) -> None:
    engine = Engine(llama, TOKENIZER, slots=2, max_length=40)
    engine.submit(Request("taken", [5], 3))
    with pytest.raises(ValueError, match=message):
        engine.submit(Request(**{"key": "new", "prompt_ids": [5, 6], "max_new_tokens": 4, **bad}))


def test_a_model_without_an_end_token_is_refused(llama) -> None:
    model = build("gpt2")
    model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="no end token"):
        Engine(model, SimpleNamespace(eos_token_id=None), slots=1)


def test_longer_than_the_model_is_refused(llama) -> None:
    with pytest.raises(ValueError, match="64 positions"):
        Engine(llama, TOKENIZER, max_length=65)


def test_the_decoders_are_the_ones_meant(llama) -> None:
    fast = FusedDecoder if native.why_not() else NativeDecoder
    assert isinstance(Engine(llama, TOKENIZER, slots=1)._decoder, fast)
    assert isinstance(Engine(build("llama").bfloat16(), TOKENIZER, slots=1)._decoder, FusedDecoder)
    assert isinstance(Engine(build("gpt2"), TOKENIZER, slots=1)._decoder, GeneralDecoder)


@pytest.mark.parametrize("kind", CONFIGS)
def test_released_weights_come_back_with_a_refresh_and_are_missed_until_then(kind: str) -> None:
    model, prompts = build(kind), some_prompts(5, 9)
    engine = Engine(model, TOKENIZER, slots=2, max_length=40)
    before = generate(engine, prompts, range(2), 20)
    engine.release()
    with pytest.raises(ValueError, match="released; refresh it"):
        generate(engine, prompts, range(2), 20)
    engine.refresh(model)
    after = generate(engine, prompts, range(2), 20)
    assert torch.equal(before.tokens, after.tokens)
    assert torch.equal(before.logp, after.logp)
