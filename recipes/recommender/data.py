"""Event logs: MovieLens-100k for the demo, or any Parquet or CSV of (user, item, timestamp, ...).

MovieLens-100k belongs to GroupLens. Its terms allow research use and forbid redistribution, so
it is never committed, packaged or copied into a model: it is fetched on the user's machine from
the wheel of RecBole 1.2.1, which carries it for its own quick start, checked against a digest,
and kept in the user's cache. Harper and Konstan, "The MovieLens Datasets: History and Context",
ACM TiiS 5(4), 2015.
"""

import dataclasses
import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tradewind.errors import IntegrityError, SpecError

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
REQUIRED = ("user", "item", "timestamp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """A feature table: `table[i]` describes the thing at position i (row 0 of items is padding)."""

    names: tuple[str, ...]
    table: np.ndarray

    @classmethod
    def none(cls, rows: int) -> "Features":
        return cls(names=(), table=np.zeros((rows, 0), np.float32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventLog:
    """Events grouped by user, each user's in the total order (timestamp, then row of the file).

    User u's events are `offsets[u]:offsets[u + 1]`. Items are positions from 1; 0 is padding.
    `ratings` are 0 where the source has none.
    """

    items: np.ndarray
    timestamps: np.ndarray
    ratings: np.ndarray
    offsets: np.ndarray
    user_ids: list[str]
    item_ids: list[str]
    user_features: Features
    item_features: Features
    fingerprint: str

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of item positions, the padding row included."""
        return len(self.item_ids)


def cache_dir() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "tradewind"


def _fetch_wheel(folder: pathlib.Path) -> bytes:
    """The RecBole wheel's bytes through pip (so its index settings and proxies apply), checked."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
        ]
        done = subprocess.run([*command, "-d", temporary, "recbole==1.2.1"], capture_output=True, text=True)
        wheel = pathlib.Path(temporary) / WHEEL
        if done.returncode or not wheel.exists():
            raise SpecError(
                f"MovieLens-100k could not be fetched (pip download recbole==1.2.1): {done.stderr.strip()[-500:]}"
                "; give your own events with --data PATH, or a generated log with --data synthetic"
            )
        content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WHEEL_SHA256:
        raise IntegrityError(f"{WHEEL}: sha256 is {digest}, expected {WHEEL_SHA256}")
    return content


def fetch_movielens(folder: pathlib.Path | None = None) -> pathlib.Path:
    """Write MovieLens-100k as events.parquet, items.parquet and users.parquet; return the event log's path."""
    folder = (folder or cache_dir()) / "ml-100k"
    folder.mkdir(parents=True, exist_ok=True)
    events = folder / "events.parquet"
    if events.exists():
        return events
    with zipfile.ZipFile(io.BytesIO(_fetch_wheel(folder))) as wheel:
        _write(_atomic(wheel, "user", "user"), folder / "users.parquet")
        _write(_atomic(wheel, "item", "item"), folder / "items.parquet")
        _write(_atomic(wheel, "inter", "user"), events)  # last: its presence says all three are there
    return events


def _atomic(wheel: zipfile.ZipFile, suffix: str, key: str) -> pa.Table:
    """One RecBole "atomic file": tab-separated, columns named `name:type`."""
    text = wheel.read(f"{FOLDER}.{suffix}")
    columns = [name.split(":")[0] for name in text.split(b"\n", 1)[0].decode().strip().split("\t")]
    names = [{"user_id": "user", "item_id": "item"}.get(name, name) for name in columns]
    strings = ("user", "item", "zip_code", "movie_title", "class", "occupation", "gender")
    return pyarrow.csv.read_csv(
        io.BytesIO(text),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={**dict.fromkeys(strings, pa.string()), "release_year": pa.float64()},
            null_values=["", "unkonwn", "V"],  # what the release year of two films is given as
        ),
    )


def _write(table: pa.Table, path: pathlib.Path) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    pyarrow.parquet.write_table(table, temporary)
    os.replace(temporary, path)


def load(source: str = "ml-100k") -> EventLog:
    """Read an event log: `ml-100k`, `synthetic[:EVENTS]`, or the path of a Parquet or CSV file."""
    if source == "ml-100k":
        return read_events(fetch_movielens())
    if source.split(":")[0] == "synthetic":
        from recipes.recommender import synthetic

        return synthetic.generate(num_events=int(source.partition(":")[2] or 200_000)).log()
    return read_events(pathlib.Path(source))


