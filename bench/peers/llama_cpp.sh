#!/bin/sh
# llama_cpp.sh: builds llama.cpp from the source package of llama-cpp-python on PyPI into build/peers (only for comparison: nothing of it is
# part of vlm.c), with its converter in a Python environment of its own. Needs pip and some minutes.
set -eu
cd "$(dirname "$0")/../.."
peers=${VLM_PEERS:-build/peers}
mkdir -p "$peers"
if [ ! -x "$peers/bin/llama-bench" ]; then
    if ! ls "$peers"/llama_cpp_python-*.tar.gz >/dev/null 2>&1; then
        python3 -m venv "$peers/fetch"
        "$peers/fetch/bin/pip" install -q scikit-build-core
        "$peers/fetch/bin/pip" download -q --no-deps --no-binary llama-cpp-python -d "$peers" llama-cpp-python
    fi
    (cd "$peers" && tar xzf llama_cpp_python-*.tar.gz)
    cmake -S "$peers"/llama_cpp_python-*/vendor/llama.cpp -B "$peers" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF
    ninja -C "$peers" llama-bench llama-mtmd-cli llama-quantize
fi
if [ ! -x "$peers/python/bin/python" ]; then
    python3 -m venv "$peers/python"
    "$peers/python/bin/pip" install -q numpy gguf torch transformers sentencepiece
fi
echo "$peers"
