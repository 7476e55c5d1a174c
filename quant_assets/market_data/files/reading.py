"""Finding and reading bar files: CSV (also gzipped) and Parquet into rows and faults, many small files at once."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import takewhile
from pathlib import Path

import polars as pl
import polars.selectors as cs

from quant_assets.errors import ConfigurationError
from quant_assets.market_data.files import parsing

ENDINGS = (".csv", ".csv.gz", ".parquet", ".pq")
BATCH_BYTES = 64_000_000
"""Texts are read together up to this size: few large steps for many small files, and a bound on memory."""

_Part = tuple[pl.DataFrame, pl.DataFrame]
_Text = tuple[int, int, bytes, int]  # position of the file, line of its header, what stands in it, how many lines
_REMEDY = "QUANT_FILES_PATH takes a file, a folder or a glob of .csv, .csv.gz, .parquet or .pq files"


@dataclass
class BarFile:
    """One file and what came of reading it: `spelled` says how it names each meaning, `problem` why it holds nothing to read."""

    name: str
    path: Path
    sha256: str | None = None
    rows: int = 0
    spelled: dict[str, str] = field(default_factory=dict)
    problem: ConfigurationError | None = None

    @property
    def stem(self) -> str:
        """The file's name without folder and ending: the symbol of a file that has no column for it."""
        name = self.path.name
        return name[: -len(next(ending for ending in ENDINGS if name.lower().endswith(ending)))]

    def read(self) -> bytes:
        """What the file holds, unpacked; the hash of the file as it lies there is noted."""
        data = self.path.read_bytes()
        self.sha256 = sha256(data).hexdigest()
        return gzip.decompress(data) if self.path.name.lower().endswith(".gz") else data

    def state(self) -> tuple[int, int]:
        """Size and time of the last change: when these are as before, so is the content."""
        try:
            stat = self.path.stat()
        except OSError:
            return 0, 0  # a broken link: reading it says so
        return stat.st_size, stat.st_mtime_ns


def find_files(path: str) -> list[tuple[str, Path]]:
    """Find the files that a path means: (name relative to the folder, path), sorted by name.

    Hidden files and folders and other endings are passed over. Raises `ConfigurationError` when nothing is found.
    """
    if not path:
        raise ConfigurationError(f"QUANT_FILES_PATH is not set; {_REMEDY}.")
    root = Path(path).expanduser()
    if root.is_file():
        found, base = [root], root.parent
        if not root.name.lower().endswith(ENDINGS):
            raise ConfigurationError(f"QUANT_FILES_PATH={path}: files that end in {root.suffix!r} are not read; {_REMEDY}.")
    elif root.is_dir():
        found, base = list(_walk(root)), root
    elif glob.has_magic(path):
        base = Path(*takewhile(lambda part: not glob.has_magic(part), root.parts))
        matches = map(Path, glob.iglob(str(root), recursive=True))
        found = [file for match in matches for file in (_walk(match) if match.is_dir() else (match,))]
    else:
        raise ConfigurationError(f"QUANT_FILES_PATH={path} does not exist (looked for {root.absolute()}); {_REMEDY}.")
    named = sorted({file.relative_to(base).as_posix(): file for file in found if file.name.lower().endswith(ENDINGS)}.items())
    if not named:
        raise ConfigurationError(f"QUANT_FILES_PATH={path} holds no file to read; {_REMEDY}.")
    return named


