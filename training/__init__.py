"""torch and transformers: preference models, PPO, sampling and evaluation. Knows files and tensors, nothing else of ours."""

import os

# GNU OpenMP's threads spin while they wait for each other. Where cores are shared with a server, or with another job, that
# costs most of the speed; where they are not, never spinning costs a fifth. Some ten microseconds serve both (LAB.md).
# It is read when torch is loaded, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
