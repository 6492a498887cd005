"""Writes image files of every good, odd and damaged kind, byte by byte where Pillow writes none of that kind.

Knows the formats and what is to come of each file; nothing of cvtrain.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 32, 48


@dataclass(frozen=True)
class Case:
    """A file, and what is to come of it.

    Args:
        content: Makes its bytes.
        name: Of the file.
        expected: Pixels `(H, W, 3)`, or None where it is refused.
        tolerance: Mean absolute difference to `expected`.
        reason: What a refusal says (a pattern).
        notes: What is odd.
    """

    content: Callable[[], bytes]
    name: str
    expected: np.ndarray | None = None
    tolerance: float = 0.0
    reason: str | None = None
    notes: tuple[str, ...] = ()


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """RGB without symmetries, so that any turn or swap of channels shows, and smooth, so that JPEG keeps it."""
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    rows, columns = rows / max(height - 1, 1), columns / max(width - 1, 1)
    return np.stack([255 * rows, 255 * columns, 255 * (1 - rows * columns)], axis=-1).astype(np.uint8)


PICTURE = picture()
GREY = np.repeat(PICTURE[..., :1], 3, axis=-1)
ALPHA = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)
OVER_BLACK = np.round(PICTURE * (ALPHA[..., None] / 255)).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    """What Pillow writes."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------- PNG


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Length, kind, data and checksum. Source: PNG (third edition), section 5.3."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: list[bytes],
    width: int,
    *,
    bits: int,
    colour: int,
    height: int | None = None,
    more: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG of packed rows without filters; `more` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height or len(rows), bits, colour, 0, 0, int(interlaced))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [png_chunk(b"IHDR", header), more, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_png(values: np.ndarray, colour: int) -> bytes:
    """16 bits a channel, `(H, W, C)`."""
    return png([row.astype(">u2").tobytes() for row in values], values.shape[1], bits=16, colour=colour)


def interlaced_png() -> bytes:
    """Adam7. Source: PNG (third edition), section 8.1."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row.tobytes() for top, left, down, across in passes for row in PICTURE[top::down, left::across]]
    return png(rows, WIDTH, height=HEIGHT, bits=8, colour=2, interlaced=True)


def few_bits_png(bits: int) -> bytes:
    """Grey of 1, 2 or 4 bits, four grey levels of it at most."""
    values = np.tile(np.arange(WIDTH) % 2**bits, (HEIGHT, 1))
    planes = (values[..., None] >> np.arange(bits)[::-1]) & 1
    return png([np.packbits(row).tobytes() for row in planes.reshape(HEIGHT, -1)], WIDTH, bits=bits, colour=0)


def levels(bits: int) -> np.ndarray:
    """The pixels of `few_bits_png`."""
    return np.repeat(np.tile(np.arange(WIDTH) % 2**bits, (HEIGHT, 1))[..., None] * (255 // (2**bits - 1)), 3, axis=-1)


# ------------------------------------------------------------------------------------------------------ TIFF


def tiff(strips: list[bytes], tags: dict[int, int | list[int]]) -> bytes:
    """A little-endian TIFF of one page. Source: TIFF 6.0, section 2."""
    offsets = np.cumsum([8, *map(len, strips)]).tolist()
    is_tiled = 322 in tags
    found = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 277: 1, **({} if is_tiled else {278: HEIGHT})} | tags
    found |= {324 if is_tiled else 273: offsets[:-1], 325 if is_tiled else 279: [len(strip) for strip in strips]}
    start = offsets[-1] + offsets[-1] % 2
    entries, behind = b"", b""
    for tag, value in sorted(found.items()):
        values = value if isinstance(value, list) else [value]
        data = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            data, behind = struct.pack("<I", start + 6 + 12 * len(found) + len(behind)), behind + data
        entries += struct.pack("<HHI", tag, 4, len(values)) + data
    header = b"II*\0" + struct.pack("<I", start) + b"".join(strips)
    return header.ljust(start, b"\0") + struct.pack("<H", len(found)) + entries + struct.pack("<I", 0) + behind


def twelve_bits(values: np.ndarray) -> bytes:
    """Values 0..4095, two in three bytes."""
    first, second = values.reshape(-1, 2).T.astype(np.uint16)
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8).tobytes()


def tiled_tiff() -> bytes:
    """Six tiles of 16x16, compressed."""
    tiles = [PICTURE[top : top + 16, left : left + 16].tobytes() for top in (0, 16) for left in (0, 16, 32)]
    return tiff([zlib.compress(tile) for tile in tiles], {258: [8] * 3, 259: 8, 262: 2, 277: 3, 322: 16, 323: 16})


DEEP = np.linspace(0, 65535, HEIGHT * WIDTH).astype("<u2").reshape(HEIGHT, WIDTH)
DEEP_RGB = np.stack([DEEP, DEEP[::-1], DEEP[:, ::-1]], axis=-1)
DEEP_GREY = np.repeat((DEEP >> 8)[..., None], 3, axis=-1).astype(np.uint8)

# ------------------------------------------------------------------------------------- JPEG, BMP, PPM and GIF


def jpeg(**options: object) -> bytes:
    """The picture."""
    return saved(PICTURE, "JPEG", **({"quality": 92} | options))


def jpeg_of(*, height: int | None = None, width: int | None = None, bits: int | None = None) -> bytes:
    """A JPEG whose frame header says something else than its data."""
    content = bytearray(jpeg())
    start = content.index(b"\xff\xc0") + 4  # bits, height, width
    old = struct.unpack_from(">BHH", content, start)
    struct.pack_into(">BHH", content, start, bits or old[0], height or old[1], width or old[2])
    return bytes(content)


def jpeg_of_many_scans() -> bytes:
    """4 million pixels, gone over 300 times in 100 kB."""
    content = saved(Image.new("L", (2000, 2000), 128), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * 300 + content[-2:]


def run_length_bmp(side: int) -> bytes:
    """A BMP in the kind that Pillow decodes in Python, all of one colour."""
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    rows = (b"\xff\x05" * (side // 255) + bytes([side % 255, 5]) + b"\0\0") * side
    offset = 54 + len(palette)
    header = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset)
    return header + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 256, 0) + palette + rows


def exif(orientation: int) -> Image.Exif:
    """Metadata that say how to turn a picture."""
    made = Image.Exif()
    made[0x0112] = orientation
    return made


_TURNED_BY = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}


def turned(orientation: int, format: str) -> bytes:
    """The picture as a camera held otherwise stores it."""
    upright = Image.fromarray(PICTURE)
    stored = upright if orientation == 1 else upright.transpose(_TURNED_BY[orientation])
    return saved(stored, format, exif=exif(orientation), quality=92)


def frames(format: str) -> bytes:
    """The picture and two others behind it."""
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    options = {"GIF": {}, "TIFF": {}}.get(format, {"duration": 20, "lossless": True})
    return saved(PICTURE, format, save_all=True, append_images=others, **options)


def looped_tiff() -> bytes:
    """A TIFF whose next page is its first."""
    content = tiff([PICTURE.tobytes()], {258: [8] * 3, 262: 2, 277: 3})
    start = struct.unpack_from("<I", content, 4)[0]
    at = start + 2 + 12 * struct.unpack_from("<H", content, start)[0]
    return content[:at] + struct.pack("<I", start) + content[at + 4 :]


def flipped(content: bytes, at: int) -> bytes:
    """With one bit flipped."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def palette_png(**options: object) -> bytes:
    """Sixteen colours."""
    return saved(Image.fromarray(SIXTEEN).quantize(16), "PNG", **options)


SIXTEEN = np.repeat(np.repeat(picture(4, 4), HEIGHT // 4, axis=0), WIDTH // 4, axis=1)
NOISE = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()

LOSSLESS = {
    "png": lambda: saved(PICTURE, "PNG"),
    "bmp": lambda: saved(PICTURE, "BMP"),
    "gif": lambda: saved(SIXTEEN, "GIF"),
    "tif": lambda: saved(PICTURE, "TIFF"),
    "tif_lzw": lambda: saved(PICTURE, "TIFF", compression="tiff_lzw"),
    "tif_deflate": lambda: saved(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "webp": lambda: saved(PICTURE, "WEBP", lossless=True),
    "ppm": lambda: saved(PICTURE, "PPM"),
    "jpg": jpeg,
    "jpg_progressive": lambda: jpeg(progressive=True),
    "jpg_444": lambda: jpeg(subsampling=0, optimize=True),
    "png_interlaced": interlaced_png,
    "png_16_rgb": lambda: deep_png(DEEP_RGB, 2),
    "tif_tiled": tiled_tiff,
    "tif_grey_16": lambda: tiff([DEEP.tobytes()], {258: 16, 262: 1}),
}
"""A file of every format and way of coding, for cutting it short anywhere."""


def _good() -> dict[str, Case]:
    white_is_zero = np.repeat(255 - PICTURE[..., :1], 3, axis=-1)
    with_alpha = np.dstack([PICTURE, ALPHA])
    premultiplied = np.dstack([OVER_BLACK, ALPHA])
    rgb = {258: [8] * 3, 262: 2, 277: 3}
    la = np.dstack([DEEP, ALPHA.astype("<u2") * 257])
    deep_over_black = np.round(DEEP_GREY * (ALPHA[..., None] / 255)).astype(np.uint8)
    cases = {
        "jpeg_progressive": Case(lambda: jpeg(progressive=True), "a.jpg", PICTURE, 4),
        "jpeg_444": Case(lambda: jpeg(subsampling=0), "a.jpg", PICTURE, 4),
        "jpeg_grey": Case(lambda: saved(PICTURE[..., 0].copy(), "JPEG", quality=95), "a.jpg", GREY, 3),
        "jpeg_cmyk": Case(lambda: saved(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95), "a.jpg",
                          PICTURE, 8),
        "jpeg_junk_behind": Case(lambda: jpeg() + NOISE, "a.jpg", PICTURE, 4),
        "jpeg_exif_cut": Case(lambda: jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), "a.jpg", PICTURE, 4),
        "jpeg_profile": Case(lambda: jpeg(icc_profile=NOISE), "a.jpg", PICTURE, 4),
        "png_profile": Case(lambda: saved(PICTURE, "PNG", icc_profile=NOISE), "a.png", PICTURE),
        "png_named_jpg": Case(LOSSLESS["png"], "a.jpg", PICTURE),
        "jpg_named_png": Case(jpeg, "a.png", PICTURE, 4),
        "upper_case": Case(LOSSLESS["png"], "A.PNG", PICTURE),
        "png_interlaced": Case(interlaced_png, "a.png", PICTURE),
        "png_rgba": Case(lambda: saved(with_alpha, "PNG"), "a.png", OVER_BLACK, 0.5),
        "png_la": Case(lambda: saved(Image.merge("LA", [Image.fromarray(PICTURE[..., 0].copy()),
                       Image.fromarray(ALPHA)]), "PNG"), "a.png", np.repeat(OVER_BLACK[..., :1], 3, axis=-1), 0.5),
        "png_16_grey": Case(lambda: deep_png(DEEP[..., None], 0), "a.png", DEEP_GREY),
        "png_16_rgb": Case(lambda: deep_png(DEEP_RGB, 2), "a.png", (DEEP_RGB >> 8).astype(np.uint8)),
        "png_16_rgba": Case(lambda: deep_png(np.dstack([DEEP_RGB, np.full_like(DEEP, 65535)]), 6), "a.png",
                            (DEEP_RGB >> 8).astype(np.uint8)),
        "png_16_la": Case(lambda: deep_png(la, 4), "a.png", deep_over_black, 0.6),
        "png_palette": Case(palette_png, "a.png", SIXTEEN, 1),
        "png_palette_transparent": Case(lambda: palette_png(transparency=3), "a.png", SIXTEEN, 1),
        "png_colour_key": Case(lambda: saved(PICTURE, "PNG", transparency=(0, 0, 255)), "a.png", PICTURE),
        "webp_alpha": Case(lambda: saved(with_alpha, "WEBP", lossless=True, exact=True), "a.webp", OVER_BLACK, 0.5),
        "webp_lossy": Case(lambda: saved(PICTURE, "WEBP", quality=95), "a.webp", PICTURE, 4),
        "gif_transparent": Case(lambda: saved(Image.fromarray(SIXTEEN).quantize(16), "GIF", transparency=2), "a.gif",
                                SIXTEEN, 1),
        "bmp_run_length": Case(lambda: run_length_bmp(WIDTH), "a.bmp", np.full((WIDTH, WIDTH, 3), 5),
                               notes=("uniform",)),
        "ppm_text": Case(lambda: f"P3 {WIDTH} {HEIGHT} 255 {' '.join(map(str, PICTURE.ravel()))}\n".encode(), "a.ppm",
                         PICTURE),
        "pgm_12_bits": Case(lambda: b"P5 %d %d 4095\n" % (WIDTH, HEIGHT) + (DEEP >> 4).astype(">u2").tobytes(),
                            "a.pgm", DEEP_GREY, 0.1),
        "tif_white_is_zero": Case(lambda: tiff([PICTURE[..., 0].tobytes()], {262: 0}), "a.tif", white_is_zero),
        "tif_16_grey": Case(LOSSLESS["tif_grey_16"], "a.tif", DEEP_GREY),
        "tif_16_white_is_zero": Case(lambda: tiff([DEEP.tobytes()], {258: 16, 262: 0}), "a.tif", 255 - DEEP_GREY),
        "tif_12_grey": Case(lambda: tiff([twelve_bits(DEEP >> 4)], {258: 12, 262: 1}), "a.tif", DEEP_GREY),
        "tif_16_rgb": Case(lambda: tiff([DEEP_RGB.tobytes()], rgb | {258: [16] * 3}), "a.tif",
                           (DEEP_RGB >> 8).astype(np.uint8)),
        "tif_planar": Case(lambda: tiff([plane.tobytes() for plane in PICTURE.transpose(2, 0, 1)], rgb | {284: 2}),
                           "a.tif", PICTURE),
        "tif_tiled": Case(tiled_tiff, "a.tif", PICTURE),
        "tif_rgba": Case(lambda: tiff([with_alpha.tobytes()], {258: [8] * 4, 262: 2, 277: 4, 338: 2}), "a.tif",
                         OVER_BLACK, 0.5),
        "tif_premultiplied": Case(lambda: tiff([premultiplied.tobytes()], {258: [8] * 4, 262: 2, 277: 4, 338: 1}),
                                  "a.tif", OVER_BLACK, 1),
        "tif_cmyk": Case(lambda: saved(Image.fromarray(PICTURE).convert("CMYK"), "TIFF"), "a.tif", PICTURE, 2),
        "tif_jpeg": Case(lambda: saved(PICTURE, "TIFF", compression="jpeg", quality=95), "a.tif", PICTURE, 6),
        "tif_fax": Case(lambda: saved(Image.fromarray(PICTURE[..., 0] > 99), "TIFF", compression="group4"), "a.tif",
                        np.repeat((PICTURE[..., :1] > 99) * 255, 3, axis=-1)),
        "tif_loop": Case(looped_tiff, "a.tif", PICTURE),
        "two_levels": Case(lambda: few_bits_png(1), "a.png", levels(1)),
        "four_levels": Case(lambda: few_bits_png(2), "a.png", levels(2)),
        "sixteen_levels": Case(lambda: few_bits_png(4), "a.png", levels(4)),
        "one_row": Case(lambda: saved(picture(1, 900), "PNG"), "a.png", picture(1, 900), notes=("tiny",)),
        "one_column": Case(lambda: saved(picture(900, 1), "BMP"), "a.bmp", picture(900, 1), notes=("tiny",)),
        "one_pixel": Case(lambda: saved(picture(1, 1), "PNG"), "a.png", picture(1, 1), notes=("tiny", "uniform")),
        "black": Case(lambda: saved(PICTURE * 0, "PNG"), "a.png", PICTURE * 0, notes=("uniform",)),
        "animated_webp": Case(lambda: frames("WEBP"), "a.webp", PICTURE, notes=("frames",)),
        "animated_png": Case(lambda: frames("PNG"), "a.png", PICTURE, notes=("frames",)),
        "animated_gif": Case(lambda: frames("GIF"), "a.gif", PICTURE, 12, notes=("frames",)),
        "pages": Case(lambda: frames("TIFF"), "a.tif", PICTURE, notes=("frames",)),
    }  # fmt: skip
    for name, content in LOSSLESS.items():
        if name in ("png", "bmp", "tif", "tif_lzw", "tif_deflate", "webp", "ppm"):
            cases[f"plain_{name}"] = Case(content, f"a.{name[:4].rstrip('_')}", PICTURE)
    for orientation in range(1, 9):
        jpeg_turned, tiff_turned = (lambda o=orientation, f=f: turned(o, f) for f in ("JPEG", "TIFF"))
        cases[f"jpeg_exif_{orientation}"] = Case(jpeg_turned, "a.jpg", PICTURE, 5)
        cases[f"tif_exif_{orientation}"] = Case(tiff_turned, "a.tif", PICTURE)
    return cases


def _refused() -> dict[str, Case]:
    no_image, damaged, too_many = "is not an image that can be read", "is damaged", "more than 50 million pixels"
    minutes, unknown = "would take minutes to decode", "whose range is unknown"
    grey_file = b"P5 %d %d 255\n"
    contents: dict[str, tuple[str, Callable[[], bytes], str]] = {
        "empty": ("a.jpg", lambda: b"", r"is empty \(0 bytes\)"),
        "one_byte": ("a.jpg", lambda: b"\xff", no_image),
        "only_a_start": ("a.jpg", lambda: b"\xff\xd8\xff", no_image),
        "noise": ("a.jpg", lambda: NOISE, no_image),
        "zeros": ("a.png", lambda: bytes(4096), no_image),
        "web_page": ("a.jpg", lambda: b"<!doctype html><title>404</title>", no_image),
        "svg": ("a.png", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', no_image),
        "postscript": ("a.jpg", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", no_image),
        "pdf": ("a.jpg", lambda: b"%PDF-1.7\n", no_image),
        "jpeg_2000": ("a.jpg", lambda: saved(PICTURE, "JPEG2000"), no_image),
        "jpeg_12_bits": ("a.jpg", lambda: jpeg_of(bits=12), no_image),
        "jpeg_huge": ("a.jpg", lambda: jpeg_of(height=65_000, width=65_000), too_many),
        "jpeg_scans": ("a.jpg", jpeg_of_many_scans, minutes),
        "png_huge": ("a.png", lambda: png([], 60_000, height=60_000, bits=8, colour=2), too_many),
        "png_2_31": ("a.png", lambda: png([], 2**31 - 1, height=2**31 - 1, bits=8, colour=2), too_many),
        "png_checksum": ("a.png", lambda: flipped(LOSSLESS["png"](), 60), damaged),
        "png_header_checksum": ("a.png", lambda: flipped(LOSSLESS["png"](), 30), no_image),
        "png_text_bomb": ("a.png", lambda: png([b"\0" * 3 * WIDTH] * HEIGHT, WIDTH, bits=8, colour=2,
                          more=png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))), damaged),
        "gif_huge": ("a.gif", lambda: b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + saved(SIXTEEN, "GIF")[10:],
                     too_many),
        "bmp_huge": ("a.bmp", lambda: LOSSLESS["bmp"]()[:18] + struct.pack("<ii", 60_000, 60_000) +
                     LOSSLESS["bmp"]()[26:], too_many),
        "bmp_slow": ("a.bmp", lambda: run_length_bmp(2100), minutes),
        "ppm_huge": ("a.pgm", lambda: grey_file % (60_000, 60_000), too_many),
        "ppm_short": ("a.pgm", lambda: grey_file % (60, 60) + b"short", damaged),
        "ppm_text_slow": ("a.ppm", lambda: b"P3 2000 2000 255 1 2 3\n", minutes),
        "webp_huge": ("a.webp", lambda: LOSSLESS["webp"]()[:21] + struct.pack("<I", 16_382 | 16_382 << 14) +
                      LOSSLESS["webp"]()[25:], too_many),
        "tif_huge": ("a.tif", lambda: tiff([b"\0"], {256: 60_000, 257: 60_000, 262: 1}), too_many),
        "tif_huge_tile": ("a.tif", lambda: tiff([zlib.compress(b"\0")], {259: 8, 262: 1, 322: 40_000, 323: 40_000}),
                          too_many),
        "tif_float": ("a.tif", lambda: saved(np.ones((HEIGHT, WIDTH), np.float32), "TIFF"), unknown),
        "tif_32_bits": ("a.tif", lambda: saved(np.ones((HEIGHT, WIDTH), np.int32), "TIFF"), unknown),
        "tif_lab": ("a.tif", lambda: saved(Image.new("LAB", (WIDTH, HEIGHT)), "TIFF"), "colour space"),
        "tif_no_directory": ("a.tif", lambda: b"II*\0\xff\xff\xff\x7f", no_image),
    }  # fmt: skip
    return {name: Case(content, file, reason=reason) for name, (file, content, reason) in contents.items()}


GOOD, REFUSED = _good(), _refused()

NAMES = (
    *("with space", " edge ", "ünïcødé 猫", "emoji 🐱", "surrogate \udcff", "new\nline", "tab\t", "\x1b[2J"),
    *(
        "a,b\"c';d",
        "<img src=x onerror=a()>",
        "=1+1",
        "@x",
        "-dash",
        "--help",
        "$(x)",
        "`x`",
        "%s",
        "{0}",
        "\\",
        "*?[a]",
    ),
    *("CON", "a.b..", "é", "e\u0301", "twin", "TWIN", "x" * 251),
)
"""Names of files but for the extension."""
