#!/usr/bin/env python3
"""Writes the names and short descriptions of all Debian packages as records to index.

Why: the demonstration needs many short texts whose meaning everybody can judge, and every Debian
machine has 60,000 of them in its package lists.

Usage: list_packages.py OUT_DIR
  OUT_DIR/packages.jsonl         every package the lists know, in order of its name
  OUT_DIR/packages-slice.jsonl   6,000 of them: a first taste that is indexed within a minute

One line is {"key": "nano", "text": "nano: small, friendly text editor inspired by Pico",
"payload": {"section": "editors", "version": "7.2-1", "homepage": "https://www.nano-editor.org/"}}.
The slice is drawn from the sections of SLICE_SECTIONS by the hash of the name, so that nobody
chose what is in it and the same lists give the same slice.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

SLICE_SIZE = 6_000
# Sections whose packages are programs that people use, rather than libraries and documentation.
SLICE_SECTIONS = frozenset(
    "admin database editors graphics net shells sound text utils vcs video web".split()
)
PAYLOAD_FIELDS = ("Section", "Version", "Homepage")


def stanzas(lines):
    """Splits the output of apt-cache into one dictionary per package. Only the first line of a
    field counts: the short description is the first line of a description."""
    fields = {}
    for line in lines:
        if line == "\n":
            yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        yield fields


def record(fields):
    """Returns the record for one package, None if it has no description."""
    name = fields["Package"]
    # Which of the two it is depends on whether translations are configured.
    description = fields.get("Description") or fields.get("Description-en")
    if not description:
        return None
    payload = {field.lower(): fields[field] for field in PAYLOAD_FIELDS if field in fields}
    return {"key": name, "text": f"{name}: {description}", "payload": payload}


def available():
    """Returns the record of every package in the package lists, in order of the name."""
    command = ["apt-cache", "dumpavail"]
    try:
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"the package lists cannot be read: {error}")
    records = {}
    for fields in stanzas(output.decode("utf-8", "replace").splitlines(keepends=True)):
        if "Package" in fields and (entry := record(fields)):
            records.setdefault(entry["key"], entry)
    return [records[name] for name in sorted(records)]


def draw_slice(records):
    """Returns SLICE_SIZE records of SLICE_SECTIONS, in the order they came."""

    def in_section(entry):  # "editors", or "contrib/editors" outside Debian's main area
        return entry["payload"].get("section", "").rpartition("/")[2] in SLICE_SECTIONS

    def name_hash(entry):
        return hashlib.sha256(entry["key"].encode()).digest()

    drawn = sorted(filter(in_section, records), key=name_hash)[:SLICE_SIZE]
    return sorted(drawn, key=lambda entry: entry["key"])


def write(records, path):
    """Writes one record a line; the file gets its name when it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as lines:
        for entry in records:
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")
    os.replace(partial, path)
    print(f"{len(records)} records: {path}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    records = available()
    if not records:
        sys.exit("the package lists are empty: run apt-get update")
    # The complete file comes last: where it is, the slice is too.
    write(draw_slice(records), directory / "packages-slice.jsonl")
    write(records, directory / "packages.jsonl")


if __name__ == "__main__":
    main()
