"""The settings of a training run, free of torch so that a configuration can be read without it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Objective = Literal["next", "all_action", "dense_all_action"]


class LossSettings(BaseModel):
    """The loss and where its negatives come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["full", "sampled"] = "full"
    """`full` scores every candidate; `sampled` corrects a pool of negatives by its log q."""
    negatives: Literal["in_batch", "sampled", "mixed"] = "mixed"
    """The streams of negatives of a sampled loss."""
    num_negatives: PositiveInt = 4096
    """Draws of the sampled stream for a batch."""
    sampled_power: float = Field(default=0.0, ge=0, le=1)
    """How often the sampled stream draws a candidate: as (1 + its positives)^power, so that 0 is uniform."""
    q_estimator: Literal["exact", "sketch"] = "exact"
    """How positives are counted for the in-batch q: exactly, or in a count-min sketch."""
    alpha_pos: float = Field(default=0.0, ge=0, le=1)
    """Strength of the positives' logQ correction; 0 is right for pools that leave a row's positives out."""
    alpha_neg: float = Field(default=1.0, ge=0, le=1)
    """Strength of the negatives' logQ correction."""
    form: Literal["standard", "corrected"] = "standard"
    """`corrected` is the RecSys 2025 form, in which the positive is no sample."""
    mask_own_future: bool = False
    """Whether what the user converted with after the window is left out of the negatives."""
    row_weighting: Literal["row", "positive"] = "row"
    """Whether every (user, cut) counts the same, as in Recall, or every positive."""


class TrainingSettings(BaseModel):
    """How a model is trained. Closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    objective: Objective = "all_action"
    """`next`: one conversion; `all_action`: all of the window; `dense_all_action`: those of many cuts."""
    loss: LossSettings = LossSettings()
    num_epochs: PositiveInt = 4
    batch_rows: PositiveInt = 256
    """(user, cut) rows of a step."""
    cut_stride_days: PositiveInt = 7
    """Days between training cuts."""
    cuts_per_history: PositiveInt = 4
    """For `dense_all_action`: how many cuts share one pass of the encoder."""
    learning_rate: PositiveFloat = 2e-3
    own_rate_factor: PositiveFloat = 1.0
    """Times the learning rate, for the own-history term; worth raising where there are hundreds of steps."""
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    average_decay: float = Field(default=0.98, ge=0, lt=1)
    """Decay per step of the averaged weights, which are the ones that are kept."""
    max_gradient_norm: PositiveFloat = 5.0
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without a better validation; 0 never stops early."""
    checkpoint_every_steps: PositiveInt = 100
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the hardware multiplies it fast, else float32."""
