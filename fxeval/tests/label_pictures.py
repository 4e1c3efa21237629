"""Label maps as PNG files, shared by tests; OpenCV writes none with a palette."""

import zlib

import cv2
import numpy as np


def png(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W) grey or (H, W, 3) RGB pixels."""
    done, data = cv2.imencode(".png", pixels if pixels.ndim == 2 else pixels[..., ::-1])
    assert done
    return data.tobytes()


def palette_png(values: np.ndarray, bits: int = 8, colours: int = 256) -> bytes:
    """A PNG of (H, W) numbers in a palette, in which every colour is the same grey."""
    height, width = values.shape
    digits = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(digits.reshape(height, width * bits), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, 3, 0, 0, 0])
    parts = [(b"IHDR", header), (b"PLTE", b"\x80" * 3 * min(colours, 2**bits))]
    parts += [(b"tRNS", b"\0"), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + check
