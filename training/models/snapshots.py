"""Servable model directories: what they must hold, their manifest of hashes, loading, and the one way text becomes tokens.

`python -m training.models.snapshots check DIR` prints a summary as JSON, or the reason why the directory cannot be served (exit 2).
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from training.lines.records import Message
from training.models import lora
from training.runs import files

MANIFEST = "manifest.json"
QUIETLY = {"verbose": False}  # too long is measured and answered here; the tokenizer need not warn of it


class BadSnapshot(ValueError):
    """A model directory that cannot be served; the message says why and how to mend it."""


class PromptTooLong(ValueError):
    """A prompt whose last message alone exceeds the room there is."""


# -- manifest ---------------------------------------------------------------------------------------------------------
def write_manifest(path: str | Path, *, kind: str, **provenance: Any) -> dict[str, Any]:
    """Write manifest.json: the kind ("policy" or "pm"), sha256 and bytes of every file, and where the model came from."""
    root = Path(path)
    listed = {name: {"sha256": _sha256(root / name), "bytes": (root / name).stat().st_size} for name in _files(root)}
    manifest = {"kind": kind, "provenance": provenance, "files": listed}
    files.write_json(root / MANIFEST, manifest)
    return manifest


def verify_manifest(path: str | Path) -> dict[str, Any]:
    """Return the manifest after comparing every file with it; BadSnapshot names the first that differs."""
    root = Path(path)
    manifest = _json(root / MANIFEST)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not all(isinstance(item, dict) and "sha256" in item for item in listed.values()):
        raise BadSnapshot(
            f"{root / MANIFEST} has no list of files with their sha256; write it again from a trusted copy"
        )
    present = _files(root)
    for name in sorted({*listed, *present}):
        if name not in listed:
            raise BadSnapshot(f"{root / name} is not in {MANIFEST}; remove it, or register the directory anew")
        if name not in present:
            raise BadSnapshot(f"{root / name} is missing; restore it from the run or the backup that made this model")
        if _sha256(root / name) != listed[name]["sha256"]:
            raise BadSnapshot(
                f"{root / name} is damaged: its sha256 is not the one in {MANIFEST}; restore it from a copy"
            )
    return manifest


def fingerprint(manifest: dict[str, Any]) -> str:
    """Return one sha256 over the names and hashes of a manifest: equal exactly when every file is equal."""
    lines = (f"{name} {item['sha256']}\n" for name, item in sorted(manifest["files"].items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stated_fingerprint(path: str | Path) -> str | None:
    """Return the `fingerprint` that a directory's manifest states, None without one; loading compares it with the files."""
    manifest = Path(path) / MANIFEST
    return fingerprint(_json(manifest)) if manifest.exists() else None


def fingerprint_of(path: str | Path) -> str:
    """Return the `fingerprint` of a directory that was loaded, hashed here where no manifest states it."""
    if stated := stated_fingerprint(path):
        return stated
    root = Path(path)
    return fingerprint({"files": {name: {"sha256": _sha256(root / name)} for name in _files(root)}})


