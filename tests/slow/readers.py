"""Opens a run's soft labels, and its features if they were exported to RUN/export, with pyarrow, DuckDB and Polars and
checks that all three read the same numbers.

Usage: readers.py RUN   (needs the packages of requirements.txt beside this file)
"""

import json
import pathlib
import sys

import duckdb
import numpy as np
import polars
import pyarrow
import pyarrow.parquet


def features(file: pathlib.Path, run: pathlib.Path) -> None:
    """Exported features are those of the safetensors file, in all three."""
    bytes_ = (run / "features" / file.stem / "features.safetensors").read_bytes()
    length = int.from_bytes(bytes_[:8], "little")
    header = json.loads(bytes_[8 : 8 + length])
    begin, end = header["features"]["data_offsets"]
    expected = np.frombuffer(bytes_[8 + length :][begin:end], dtype="<f4").reshape(header["features"]["shape"])
    arrow = pyarrow.parquet.read_table(file)["features"].combine_chunks().flatten().to_numpy().reshape(expected.shape)
    by_polars = np.asarray(polars.read_parquet(file)["features"].to_list(), dtype=np.float32)
    rows = duckdb.sql(f"select features from read_parquet('{file}') order by id").fetchall()
    by_duckdb = np.asarray([row[0] for row in rows], dtype=np.float32)
    for reader, numbers in [("pyarrow", arrow), ("Polars", by_polars), ("DuckDB", by_duckdb)]:
        assert np.array_equal(expected, numbers), f"{reader} reads other numbers in {file}"
    print(f"{file.stem}: {expected.shape[0]} rows of {expected.shape[1]} features, equal in all three")


def excerpts(files: list[str], table: pyarrow.Table, frame: polars.DataFrame, entities: int, teachers: list[str]) -> None:
    """What a lossy cache has beside lists of scores is the same in all three, and stands for all entities."""
    top = table["top"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    assert table.schema.field("top").type.value_type == pyarrow.uint32() and top.max() < entities
    neighbours = table["neighbours"].to_pylist()
    known = np.asarray([len(set(ids) | set(row)) for ids, row in zip(neighbours, top.tolist())])
    for teacher in teachers:
        names = [f"neighbour_scores_{teacher}", f"rest_{teacher}", f"rest_mean_{teacher}"]
        by_arrow = [table[name].to_pylist() for name in names]
        by_polars = [frame[name].to_list() for name in names]
        rows = duckdb.sql(f"select {', '.join(names)} from read_parquet({files}) order by head, relation").fetchall()
        assert by_arrow == by_polars, f"Polars reads other numbers in {names}"
        assert by_arrow == [list(column) for column in zip(*rows)], f"DuckDB reads other numbers in {names}"
        scores, log_sum, mean = by_arrow
        assert [len(row) for row in scores] == [len(row) for row in neighbours], "a score for every neighbour"
        # Of numbers with this mean the log-sum-exp is at least what it is if all are equal (Jensen).
        assert (np.asarray(log_sum) >= np.asarray(mean) + np.log(entities - known) - 1e-6).all()
        print(f"{', '.join(names)}: {table.num_rows} rows, equal in all three")


def main(run: pathlib.Path) -> None:
    for file in sorted((run / "export").glob("*.parquet")):
        features(file, run)
    folder = run / "soft-labels"
    manifest = json.loads((folder / "stage.json").read_text())
    paths = sorted(folder.glob("part-*.parquet"))
    files = [str(path) for path in paths]
    table = pyarrow.concat_tables(pyarrow.parquet.read_table(file) for file in files)
    assert table.num_rows == manifest["summary"]["rows"], "rows"
    frame = polars.read_parquet(paths)
    teachers, entities = manifest["summary"]["teachers"], manifest["summary"]["entities"]
    top = manifest["parameters"].get("top")
    columns = [f"{kind}_{teacher}" for kind in ("scores", "vector") for teacher in teachers]
    for column in columns + (["top"] if top else []):
        kind, item = table.schema.field(column).type, pyarrow.uint32() if column == "top" else pyarrow.float16()
        assert kind == pyarrow.list_(pyarrow.field("item", item, nullable=False), kind.list_size), kind
        arrow = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
        if not column.startswith("vector_"):
            assert arrow.shape[1] == (top or entities), arrow.shape
        by_polars = np.asarray(frame[column].to_list(), dtype=arrow.dtype)
        assert np.array_equal(arrow, by_polars), f"Polars reads other numbers in {column}"
        rows = duckdb.sql(f"select {column} from read_parquet({files}) order by head, relation")
        by_duckdb = np.asarray([row[0] for row in rows.fetchall()], dtype=arrow.dtype)
        assert np.array_equal(arrow, by_duckdb), f"DuckDB reads other numbers in {column}"
        print(f"{column}: {arrow.shape[0]} rows of {arrow.shape[1]} numbers, equal in all three")
    if top:
        excerpts(files, table, frame, entities, teachers)
    best = duckdb.sql(
        f"select head_name, relation_name, len(neighbours) as neighbours from read_parquet({files}) "
        "order by neighbours desc limit 3"
    )
    print(best)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
