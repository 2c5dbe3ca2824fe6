"""What is known of each candidate beside its identity: content, metadata, and who converts with what else.

Takes the catalogue and a `PairLog`; gives one row of numbers per candidate. Content comes from the
catalogue's own vectors, or else from its titles and categories (TF-IDF and a truncated SVD, fitted on the
catalogue, which is static by declaration). The collaborative vectors come from events that arrived before
`as_of`; a candidate without such events has zeros there and is told apart by its content alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from forecart import artifacts, columns
from forecart.errors import ConfigError
from forecart.sequences.build import Sequences
from forecart.sequences.pair_log import PairLog, run_starts
from forecart.sequences.split import Level
from forecart.sequences.vocabulary import FIRST_INDEX

FloatArray = npt.NDArray[np.float32]
ContentSource = Literal["catalogue", "text", "none"]

_MAX_TERMS: Final = 50_000
_TERM: Final = r"[^\s>]+"
_MAX_DEVIATIONS: Final = 3.0
_ARRAYS: Final = ("content", "metadata", "collaborative", "advertiser")


@dataclass(frozen=True, eq=False)
class CandidateFeatures:
    """Static features of N candidates; rows 0 and 1 are zeros, but for the advertiser.

    Attributes:
        content: [N, C] float32, of length about one; zeros where nothing is known.
        metadata: [N, G + 1] float32, share of each top-level category among a candidate's products, then
            their mean log price, standardised; 0 for a product without a price.
        collaborative: [N, K] float32, zeros for a candidate without an event before `as_of`.
        advertiser: [N] int32, of each product; zeros where the candidates are advertisers.
    """

    content: FloatArray
    metadata: FloatArray
    collaborative: FloatArray
    advertiser: npt.NDArray[np.int32]

    @property
    def num_candidates(self) -> int:
        """N."""
        return len(self.content)

    def grow(self, advertiser: npt.NDArray[np.int32]) -> "CandidateFeatures":
        """Returns the features with a row for each of `advertiser`, [N]: zeros where they had none."""
        num_new = len(advertiser) - self.num_candidates
        rest = {name: getattr(self, name) for name in ("content", "metadata", "collaborative")}
        grown = {name: np.pad(values, ((0, num_new), (0, 0))) for name, values in rest.items()}
        owner = np.concatenate([self.advertiser, advertiser[self.num_candidates :]])
        return CandidateFeatures(**grown, advertiser=owner)

    def join(self, rows: slice, *, with_content: bool) -> FloatArray:
        """Returns what a tower reads of some candidates: co-conversion columns, then content and metadata.

        Without content a column of zeros stands for it.
        """
        blocks = [self.collaborative[rows]]
        if with_content:
            blocks += [self.content[rows], self.metadata[rows]]
        else:
            blocks.append(np.zeros((len(blocks[0]), 1), np.float32))
        return np.concatenate(blocks, axis=1)

    def save(self, folder: Path) -> None:
        """Writes one `.npy` per array."""
        for name in _ARRAYS:
            artifacts.write_npy(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Maps saved features into memory."""
        return cls(**{name: artifacts.read_npy(folder / f"{name}.npy") for name in _ARRAYS})


def choose_content_source(catalogue: pl.DataFrame, wanted: str) -> ContentSource:
    """Returns where content comes from.

    `auto` takes the catalogue's vectors, or else its titles and categories, or else nothing.

    Raises:
        ConfigError: the catalogue does not have what is wanted by name.
    """
    is_there = {
        "catalogue": catalogue[columns.EMBEDDING].null_count() < catalogue.height,
        "text": bool((_texts(catalogue).str.find(_TERM).is_not_null()).any()),
        "none": True,
    }
    if wanted == "auto":
        wanted = next(source for source, is_one in is_there.items() if is_one)
    if not is_there.get(wanted, False):
        raise ConfigError(
            f"content is auto or one of {[name for name in is_there if is_there[name]]} with this catalogue, "
            f"{wanted!r} arrived: the catalogue has nothing of the kind"
        )
    return cast(ContentSource, wanted)


def _texts(catalogue: pl.DataFrame) -> pl.Series:
    """Returns category and title of each item in lower case."""
    both = pl.col(columns.CATEGORY, columns.TITLE).fill_null("")
    return catalogue.select(pl.concat_str(both, separator=" ").str.to_lowercase()).to_series()


def read_item_content(
    catalogue: pl.DataFrame, sequences: Sequences, *, wanted: str = "auto", width: int = 64, seed: int = 0
) -> FloatArray:
    """Returns the content vector of each item, [N, C]; zeros where the catalogue says nothing.

    Args:
        catalogue: the catalogue of the events stage.
        sequences: whose item vocabulary numbers the rows.
        wanted: `auto`, `catalogue`, `text` or `none`.
        width: C for texts, less where there are fewer terms or items; the catalogue's own vectors keep
            their width; 1 for none.
        seed: of the randomised SVD.
    """
    source = choose_content_source(catalogue, wanted)
    if source == "none":
        return np.zeros((len(sequences.items), 1), np.float32)
    if source == "catalogue":
        known = catalogue.filter(pl.col(columns.EMBEDDING).is_not_null())
        vectors = np.stack(known[columns.EMBEDDING].to_list()).astype(np.float32)
    else:
        known = catalogue
        vectors = _embed_texts(catalogue, width, seed)
    content = np.zeros((len(sequences.items), vectors.shape[1]), np.float32)
    content[sequences.items.index(known[columns.ITEM_ID])] = _unit(vectors)
    content[:FIRST_INDEX] = 0
    return content


