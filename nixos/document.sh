#!/bin/bash
# Writes the table of options into nixos/README.md, from the module.
# Usage: nixos/document.sh          (with nixpkgs, or its lib alone, as <nixpkgs> in NIX_PATH)
set -euo pipefail
cd "$(dirname "$0")"
table=$(mktemp)
trap 'rm -f "$table" README.md.new' EXIT
nix-instantiate --eval --strict --json --expr \
    'import ./tests/document.nix { lib = import <nixpkgs/lib>; }' |
    python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin))' >"$table"
awk -v table="$table" '
    /^<!-- options end -->$/ { skipped = 0 }
    !skipped { print }
    /^<!-- options -->$/ { print ""; while ((getline line <table) > 0) print line; print ""; skipped = 1 }
' README.md >README.md.new
mv README.md.new README.md
