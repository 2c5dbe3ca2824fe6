"""Rows that are sound but not wanted, counted by reason and kept nowhere.

Consent comes first, before anything about the row is judged, and fails closed: a row that denies it, or
whose consent cannot be read, is dropped without a trace but a count. A line too broken to hold a readable
consent goes to quarantine with its reason and offset, but without its text.
"""

from typing import Final

import polars as pl

from forecart import columns as c
from forecart.events.schema import DEFECT, FILTERED, EventsConfig, RowRules
from forecart.events.validation import is_blank, parse_text

_GRANTED: Final = ("true", "t", "yes", "y", "1", "granted")
_DENIED: Final = ("false", "f", "no", "n", "0", "denied")


def filter_events(
    frame: pl.DataFrame, *, config: EventsConfig, rules: RowRules
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Returns the rows to judge and the number dropped by reason.

    Reasons: consent_denied, consent_unreadable, consent_missing, event_type_ignored, and the adapter's own.
    """
    reason = frame.select(pl.coalesce(_find_reasons(frame, config, rules)).alias(c.REASON)).to_series()
    if reason.is_null().all():
        return frame, {}
    counts = reason.drop_nulls().value_counts(sort=False).sort(c.REASON)
    return frame.filter(reason.is_null()), dict(counts.iter_rows())


def hide_unread_consent(broken: pl.DataFrame, *, config: EventsConfig) -> pl.DataFrame:
    """Returns broken lines without their text where the damage may hide that consent is denied."""
    if c.RAW not in broken.columns or (c.CONSENT not in broken.columns and not config.require_consent):
        return broken
    is_granted = _consent_text(broken).is_in(_GRANTED)
    return broken.with_columns(pl.when(is_granted).then(pl.col(c.RAW)).alias(c.RAW))


def _find_reasons(frame: pl.DataFrame, config: EventsConfig, rules: RowRules) -> list[pl.Expr]:
    is_whole = pl.col(DEFECT).is_null() if DEFECT in frame.columns else pl.lit(True)
    reasons: list[pl.Expr] = [*_consent_reasons(frame, config, is_whole)]
    if FILTERED in frame.columns:
        reasons.append(pl.when(is_whole).then(pl.col(FILTERED)))
    if rules.ignored_event_types and c.EVENT_TYPE in frame.columns:
        event_type = parse_text(c.EVENT_TYPE, frame.schema[c.EVENT_TYPE])
        is_ignored = is_whole & event_type.is_in(rules.ignored_event_types)
        reasons.append(pl.when(is_ignored).then(pl.lit("event_type_ignored")))
    return reasons or [pl.repeat(None, frame.height, dtype=pl.String)]


def _consent_reasons(frame: pl.DataFrame, config: EventsConfig, is_whole: pl.Expr) -> list[pl.Expr]:
    if c.CONSENT not in frame.columns:
        missing = pl.lit("consent_missing") if config.require_consent else pl.lit(None, dtype=pl.String)
        return [pl.when(is_whole).then(missing)]
    text = _consent_text(frame)
    is_known = text.is_in([*_GRANTED, *_DENIED])
    is_missing = is_blank(c.CONSENT, frame.schema[c.CONSENT])
    reasons: list[pl.Expr] = [
        pl.when(text.is_in(_DENIED)).then(pl.lit("consent_denied")),
        pl.when(is_whole & ~is_missing & ~is_known.fill_null(False)).then(pl.lit("consent_unreadable")),
    ]
    if config.require_consent:
        reasons.append(pl.when(is_whole & is_missing).then(pl.lit("consent_missing")))
    return reasons


def _consent_text(frame: pl.DataFrame) -> pl.Expr:
    if c.CONSENT not in frame.columns:
        return pl.lit(None, dtype=pl.String)
    if frame.schema[c.CONSENT] == pl.Boolean:
        return pl.col(c.CONSENT).cast(pl.String)
    return parse_text(c.CONSENT, frame.schema[c.CONSENT]).str.to_lowercase()
