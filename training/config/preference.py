"""Settings of the preference job."""

import dataclasses
from typing import Any, Literal

from training.config.fitting import FitConfig
from training.config.loading import BadConfig, at_least, shares


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceConfig(FitConfig):
    """Settings of `python -m training.preference`.

    A preset replaces the defaults below by a paper's; what config.json names itself goes before both.
    """

    # ours: what the starter needs, of all papers
    preset: Literal["starter", "hh_rlhf", "instructgpt", "pmp", "moss"] = "starter"
    model: str = ""  # directory to start from: a policy, or the preference model of an earlier stage; required
    start_head: Literal["keep", "renew"] = "keep"  # of a preference model to start from (HH A.2 trains on after PMP)

    # what is minimised
    objective: Literal["ranked", "binary", "imitation"] = "ranked"  # the other two are the baselines of LA 3
    # all pairs of a prompt in one element, or each for itself (IG 3.5)
    grouping: Literal["grouped", "pooled"] = "grouped"
    # prompts an update, with all their pairs; starter: 300 comparisons still give some 18 updates
    batch_prompts: int = 16
    lm_weight: float = 0.0  # weight of the language loss on the good reply; HH trains without it, 1 in LA and PM 3.1
    # λ of a mode's loss (HH 5.1.2); 1 if unnamed
    mode_weights: dict[str, float] = dataclasses.field(default_factory=dict)
    # HH 2.2 drops the weakest and forgets the rest; L2 3.2.2 asks more
    strength_as: Literal["filter", "margin"] = "filter"
    weakest_strength: int = 1  # as filter: comparisons at or below it are left out (HH 2.2); 0 keeps all
    strength_margins: tuple[float, ...] = (
        0.0,
        1 / 3,
        2 / 3,
        1.0,
    )  # as margin: of strengths 1 to 4 (L2 A.3.3, the small)

    # stages
    stage: Literal["finetune", "pmp"] = "finetune"  # pmp: public answers first, to need fewer comparisons (LA 4)
    pmp_pairs: Literal["binarised", "ranked"] = "binarised"  # LA 4.3: ranked ones are hard to unlearn
    lm_learning_rate: float = 0.0  # of the model's pretraining; a tenth of it in pmp, a hundredth in finetune (HH A.2)

    # what is held out
    held_out: float = 0.05  # share kept for the test when data/ has no test file; 0.35 and 0.5 are HH's others (HH 2.3)
    split_by: Literal["conversation", "person"] = "conversation"  # HH 2.3; IG 3.2 splits by person
    half: Literal["both", "a", "b"] = "both"  # train on one of two halves: train and test preference model (HH 4.2)
    folds: int = 0  # > 0: hold out fold number `fold` of so many in place of a share (IG 4.1: 5 groups of people)
    fold: int = 0  # ours

    # prompt and longest reply together; 0 = the model's context. Oldest turns go first, counted; ours
    max_tokens: int = 0
    shift_on: Literal["train", "held_out", "demonstrations"] = "train"  # whose scores average 0: ours; HH B.2; IG 3.5
    scale: Literal["deviation", "none"] = "deviation"  # what shifted scores are divided by; ours; HH and IG only shift
    calibration_bins: int = 10  # of equal width from 1/2 to 1; ours
    margin_bands: int = 10  # of as many pairs each, by the size of the score difference; ours

    def __post_init__(self) -> None:
        """Refuse numbers that cannot mean anything."""
        super().__post_init__()
        at_least(self, 0, "lm_weight", "weakest_strength", "max_tokens", "lm_learning_rate", "folds", "fold")
        at_least(self, 1, "batch_prompts", "calibration_bins", "margin_bands")
        shares(self, "held_out")
        if len(self.strength_margins) != 4:
            raise BadConfig(
                f"strength_margins needs a number for each of 4 strengths, not {len(self.strength_margins)}"
            )
        for mode, weight in self.mode_weights.items():
            if weight < 0:
                raise BadConfig(f"mode_weights[{mode!r}] must be at least 0, not {weight}")
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise BadConfig(
                f"fold must lie between 0 and folds - 1, and folds be 0 or at least 2, not {self.fold} of {self.folds}"
            )
        if self.objective != "ranked" and (self.strength_as == "margin" or self.grouping == "pooled"):
            what = "strength_as 'margin'" if self.strength_as == "margin" else "grouping 'pooled'"
            raise BadConfig(f"{what} is about pairs and the objective {self.objective!r} has none; leave it out")
        if self.objective == "imitation" and self.lm_weight:
            raise BadConfig("imitation is the language loss itself, so lm_weight would weigh nothing; set it to 0")
        if self.objective == "imitation" and self.shift_on != "train":
            raise BadConfig("imitation trains a policy, which has no scores to shift; leave shift_on out")
        if self.objective == "imitation" and self.stage == "pmp" and self.pmp_pairs == "binarised":
            raise BadConfig("imitation would learn to write the tags of binarised pairs; set pmp_pairs to 'ranked'")
        if self.lm_weight and self.stage == "pmp" and self.pmp_pairs == "binarised":
            raise BadConfig(
                "the better of a binarised pair may be a bad answer with its tag, which lm_weight would teach to write; set "
                "pmp_pairs to 'ranked' or lm_weight to 0"
            )


