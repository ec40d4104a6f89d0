"""The PyTorch side of benches/encoders.py: transformers' own models in inference mode, with their default attention.

Texts are padded to the longest of their batch; they come sorted by length. On a device a batch goes up and its rows come
down, as ours do.
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
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    model = AutoModel.from_pretrained(options.checkpoint).eval().to(options.device)
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
    return lambda batch: model(pixel_values=inputs["pixels"][batch].to(model.device)).last_hidden_state[:, 0].cpu()


def encode_texts(model: torch.nn.Module, inputs: dict):
    def encode(batch: slice) -> torch.Tensor:
        longest = int(inputs["lengths"][batch].max())
        lengths = inputs["lengths"][batch].to(model.device)
        mask = (torch.arange(longest, device=model.device) < lengths[:, None]).long()
        ids = inputs["ids"][batch, :longest].to(model.device)
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return ((states * mask[..., None]).sum(1) / lengths[:, None]).cpu()

    return encode


if __name__ == "__main__":
    main()
