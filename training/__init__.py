"""torch and transformers: preference models, PPO, sampling and evaluation. Knows files and tensors, nothing else of ours."""

import os

# GNU OpenMP's threads spin while they wait for each other. Where cores are shared with a server, or with another job, that
# costs most of the speed (238 against 1,947 tokens/s was measured); it is read when torch is loaded, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
