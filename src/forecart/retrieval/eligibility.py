"""Which candidates may be listed at all, decided before the top K so that lists fill up.

Takes the catalogue and the population; gives a mask over candidates. It fails closed: what the rules cannot
read is not eligible, so an item without a category is not while a category is denied.
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
    """Category paths that may not be listed, with all below them; nor may an item without a category."""
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
    or it has no product at all. An item whose advertiser is unknown is not eligible. An item that is not in
    the catalogue is eligible when its advertiser is and no category is denied.

    Args:
        rules: what may be listed.
        sequences: vocabularies, and the advertiser of each item.
        catalogue: of the events stage; what is said of an item there counts.
        advertiser_log: events by user and advertiser.
        level: which candidates.
        as_of_us: only events that arrived before count towards `min_advertiser_users`.
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
    num_users = np.zeros(len(sequences.advertisers), np.int64)
    for users in log.blocks() if rules.min_advertiser_users else ():
        user, event = log.known_before(as_of_us, users)
        candidate = log.candidate[event]
        num_users += np.bincount(candidate[run_starts(user, candidate)], minlength=len(num_users))
    is_allowed: BoolArray = num_users >= rules.min_advertiser_users
    is_allowed[:FIRST_INDEX] = False
    if rules.denied_advertisers:
        is_allowed[sequences.advertisers.index(rules.denied_advertisers)] = False
    return is_allowed


def _allowed_products(rules: EligibilityRules, sequences: Sequences, catalogue: pl.DataFrame) -> BoolArray:
    availability = pl.col(columns.AVAILABILITY).str.strip_chars().str.to_lowercase()
    is_available = availability.is_in([value.lower() for value in rules.available])
    is_kept = (availability.fill_null("") == "") | is_available
    if rules.denied_categories:
        # A separator at the end, so that "Food" is above "Food > Fruit" and not above "Foodstuff".
        path = pl.col(columns.CATEGORY).str.to_lowercase() + CATEGORY_SEPARATOR
        prefixes = [denied.lower() + CATEGORY_SEPARATOR for denied in rules.denied_categories]
        is_denied = pl.any_horizontal(path.str.starts_with(prefix) for prefix in prefixes)
        is_kept &= ~is_denied & (pl.col(columns.CATEGORY) != "")
    # What the catalogue does not list is of no known category.
    is_allowed = np.full(len(sequences.items), not rules.denied_categories)
    is_allowed[sequences.items.index(catalogue[columns.ITEM_ID])] = catalogue.select(
        is_kept.fill_null(False)
    ).to_series()
    return is_allowed
