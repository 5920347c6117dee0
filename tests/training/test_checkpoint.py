"""Modules and optimizers come back as they were, without pickle."""

import torch
from safetensors.torch import load, save

from training.models.checkpoint import module_tensors, optimizer_tensors, restore_module, restore_optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()


def test_training_goes_on_bit_for_bit_from_stored_tensors():
    for fused in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        for _ in range(3):
            step(model, optimizer)
        stored = load(save(module_tensors(model, "m") | optimizer_tensors(optimizer, "a")))
        again = torch.nn.Linear(4, 2)
        fresh = torch.optim.AdamW(again.parameters(), lr=0.1, fused=fused)
        restore_module(again, "m", stored)
        restore_optimizer(fresh, "a", stored)
        step(model, optimizer)
        step(again, fresh)
        assert torch.equal(model.weight, again.weight) and torch.equal(model.bias, again.bias)


def test_tied_weights_are_stored_once():
    table = torch.nn.Embedding(5, 3)
    head = torch.nn.Linear(3, 5, bias=False)
    head.weight = table.weight
    assert list(module_tensors(torch.nn.Sequential(table, head), "m")) == ["m.0.weight"]
