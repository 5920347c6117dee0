"""One forward step of a causal language model over a table of key-value rows, for the sampling engine.

Three decoders with one face (decoder.py): NativeDecoder in C, FusedDecoder in torch, both for the Llama family, and
GeneralDecoder for any other model. Row r of the table belongs to one reply; those being written lie in rows 0..n-1.
"""

from typing import Any

from training.sampling.decoders.decoder import Decoder, Replies, decodes_fused
from training.sampling.decoders.fused import FusedDecoder
from training.sampling.decoders.general import GeneralDecoder
from training.sampling.decoders.native import NativeDecoder, native_serves

__all__ = ["Decoder", "FusedDecoder", "GeneralDecoder", "NativeDecoder", "Replies", "decoder_for", "decodes_fused"]


def decoder_for(model: Any, slots: int, max_length: int, *, half: bool = False) -> Decoder:
    """The fastest one that computes exactly what this model does; `half`: in bfloat16, the one in C where the processor can."""
    if native_serves(model):
        return NativeDecoder(model, slots, max_length, half=half)
    return (FusedDecoder if decodes_fused(model) else GeneralDecoder)(model, slots, max_length, half=half)
