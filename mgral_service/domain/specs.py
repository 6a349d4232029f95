"""What a user writes: the body of a request, a table of an experiment file, the flags of the CLI.

The defaults are what a user gets who sets nothing; ranges are checked here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mgral_service.domain.errors import InvalidInput

# Read by the codec: unknown keys are refused.
_STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


OBJECTIVES_OF = {
    "ssdlite": ("isd", "csd", "dense_teacher"),
    "ssd300": ("isd", "csd", "dense_teacher"),
    "retinanet": ("sed", "dense_teacher"),
}
"""Which L_U a detector's outputs allow: flips and mixtures want classes that compete by softmax,
"sed" a pyramid whose neighbouring levels are alike.
"""


def _require(where: str, ok: bool, what: str) -> None:
    if not ok:
        raise InvalidInput(where, what)


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Where a dataset lies and which file gives which role.

    format "coco": `labelled`, `unlabelled`, `scoring`, `test` are COCO JSON files below `root`,
    images below `images`: a folder, or several joined by "+", such as "train2017+val2017".
    format "voc":  they are names of `ImageSets/Main/*.txt`; `images` is `JPEGImages`. A root that
    holds years (a VOCdevkit) has them named, as in "VOC2007/trainval+VOC2012/trainval": each
    YEAR/SET is read from the folders of that year, and sets joined by "+" as one.
    `unlabelled` lists images only (annotations in it are refused: labels the service must not see).
    Without `scoring`, `scoring_share` of the labelled images is set apart once, by `seed`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str
    root: str
    format: Literal["coco", "voc"] = "coco"
    images: str = "images"
    labelled: str = "train.json"
    unlabelled: str | None = None
    scoring: str | None = None
    test: str | None = None
    scoring_share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = self.name.replace("-", "").replace("_", "").replace(".", "")
        _require(
            "name",
            allowed.isascii() and allowed.isalnum() and len(self.name) <= 63,
            "use 1 to 63 letters, digits, '-', '_' or '.'",
        )
        _require("scoring_share", 0 < self.scoring_share < 1, "must lie between 0 and 1")
        _require("seed", self.seed >= 0, "must be 0 or more")


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The task detector and its recipe; proxies share all but what TableSpec names as theirs.

    name           "ssdlite", "ssd300" (VGG16) or "retinanet" (ResNet50-FPN)
    size           training side in pixels (images are squeezed to a square); 300 for ssd300
    steps          optimiser steps; batch: images a step
    freeze_backbone  the backbone keeps its initial weights
    weights        initial weights: a file (safetensors, or torch's own), or a torchvision name such
                   as "VGG16_Weights.IMAGENET1K_FEATURES"; None: ImageNet's for ssdlite, which
                   takes no others; random ones for the rest
    optimiser      "adamw", or "sgd" with momentum 0.9; weight decay 5e-4 either way
    warmup         share of the steps over which the rate rises
    schedule       after that: half a "cosine", or "steps": a tenth at each share of the run in
                   `drops`
    precision      of convolutions: "bf16", "fp32", or "auto": bf16 where the processor computes in
                   it and the detector gains, else on processors Winograd's algorithm where it gains
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: Literal["ssdlite", "ssd300", "retinanet"] = "ssdlite"
    size: int = 160
    steps: int = 200
    batch: int = 8
    learning_rate: float = 1e-2
    freeze_backbone: bool = True
    weights: str | None = None
    optimiser: Literal["adamw", "sgd"] = "adamw"
    warmup: float = 0.1
    schedule: Literal["cosine", "steps"] = "cosine"
    drops: tuple[float, ...] = (2 / 3, 5 / 6)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        _require(
            "detector.size",
            64 <= self.size <= 1024 and (self.name == "ssd300" or self.size % 32 == 0),
            "a multiple of 32 from 64 to 1024",
        )
        _require("detector.size", self.name != "ssd300" or self.size == 300, "ssd300 takes 300")
        _require("detector.steps", self.steps >= 1, "must be 1 or more")
        _require("detector.batch", self.batch >= 2, "must be 2 or more")
        _require("detector.learning_rate", 0 < self.learning_rate < 1, "must lie between 0 and 1")
        _require(
            "detector.weights",
            self.weights is not None or self.name == "ssdlite" or not self.freeze_backbone,
            f"a frozen backbone of random weights teaches {self.name} nothing: give weights, or "
            "set detector.freeze_backbone = false",
        )
        _require("detector.warmup", 0 <= self.warmup < 1, "must lie in [0, 1)")
        _require(
            "detector.drops",
            all(0 < one < 1 for one in self.drops) and list(self.drops) == sorted(self.drops),
            "must rise and lie between 0 and 1",
        )


LEAST_SCORING = 48  # scoring images; halves of fewer are too few to draw from, or to score by


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The lookup table: how many proxies, trained how, on which batches, and how the table is read.

    records         M, trained proxies
    min_records     the cycle goes on with this many when some fail for good; None: half of M, at
                    least 4
    design          batches drawn "tilted" (domain/design.py) or "uniform" (the paper)
    objective       L_U of a proxy: "isd" or "csd" for the SSDs, "sed" for retinanet,
                    "dense_teacher" for all
    steps           optimiser steps of a proxy
    rate            share of detector.learning_rate at which proxies train
    start           a proxy starts from the "initial" weights (the paper) or the task "detector"'s
    views           training views of an image whose backbone features are kept, so that only the
                    head trains (with detector.freeze_backbone, not with "isd" and "sed"); 0: every
                    view is drawn anew
    stop            share of the steps after which a proxy ends and its mAP is extrapolated from its
                    curve; 1: none is
    checkpoints     the score is the mean over so many points of the run's last fifth
    repeats         trainings of one proxy, each with a seed of its own, whose mean is its score
    average         averaged weights score; False: the last
    common_draws    all proxies share one seed, so that they differ by their batch alone
    twice           share of `records` by which proxies are trained once more, from another seed:
                    they tell what seeds alone do (domain/noise.py) and teach nothing; none if that
                    is fewer than `rotations` + 2
    actors          proxies trained at the same time; cpus and gpus: each one's share, fractions
                    allowed
    max_failures    retries of one proxy; a preempted node is none
    source          what a record measures: "semi_supervised", a batch of the pool without labels
                    (the paper); "hindsight", a batch of images with their labels, which
                    are known (domain/hindsight.py); "both", the first weighted by how well it
                    agrees with the second
    reservoir       images that play the pool of hindsight records: the "scoring" images, if there
                    are LEAST_SCORING or more, or else the "labelled" ones
    rotations       parts of them which in turn do
    online          most proxies trained beyond those: on what "ridge" or "gp", taught by the
                    other rotations, chooses from each reservoir, and on batches that the agent
                    proposes while it learns: of each site first those to which no record is near
                    ("idw" and "onehot")
    value_model     "ridge", "gp", "idw" (inverse distance, the paper) or "onehot" (its first
                    version)
    distance        of "idw": "sliced" or "exact" Wasserstein
    cutoff          of "idw" and "onehot": records nearer than mean - 1 sd of the "query"'s or the
                    "table"'s distances count; "predictive": all do, and the estimate's own standard
                    deviation says where the table knows too little
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    records: int = 200
    min_records: int | None = None
    design: Literal["tilted", "uniform"] = "tilted"
    objective: Literal["isd", "csd", "sed", "dense_teacher"] = "isd"
    steps: int = 80
    rate: float = 1.0
    start: Literal["initial", "detector"] = "initial"
    views: int = 0
    stop: float = 1.0
    checkpoints: int = 1
    repeats: int = 1
    average: bool = True
    common_draws: bool = True
    twice: float = 0.1
    actors: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 2
    source: Literal["semi_supervised", "hindsight", "both"] = "both"
    reservoir: Literal["scoring", "labelled"] = "scoring"
    rotations: int = 2
    online: int = 8
    value_model: Literal["ridge", "gp", "idw", "onehot"] = "ridge"
    distance: Literal["sliced", "exact"] = "sliced"
    cutoff: Literal["query", "table", "predictive"] = "query"

    def __post_init__(self) -> None:
        _require("table.records", self.records >= 4, "must be 4 or more")
        _require(
            "table.min_records",
            self.min_records is None or 4 <= self.min_records <= self.records,
            "must lie between 4 and table.records",
        )
        _require("table.steps", self.steps >= 1, "must be 1 or more")
        _require("table.rate", 0 < self.rate <= 1, "must lie in (0, 1]")
        _require("table.views", 0 <= self.views <= 64, "must lie between 0 and 64")
        _require(
            "table.views",
            not (self.views and self.objective in ("isd", "sed")),
            f"{self.objective!r} makes images of its own, whose features cannot be kept: set 0, "
            'or table.objective = "csd" or "dense_teacher"',
        )
        _require("table.stop", 0 < self.stop <= 1, "must lie in (0, 1]")
        _require("table.checkpoints", 1 <= self.checkpoints <= 10, "must lie between 1 and 10")
        _require(
            "table.checkpoints",
            self.checkpoints == 1 or self.stop == 1,
            "a run that stops early is extrapolated: set 1, or table.stop = 1",
        )
        _require("table.repeats", 1 <= self.repeats <= 100, "must lie between 1 and 100")
        _require("table.twice", 0 <= self.twice <= 1, "must lie between 0 and 1")
        _require("table.actors", self.actors >= 1, "must be 1 or more")
        _require("table.cpus", self.cpus > 0, "must be above 0")
        _require("table.gpus", self.gpus >= 0, "must be 0 or more")
        _require("table.max_failures", self.max_failures >= 0, "must be 0 or more")
        _require("table.rotations", 2 <= self.rotations <= 6, "must lie between 2 and 6")
        _require("table.online", self.online >= 0, "must be 0 or more")

    def draws_from_scoring(self, scoring: int) -> bool:
        """Whether hindsight's batches are of the scoring images, of which there are so many."""
        wanted = self.source != "semi_supervised" and self.reservoir == "scoring"
        return wanted and scoring >= LEAST_SCORING

    @property
    def repeated(self) -> int:
        """Proxies trained once more; none where they would be too few to tell anything: of each
        reservoir the first pair tells what the seed does to all its batches alike.
        """
        count = round(self.twice * self.records)
        return count if count >= self.rotations + 2 else 0

    @property
    def designed(self) -> int:
        """Proxies before the agent proposes any."""
        return self.records + self.repeated

    @property
    def least(self) -> int:
        """Records without which the cycle fails."""
        return self.min_records if self.min_records is not None else max(4, self.records // 2)


AgentState = Literal["embedding", "full"]  # of an image: features.agent_state


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent's training (agent/reinforce.py).

    state        what the policy sees of an image: "embedding" (the paper's), or "full": what was
                 detected in it too (domain/features.py)
    iterations   T, policy gradient steps
    draws        K, batches drawn a step
    baseline     "rloo" (leave-one-out), "ema", "previous" (the paper's Eq. 1), "paper" (its Eq. 2
                 as printed)
    memory       lambda of "ema" and "paper"
    lane         images a lane of the walk over the pool (of a large one over 20,000 images, others
                 in each iteration); 0: one lane, the paper's
    temperature  tau at the first and the last iteration
    caution      beta: predictive standard deviations taken off a reward, and off the estimated
                 values of the portfolio's batches
    entropy      eta, weight of the entropy bonus
    clusters     the policy scores so many clusters of the pool first and then the images of the
                 best ones (agent/hierarchy.py); 0: all images
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    state: AgentState = "full"
    iterations: int = 2200
    draws: int = 16
    baseline: Literal["rloo", "ema", "previous", "paper"] = "rloo"
    memory: float = 0.5
    lane: int = 128
    learning_rate: float = 3.5e-4
    temperature: tuple[float, float] = (1.0, 0.3)
    caution: float = 0.5
    entropy: float = 1e-3
    clusters: int = 0

    def __post_init__(self) -> None:
        _require("agent.iterations", self.iterations >= 1, "must be 1 or more")
        _require("agent.draws", self.draws >= 1, "must be 1 or more")
        _require(
            "agent.draws",
            self.baseline != "rloo" or self.draws >= 2,
            "the leave-one-out baseline needs 2 draws: for one choose another agent.baseline",
        )
        _require("agent.memory", 0 <= self.memory < 1, "must lie in [0, 1)")
        _require("agent.lane", self.lane >= 0, "must be 0 (one lane) or more")
        _require("agent.learning_rate", 0 < self.learning_rate < 1, "must lie between 0 and 1")
        _require("agent.clusters", self.clusters >= 0, "must be 0 (none) or more")
        _require("agent.temperature", min(self.temperature) > 0, "both must be above 0")


BEST_CLASSICAL, JOINED = "best_classical", "joined"  # values of when_uninformed
Metric = Literal["ap50", "ap30", "ap", "voc07", "voc12"]


@dataclass(frozen=True, slots=True)
class CycleSpec:
    """One active learning cycle: choose `budget` images of `dataset`.

    strategy         "mgral", "uniform", "entropy" (mean), "entropy_sum", "entropy_root" (mean times
                     the root of the expected objects), "entropy_max", "coreset",
                     "entropy_coreset", "class_balance"
    metric           of what is reported: "ap50", "ap" (COCO), "ap30" (as both, at an IoU of .30),
                     "voc07" (11-point), "voc12" (area), all at fractions
    reward           by which proxies are scored, and batches so valued; None: by `metric`
    when_uninformed  what selects when the reward's reliability interval is not above zero, or the
                     reward is outdone by the best classical strategy: a strategy that needs no
                     reward; "best_classical": entropy_root, unless the own batches of another that
                     was tried (all but entropy_coreset are) gained more by more than two standard
                     errors of the difference, which is what outdone means too; or "joined": the
                     same, but in place of entropy_root the mean rank of an image by it and by
                     "ridge" or "gp", where the middle half of that interval is above zero and the
                     reward is not outdone
    choice           "portfolio": the best of the agent's batch and its rivals', or when_uninformed;
                     "agent": always the agent's batch, as the paper has it
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    dataset: str
    budget: int
    seed: int = 0
    strategy: str = "mgral"
    metric: Metric = "ap50"
    reward: Metric | None = None
    when_uninformed: str = JOINED
    choice: Literal["portfolio", "agent"] = "portfolio"
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    table: TableSpec = field(default_factory=TableSpec)
    agent: AgentSpec = field(default_factory=AgentSpec)

    @property
    def rewarded_by(self) -> Metric:
        """The proxies' metric."""
        return self.reward or self.metric

    def __post_init__(self) -> None:
        _require("budget", self.budget >= 1, "must be 1 or more")
        _require("seed", 0 <= self.seed < 2**63, "must be 0 or more")
        _require(
            "when_uninformed",
            self.when_uninformed != "mgral",
            "must be a strategy that needs no reward",
        )
        _require(
            "table.objective",
            self.table.objective in OBJECTIVES_OF[self.detector.name],
            f"{self.detector.name} trains with {', '.join(OBJECTIVES_OF[self.detector.name])}",
        )
        _require(
            "table.views",
            not self.table.views or self.detector.freeze_backbone,
            "features are kept for a frozen backbone only: set 0, or detector.freeze_backbone = "
            "true",
        )


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """A whole experiment without the gateway: `cycles` rounds on a dataset whose held-back labels
    an oracle reveals.

    initial: labelled images at the start, drawn by the cycle's seed from `dataset.labelled`; the
    rest is the pool.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    dataset: DatasetSpec
    cycle: CycleSpec
    initial: int
    cycles: int = 1

    def __post_init__(self) -> None:
        _require("initial", self.initial >= 2, "must be 2 or more")
        _require("cycles", self.cycles >= 1, "must be 1 or more")
        _require(
            "dataset.unlabelled",
            self.dataset.unlabelled is None,
            "must be left out: nobody could reveal the labels of its images; the pool are those of "
            "dataset.labelled beyond `initial`",
        )
        _require(
            "cycle.dataset", self.cycle.dataset == self.dataset.name, "must equal dataset.name"
        )