# "starter": the defaults above, measured on the shipped starter model. Each line says what the source fixes.
PRESETS: dict[str, dict[str, Any]] = {
    "starter": {},
    # Bai et al. 2022 §2.2, App. A.2 and B.2: one epoch, weakest grade dropped, strength otherwise forgotten, context 1024,
    # a hundredth of the pretraining rate (name it in lm_learning_rate), scores less their mean on held-out data.
    "hh_rlhf": {
        "epochs": 1,
        "objective": "ranked",
        "strength_as": "filter",
        "weakest_strength": 1,
        "lm_weight": 0.0,
        "held_out": 0.05,
        "max_tokens": 1024,
        "shift_on": "held_out",
        "scale": "none",
    },
    # Ouyang et al. 2022 §3.5, App. C.2: all pairs of 64 prompts an update, down a cosine to a tenth, one epoch, ties
    # dropped, shifted so that the demonstrations average 0. The paper names no warm-up. Its rate, 9e-6 at 6B, is not set: absolute
    # rates do not transfer to other widths, so ours goes by the width.
    "instructgpt": {
        "epochs": 1,
        "objective": "ranked",
        "grouping": "grouped",
        "batch_prompts": 64,
        "schedule": "cosine",
        "final_share": 0.1,
        "warmup_share": 0.0,
        "adam_beta2": 0.95,
        "weakest_strength": 0,
        "lm_weight": 0.0,
        "shift_on": "demonstrations",
        "scale": "none",
    },
    # Askell et al. 2021 §4, Bai et al. 2022 App. A.2: binarised pairs of public answers, one epoch, context 1024, a tenth of
    # the pretraining rate (name it in lm_learning_rate).
    "pmp": {
        "epochs": 1,
        "stage": "pmp",
        "pmp_pairs": "binarised",
        "objective": "ranked",
        "lm_weight": 0.0,
        "max_tokens": 1024,
    },
    # Zheng et al. 2023 §3.1, §4.2: language loss on the chosen reply with weight 1, a tenth of warm-up, about one
    # epoch; the rate of 5e-6 at 7B is not set. Their batches hold 4 to 128 pairs as memory allows; 64 stands for them. What
    # divides scores there is the policy run's (`score_normalisation`).
    "moss": {
        "epochs": 1,
        "objective": "ranked",
        "lm_weight": 1.0,
        "warmup_share": 0.1,
        "batch_prompts": 64,
        "weakest_strength": 0,
        "scale": "none",
    },
}