def _read_table(path: pathlib.Path) -> pa.Table:
    if not path.exists():
        raise SpecError(f"{path}: no such file; --data takes ml-100k, synthetic, or a .parquet or .csv file")
    if path.suffix == ".csv":
        keep = pyarrow.csv.ConvertOptions(column_types={"user": pa.string(), "item": pa.string()})
        return pyarrow.csv.read_csv(path, convert_options=keep)
    try:
        return pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise SpecError(f"{path}: neither a Parquet file nor named .csv ({error})") from error


def read_events(path: pathlib.Path) -> EventLog:
    """Read a log with columns user, item, timestamp (unix seconds or a timestamp type) and maybe rating.

    Raises SpecError naming the file and the column that is missing, empty or ill-typed. Feature
    tables `items.parquet` (keyed by item) and `users.parquet` (keyed by user) beside it are used.
    """
    table = _read_table(path)
    for name in REQUIRED:
        if name not in table.column_names:
            raise SpecError(f"{path}: no column {name!r}; it has {', '.join(table.column_names)}")
        if table[name].null_count:
            raise SpecError(f"{path}: column {name!r} has {table[name].null_count} empty values")
    if not len(table):
        raise SpecError(f"{path}: has no events")
    ratings = _numbers(table, "rating", path, pa.float32()) if "rating" in table.column_names else None
    users, items = (pc.cast(table[name], pa.string()) for name in ("user", "item"))
    features = {key: _feature_source(path.parent / f"{key}s.parquet", key) for key in ("user", "item")}
    return from_arrays(users, items, _timestamps(table, path), ratings, features=features)


def _numbers(table: pa.Table, name: str, path: pathlib.Path, kind: pa.DataType) -> np.ndarray:
    try:
        return pc.cast(table[name], kind).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SpecError(
            f"{path}: column {name!r} is {table[name].type}, expected numbers ({error})"
        ) from error


def _timestamps(table: pa.Table, path: pathlib.Path) -> np.ndarray:
    column = table["timestamp"]
    if pa.types.is_timestamp(column.type):
        seconds: np.ndarray = pc.cast(pc.cast(column, pa.timestamp("s"), safe=False), pa.int64()).to_numpy()
        return seconds
    values = _numbers(table, "timestamp", path, pa.float64())
    if not np.isfinite(values).all():
        raise SpecError(f"{path}: column 'timestamp' has values that are not finite")
    return np.floor(values).astype(np.int64)


def _feature_source(path: pathlib.Path, key: str) -> pa.Table | None:
    if not path.exists():
        return None
    table = pyarrow.parquet.read_table(path)
    if key not in table.column_names:
        raise SpecError(f"{path}: no column {key!r}; it has {', '.join(table.column_names)}")
    return table


def from_arrays(users, items, timestamps, ratings=None, *, features=None) -> EventLog:  # type: ignore[no-untyped-def]
    """Build a log from parallel columns; rows may come in any order, ties keep theirs."""
    from recipes.recommender.features import encode

    user_index, user_ids = _encode(users)
    item_index, item_ids = _encode(items)
    ratings = np.zeros(len(user_index), np.float32) if ratings is None else np.nan_to_num(ratings)
    by_time = np.argsort(timestamps, kind="stable")
    order = by_time[np.argsort(user_index[by_time], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user_index, minlength=len(user_ids)))])
    columns = (item_index[order] + 1, timestamps[order], ratings[order].astype(np.float32))
    digest = hashlib.sha256()
    for part in (*columns, offsets):
        digest.update(np.ascontiguousarray(part).tobytes())
    item_ids = ["", *item_ids]
    sources = features or {}
    return EventLog(
        items=columns[0], timestamps=columns[1], ratings=columns[2], offsets=offsets,
        user_ids=user_ids, item_ids=item_ids, fingerprint=f"sha256:{digest.hexdigest()}",
        user_features=encode(sources.get("user"), "user", user_ids),
        item_features=encode(sources.get("item"), "item", item_ids),
    )  # fmt: skip


def _encode(column) -> tuple[np.ndarray, list[str]]:  # type: ignore[no-untyped-def]
    """Indices and their names in sorted order, so positions do not depend on the rows' order."""
    encoded = pc.dictionary_encode(column if isinstance(column, pa.ChunkedArray) else pa.array(column))
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    names = np.array([str(name) for name in encoded.dictionary.to_pylist()])
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[encoded.indices.to_numpy()], names[order].tolist()
