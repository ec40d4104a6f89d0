#!/bin/sh
# Installs the wheel in a fresh virtual environment, and runs the demo's stages there without Rust on the path.
set -eu
folder=target/wheel/try
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --no-index --find-links target/wheel dsom
"$folder/bin/dsom" manual "$folder/share"
bash -n "$folder/share/bash-completion/completions/dsom.bash"
# Nothing but the environment: no Rust, nor any other program.
PATH=$PWD/$folder/bin
export DSOM_RUN="$folder/run"
dsom import --recipe pipelines/nations.toml --raw data/nations
for stage in features teachers soft-labels distill evaluate; do
    dsom "$stage" --recipe pipelines/nations.toml
done
dsom predict France borders
