"""Llama-shaped models kept in float32 on a CPU, all layers and the drawing in one call of C (training/native/decode.h).

Prompts are read without padding: their tokens lie end to end. Several tokens of each reply can be written in one call.
"""

import os
from collections.abc import Sequence
from ctypes import memmove
from ctypes import pointer as ctypes_pointer
from typing import Any

import torch
from torch import Tensor, nn

from training import native
from training.models.lora import effective
from training.native.decoding import KEYS, PANEL, Layer, Matrix, Model, Pass, kernels, pointer
from training.native.memory import give_back
from training.sampling.decoders.decoder import Replies, decodes_fused, rotations

# Prompt tokens of one pass: enough that each weight is used often, few enough that their states stay in the cache.
READ_AT_ONCE = 192


def native_serves(model: Any) -> bool:
    """Whether NativeDecoder can run this model here."""
    weight = model.get_input_embeddings().weight
    return (
        weight.dtype == torch.float32 and weight.device.type == "cpu" and decodes_fused(model) and kernels() is not None
    )


class NativeDecoder:
    """Holds packed copies of the weights, so the model object may change or go."""

    def __init__(self, model: Any, slots: int, max_length: int, *, half: bool = False) -> None:
        """`half`: products in bfloat16, where this processor has them; all else, keys and values too, stays float32."""
        config, attention = model.config, model.model.layers[0].self_attn
        library = kernels()
        assert library is not None
        self._library = library
        self.half = half and bool(library.native_has_half())
        self._held: list[Tensor] = []  # what the structs point to
        self._packed: list[Tensor] = []  # of these the weights that every refresh writes anew
        heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, attention.head_dim
        width, inner, words = config.hidden_size, config.intermediate_size, config.vocab_size
        columns = _up(max_length, KEYS)
        self._qkv = (heads + 2 * kv_heads) * size
        layers = (Layer * config.num_hidden_layers)()
        biased = {"qkv": attention.q_proj, "out": attention.o_proj, "gate_up": model.model.layers[0].mlp.gate_proj}
        biased |= {"down": model.model.layers[0].mlp.down_proj}
        shapes = {
            "qkv": (width, self._qkv),
            "out": (heads * size, width),
            "gate_up": (width, 2 * _up(inner, PANEL // 2)),
            "down": (inner, width),
        }
        for layer in layers:
            for name, (inputs, outputs) in shapes.items():
                setattr(layer, name, self._matrix(inputs, outputs, biased[name].bias is not None))
            if getattr(attention, "q_norm", None) is not None:
                layer.query_norm, layer.key_norm = pointer(self._hold(size)), pointer(self._hold(size))
            layer.keys = pointer(self._hold(slots, kv_heads, columns, size))
            layer.values = pointer(self._hold(slots, kv_heads, columns, _up(size, PANEL)))
        cos, sin = rotations(model, max_length)
        self.embedding = torch.empty(words, width)
        self._packed.append(self.embedding)
        self._held += [cos, sin]
        self._layers = layers
        self._model = Model(
            width=width, heads=heads, kv_heads=kv_heads, head_dim=size, inner=inner, words=words, layers=len(layers),
            columns=columns, value_width=_up(size, PANEL), eps=config.rms_norm_eps, layer=layers,
            embedding=pointer(self.embedding), cos=pointer(cos), sin=pointer(sin),
            head=self._matrix(width, words, getattr(model.lm_head, "bias", None) is not None),
        )  # fmt: skip
        self._words, self._stride = words, library.native_logits_stride(words)
        self._most_threads = max(native.threads(), os.cpu_count() or 1)
        rows = max(slots, READ_AT_ONCE)
        self._scratch = torch.empty(library.native_scratch(self._model, rows, rows, self._most_threads))
        self._logits = torch.empty(slots, self._stride)
        self._place = torch.arange(slots, dtype=torch.int32)  # row of the engine -> row of the table
        self.refresh(model)

    def _hold(self, *shape: int) -> Tensor:
        """Zeros that live as long as the decoder, for a struct to point to."""
        self._held.append(torch.zeros(shape))
        return self._held[-1]

    def _matrix(self, inputs: int, outputs: int, biased: bool) -> Matrix:
        panels = _up(outputs, PANEL)
        bias = pointer(self._hold(panels)) if biased else None
        table = torch.zeros(panels, _up(inputs, 2), dtype=torch.bfloat16) if self.half else torch.zeros(panels, inputs)
        self._packed.append(table)
        return Matrix(panels=pointer(table), bias=bias, inputs=inputs, outputs=outputs, half=self.half)

    @torch.no_grad()
    def refresh(self, model: Any) -> None:
        """Pack all weights; a norm's weights go into those of the products after it."""
        core, head = model.model, model.lm_head
        self.embedding.copy_(core.embed_tokens.weight)
        for layer, block in zip(self._layers, core.layers, strict=True):
            attention, mlp, first = block.self_attn, block.mlp, 0
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                self._pack(layer.qkv, part, block.input_layernorm.weight, first)
                first += len(part.weight)
            self._pack(layer.out, attention.o_proj)
            half = PANEL // 2  # a panel holds as many gates and then their ups
            self._pack(layer.gate_up, mlp.gate_proj, block.post_attention_layernorm.weight, 0, half, PANEL)
            self._pack(layer.gate_up, mlp.up_proj, block.post_attention_layernorm.weight, half, half, PANEL)
            self._pack(layer.down, mlp.down_proj)
            if layer.query_norm:
                for norm, to in ((attention.q_norm, layer.query_norm), (attention.k_norm, layer.key_norm)):
                    memmove(to, norm.weight.data_ptr(), norm.weight.nbytes)
        self._pack(self._model.head, head, core.norm.weight)

    def release(self) -> None:
        """Give back the memory of the packed weights, which are as large as the model's."""
        for table in self._packed:
            give_back(table)

    def _pack(
        self,
        matrix: Matrix,
        linear: nn.Linear,
        norm: Tensor | None = None,
        first: int = 0,
        group: int = 1,
        step: int = 1,
    ) -> None:
        """Row i of the weights becomes output first + i//group·step + i%group."""
        weight, bias = effective(linear).contiguous(), linear.bias
        rows, inputs = weight.shape
        self._library.native_pack(
            pointer(weight), pointer(norm), rows, inputs, first, group, step, matrix.panels, self.half, native.threads()
        )
        if bias is not None:
            self._library.native_pack(pointer(bias), None, rows, 1, first, group, step, matrix.bias, 0, 1)

    def copy_row(self, source: int, targets: Sequence[int], length: int) -> None:
        place = self._place.tolist()
        for target in targets:
            self._library.native_copy_row(self._model, place[source], place[target], length)

    def move_row(self, source: int, target: int, length: int) -> None:  # noqa: ARG002  # nothing is copied
        self._place[[source, target]] = self._place[[target, source]]

    def read(self, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> Tensor:
        token = torch.tensor([token for prompt in prompts for token in prompt])
        position = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        place = self._place[torch.tensor(rows)].repeat_interleave(lengths)
        last = lengths.cumsum(0) - 1
        logits = torch.empty(len(prompts), self._stride)
        found = 0
        for start in range(0, len(token), READ_AT_ONCE):
            end = min(start + READ_AT_ONCE, len(token))
            wanted = (last[(last >= start) & (last < end)] - start).int()
            self._run(
                n=end - start,
                token=pointer(token[start:]),
                position=pointer(position[start:]),
                place=pointer(place[start:]),
                wanted=pointer(wanted),
                wanted_n=len(wanted),
                together=1,
                logits=pointer(logits[found:]),
            )
            found += len(wanted)
        return logits[:, : self._words]

    def write(self, replies: Replies, n: int, steps: int, stops: Tensor) -> tuple[Tensor, Tensor]:
        common = {
            "n": n,
            "token": pointer(replies.token),
            "position": pointer(replies.position),
            "place": pointer(self._place),
            "logits": pointer(self._logits),
        }
        if not replies.whole:
            wanted = torch.arange(n, dtype=torch.int32)
            self._run(**common, wanted=pointer(wanted), wanted_n=n)
            tokens, logps = replies.draw(self._logits[:n, : self._words], torch.arange(n))
            return tokens[None], logps[None]
        tokens, logps = torch.empty(steps, n, dtype=torch.long), torch.empty(steps, n)
        done = self._run(
            **common,
            steps=steps,
            temperature=None if replies.plain else pointer(replies.temperature),
            uniform=pointer(replies.uniform),
            uniform_stride=replies.uniform.shape[1],
            stops=pointer(stops),
            out_token=pointer(tokens),
            out_logp=pointer(logps),
        )
        replies.position[:n] += done
        return tokens[:done], logps[:done]

    def _run(self, **given: Any) -> int:
        work = Pass(model=ctypes_pointer(self._model), scratch=pointer(self._scratch), **given)
        self._library.native_pass(work, min(native.threads(), self._most_threads))
        done: int = work.done
        return done


def _up(n: int, grain: int) -> int:
    """N rounded up to a multiple of `grain`."""
    return -(-n // grain) * grain
