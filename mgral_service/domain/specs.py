"""What a user writes: the body of a request, a table of an experiment file, the flags of the CLI.

The defaults are those of `method = "default"`; `domain/recipes.py` holds the paper's. Ranges are
checked here; names of strategies, detectors, objectives, metrics, formats and value models are
checked against the registries that own them. Settings that few users need stand under `advanced`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mgral_service.domain.errors import InvalidInput

# Read by the codec: unknown keys are refused.
_STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


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
    `scoring` is optional: labelled images that score proxies and train nothing. Without it the
    default method scores proxies on the labelled images that a fold leaves out.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str
    root: str
    format: str = "coco"
    images: str = "images"
    labelled: str = "train.json"
    unlabelled: str | None = None
    scoring: str | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        allowed = self.name.replace("-", "").replace("_", "").replace(".", "")
        _require(
            "name",
            allowed.isascii() and allowed.isalnum() and len(self.name) <= 63,
            "use 1 to 63 letters, digits, '-', '_' or '.'",
        )


@dataclass(frozen=True, slots=True)
class DetectorAdvanced:
    """Rarely needed settings of the detector.

    optimiser      "adamw", or "sgd" with momentum 0.9; weight decay 5e-4 either way
    warmup         share of the steps over which the learning rate rises
    schedule       after that: half a "cosine", or "steps": a tenth at each share of the run in
                   `drops`
    precision      of convolutions: "bf16", "fp32", or "auto": bf16 where the processor computes in
                   it and the detector gains, else on processors Winograd's algorithm where it gains
    augmentations  with a frozen backbone: augmented views of each image whose features are computed
                   once and kept in memory, so that only the head trains; 0: every view is drawn
                   anew
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    optimiser: Literal["adamw", "sgd"] = "adamw"
    warmup: float = 0.1
    schedule: Literal["cosine", "steps"] = "cosine"
    drops: tuple[float, ...] = (2 / 3, 5 / 6)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augmentations: int = 0

    def __post_init__(self) -> None:
        _require("detector.advanced.warmup", 0 <= self.warmup < 1, "must lie in [0, 1)")
        _require(
            "detector.advanced.drops",
            all(0 < drop < 1 for drop in self.drops) and list(self.drops) == sorted(self.drops),
            "must rise and lie between 0 and 1",
        )
        _require(
            "detector.advanced.augmentations",
            0 <= self.augmentations <= 64,
            "must lie between 0 and 64",
        )


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The task detector and its recipe; proxies share all but what TableSpec names as theirs.

    name             "ssdlite", "ssd300" (VGG16) or "retinanet" (ResNet50-FPN)
    size             training side in pixels (images are squeezed to a square); 300 for ssd300
    steps            optimiser steps; batch: images a step
    freeze_backbone  the backbone keeps its initial weights
    weights          initial weights: a file (safetensors, or torch's own), or a torchvision name
                     such as "VGG16_Weights.IMAGENET1K_FEATURES"; None: ImageNet's for ssdlite,
                     which takes no others; random ones for the rest
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str = "ssdlite"
    size: int = 160
    steps: int = 200
    batch: int = 8
    learning_rate: float = 1e-2
    freeze_backbone: bool = True
    weights: str | None = None
    advanced: DetectorAdvanced = field(default_factory=DetectorAdvanced)

    def __post_init__(self) -> None:
        _require("detector.size", 64 <= self.size <= 1024, "must lie between 64 and 1024")
        _require("detector.steps", self.steps >= 1, "must be 1 or more")
        _require("detector.batch", self.batch >= 2, "must be 2 or more")
        _require("detector.learning_rate", 0 < self.learning_rate < 1, "must lie between 0 and 1")


LEAST_PER_FOLD = 4  # records: two uniform batches, a candidate's and the agent's


@dataclass(frozen=True, slots=True)
class TableAdvanced:
    """Rarely needed settings of the table.

    design         of the records that no candidate chose: batches "tilted" along random directions
                   of what detections and embeddings tell, or "uniform" (the paper)
    start          a proxy starts from the fold's "detector" or from the "initial" weights (paper)
    rate           share of detector.learning_rate at which proxies train
    augmentations  views of an image whose features are kept, where the backbone is frozen and the
                   objective makes no images of its own; 0: every view is drawn anew
    repeats        trainings of one proxy, each with a seed of its own, whose mean is its score
    min_records    the cycle goes on with this many when proxies fail for good; None: half of
                   table.records
    max_failures   retries of one proxy; a preempted node is none
    value_model    "gp", a Gaussian process on batch features, or "idw", inverse distance (paper),
                   for method = "paper"
    distance       of "idw": "sliced" or "exact" Wasserstein, or "one_hot" (the paper's first
                   version)
    cutoff         of "idw": records nearer than mean - 1 sd of the "query"'s or the "table"'s
                   distances count
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    design: Literal["tilted", "uniform"] = "tilted"
    start: Literal["initial", "detector"] = "detector"
    rate: float = 0.3
    augmentations: int = 4
    repeats: int = 1
    min_records: int | None = None
    max_failures: int = 2
    value_model: str = "gp"
    distance: Literal["sliced", "exact", "one_hot"] = "sliced"
    cutoff: Literal["query", "table"] = "query"

    def __post_init__(self) -> None:
        where = "table.advanced."
        _require(where + "rate", 0 < self.rate <= 1, "must lie in (0, 1]")
        _require(
            where + "augmentations", 0 <= self.augmentations <= 64, "must lie between 0 and 64"
        )
        _require(where + "repeats", 1 <= self.repeats <= 100, "must lie between 1 and 100")
        _require(
            where + "min_records",
            self.min_records is None or self.min_records >= 2,
            "must be 2 or more",
        )
        _require(where + "max_failures", self.max_failures >= 0, "must be 0 or more")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The table: how many proxies are trained, on what, and by how many workers.

    records     M, trained proxies, divided evenly among the folds
    folds       times the labelled images are divided into a training, a candidate and a scoring
                part; unused by method = "paper"
    steps       optimiser steps of a proxy
    objective   L_U on images without labels: "isd" or "csd" for the SSDs, "sed" for retinanet,
                "dense_teacher" for all; None: the detector's usual one
    unlabelled  images of the pool, without labels, that join each training through L_U; unused by
                method = "paper", whose batches are unlabelled
    actors      proxies trained at the same time; cpus and gpus: each one's share, fractions allowed
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    records: int = 96
    folds: int = 8
    steps: int = 60
    objective: str | None = None
    unlabelled: int = 0
    actors: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    advanced: TableAdvanced = field(default_factory=TableAdvanced)

    def __post_init__(self) -> None:
        _require("table.folds", 1 <= self.folds <= 64, "must lie between 1 and 64")
        _require("table.records", self.records >= 4, "must be 4 or more")
        _require("table.steps", self.steps >= 1, "must be 1 or more")
        _require("table.unlabelled", self.unlabelled >= 0, "must be 0 or more")
        _require("table.actors", self.actors >= 1, "must be 1 or more")
        _require("table.cpus", self.cpus > 0, "must be above 0")
        _require("table.gpus", self.gpus >= 0, "must be 0 or more")
        least = self.advanced.min_records
        _require(
            "table.advanced.min_records",
            least is None or least <= self.records,
            "must be at most table.records",
        )

    @property
    def least(self) -> int:
        """Records without which the cycle fails."""
        if self.advanced.min_records is not None:
            return self.advanced.min_records
        return max(2, self.records // 2)


AgentState = Literal["embedding", "full"]  # of an image: features.agent_state


@dataclass(frozen=True, slots=True)
class AgentAdvanced:
    """Rarely needed settings of the agent's training (agent/reinforce.py).

    state          what the policy reads of an image: "embedding" (the paper), or "full": what was
                   detected in it too
    draws          K, batches drawn a step
    baseline       "rloo" (leave-one-out), "ema", "previous" (the paper's Eq. 1), "paper" (its Eq. 2
                   as printed)
    memory         lambda of "ema" and "paper"
    lane           images a lane of the walk over the pool (of a large one over 20,000 images,
                   others in each iteration); 0: one lane, the paper's
    temperature    tau at the first and the last iteration
    risk_aversion  beta: predictive standard deviations taken off a reward
    entropy        eta, weight of the entropy bonus
    clusters       the policy scores so many clusters of the pool first and then the images of the
                   best ones (agent/hierarchy.py); 0: all images
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    state: AgentState = "full"
    draws: int = 16
    baseline: Literal["rloo", "ema", "previous", "paper"] = "rloo"
    memory: float = 0.5
    lane: int = 128
    learning_rate: float = 3.5e-4
    temperature: tuple[float, float] = (1.0, 0.3)
    risk_aversion: float = 0.5
    entropy: float = 1e-3
    clusters: int = 0

    def __post_init__(self) -> None:
        where = "agent.advanced."
        _require(where + "draws", self.draws >= 1, "must be 1 or more")
        _require(
            where + "draws",
            self.baseline != "rloo" or self.draws >= 2,
            "the leave-one-out baseline needs 2 draws: for one draw choose another baseline",
        )
        _require(where + "memory", 0 <= self.memory < 1, "must lie in [0, 1)")
        _require(where + "lane", self.lane >= 0, "must be 0 (one lane) or more")
        _require(where + "learning_rate", 0 < self.learning_rate < 1, "must lie between 0 and 1")
        _require(where + "clusters", self.clusters >= 0, "must be 0 (none) or more")
        _require(where + "temperature", min(self.temperature) > 0, "both must be above 0")
        _require(where + "risk_aversion", self.risk_aversion >= 0, "must be 0 or more")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent's training. iterations: T, policy gradient steps."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    iterations: int = 400
    advanced: AgentAdvanced = field(default_factory=AgentAdvanced)

    def __post_init__(self) -> None:
        _require("agent.iterations", self.iterations >= 1, "must be 1 or more")


Method = Literal["default", "paper"]


@dataclass(frozen=True, slots=True)
class CycleAdvanced:
    """Rarely needed settings of a cycle.

    reward         metric that scores proxies; None: CycleSpec.metric
    scoring_share  with method = "paper" and no scoring images of the dataset: share of the images
                   labelled at registration that score proxies and train nothing
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    reward: str | None = None
    scoring_share: float = 0.25

    def __post_init__(self) -> None:
        _require("advanced.scoring_share", 0 < self.scoring_share < 1, "must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class CycleSpec:
    """One active learning cycle: choose `budget` images of `dataset`.

    method    "default": candidates are measured in folds of the labelled images, and the highest
              posterior gain chooses; "paper": MGRAL as printed (semi-supervised proxies on uniform
              batches of the pool, inverse Wasserstein distance, the agent chooses). A method is a
              whole recipe of defaults: settings that you name win
    strategy  "mgral", or one that needs no table: "uniform", "entropy" (mean), "entropy_sum",
              "entropy_root", "entropy_max", "coreset", "entropy_coreset", "class_balance"
    metric    of what is reported: "ap50", "ap" (COCO), "ap30" (as both, at an IoU of .30),
              "voc07" (11-point), "voc12" (area), all as fractions
    choice    of "mgral": "posterior", the candidate of the highest posterior gain; "agent": always
              the agent's batch (the paper)
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    dataset: str
    budget: int
    seed: int = 0
    method: Method = "default"
    strategy: str = "mgral"
    metric: str = "ap50"
    choice: Literal["posterior", "agent"] = "posterior"
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    table: TableSpec = field(default_factory=TableSpec)
    agent: AgentSpec = field(default_factory=AgentSpec)
    advanced: CycleAdvanced = field(default_factory=CycleAdvanced)

    @property
    def rewarded_by(self) -> str:
        """The proxies' metric."""
        return self.advanced.reward or self.metric

    def __post_init__(self) -> None:
        _require("budget", self.budget >= 1, "must be 1 or more")
        _require("seed", 0 <= self.seed < 2**63, "must be 0 or more")
        _require(
            "table.records",
            self.method == "paper" or self.table.records >= LEAST_PER_FOLD * self.table.folds,
            f"must be {LEAST_PER_FOLD} or more for each of the {self.table.folds} folds: raise it, "
            "or lower table.folds",
        )
        _require(
            "choice",
            self.method == "default" or self.choice == "agent",
            'method = "paper" measures no candidate, so the agent chooses: set choice = "agent"',
        )
        _require(
            "table.advanced.value_model",
            self.method == "paper" or self.table.advanced.value_model != "idw",
            '"idw" compares batches of one pool, and folds are many: set "gp", or method = "paper"',
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
