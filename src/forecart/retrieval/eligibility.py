"""Which candidates may be listed at all, decided before the top K so that lists fill up.

Takes the catalogue and the population; gives a mask over candidates. It fails closed: what the rules cannot
read is not eligible.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from forecart import columns
from forecart.sequences.build import CATEGORY_SEPARATOR, Sequences
from forecart.sequences.pair_log import PairLog, run_starts
from forecart.sequences.split import Level
from forecart.sequences.vocabulary import FIRST_INDEX

BoolArray = npt.NDArray[np.bool_]


class EligibilityRules(BaseModel):
    """What may be listed. Closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    available: list[str] = ["in_stock", "in stock", "preorder", "backorder"]
    """Values of the catalogue's availability that may be listed; a product that says nothing may be."""
    denied_categories: list[str] = Field(default_factory=list)
    """Category paths that may not be listed, with everything below them."""
    denied_advertisers: list[str] = Field(default_factory=list)
    """Advertiser ids that may not be listed, with their products."""
    min_advertiser_users: int = Field(default=0, ge=0)
    """An advertiser that fewer distinct users had an event with is not listed, nor are its products."""


def read_eligibility(
    rules: EligibilityRules,
    *,
    sequences: Sequences,
    catalogue: pl.DataFrame,
    advertiser_log: PairLog,
    level: Level,
    as_of_us: int,
) -> BoolArray:
    """Returns the mask over candidates of a level, [N].

    An advertiser is eligible when it breaks no rule of its own and at least one of its products is eligible,
    or it has no product in the catalogue. An item that is not in the catalogue is eligible when its
    advertiser is.
    """
    is_advertiser = _allowed_advertisers(rules, sequences, advertiser_log, as_of_us)
    is_item = is_advertiser[sequences.item_advertiser] & _allowed_products(rules, sequences, catalogue)
    is_item[:FIRST_INDEX] = False
    if level == "item":
        return is_item
    num = len(sequences.advertisers)
    num_items = np.bincount(sequences.item_advertiser[FIRST_INDEX:], minlength=num)
    num_eligible = np.bincount(sequences.item_advertiser[is_item], minlength=num)
    is_advertiser &= (num_items == 0) | (num_eligible > 0)
    return is_advertiser


def _allowed_advertisers(
    rules: EligibilityRules, sequences: Sequences, log: PairLog, as_of_us: int
) -> BoolArray:
    row = np.flatnonzero(log.arrived_us < as_of_us)
    is_pair = run_starts(log.user[row], log.candidate[row])
    num_users = np.bincount(log.candidate[row[is_pair]], minlength=len(sequences.advertisers))
    is_allowed: BoolArray = num_users >= rules.min_advertiser_users
    is_allowed[:FIRST_INDEX] = False
    if rules.denied_advertisers:
        is_allowed[sequences.advertisers.index(rules.denied_advertisers)] = False
    return is_allowed


def _allowed_products(rules: EligibilityRules, sequences: Sequences, catalogue: pl.DataFrame) -> BoolArray:
    category = pl.col(columns.CATEGORY).fill_null("")
    denied = [
        (category == path) | category.str.starts_with(path + CATEGORY_SEPARATOR)
        for path in rules.denied_categories
    ]
    availability = pl.col(columns.AVAILABILITY).str.to_lowercase()
    is_out = availability.is_not_null() & ~availability.is_in([value.lower() for value in rules.available])
    out = catalogue.filter(pl.any_horizontal(is_out, *denied))
    is_allowed = np.ones(len(sequences.items), bool)
    is_allowed[sequences.items.index(out[columns.ITEM_ID])] = False
    return is_allowed
