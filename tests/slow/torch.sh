#!/bin/sh
# Makes a virtual environment with PyTorch in FOLDER, for the CPU alone.
#
# PyPI's Linux wheel is linked against the CUDA libraries, so it does not even start without three gigabytes of
# packages that a CPU never calls. Here one small library takes their place: it answers every CUDA function that
# the wheel's libraries name with 0 and stands under the names they ask the loader for.
#
# Usage: tests/slow/torch.sh FOLDER
set -eu

folder=$1
here=$(dirname "$0")
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-deps --requirement "$here/torch.txt"
libraries=$("$folder/bin/python" -c 'import pathlib, sysconfig; print(pathlib.Path(sysconfig.get_path("platlib"), "torch", "lib"))')
cd "$libraries"

cuda='libcu|libnccl|libnvrtc|libnvshmem|libnvJitLink|libnvToolsExt'
names=$(readelf --dynamic --wide ./*.so | sed -nE "s/.*NEEDED.*\[(($cuda)[^]]*)\]/\1/p" | sort -u)
wanted=$(nm --dynamic --undefined-only --with-symbol-versions ./*.so |
    sed -nE 's/.* U ((__?)?(cu|nccl|nvrtc|nvshmem|nvJit|nvtx)[A-Za-z0-9_]*)(@+([^ ]*))?$/\1 \5/p' | sort -u)
echo "$wanted" | awk '{ print "int " $1 "(void) { return 0; }" }' | sort -u >no_cuda.c
echo "$wanted" | awk 'NF > 1 { symbols[$2] = symbols[$2] " " $1 ";" }
    END { for (version in symbols) print version " {" symbols[version] " };" }' >no_cuda.map
${CC:-cc} -shared -fPIC -fno-builtin -Wl,--version-script=no_cuda.map -o libno_cuda.so no_cuda.c
for name in $names; do
    [ -e "$name" ] || ln -s libno_cuda.so "$name"
done
cd - >/dev/null
"$folder/bin/python" -c 'import torch; torch.ones(2) @ torch.ones(2); print("PyTorch", torch.__version__)'
