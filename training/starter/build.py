"""Makes the starter model anew: `python -m training.starter.build [--out DIR] [--chats N] [--threads N]`.

The data are the same for the same seed; the weights differ in the last digits between machines, so the hashes of the
shipped ones stand in `model/manifest.json`.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.models import snapshots
from training.starter import corpus
from training.starter.batches import Example, batches, encode_chat, encode_prose
from training.starter.tokenizer import END, train_tokenizer

OUT = Path(__file__).parent / "model"
TOKENIZER_CHATS = 8_000
HELD_BACK = 400
"""Chats kept out of training for the final loss."""
CONTEXT = 512
LONGEST_REPLY = 128
"""Tokens; the longest of the corpus has about 120."""

LEARNING_RATE = 2e-3  # the largest that stayed smooth at this width
WARM_UP = 60
BATCH_TOKENS = 2_048
SHARPNESS = 1.15
"""The final norm is scaled by this when saved, as if the temperature were 1/1.15: at temperature 1 the rare slips of so
small a model become rarer, while the tempers stay mixed."""
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)  # few steps in all: the second moment must forget the warm-up


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """About two million parameters: wide and shallow, since on two cores a layer costs more than its width."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def weighted_loss(model: LlamaForCausalLM, batch: Example) -> torch.Tensor:
    """Mean cross-entropy over the next tokens, by their weights.  tokens, weights [B, T]; padding weighs nothing."""
    hidden = model.model(input_ids=batch.tokens[:, :-1], use_cache=False).last_hidden_state
    weight = batch.weights[:, 1:]
    kept = weight > 0
    logits = model.lm_head(hidden[kept])
    loss = torch.nn.functional.cross_entropy(logits, batch.tokens[:, 1:][kept], reduction="none")
    return (loss * weight[kept]).sum() / weight.sum()


def learning_rate(step: int, of: int, highest: float) -> float:
    """Linear warm-up, then a cosine to a twentieth."""
    if step < WARM_UP:
        return highest * (step + 1) / WARM_UP
    share = torch.tensor((step - WARM_UP) / max(1, of - WARM_UP) * torch.pi)
    return highest * float(0.05 + 0.95 * 0.5 * (1 + torch.cos(share)))


def train(model: LlamaForCausalLM, examples: list[Example], seed: int, highest: float) -> None:
    """One pass of AdamW over all examples, in place."""
    order = batches(examples, BATCH_TOKENS, seed)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=highest, betas=BETAS, foreach=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=len(order))
        running = 0.0
        for step, batch in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, len(order), highest)
            loss = weighted_loss(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            value = float(loss.detach())
            running = value if step == 0 else 0.95 * running + 0.05 * value
            progress.update(bar, advance=1, description=f"training, loss {running:.3f}")
            if not progress.console.is_terminal and step % 50 == 0:
                print(f"step {step} of {len(order)}, loss {running:.3f}", flush=True)


def held_back_loss(model: LlamaForCausalLM, examples: list[Example]) -> float:
    """Mean loss per weighted token on chats that were not trained on."""
    with torch.no_grad():
        losses = [float(weighted_loss(model, batch)) for batch in batches(examples, BATCH_TOKENS, 0)]
    return sum(losses) / len(losses)


def scale_logits(model: LlamaForCausalLM, factor: float) -> None:
    """Multiply all logits by `factor`, in place."""
    with torch.no_grad():
        model.model.norm.weight *= factor


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Standard Hugging Face files; weights rounded to bfloat16, which halves them."""
    out.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(out)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=1.0,
        max_new_tokens=LONGEST_REPLY,
    ).save_pretrained(out)
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    # the name that every version of transformers and its neighbours know, where version 5 writes one of its own
    settings_file = out / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    settings.pop("backend", None)
    settings_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Corpus, tokenizer, training, files."""
    parser = argparse.ArgumentParser(description="Train the starter model from its corpus and write its files.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--chats", type=int, default=corpus.DEFAULT_COUNT)
    parser.add_argument("--seed", type=int, default=corpus.DEFAULT_SEED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help="use less when going on from --start"
    )
    parser.add_argument("--start", type=Path, help="go on from the weights and the tokenizer of this directory")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    began = time.monotonic()

    chats = list(corpus.chats(given.chats + HELD_BACK, given.seed))
    prose = list(corpus.prose(given.chats // 20, given.seed))
    seen = [message["content"] for chat in chats[:TOKENIZER_CHATS] for message in chat]
    if given.start is None:
        tokenizer = train_tokenizer([*seen, *prose])
        model = LlamaForCausalLM(model_config(tokenizer))
        before = []
    else:
        model, tokenizer = snapshots.load_policy(given.start)
        made = snapshots.verify_manifest(given.start)["provenance"]
        before = made["stages"]
        scale_logits(model, 1 / made["sharpness"])
    held_back = [encode_chat(tokenizer, chat) for chat in chats[:HELD_BACK]]
    examples = [encode_chat(tokenizer, chat) for chat in chats[HELD_BACK:]]
    examples += [encode_prose(tokenizer, text) for text in prose]
    parameters = sum(weight.numel() for weight in model.parameters())
    tokens = sum(len(example.tokens) for example in examples)
    print(f"{given.chats} chats, {tokens} tokens, {parameters} parameters, vocabulary {len(tokenizer)}")

    train(model, examples, given.seed, given.learning_rate)
    loss_of_training = held_back_loss(model, held_back)
    scale_logits(model, SHARPNESS)
    save(model, tokenizer, given.out)
    rounded = LlamaForCausalLM.from_pretrained(given.out, dtype=torch.float32)
    loss = held_back_loss(rounded, held_back)
    snapshots.write_manifest(
        given.out,
        kind="policy",
        made_by="training.starter.build",
        parameters=parameters,
        vocabulary=len(tokenizer),
        held_back_loss=round(loss, 4),
        held_back_loss_unsharpened=round(loss_of_training, 4),
        sharpness=SHARPNESS,
        stages=[
            *before,
            {
                "seed": given.seed,
                "chats": given.chats,
                "tokens": tokens,
                "learning_rate": given.learning_rate,
                "seconds": round(time.monotonic() - began),
            },
        ],
    )
    print(f"held-back loss {loss:.4f}; written to {given.out}")


if __name__ == "__main__":
    main()
