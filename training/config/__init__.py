"""The settings of every training job: frozen, typed, each default with its source; one file a job.

Sources: HH = Bai et al. 2022 (arXiv 2204.05862); LA = Askell et al. 2021 (2112.00861); IG = Ouyang et al. 2022
(2203.02155); L2 = Touvron et al. 2023, "Llama 2" (2307.09288); PM = Zheng et al. 2023, "Secrets of RLHF I" (2307.04964);
PM-code = what its authors released (MOSS-RLHF); GI = Zheng et al. 2023, "group invariant learning" (2310.11971);
N = Huang et al., "The N implementation details of RLHF with PPO"; starter = measured here on the shipped starter model;
ours = a choice of this project, where no paper says anything.
"""

from training.config.best_of import BestOfConfig
from training.config.distill import DistillConfig
from training.config.evaluate import EvaluateConfig
from training.config.field import CrowdConfig, FieldConfig, RobustnessConfig, SqrtKlConfig, TournamentConfig
from training.config.fitting import FitConfig
from training.config.hhh import HhhConfig, LogPConfig
from training.config.loading import BadConfig, load_config, required
from training.config.ood import OodConfig
from training.config.policy import PolicyConfig
from training.config.preference import PreferenceConfig
from training.config.sampling import SamplingConfig
from training.config.sft import SFT_PRESETS, SftConfig

__all__ = [
    "SFT_PRESETS",
    "BadConfig",
    "BestOfConfig",
    "CrowdConfig",
    "DistillConfig",
    "EvaluateConfig",
    "FieldConfig",
    "FitConfig",
    "HhhConfig",
    "LogPConfig",
    "OodConfig",
    "PolicyConfig",
    "PreferenceConfig",
    "RobustnessConfig",
    "SamplingConfig",
    "SftConfig",
    "SqrtKlConfig",
    "TournamentConfig",
    "load_config",
    "required",
]
