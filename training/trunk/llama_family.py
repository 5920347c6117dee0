"""Which models are of the Llama family's shape, as the hand-written passes and the fast decoders compute it."""

from typing import Any

LLAMA_FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def is_llama_shaped(config: Any) -> bool:
    """Whether a model of this config has gated SiLU, RMS norms, one static rotation of whole heads and full attention."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in LLAMA_FAMILY
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in {"default", "linear", "llama3"}
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or [])
        and (config.model_type != "mistral" or config.sliding_window is None)
    )
