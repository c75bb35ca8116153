"""The raw corpus of general distillation: read it, tokenize it, and pack it into rows on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from factory.data.formats import DataFile, FileFormat, is_gzipped
from factory.data.hub import library_errors
from factory.data.messages import missing_file, nearest, quote
from factory.data.reading import BadRow, read_rows
from factory.data.shards import Piece, RowLayout, write_shards
from factory.data.source import file_identity, hub_folder, hub_identity
from factory.errors import DataError, RecipeError, TeacherError, first_line, short_list
from factory.models.source import ModelSource
from factory.recipe.training import GeneralSettings

HEADLINE = "the corpus cannot be used"


def make_corpus(
    directory: Path, settings: GeneralSettings, source: ModelSource, base_directory: Path
) -> dict[str, Any]:
    """Write the corpus of a recipe as packed rows below `directory`.

    Args:
        directory: may contain finished shards of an interrupted run.
        source: the base teacher, whose tokenizer is used.

    Returns:
        Facts: documents, tokens (separators between documents included), rows, shards.

    Raises:
        DataError: the corpus has no text or cannot be read.
        TeacherError, RecipeError: see `load_base_model`.
    """
    _, tokenizer = load_base_model(source, settings.max_length)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        # without offsets, on all cores
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    pieces = read_pieces(settings, base_directory)
    layout = row_layout(tokenizer, settings.max_length)
    index = write_shards(directory, pieces, tokenize, layout, settings.max_tokens)
    if not index["tokens"]:
        name = settings.hub if settings.hub is not None else ", ".join(settings.corpus_names)
        raise DataError(HEADLINE, [f"{name} contains no text"])
    return {
        "documents": index["documents"],
        "tokens": index["tokens"],
        "rows": sum(index["shards"]),
        "shards": len(index["shards"]),
    }


def load_base_model(source: ModelSource, max_length: int) -> tuple[Any, Any]:
    """Load the configuration and the fast tokenizer of the base teacher.

    Raises:
        TeacherError: they cannot be loaded, it is not a BERT, or the tokenizer is slow or lacks
            [CLS], [SEP] or [PAD].
        RecipeError: the model reads fewer tokens than `general.max_length`.
    """
    from transformers import AutoConfig, AutoTokenizer

    where = source.location
    try:
        config = AutoConfig.from_pretrained(where, revision=source.revision)
        if config.model_type != "bert":
            raise TeacherError(
                f"{where} is a {config.model_type} model; the base teacher must be a BERT"
            )
        tokenizer = AutoTokenizer.from_pretrained(where, revision=source.revision)
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"the base teacher cannot be loaded from {where}: {first_line(error)}"
        ) from error
    longest = config.max_position_embeddings
    if max_length > longest:
        problem = f"{max_length}, but the base teacher reads at most {longest} tokens"
        raise RecipeError("general.max_length", [problem])
    if not tokenizer.is_fast:
        raise TeacherError(f"{where} has no fast tokenizer (tokenizer.json)")
    if None in (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id):
        raise TeacherError(f"the tokenizer of {where} lacks [CLS], [SEP] or [PAD]")
    return config, tokenizer


def row_layout(tokenizer: Any, max_length: int) -> RowLayout:
    """The format of packed rows for a tokenizer."""
    special = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    return RowLayout(max_length, *special, "uint16" if len(tokenizer) <= 2**16 else "uint32")


def corpus_identity(settings: GeneralSettings, base_directory: Path) -> dict[str, object]:
    """The identity of the corpus: SHA-256 of each file in order, or hub name and revision.

    Raises:
        DataError: a file or folder is missing, or a file has an unknown ending.
    """
    if settings.hub is None:
        return {"files": [file_identity(file) for file in _corpus_files(settings, base_directory)]}
    identity = hub_identity(
        settings.hub, settings.config, settings.revision, base_directory, "general.hub"
    )
    return {**identity, "split": settings.split}


def read_pieces(settings: GeneralSettings, base_directory: Path) -> Iterator[Piece]:
    """Read every piece of the corpus in order, one line or row at a time.

    Raises:
        DataError: a file is missing, broken or not UTF-8, or a line or row has no text.
    """
    if settings.hub is not None:
        return _hub_pieces(settings, hub_folder(settings.hub, base_directory, "general.hub"))
    return _file_pieces(settings, _corpus_files(settings, base_directory))


def _corpus_files(settings: GeneralSettings, base_directory: Path) -> list[DataFile]:
    """The corpus files; format by file name and encoding UTF-8, because detection reads them whole.

    Raises:
        DataError: files are missing or have an unknown ending; all of them in one error.
    """
    files: list[DataFile] = []
    problems: list[str] = []
    for name in settings.corpus_names:
        path = base_directory / name
        ending = Path(name.lower().removesuffix(".gz")).suffix
        if not path.is_file():
            problems.append(missing_file("general.corpus", name, path))
        elif ending not in (".txt", ".jsonl"):
            problems.append(
                f"general.corpus: {name} has none of the endings .txt, .jsonl (.gz may follow); "
                "rename or convert it"
            )
        else:
            gzipped = is_gzipped(path, name)
            kind = FileFormat("lines" if ending == ".txt" else "jsonl", gzipped, "utf-8-sig")
            files.append(DataFile(path, name, kind))
    if problems:
        raise DataError(HEADLINE, problems)
    return files


def _file_pieces(settings: GeneralSettings, files: Iterable[DataFile]) -> Iterator[Piece]:
    for file in files:
        starts = True
        for row in read_rows(file):
            place = f"{file.name}, line {row.number}"
            if isinstance(row, BadRow):
                raise DataError(HEADLINE, [f"{place}: {row.reason}"])
            if file.format.kind == "jsonl":
                yield Piece(_text_of(row.values, place, settings.text), starts=True)
            elif row.values["text"].strip():
                yield Piece(row.values["text"], starts or settings.documents == "lines")
                starts = False
            else:
                starts = True


def _hub_pieces(settings: GeneralSettings, folder: Path | None) -> Iterator[Piece]:
    source = f"{settings.hub}, split {settings.split}"
    with library_errors(source):
        import datasets

        rows = datasets.load_dataset(
            str(settings.hub if folder is None else folder.resolve()),
            settings.config,
            split=settings.split,
            revision=settings.revision if folder is None else None,
            streaming=True,
        )
        for number, row in enumerate(rows, start=1):
            text = _text_of(row, f"{source}, row {number}", settings.text)
            yield Piece(text, starts=True)


def _text_of(row: Mapping[str, Any], place: str, column: str) -> str:
    if column not in row:
        problem = (
            f"{place}: no key {column!r}{nearest(column, row)}; the keys are "
            f"{short_list(list(row))}; set general.text to one of them"
        )
        raise DataError(HEADLINE, [problem])
    value = row[column]
    if not isinstance(value, str):
        raise DataError(HEADLINE, [f"{place}: {column!r} holds {quote(value)}, not text"])
    return value
