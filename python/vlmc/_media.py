"""Whatever a caller has as picture, sound or film becomes a source that the library takes: a path, a URL or a data: URI."""
import base64
import io
import os
import struct
import zlib
from typing import Any, List


def as_list(media: Any) -> list:
    """None: nothing; a list or tuple: its items, but (samples, rate) is one sound; all else: one medium."""
    if media is None:
        return []
    if isinstance(media, tuple) and len(media) == 2 and isinstance(media[1], int) and not isinstance(media[0], (str, bytes)):
        return [media]
    return list(media) if isinstance(media, (list, tuple)) else [media]


def data_uri(raw: bytes, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(raw).decode("ascii")


def png(rows: bytes, width: int, height: int, channels: int) -> bytes:
    """8 bit PNG of packed rows, quickly compressed."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    stride = width * channels
    lines = b"".join(b"\0" + rows[y * stride:(y + 1) * stride] for y in range(height))
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(lines, 1)) + chunk(b"IEND", b""))


def wav(samples: Any, rate: int) -> bytes:
    """32 bit float WAV of a one-dimensional array."""
    body = samples.astype("<f4").tobytes() if hasattr(samples, "astype") else struct.pack(f"<{len(samples)}f", *samples)
    return (b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, rate, rate * 4, 4, 32) +
            b"data" + struct.pack("<I", len(body)) + body)


def image_array(array: Any) -> str:
    shape = tuple(array.shape)
    if str(array.dtype) != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise TypeError(f"an image array is uint8 of shape [height, width], [height, width, 3] or [height, width, 4]; this is {array.dtype} {list(shape)}")
    if 0 in shape:
        raise ValueError(f"an image array of shape {list(shape)} has no pixels")
    return data_uri(png(array.tobytes(), shape[1], shape[0], shape[2] if len(shape) == 3 else 1), "image/png")


def source(medium: Any, kind: str) -> str:
    """kind: "image", "audio" or "video"."""
    if isinstance(medium, str):
        return medium
    if isinstance(medium, os.PathLike):
        return os.fspath(medium)
    if isinstance(medium, (bytes, bytearray, memoryview)):
        return data_uri(bytes(medium), f"{kind}/x-unknown")
    if hasattr(medium, "read"):
        return data_uri(medium.read(), f"{kind}/x-unknown")
    if kind == "image" and hasattr(medium, "save") and hasattr(medium, "getbands"):          # Pillow, without importing it
        out = io.BytesIO()
        image = medium if medium.mode in ("L", "LA", "RGB", "RGBA", "P", "1", "I;16") else medium.convert("RGB")
        image.save(out, format="PNG", compress_level=1)
        return data_uri(out.getvalue(), "image/png")
    if kind == "image" and hasattr(medium, "dtype"):
        return image_array(medium)
    if kind == "audio" and isinstance(medium, tuple):
        return data_uri(wav(*medium), "audio/wav")
    takes = {"image": "a Pillow image or a uint8 array", "audio": "a tuple (samples, rate)", "video": "an opened file"}[kind]
    raise TypeError(f"{kind}: a path, URL, data: URI, bytes or {takes} is expected, not {type(medium).__name__}")


def parts(image: Any = None, video: Any = None, audio: Any = None) -> List[dict]:
    """Media parts as the library's `media` list takes them; those of one kind in order of their placeholders."""
    found = []
    for kind, media in (("image", image), ("video", video), ("audio", audio)):
        found += [{"type": kind, kind: source(medium, kind)} for medium in as_list(media)]
    return found
