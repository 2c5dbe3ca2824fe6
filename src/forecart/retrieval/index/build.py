"""Builds and opens an index of any kind; faiss is only loaded for the kinds that need it."""

from pathlib import Path

from forecart.errors import ConfigError
from forecart.retrieval.index import files
from forecart.retrieval.index.contract import Index, IndexSettings, IndexSource
from forecart.retrieval.index.exact import ExactIndex, build_exact


def build_index(source: IndexSource, folder: Path, settings: IndexSettings) -> None:
    """Writes an index into a folder; an index that was there is gone.

    Raises:
        ArtifactError: there is something in the folder that is not of an index.
        ConfigError: faiss is not installed, and this kind needs it.
    """
    if settings.kind == "exact":
        build_exact(source, folder, settings)
        return
    _need_faiss(settings.kind)
    if settings.kind == "graph":
        from forecart.retrieval.index.graph import build_graph

        build_graph(source, folder, settings)
    else:
        from forecart.retrieval.index.inverted_file_build import build_inverted_file

        build_inverted_file(source, folder, settings)


def open_index(folder: Path, *, embedding_space_id: str | None = None) -> Index:
    """Verifies and maps an index.

    Args:
        folder: of the index.
        embedding_space_id: of the tower that is to search it; None takes any.

    Raises:
        ArtifactError: a file is missing, damaged, or one too many.
        SkewError: the vectors are of another embedding space.
        ConfigError: faiss is not installed, and this kind needs it.
    """
    facts = files.read_facts(folder, embedding_space_id=embedding_space_id)
    if facts["kind"] == "exact":
        return ExactIndex(files.read_vectors(folder, facts))
    _need_faiss(facts["kind"])
    if facts["kind"] == "graph":
        from forecart.retrieval.index.graph import open_graph

        return open_graph(folder, facts)
    from forecart.retrieval.index.inverted_file import open_inverted_file

    return open_inverted_file(folder, facts)


def _need_faiss(kind: str) -> None:
    try:
        import faiss  # noqa: F401
    except ImportError:
        raise ConfigError(f"an index of kind {kind} needs faiss: pip install 'forecart[index]'") from None
