"""The PyTorch side of benches/encoders.py: transformers' own models in inference mode, with their default attention.

Texts are padded to the longest of their batch; they come sorted by length.
"""

import argparse
import json
import pathlib
import time

import torch
from safetensors.torch import load_file
from transformers import AutoModel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("inputs", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    model = AutoModel.from_pretrained(options.checkpoint).eval()
    inputs = load_file(options.inputs)
    encode = encode_images(model, inputs) if "pixels" in inputs else encode_texts(model, inputs)
    count = len(next(iter(inputs.values())))
    with torch.inference_mode():
        encode(slice(0, 1))
        print(json.dumps({"ready": True, "cached": 0}), flush=True)
        seconds = []
        for _ in range(options.rounds):
            started = time.perf_counter()
            rows = [encode(slice(i, i + options.batch)) for i in range(0, count, options.batch)]
            seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "count": count, "sum": rows[0][0].abs().sum().item()}))


def encode_images(model: torch.nn.Module, inputs: dict):
    return lambda batch: model(pixel_values=inputs["pixels"][batch]).last_hidden_state[:, 0]


def encode_texts(model: torch.nn.Module, inputs: dict):
    def encode(batch: slice) -> torch.Tensor:
        lengths = inputs["lengths"][batch]
        longest = int(lengths.max())
        mask = (torch.arange(longest) < lengths[:, None]).long()
        states = model(input_ids=inputs["ids"][batch, :longest], attention_mask=mask).last_hidden_state
        return (states * mask[..., None]).sum(1) / lengths[:, None]

    return encode


if __name__ == "__main__":
    main()