def _embed_texts(catalogue: pl.DataFrame, width: int, seed: int) -> FloatArray:
    # Imported here: scikit-learn is part of the training extra only.
    from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped, unused-ignore]
    from sklearn.feature_extraction.text import (  # type: ignore[import-untyped, unused-ignore]
        TfidfVectorizer,
    )

    terms = TfidfVectorizer(sublinear_tf=True, max_features=_MAX_TERMS, token_pattern=_TERM)
    tfidf = terms.fit_transform(_texts(catalogue).to_list())
    if tfidf.shape[1] == 1:  # TruncatedSVD refuses a single column
        vectors = tfidf.toarray()
    else:
        svd = TruncatedSVD(min(width, *tfidf.shape), random_state=seed, n_iter=4)
        vectors = svd.fit_transform(tfidf)
    return np.asarray(vectors, np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def read_candidate_features(
    sequences: Sequences, item_content: FloatArray, *, level: Level, collaborative: FloatArray
) -> CandidateFeatures:
    """Returns the static features of the candidates of a level; an advertiser is the mean of its products.

    Args:
        sequences: vocabularies, and the advertiser, categories and price of each item.
        item_content: [number of items, C].
        level: `item` or `advertiser`.
        collaborative: [N, K] (`read_collaborative`).
    """
    categories, price = _one_hot(sequences.item_category[:, 0]), read_prices(sequences)
    metadata = np.concatenate([categories, price[:, None]], axis=1)
    advertiser = np.asarray(sequences.item_advertiser)
    if level == "item":
        return CandidateFeatures(np.asarray(item_content), metadata, collaborative, advertiser)
    num = len(sequences.advertisers)
    content, metadata = (_mean_by(advertiser, values, num) for values in (item_content, metadata))
    return CandidateFeatures(_unit(content), metadata, collaborative, np.zeros(num, np.int32))


def read_prices(sequences: Sequences) -> FloatArray:
    """Returns the log of the catalogue's price of each item, [N], standardised over the items that have one.

    0 where it is unknown; at most three standard deviations, so that a typing error in a feed stays small.
    What was paid in events is not read: whether a product has a price must not tell that it will be sold.
    """
    is_known = sequences.item_price > 0
    prices = np.zeros(len(sequences.items), np.float32)
    if is_known.any():
        log_price = np.log(sequences.item_price[is_known])
        centred = (log_price - log_price.mean()) / max(float(log_price.std()), 1e-6)
        prices[is_known] = np.clip(centred, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
    return prices


def _one_hot(category: npt.NDArray[np.int32]) -> FloatArray:
    """Returns a column for each category that occurs, at least one column; zeros where it is unknown."""
    row = np.flatnonzero(category >= FIRST_INDEX)
    distinct, column = np.unique(category[row], return_inverse=True)
    table = np.zeros((len(category), max(1, len(distinct))), np.float32)
    table[row, column] = 1
    return table


def _mean_by(owner: npt.NDArray[np.int32], values: FloatArray, num: int) -> FloatArray:
    """Returns the mean row of `values` of each owner, [num, C]; zeros for owners 0 and 1 and for none."""
    order = np.argsort(owner, kind="stable")
    first = np.flatnonzero(run_starts(owner[order]))
    mean = np.zeros((num, values.shape[1]), np.float32)
    count = np.diff(first, append=len(owner))[:, None]
    mean[owner[order[first]]] = np.add.reduceat(values[order], first, axis=0, dtype=np.float64) / count
    mean[:FIRST_INDEX] = 0
    return mean


def read_collaborative(log: PairLog, *, as_of_us: int, width: int = 64, seed: int = 0) -> FloatArray:
    """Returns the right singular vectors of users by candidates, log(1 + events), before `as_of`: [N, K].

    Scaled by the square root of the singular values and to unit variance over the candidates with an event.
    The width shrinks to what the matrix has; without any event it is one column of zeros.

    Source:
        Cremonesi et al. 2010 (PureSVD), here as the "learned representation" that the candidate tower reads.
    """
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped, unused-ignore]
    from scipy.sparse.linalg import svds  # type: ignore[import-untyped, unused-ignore]

    user, event = log.known_before(as_of_us)
    candidate = log.candidate[event]
    first = np.flatnonzero(run_starts(user, candidate))
    count, candidate = np.diff(first, append=len(user)), candidate[first]
    users, compact = np.unique(user[first], return_inverse=True)
    seen = np.unique(candidate)
    width = min(width, len(users) - 1, len(seen) - 1)
    if width < 1:
        return np.zeros((log.num_candidates, 1), np.float32)
    matrix = csr_matrix((np.log1p(count), (compact, candidate)), shape=(len(users), log.num_candidates))
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    _, singular, right = svds(matrix, k=width, v0=start)
    found = _fix_signs(right.T[seen, ::-1]) * np.sqrt(singular[::-1])
    vectors = np.zeros((log.num_candidates, width), np.float32)
    vectors[seen] = found / max(float(found.std()), 1e-12)
    return vectors


def _fix_signs(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Makes the largest entry of each column positive: the sign of a singular vector is arbitrary."""
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
