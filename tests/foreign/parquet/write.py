"""Writes the files beside it, the same five rows by several programs and as several types.

    pip install pyarrow pandas polars duckdb
    python3 write.py
"""
import datetime

import duckdb
import numpy
import pandas
import polars
import pyarrow as arrow
import pyarrow.parquet as parquet

KEYS = ["a", "b", "c", "d", "ü"]
TEXTS = ["one", "two", None, "four", "five"]
# All of them are halves of small numbers, so that floats of two bytes have them too.
VECTORS = [[0.5, 1.0, -1.5, 2.0], [0.0, 0.5, 0.5, 0.5], [4.0, 3.0, 2.0, 1.0], None, [-0.5, 0.0, 1.0, 8.0]]
COUNTS = [1, 2, 3, None, 5]
SCORES = [0.25, None, 1e300, -1.0, 0.1]
FLAGS = [True, False, None, True, False]
DAYS = [datetime.date(2026, 1, 31), None, datetime.date(1969, 12, 31), datetime.date(2000, 2, 29), datetime.date(9999, 12, 31)]
TIMES = [datetime.datetime(2026, 1, 31, 12, 30, 15, 250000, datetime.timezone.utc)] * 4 + [None]


def table(vector, key=arrow.string(), text=arrow.string()):
    return arrow.table({
        "key": arrow.array(KEYS, arrow.string()).cast(key) if not arrow.types.is_dictionary(key)
        else arrow.array(KEYS).dictionary_encode(),
        "text": arrow.array(TEXTS, arrow.string()).cast(text),
        "vector": arrow.array(VECTORS, vector),
        "count": arrow.array(COUNTS, arrow.int32()),
        "score": arrow.array(SCORES, arrow.float64()),
        "flag": arrow.array(FLAGS, arrow.bool_()),
        "day": arrow.array(DAYS, arrow.date32()),
        "time": arrow.array(TIMES, arrow.timestamp("us", tz="UTC")),
    })


def half(fixed):
    vectors = [None if v is None else [numpy.float16(x) for x in v] for v in VECTORS]
    flat = arrow.array(vectors, arrow.list_(arrow.float16()))
    return flat if not fixed else arrow.array(vectors, arrow.list_(arrow.float16(), 4))


single, double = arrow.float32(), arrow.float64()
parquet.write_table(table(arrow.list_(single)), "arrow-list.parquet")
parquet.write_table(table(arrow.list_(single, 4)), "arrow-fixed.parquet", row_group_size=2)
parquet.write_table(table(arrow.list_(double, 4), text=arrow.large_string()), "arrow-fixed-double.parquet", compression="zstd")
parquet.write_table(table(arrow.large_list(double), key=arrow.large_string()), "arrow-large-double.parquet", compression="none", use_dictionary=False)
parquet.write_table(table(arrow.list_(single), key=arrow.string_view()), "arrow-view.parquet", use_compliant_nested_type=False)
parquet.write_table(table(arrow.list_(single), key=arrow.dictionary(arrow.int32(), arrow.string())), "arrow-dictionary.parquet")
for name, fixed in [("arrow-half.parquet", False), ("arrow-fixed-half.parquet", True)]:
    halves = table(arrow.list_(single))
    parquet.write_table(halves.set_column(2, "vector", half(fixed)), name)
parquet.write_table(
    table(arrow.list_(single)), "arrow-pages2.parquet", data_page_version="2.0", use_dictionary=False,
    column_encoding={"key": "DELTA_BYTE_ARRAY", "text": "DELTA_LENGTH_BYTE_ARRAY", "vector.list.element": "BYTE_STREAM_SPLIT", "count": "DELTA_BINARY_PACKED"},
)

frame = pandas.DataFrame({
    "key": KEYS, "text": TEXTS,
    "vector": [None if v is None else numpy.array(v, dtype="f4") for v in VECTORS],
    "count": pandas.array(COUNTS, dtype="Int32"), "score": SCORES,
    "flag": pandas.array(FLAGS, dtype="boolean"), "day": DAYS, "time": TIMES,
})
frame.to_parquet("pandas.parquet", index=False)

columns = {"key": KEYS, "text": TEXTS, "vector": VECTORS, "count": COUNTS, "score": SCORES, "flag": FLAGS, "day": DAYS, "time": TIMES}
for name, vector in [("polars-list", polars.List(polars.Float32)), ("polars-array", polars.Array(polars.Float32, 4))]:
    schema = {"vector": vector, "count": polars.Int32}
    polars.DataFrame(columns, schema_overrides=schema).write_parquet(f"{name}.parquet")

rows = duckdb.from_arrow(table(arrow.list_(single)))
select = "SELECT key, text, vector::{} AS vector, count, score, flag, day, time FROM rows"
for name, vector in [("duckdb-list", "FLOAT[]"), ("duckdb-array", "FLOAT[4]"), ("duckdb-double", "DOUBLE[]")]:
    duckdb.sql(select.format(vector)).write_parquet(f"{name}.parquet")
