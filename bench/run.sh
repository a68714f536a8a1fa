#!/bin/sh
# run.sh VLM: everything docs/performance.md quotes, into build/bench. Builds llama.cpp for comparison first (bench/peers). --quick for one shape.
set -eu
cd "$(dirname "$0")/.."
vlm=$1
shift
peers=$(sh bench/peers/llama_cpp.sh | tail -n 1)
mkdir -p build/bench
python3 bench/demo.py "$vlm" "$peers" build/bench/demo.md
python3 bench/table.py "$vlm" "$peers" build/bench/table.md "$@"
cat build/bench/demo.md build/bench/table.md
