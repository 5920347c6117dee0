"""The decoder in C against the one in torch, on every architecture that both know."""

from types import SimpleNamespace

import pytest
import torch
import transformers

from training import native
from training.native.decoding import kernels
from training.sampling.decoders import FusedDecoder, NativeDecoder, Replies
from training.sampling.engine import Engine, generate
from training.sampling.sampling import _chosen_by_kernel, chosen_in_torch

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no native kernels: {native.why_not()}")

WORDS = 101  # no multiple of any vector's width, like the other sizes here
SHAPE = {"vocab_size": WORDS, "hidden_size": 40, "intermediate_size": 50, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 300}
SHAPE |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64, "rope_theta": 10000.0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "llama with biases": lambda: transformers.LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "mistral": lambda: transformers.MistralConfig(**SHAPE, sliding_window=None, head_dim=24),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=48),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    """A random model in which every parameter, the norms and biases too, makes a difference."""
    torch.manual_seed(3)
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]()).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * (0.15 if weight.ndim > 1 else 0.2))
    return made


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    """torch's threads for one test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def some_tokens(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(11)
    return [torch.randint(3, WORDS, (n,), generator=generator).tolist() for n in lengths]


def true_logits(model, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1]


def replies_of(tokens: list[int], columns: list[int]) -> Replies:
    """A table whose rows read `tokens` next; top_p makes the decoder hand out its logits."""
    table = Replies(len(tokens), 300, torch.device("cpu"))
    table.token[:], table.position[:] = torch.tensor(tokens), torch.tensor(columns)
    table.columns[:] = table.position + 1
    table.temperature[:], table.top_p[:] = 1.0, 0.9
    table.whole = False
    return table


def test_logits_equal_those_of_the_model_and_of_the_decoder_in_torch(model, threads) -> None:
    # 13 replies: more than are multiplied at once; 197 tokens: more than one pass over prompts reads; ragged throughout
    prompts = some_tokens(5, 1, 16, 17, 33, 2, 197, 15, 3, 48, 4, 7, 9)
    stops = torch.zeros(WORDS, dtype=torch.bool)
    with torch.inference_mode():
        decoders = NativeDecoder(model, 14, 300), FusedDecoder(model, 14, 300)
        read = [decoder.read(prompts, list(range(13))) for decoder in decoders]
        expected = torch.stack([true_logits(model, prompt) for prompt in prompts])
        assert expected.std() > 0.5
        for found in read:
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        for decoder in decoders:
            decoder.copy_row(6, [13], 197)
            decoder.move_row(13, 2, 197)
        sequences = [*prompts[:2], prompts[6], *prompts[3:]]
        for step in range(2):
            for row, sequence in enumerate(sequences):
                sequence = sequences[row] = [*sequence, 3 + (row + step) % 90]
            drawn = []
            for decoder in decoders:
                table = replies_of([s[-1] for s in sequences], [len(s) - 1 for s in sequences])
                seen, plain = [], table.draw
                table.draw = lambda logits, index, seen=seen, plain=plain: (
                    seen.append(logits.clone()) or plain(logits, index)
                )
                decoder.write(table, 13, 5, stops)
                drawn += seen
            expected = torch.stack([true_logits(model, sequence) for sequence in sequences])
            for found in drawn:
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.skipif(kernels() is None or not kernels().native_has_half(), reason="no bfloat16 instructions here")
def test_products_in_bfloat16_are_as_near_as_those_of_torch(model, threads) -> None:
    """Both round every factor to eight bits; the one in C keeps all between the products in float32, so it is not farther off."""
    prompts = some_tokens(5, 1, 16, 17, 33, 2, 197, 15, 3, 48, 4, 7, 9)
    with torch.inference_mode():
        expected = torch.stack([true_logits(model, prompt) for prompt in prompts])
        exact, ours, theirs = (
            (decoder.read(prompts, list(range(13))).float() - expected).square().mean().sqrt().item()
            for decoder in (
                NativeDecoder(model, 14, 300),
                NativeDecoder(model, 14, 300, half=True),
                FusedDecoder(model, 14, 300, half=True),
            )
        )
    assert exact < 1e-4 < ours < 1.1 * theirs < 0.1 * expected.std()


def engines(model, slots: int) -> list[Engine]:
    """One on the decoder in C and one on the decoder in torch."""
    tokenizer = SimpleNamespace(eos_token_id=1)
    found = [Engine(model, tokenizer, slots, 200) for _ in range(2)]
    found[1]._decoder = FusedDecoder(model, slots, 200)
    return found


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (0.0, 1.0), (1.0, 0.8)])
def test_the_same_replies_from_the_same_seeds(model, temperature: float, top_p: float) -> None:
    prompts = some_tokens(*[3, 30, 9, 61, 9, 1, 17, 5] * 3)
    prompts[4] = prompts[2]
    made = [generate(engine, prompts, range(24), 100, temperature, top_p) for engine in engines(model, 7)]
    # A draw may fall within rounding of a boundary between two tokens: then one reply of 24 differs from there on.
    same = [torch.equal(*(g.tokens[row][g.mask[row]] for g in made)) for row in range(24)]
    assert sum(same) >= 23
    assert made[0].mask.sum() > 300
    for row in range(24):
        if same[row]:
            logps = [g.logp[row][g.mask[row]] for g in made]
            torch.testing.assert_close(*logps, atol=2e-5, rtol=0)


def test_refresh_takes_over_changed_weights(model) -> None:
    prompts, tokenizer = some_tokens(4, 12), SimpleNamespace(eos_token_id=1)
    engine = Engine(model, tokenizer, 2, 100)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    try:
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.1)
        stale = engine._decoder.read(prompts, [0, 1])
        engine.refresh(model)
        fresh = engine._decoder.read(prompts, [0, 1])
        expected = torch.stack([true_logits(model, prompt) for prompt in prompts])
    finally:
        model.load_state_dict(before)
    torch.testing.assert_close(fresh, expected, atol=1e-4, rtol=0)
    assert (stale - expected).abs().max() > 0.01


def test_a_nan_in_the_weights_is_seen(model) -> None:
    before = model.model.layers[1].mlp.up_proj.weight.clone()
    try:
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[7, 3] = float("nan")
        engine = Engine(model, SimpleNamespace(eos_token_id=1), 2, 100)
        made = generate(engine, some_tokens(4), [0], 3)
    finally:
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight.copy_(before)
    assert made.logp[made.mask].isnan().all()


@pytest.mark.parametrize("words", [1, 2, 15, 16, 17, 255, 256, 257, 4096, 4097, 9001])
def test_drawing_equals_its_definition(words: int, threads) -> None:
    generator = torch.Generator().manual_seed(words)
    logits = torch.randn(64, words, generator=generator) * 4
    uniform = torch.randint(0, 2**24, (64,), generator=generator).float() / 2**24
    uniform[:2] = torch.tensor([0.0, 1 - 2**-24])
    for temperature in (None, torch.tensor([1.0, 0.3, 2.0, 0.0]).repeat(16)):
        expected = chosen_in_torch(logits, uniform, temperature)
        found = _chosen_by_kernel(logits, uniform, temperature)
        assert (found[0] == expected[0]).sum() >= 63
        # Against float64: on some processors torch's own softmax in float32 is 3.5e-6 off at 9,001 words, the kernel 5e-7.
        warmth = torch.ones(64) if temperature is None else torch.where(temperature > 0, temperature, 1.0)
        exact = (logits.double() / warmth.double()[:, None]).log_softmax(-1).gather(1, found[0][:, None].long())[:, 0]
        torch.testing.assert_close(found[1].double(), exact, atol=2e-6, rtol=1e-6)


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.full((3, 300), float("-inf"))
    logits[:, [5, 290]] = 0.0
    found, logp = _chosen_by_kernel(logits, torch.tensor([0.0, 0.4999, 1 - 2**-24]), None)
    assert found.tolist() == [5, 5, 290]
    torch.testing.assert_close(logp, torch.full((3,), 0.5).log())


def test_drawn_tokens_follow_the_distribution() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    found, _ = _chosen_by_kernel(logits.expand(1000, -1), (torch.arange(1000) + 0.5) / 1000, None)
    assert torch.bincount(found).tolist() == [100, 200, 300, 400]