def _files(root: Path) -> list[str]:
    """Name every file below `root` but the manifest and hidden ones."""
    names = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return sorted(
        name.as_posix() for name in names if name.name != MANIFEST and not any(p.startswith(".") for p in name.parts)
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as missing:
        raise BadSnapshot(f"{path} is missing; a model directory holds it as save_pretrained writes it") from missing
    except (OSError, ValueError) as bad:
        raise BadSnapshot(f"{path} cannot be read as JSON ({bad}); restore it from a copy") from bad
    if not isinstance(value, dict):
        raise BadSnapshot(f"{path} must hold one JSON object")
    return value


# -- checks -----------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class SnapshotSummary:
    """What a good model directory holds."""

    path: str
    kind: str  # "policy" or "pm", as the manifest says; "policy" without one
    architecture: str
    parameters: int
    vocabulary: int
    context: int | None  # tokens; None where the config does not say
    dtype: str
    bytes: int
    fingerprint: str | None  # None without a manifest
    provenance: dict[str, Any]


class Checked(NamedTuple):
    """What a look through a model directory gives: whoever loads the model needs its tokenizer too."""

    summary: SnapshotSummary
    tokenizer: PreTrainedTokenizerBase


def check_snapshot(path: str | Path, *, verify: bool = True) -> SnapshotSummary:
    """Look through a model directory without loading its weights; BadSnapshot says what is wrong with it.

    Without `verify` no file is hashed, which is most of the time that this takes.
    """
    return checked(path, verify=verify).summary


def checked(path: str | Path, *, verify: bool = True) -> Checked:
    """The same, with the tokenizer."""
    root = Path(path)
    if not root.is_dir():
        raise BadSnapshot(f"{root} is not a directory; give the folder that save_pretrained wrote")
    config = _json(root / "config.json")
    if config.get("auto_map"):
        raise BadSnapshot(f"{root / 'config.json'} asks for code of its own (auto_map), which is never run here")
    manifest: dict[str, Any] = {}
    if (root / MANIFEST).exists():  # without verification it still tells the kind
        manifest = verify_manifest(root) if verify else _json(root / MANIFEST)
    elif (root / "preference.json").exists():  # a policy needs no manifest; without one this would pass for a policy
        raise BadSnapshot(f"{root} has lost its {MANIFEST}, which says what it holds; copy the whole folder again")
    parameters, dtype, size = _weights(root)
    tokenizer = load_tokenizer(root)
    vocabulary = int(config.get("vocab_size") or 0)
    if vocabulary and len(tokenizer) > vocabulary:
        raise BadSnapshot(f"{root}: the tokenizer knows {len(tokenizer)} tokens, the model only {vocabulary}")
    summary = SnapshotSummary(
        path=str(root),
        kind=manifest.get("kind", "policy"),
        architecture=str((config.get("architectures") or ["?"])[0]),
        parameters=parameters,
        vocabulary=vocabulary or len(tokenizer),
        dtype=dtype,
        bytes=size,
        context=config.get("max_position_embeddings") or config.get("n_positions"),
        fingerprint=fingerprint(manifest) if manifest else None,
        provenance=manifest.get("provenance", {}),
    )
    return Checked(summary, tokenizer)


def _weights(root: Path) -> tuple[int, str, int]:
    """Return (parameters, dtype, bytes) from the headers of the safetensors files."""
    index = root / "model.safetensors.index.json"
    names = sorted(set(_json(index).get("weight_map", {}).values())) if index.exists() else ["model.safetensors"]
    parameters, kinds, size = 0, set(), 0
    for name in names:
        file = root / name
        if not file.exists():
            pickled = [*root.glob("*.bin"), *root.glob("*.pt"), *root.glob("*.pth")]
            if pickled and not index.exists():
                raise BadSnapshot(
                    f"{root} has its weights only as pickle ({pickled[0].name}), which can run code when it is opened; "
                    "load it where you trust it and save it with save_pretrained, which writes safetensors",
                )
            raise BadSnapshot(f"{file} is missing; the weights must be there as safetensors")
        try:
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                    part = tensors.get_slice(key)
                    parameters += torch.Size(part.get_shape()).numel()
                    kinds.add(part.get_dtype())
        except (OSError, SafetensorError) as bad:
            raise BadSnapshot(f"{file} is damaged ({bad}); restore it from a copy") from bad
        size += file.stat().st_size
    return parameters, "+".join(sorted(kinds)), size


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory; chat template, end token and a pad token of its own must be there."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as bad:
        raise BadSnapshot(f"{path} has no tokenizer that can be loaded ({bad}); save one beside the model") from bad
    if not any((Path(path) / name).exists() for name in tokenizer.vocab_files_names.values()):
        # transformers makes an empty one in its place
        raise BadSnapshot(f"{path} has no tokenizer; save one beside the model (tokenizer.save_pretrained)")
    if not tokenizer.chat_template:
        raise BadSnapshot(
            f"{path} has no chat template; add chat_template.jinja, which says how a conversation is written"
        )
    if tokenizer.eos_token_id is None:
        raise BadSnapshot(f"{path}: the tokenizer has no end token (eos_token), so no reply would ever end")
    if tokenizer.pad_token_id is None:
        raise BadSnapshot(f"{path}: the tokenizer has no pad token; add one with add_special_tokens and save it again")
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise BadSnapshot(
            f"{path}: pad token and end token are the same ({tokenizer.eos_token!r}), which hides where a reply ends; "
            "give the tokenizer a pad token of its own and save it again",
        )
    return tokenizer


# -- loading ----------------------------------------------------------------------------------------------------------
def load_policy(
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    verify: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (causal LM, tokenizer) of a checked directory, in `dtype` whatever the file holds, in eval mode, no dropout."""
    summary, tokenizer = checked(path, verify=verify)
    if summary.kind != "policy":
        raise BadSnapshot(f"{path} holds a preference model, not a policy; name the folder of a policy")
    return load_weights(AutoModelForCausalLM, path, dtype), tokenizer


def load_weights(auto: Any, path: str | Path, dtype: torch.dtype) -> Any:
    """Load a transformers model of the class `auto`; a weight that is missing, spare or of another shape is a BadSnapshot."""
    transformers_logging.disable_progress_bar()  # its bars would fall into ours
    try:
        model, info = auto.from_pretrained(
            str(path),
            dtype=dtype,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as bad:
        raise BadSnapshot(f"the model in {path} cannot be loaded: {bad}") from bad
    for what, names in (
        ("lacks", info["missing_keys"]),
        ("has the unknown", info["unexpected_keys"]),
        ("has another shape for", info["mismatched_keys"]),
    ):
        if names:
            raise BadSnapshot(f"the model in {path} {what} weights: {', '.join(map(str, sorted(names)[:3]))}")
    without_dropout(model)
    return model.eval()


def without_dropout(model: torch.nn.Module) -> None:
    """Switch dropout off for good: old and new log-probabilities, and scores, must not be drawn by lot."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "attn_dropout", "dropout", "dropout_p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def save_policy(
    path: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **provenance: Any
) -> dict[str, Any]:
    """Write a policy directory: weights as safetensors, tokenizer, chat template and manifest; returns the manifest."""
    transformers_logging.disable_progress_bar()
    lora.save_merged(model, Path(path))
    tokenizer.save_pretrained(str(path))
    return write_manifest(path, kind="policy", **provenance)


# -- text to tokens ---------------------------------------------------------------------------------------------------
class Fitted(NamedTuple):
    """A prompt's tokens and how many of its oldest messages were left out to make it fit."""

    ids: list[int]
    dropped: int


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Return the tokens of a prompt, by the chat template, ready for a reply."""
    spoken = [{"role": message["role"], "content": _inert(tokenizer, message["content"])} for message in messages]
    ids = tokenizer.apply_chat_template(
        spoken, add_generation_prompt=True, tokenize=True, return_dict=False, tokenizer_kwargs=QUIETLY
    )
    return [int(token) for token in ids]


def render_reply(tokenizer: PreTrainedTokenizerBase, reply: str) -> list[int]:
    """Return the tokens of a whole reply, the end token last."""
    ids = tokenizer(_inert(tokenizer, reply), add_special_tokens=False, **QUIETLY)["input_ids"]
    return [*map(int, ids), int(tokenizer.eos_token_id)]


def render_within(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], room: int) -> Fitted:
    """Render the prompt in at most `room` tokens: the oldest turns are left out whole, and how many messages is told.

    A turn is a message of the user with what follows up to the next. PromptTooLong when the last turn alone does not fit.
    """
    begins = [place for place, message in enumerate(messages) if message["role"] == "user"] or [0]
    for begin in [0, *(place for place in begins if place > 0)]:
        ids = render(tokenizer, messages[begin:])
        if len(ids) <= room:
            return Fitted(ids, begin)
    raise PromptTooLong(f"the last message takes {len(ids)} tokens and there is room for {room}; shorten it")


def _inert(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Break up special tokens written out in a text, so that nobody can end a turn or speak for the assistant."""
    for token in tokenizer.all_special_tokens:
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def main(arguments: Sequence[str]) -> int:
    """Run `check DIR`."""
    if len(arguments) != 2 or arguments[0] != "check":
        print("usage: python -m training.models.snapshots check DIR", file=sys.stderr)
        return 2
    try:
        print(json.dumps(dataclasses.asdict(check_snapshot(arguments[1])), indent=2))
    except BadSnapshot as bad:
        print(bad, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