def _walk(root: Path) -> Iterable[Path]:
    def refused(error: OSError) -> None:
        raise ConfigurationError(
            f"QUANT_FILES_PATH: {error.filename} cannot be listed ({error.strerror}); grant access to it or leave it out."
        )

    for folder, folders, files in os.walk(root, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def read_files(files: list[BarFile]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read files into rows and faults (`parsing.ROWS`, `parsing.FAULTS`), noting in each file its hash, rows or problem."""
    parts: list[_Part] = [(pl.DataFrame(schema=parsing.ROWS), pl.DataFrame(schema=parsing.FAULTS))]
    texts: dict[tuple[str, tuple[str, ...]], list[_Text]] = defaultdict(list)
    tables: dict[tuple[tuple[str, str], ...], list[pl.DataFrame]] = defaultdict(list)
    size = 0
    for at, file in enumerate(files):
        try:
            data = file.read()
            if file.path.name.lower().endswith((".parquet", ".pq")):
                table = _read_parquet(at, file, data)
                tables[tuple(file.spelled.items())].append(table)
                size += int(table.estimated_size())
            else:
                text = _text(data, file)
                line, separator, header = _header(text, file)
                texts[separator, header].append((at, line, text, text.count(b"\n") + (not text.endswith(b"\n"))))
                size += len(text)
        except ConfigurationError as problem:
            file.problem = problem
        except (OSError, EOFError, zlib.error, csv.Error, pl.exceptions.PolarsError) as error:
            why = " ".join(str(error).split())[:200] or type(error).__name__
            file.problem = ConfigurationError(f"{file.name} cannot be read: {why}. Mend, replace or remove it.")
        if size > BATCH_BYTES or at == len(files) - 1:
            parts += [_read_texts(files, some, *form) for form, some in texts.items()]
            parts += [parsing.read_cells(_named(pl.concat(some), files), dict(form)) for form, some in tables.items()]
            texts.clear()
            tables.clear()
            size = 0
    rows, faults = (pl.concat(frames) for frames in zip(*parts, strict=True))
    for at, count in rows.group_by("file").len().iter_rows():
        files[at].rows = count
    for file in files:
        if file.problem is None and not file.rows:
            file.problem = ConfigurationError(f"{file.name} has a header but no rows; replace or remove it.")
    return rows, faults


def _text(data: bytes, file: BarFile) -> bytes:
    """The bytes of a text file, known to be UTF-8 and without a byte order mark; lines end in \\n or \\r\\n."""
    if b"\0" in data:
        raise ConfigurationError(f"{file.name} is not a text file (it holds zero bytes); write it as CSV in UTF-8, or remove it.")
    try:
        if not data.isascii():
            data = data.removeprefix(codecs.BOM_UTF8)
            data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{file.name} is not UTF-8 (byte 0x{data[error.start]:02x} on line {line}); write it as CSV in UTF-8, or remove it."
        ) from None
    if not data.strip():
        raise ConfigurationError(f"{file.name} is empty; replace or remove it.")
    return data if b"\r" not in data or data.count(b"\r") == data.count(b"\r\n") else _newlines(data)


def _newlines(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _header(data: bytes, file: BarFile) -> tuple[int, str, tuple[str, ...]]:
    """Find a text's first line that is not blank: its number, the separator and the names in it."""
    start, number = 0, 1
    while not (line := data[start : end if (end := data.find(b"\n", start)) >= 0 else len(data)]).strip():
        start, number = end + 1, number + 1
    separator, names = parsing.split_header(line.decode())
    file.spelled = {meaning: names[at] for meaning, at in parsing.columns_of(names, file.name).items()}
    return number, separator, tuple(names)


def _read_texts(files: list[BarFile], texts: list[_Text], separator: str, header: tuple[str, ...]) -> _Part:
    """Read the texts of files with one and the same header together."""
    columns = parsing.columns_of(header, "")
    spelled = {meaning: header[at] for meaning, at in columns.items()}
    plain = [text for text in texts if _is_plain(text, separator, len(header))]
    read = _read_plain(plain, separator, columns) if plain else None
    if read is None:
        return _read_lines(files, texts, separator, header)
    rows, faults = parsing.read_cells(_named(read, files), spelled)
    if len(plain) == len(texts):
        return rows, faults
    done = {at for at, *_ in plain}
    other_rows, other_faults = _read_lines(files, [text for text in texts if text[0] not in done], separator, header)
    return pl.concat([rows, other_rows]), pl.concat([faults, other_faults])


def _is_plain(text: _Text, separator: str, width: int) -> bool:
    """Whether a text has no quotes and as many separators as its lines need: then none of them is short unless another is long."""
    _, header, data, lines = text
    return header == 1 and lines > 1 and b'"' not in data and data.count(separator.encode()) == lines * (width - 1)


def _read_plain(texts: list[_Text], separator: str, columns: Mapping[str, int]) -> pl.DataFrame | None:
    """Read plain texts with Polars' own reader, in a fraction of the time; None where a line has too many fields after all."""
    try:
        cells = pl.read_csv(
            [data for _, _, data, _ in texts],
            separator=separator,
            quote_char=None,
            infer_schema=False,
            empty_string_is_null=False,
            with_column_names=lambda names: [f"field_{at}" for at in range(len(names))],
            extra_columns="raise",
        )
    except pl.exceptions.PolarsError:
        return None
    last = cells.columns[-1]
    places = (
        pl.DataFrame(
            {"file": [at for at, *_ in texts], "line": [lines + 1 for *_, lines in texts]},
            schema={"file": pl.UInt32, "line": pl.Int64},
        )
        .select("file", line=pl.int_ranges(2, "line"))
        .explode("line")
    )
    if places.height != cells.height:
        return None
    if any(b"\r" in data for _, _, data, _ in texts):
        cells = cells.with_columns(pl.col(last).str.strip_suffix("\r"))
    return places.hstack([cells.to_series(at).alias(meaning) for meaning, at in columns.items()])


def _read_lines(files: list[BarFile], texts: list[_Text], separator: str, header: tuple[str, ...]) -> _Part:
    """Read texts line by line: quotes, blank lines and ragged ones are told apart."""
    columns = parsing.columns_of(header, "")
    spelled = {meaning: header[at] for meaning, at in columns.items()}
    decoded = [(at, number, _newlines(data).decode()) for at, number, data, _ in texts]
    lines = (
        pl.DataFrame(decoded, schema={"file": pl.UInt32, "header": pl.Int64, "text": pl.String}, orient="row")
        .with_columns(pl.col("text").str.split("\n"))
        .with_columns(line=pl.int_ranges(1, pl.col("text").list.len() + 1))
        .explode("text", "line")
        .filter((pl.col("line") > pl.col("header")) & ~parsing.is_blank(pl.col("text")))
    )
    cells = parsing.split_lines(lines, separator, len(header))
    whole = cells.filter(pl.col("fields") == len(header))
    ragged = cells.filter(pl.col("fields") != len(header))
    meant = {meaning: pl.col(f"field_{at}") for meaning, at in columns.items()}
    rows, faults = parsing.read_cells(_named(whole.select("file", "line", **meant), files), spelled)
    broken = _named(ragged.select("file", "line", **dict.fromkeys(meant, pl.lit(None, pl.String))), files)
    reason = (
        pl.when(pl.col("fields") == 0)
        .then(pl.lit("a quote is not closed on this line; line breaks inside quotes are not read"))
        .otherwise(pl.format(f"{{}} fields where the header has {len(header)}", "fields"))
    )
    uneven = parsing.fault(ragged, "", pl.lit(None), pl.col("text").str.slice(0, 200), reason)
    return pl.concat([rows, parsing.read_cells(broken, spelled)[0]]), pl.concat([faults, uneven])


def _named(cells: pl.DataFrame, files: list[BarFile]) -> pl.DataFrame:
    """Give rows without a symbol column the symbol that their file is named by."""
    if "symbol" in cells.columns:
        return cells
    stems = pl.DataFrame({"file": range(len(files)), "symbol": [file.stem for file in files]}, schema_overrides={"file": pl.UInt32})
    return cells.join(stems, on="file", how="left", maintain_order="left")


def _read_parquet(at: int, file: BarFile, data: bytes) -> pl.DataFrame:
    """Read one Parquet file into text cells, so that it passes the same door as CSV; a number's text is read back exactly."""
    table = pl.read_parquet(io.BytesIO(data))
    columns = parsing.columns_of(table.columns, file.name)
    file.spelled = {meaning: table.columns[column] for meaning, column in columns.items()}
    # A month's name, since a typed date must not be read by a form that is stated for texts; a zone's own date is written.
    return table.with_columns((cs.date() | cs.datetime()).dt.strftime("%d-%b-%Y")).select(
        pl.lit(at, pl.UInt32).alias("file"),
        pl.int_range(2, pl.len() + 2).alias("line"),
        **{meaning: pl.col(name).cast(pl.String) for meaning, name in file.spelled.items()},
    )
