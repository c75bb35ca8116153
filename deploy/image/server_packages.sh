#!/bin/sh
# Make /opt/venv with what the server imports and nothing else: server_packages.sh cpu|gpu
# Run by the Dockerfile, in a stage that is thrown away; needs python3, its venv module and pip.
set -eu
here=$(dirname "$0")
python3 -m venv --without-pip /opt/venv
pip() { python3 -m pip --python /opt/venv/bin/python "$@"; }

python3 "$here/requirements.py" pyproject.toml server "$1" >/tmp/all.txt
grep '^tokenizers' /tmp/all.txt >/tmp/alone.txt
grep -v '^tokenizers' /tmp/all.txt >/tmp/rest.txt
# tokenizers asks for huggingface-hub, to download by name; the server opens local files only
pip install --no-compile --no-deps -r /tmp/alone.txt
pip install --no-compile -r /tmp/rest.txt

cd /opt/venv/lib/python3*/site-packages
# tests, headers, static libraries, type stubs, generators of Fortran wrappers
find numpy -type d -name tests -prune -exec rm -r {} +
rm -rf numpy/f2py numpy/_core/include numpy/_pyinstaller
find . -name '*.a' -delete -o -name '*.pyi' -delete
# tools that convert and quantize models; they need onnx or torch, which are not here
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets \
    onnxruntime/backend
# a root file system that is read-only cannot keep byte code made later
/opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash .
