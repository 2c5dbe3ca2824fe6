"""The settings of a two-tower model, free of torch so that a configuration can be read without it."""

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

MIN_TEMPERATURE: Final = 0.01
MAX_TEMPERATURE: Final = 10.0


class ModelSettings(BaseModel):
    """The architecture of one two-tower model. Closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    width: PositiveInt = 64
    """D, of the encoder and of the vectors that are searched."""
    num_layers: int = Field(default=2, ge=0)
    """Transformer blocks; 0 is the system without the sequence encoder (`no_encoder`)."""
    num_heads: PositiveInt = 2
    history_length: PositiveInt = 100
    """L, the most recent events that the encoder reads."""
    position_bias: Literal["none", "alibi"] = "none"
    """Whether attention fades with the places between two events, on all heads but the first of several."""
    pooling: Literal["cls", "mean", "last"] = "cls"
    """How a history becomes one state; `dense_all_action` always takes the last event before the cut."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """On both branches of a block and within its MLP."""
    event_dropout: float = Field(default=0.0, ge=0, lt=1)
    """On events before the first block."""
    use_summary: bool = True
    """Whether the user tower also reads a weighted sum over the whole history's candidates."""
    content: Literal["auto", "catalogue", "text", "none"] = "auto"
    """Where content vectors come from; `none` is the ablation without content."""
    content_width: PositiveInt = 64
    """Width of content vectors made from texts."""
    collaborative_width: int = Field(default=64, ge=0)
    """Width of the co-conversion vectors that the candidate tower reads; 0 for none."""
    feature_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of candidates whose co-conversion vector is hidden in training, so that content learns too."""
    id_embedding: Literal["none", "hashed", "table"] = "hashed"
    """An embedding of the candidate's own id beside its features: `hashed`, or in a `table`, a row of its own
    that the events which name it share and that starts from what stands near what in sequences."""
    id_scale: float = Field(default=0.15, gt=0, le=1)
    """Length that hashed embeddings start with: small beside features that generalise, 1 without them."""
    advertiser_embedding: Literal["none", "hashed"] = "hashed"
    """For products: a hashed embedding of their advertiser beside their features."""
    id_rows: PositiveInt = 1 << 14
    """Rows of the hashed tables."""
    use_own_history: bool = True
    """Whether the own-history term is part of the score."""
    own_width: PositiveInt = 32
    """Hidden width of the own-history term."""
    own_tower_share: float = Field(default=1.0, ge=0, le=1)
    """How much of the tower score counts for candidates of the user's own history."""
    prior: Literal["shares", "learned"] = "shares"
    """What is added for everyone: weighted shares of users, as fresh as the cut, or, for sequences without
    usable times, a learned bias per candidate."""
    temperature: float = Field(default=0.3, ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)
    """Where the learned temperature starts."""

    @property
    def needs_own_history(self) -> bool:
        """Whether anything in the model reads the own statistics."""
        return self.use_own_history or self.use_summary

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.num_layers and self.width % self.num_heads:
            raise ValueError(
                f"width is a multiple of num_heads, {self.width} and {self.num_heads} arrived: change one"
            )
        return self
