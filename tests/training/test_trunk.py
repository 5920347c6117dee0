"""Fused trunks, the general one and the plain Hugging Face forward pass: the same states and the same gradients."""

import copy
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from tests.training.conftest import FAMILIES
from training import native
from training.native import passing
from training.trunk import FusedTrunk, GeneralTrunk, half, is_fusible_trunk, trunk_for
from training.trunk.packing import Packed, packed


@pytest.fixture(params=["native", "torch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with the kernels in C and without."""
    if request.param == "torch":
        monkeypatch.setattr(passing, "kernels", lambda: None)
    else:
        assert passing.kernels() is not None, native.why_not()
    return request.param


MORE = {  # what the families of conftest.py do not show: biases everywhere, another rotation, one key head, other widths
    "llama with biases": lambda common: FAMILIES["llama"](common | {"attention_bias": True, "mlp_bias": True}),
    "llama 3 rotation": lambda common: FAMILIES["llama"](
        common
        | {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0,
                               "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}
    ),
    "wide heads, one key head": lambda common: LlamaConfig(
        hidden_size=48, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1, head_dim=72,
        max_position_embeddings=256, **common,
    ),
}  # fmt: skip
FUSED = {name: FAMILIES[name] for name in ("llama", "qwen2", "qwen3")} | MORE


def model_of(make) -> PreTrainedModel:
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(
        make({"vocab_size": 264, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.15})
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:  # norms of one and biases of zero would hide a mistake
                weight.add_(torch.randn(weight.shape) * 0.2)
            assert weight.requires_grad, name
    return model


def some(*shapes: tuple[int, tuple[int, ...]], seed: int = 0) -> Packed:
    draw = random.Random(seed)
    write = lambda count: [draw.randrange(264) for _ in range(count)]
    return packed([(write(prompt), [write(reply) for reply in replies]) for prompt, replies in shapes])


def plain(backbone: torch.nn.Module, packing: Packed) -> torch.Tensor:
    """Every conversation in a pass of its own; the prompt's states from the first of its replies."""
    found = []
    for group in packing.groups:
        prompt = packing.tokens[group.start : group.start + group.prompt]
        for number, (start, reply) in enumerate(zip(group.starts[:-1], group.replies, strict=True)):
            row = torch.cat([prompt, packing.tokens[start : start + reply]])
            states = backbone(input_ids=row[None]).last_hidden_state[0]
            found.append(states if number == 0 else states[group.prompt :])
    return torch.cat(found)


def gradients(model: torch.nn.Module, states: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (states * weights).sum().backward()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


PACKING = some((5, (7, 3, 9)), (0, (6,)), (11, (2,)), (1, (4, 4)), (40, (37, 33)))
COLUMNS = {"all": None, "ends": PACKING.reply_ends(), "some, one twice": torch.tensor([4, 30, 4, 5, 17, 40, 29]),
           "all by name, backwards": torch.arange(len(PACKING.tokens)).flip(0)}  # fmt: skip


@pytest.mark.parametrize("which", list(COLUMNS))
@pytest.mark.parametrize("family", sorted({*FAMILIES, *FUSED}))
def test_states_and_gradients_are_those_of_the_plain_forward_pass(family: str, which: str) -> None:
    model = model_of({**FAMILIES, **FUSED}[family])
    backbone, columns = model.base_model, COLUMNS[which]
    assert is_fusible_trunk(backbone) == (family in FUSED)
    expected = plain(backbone, PACKING)
    expected = expected if columns is None else expected[columns]
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    wanted = gradients(model, expected, weights)
    for kind in (FusedTrunk, GeneralTrunk) if family in FUSED else (GeneralTrunk,):
        found = kind(backbone, half=False).hidden(PACKING, columns)
        assert torch.allclose(found, expected, atol=1e-5), kind
        mine = gradients(model, found, weights)
        assert mine.keys() == wanted.keys()
        for name, gradient in wanted.items():
            assert (mine[name] - gradient).abs().max() <= 1e-5 * (1 + gradient.abs().max()), (kind, name)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_company_changes_nothing(family: str) -> None:
    trunk = trunk_for(model_of(FAMILIES[family]).base_model)
    alone, companions = some((6, (5, 8)), seed=3), some((30, (2,)), (3, (40, 1, 7)), seed=4)
    with torch.no_grad():
        expected = trunk.hidden(alone)
        together = Packed(
            torch.cat([alone.tokens, companions.tokens]),
            torch.cat([alone.positions, companions.positions]),
            alone.groups + tuple(
                type(group)(group.start + len(alone.tokens), group.prompt, group.replies) for group in companions.groups
            ),
        )  # fmt: skip
        assert torch.allclose(trunk.hidden(together)[: len(alone.tokens)], expected, atol=1e-5)


@pytest.mark.parametrize("shapes", [((6, (2,)), (3, (9,))), ((6, (2, 4)), (3, (9, 1)))])
def test_rows_that_padding_fills_up_come_with_a_mask(shapes: tuple[tuple[int, tuple[int, ...]], ...]) -> None:
    backbone, masks = model_of(FAMILIES["gpt2"]).base_model, []
    backbone.warn_if_padding_and_no_attention_mask = lambda _, mask: masks.append(mask)
    with torch.no_grad():
        trunk_for(backbone).hidden(some(*shapes))
    assert len(masks) == 1 and masks[0] is not None  # without one transformers warns whoever runs the job


def test_frozen_weights_get_no_gradient_and_no_gradient_costs_no_memory() -> None:
    model = model_of(FAMILIES["llama"])
    backbone = model.base_model.requires_grad_(False)
    trunk = FusedTrunk(backbone, half=False)
    assert not trunk.hidden(PACKING).requires_grad
    backbone.layers[1].mlp.up_proj.weight.requires_grad_(True)
    trunk.hidden(PACKING).sum().backward()
    assert [name for name, part in model.named_parameters() if part.grad is not None] == [
        "model.layers.1.mlp.up_proj.weight"
    ]


def test_a_step_of_the_optimizer_is_seen_at_once() -> None:
    model = model_of(FAMILIES["llama"])
    trunk = FusedTrunk(model.base_model, half=False)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    trunk.hidden(PACKING).square().sum().backward()
    adam.step()
    with torch.no_grad():
        assert torch.allclose(trunk.hidden(PACKING), plain(model.base_model, PACKING), atol=1e-5)


def test_products_in_bfloat16_stay_close_and_their_gradients_are_float32() -> None:
    model = model_of(FAMILIES["llama"])
    exact = FusedTrunk(model.base_model, half=False).hidden(PACKING)
    wanted = gradients(model, exact, torch.ones_like(exact))
    rounded = FusedTrunk(model.base_model, half=True).hidden(PACKING)
    assert 0 < (rounded - exact).abs().max() < 0.1
    mine = gradients(model, rounded, torch.ones_like(exact))
    for name, gradient in wanted.items():
        assert mine[name].dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(mine[name].flatten(), gradient.flatten(), dim=0) > 0.99, name


@pytest.mark.parametrize("which", ["all", "some, one twice"])
def test_rows_of_zeros_below_the_states_change_nothing(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = model_of(FAMILIES["llama"]), []
    for step in (1, 64):
        monkeypatch.setattr(half, "STEP", step)
        states = FusedTrunk(model.base_model, half=True).hidden(PACKING, COLUMNS[which])
        found.append((states.detach(), gradients(model, states, torch.ones_like(states))))
    (bare, expected), (filled, mine) = found
    assert torch.allclose(filled, bare, atol=1e-3)
    for name, gradient in expected.items():
        assert (mine[name] - gradient).abs().max() <= 1e-3 * (1 + gradient.abs().max()), name
    assert len(half.rows_of(torch.ones(65, 3), half=True).table) == 128
    assert half.rows_of(bare, half=False).table is bare


def test_the_gradient_can_be_taken_once() -> None:
    states = FusedTrunk(model_of(FAMILIES["llama"]).base_model, half=False).hidden(PACKING)
    states.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        states.sum().backward()


def test_what_is_not_exactly_known_takes_the_general_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = model_of(FAMILIES["llama"]).base_model
    assert isinstance(trunk_for(backbone), FusedTrunk)
    monkeypatch.setenv("WHETSTONE_FUSED", "0")
    assert isinstance(trunk_for(backbone), GeneralTrunk)
    monkeypatch.delenv("WHETSTONE_FUSED")
    for change in (
        lambda other: other.to(torch.bfloat16),
        lambda other: setattr(other.config, "hidden_act", "gelu"),
        lambda other: setattr(other.config, "rope_parameters", {"rope_type": "dynamic"}),
        lambda other: setattr(other.layers[0].mlp, "up_proj", torch.nn.Sequential(other.layers[0].mlp.up_proj)),
        lambda other: setattr(other.config, "attention_dropout", 0.1) or other.train(),
        lambda other: other.layers[0].register_forward_hook(lambda *_: None),
    ):
        other = copy.deepcopy(backbone)
        change(other)
        assert isinstance(trunk_for(other), GeneralTrunk)


def test_a_number_that_is_none_stays_one() -> None:
    """A kernel that lost a NaN would hide a broken run."""
    for name in ("embed_tokens.weight", "layers.0.self_attn.v_proj.weight", "layers.1.mlp.gate_proj.weight"):
        backbone = model_of(FAMILIES["llama"]).base_model
        with torch.no_grad():
            backbone.get_parameter(name)[PACKING.tokens[3] if "embed" in name else 0, 0] = torch.nan
        states = FusedTrunk(backbone, half=False).hidden(PACKING)
        assert states[3:7].isnan().all(), name
        states.sum().backward()
        assert all(part.grad.isnan().any() for part in backbone.layers[0].parameters()), name
