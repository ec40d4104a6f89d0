"""Writes tests/golden/pillow.json: small image files of every kind of colour, and what Pillow's convert("RGB") makes of
them, as hexadecimal digits. The decoder of dsom-features is compared with it.

    pip install pillow numpy; python tests/slow/pillow.py
"""

import io
import json
from pathlib import Path

import numpy
from PIL import Image, __version__

SIZE = 8
y, x = numpy.mgrid[0:SIZE, 0:SIZE]
colours = numpy.stack([x * 36, y * 36, 255 - (x + y) * 18], axis=-1).astype("uint8")
rgb = Image.fromarray(colours)
alpha = Image.fromarray((x * 36).astype("uint8"))
# One colour: what is left of JPEG is the conversion of colours.
plain = Image.new("RGB", (SIZE, SIZE), (200, 60, 30))


def with_alpha(image):
    image.putalpha(alpha)
    return image


def see_through_palette():
    image = rgb.quantize(16)
    image.info["transparency"] = 3
    return image


FILES = {
    "RGB PNG": (rgb, "PNG", {}),
    "RGBA PNG": (with_alpha(rgb.copy()), "PNG", {}),
    "greyscale PNG": (rgb.convert("L"), "PNG", {}),
    "greyscale PNG with alpha": (with_alpha(rgb.convert("L")), "PNG", {}),
    "black and white PNG": (rgb.convert("1"), "PNG", {}),
    "palette PNG": (rgb.quantize(16), "PNG", {}),
    "palette PNG with transparency": (see_through_palette(), "PNG", {"transparency": 3}),
    "GIF": (rgb.quantize(16), "GIF", {}),
    "GIF with transparency": (see_through_palette(), "GIF", {"transparency": 3}),
    "WebP with alpha": (with_alpha(rgb.copy()), "WEBP", {"lossless": True, "exact": True}),
    "greyscale JPEG": (plain.convert("L"), "JPEG", {"quality": 95}),
    "RGB JPEG": (plain, "JPEG", {"quality": 95}),
    "CMYK JPEG": (plain.convert("CMYK"), "JPEG", {"quality": 95}),
    "JPEG with an orientation": (plain, "JPEG", {"quality": 95, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
}

golden = []
for name, (image, kind, options) in FILES.items():
    file = io.BytesIO()
    image.save(file, kind, **options)
    opened = Image.open(io.BytesIO(file.getvalue()))
    converted = opened.convert("RGB")
    golden.append({"name": name, "mode": opened.mode, "file": file.getvalue().hex(), "rgb": converted.tobytes().hex()})
    print(f"{name}: {opened.mode}, {len(file.getvalue())} bytes, first pixel {converted.getpixel((0, 0))}, last {converted.getpixel((7, 7))}")

path = Path(__file__).parents[1] / "golden/pillow.json"
path.write_text(json.dumps({"pillow": __version__, "size": SIZE, "images": golden}, indent=1) + "\n")
