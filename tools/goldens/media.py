#!/usr/bin/env python3
"""Makes tests/data/media: small pictures, clips and sounds, and what the reference libraries make of them.

    python3 tools/goldens/media.py [tests/data/media]

Needs pillow, numpy, torch, torchvision, transformers, librosa, and ffmpeg; cjpeg (libjpeg-turbo-progs) for arithmetic coding.
images.txt    file width height sha256(RGB bytes): Pillow's open, exif_transpose, convert("RGB")
resize.txt    file width height filter sha256(RGB bytes): torchvision.transforms.v2.functional.resize, antialias
resize_plain.txt  the same: torchvision on floats without antialias, bilinear, rounded; one thread
resize_pillow.txt  the same: Image.resize of Pillow 13, without nearest
mel_*.txt     one feature a line: transformers' feature extractors on the signal of signal(), which mel_test.c makes, too
resample.txt  signal() at 16 kHz taken to 24 kHz by librosa (soxr_hq), every 97th sample
Frames of clips carry their number as a bar code: 8 stripes, white is 1, the left one is bit 0.
"""
import hashlib, io, os, struct, subprocess, sys, tempfile, warnings, zlib
import numpy as np
from PIL import Image, ImageOps

warnings.simplefilter("ignore")
OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/media"
os.makedirs(OUT, exist_ok=True)
rng = np.random.default_rng(7)
files = {}


def scene(h, w, c):
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([(np.sin(x / 9 + k) + np.cos(y / 7 - k)) * 60 + 128 for k in range(c)], -1) + rng.normal(0, 9, (h, w, c))
    return np.clip(a, 0, 255).astype(np.uint8)


def add(name, image, fmt=None, **options):
    if isinstance(image, bytes):
        files[name] = image
        return
    out = io.BytesIO()
    image.save(out, fmt, **options)
    files[name] = out.getvalue()


def exif(orientation):
    e = Image.Exif()
    e[0x0112] = orientation
    return e.tobytes()


# ---- PNG of every kind, written by hand: Pillow cannot write most of them ----
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(h, w, colour, depth, interlaced, extra=b"", palette=0):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]

    def rows(hh, ww):
        out = b""
        for _ in range(hh):
            row = rng.integers(0, 256, (ww * channels * depth + 7) // 8, dtype=np.uint8)
            out += bytes([int(rng.integers(0, 5))]) + row.tobytes()
        return out

    data = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)) if interlaced else ((0, 0, 1, 1),):
        ww, hh = (w - x0 + dx - 1) // dx, (h - y0 + dy - 1) // dy
        if ww > 0 and hh > 0:
            data += rows(hh, ww)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced))
    if palette:
        out += chunk(b"PLTE", rng.integers(0, 256, 3 * palette, dtype=np.uint8).tobytes())
    return out + extra + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def pictures():
    rgb, rgba = Image.fromarray(scene(21, 34, 3)), Image.fromarray(scene(21, 34, 4), "RGBA")
    for s in (0, 1, 2):
        add(f"sub{s}.jpg", rgb, "JPEG", subsampling=s, quality=80)
    add("progressive.jpg", rgb, "JPEG", progressive=True)
    add("gray.jpg", rgb.convert("L"), "JPEG")
    add("cmyk.jpg", Image.fromarray(scene(21, 34, 4), "CMYK"), "JPEG")
    at = files["cmyk.jpg"].index(b"Adobe") + 11
    add("ycck.jpg", files["cmyk.jpg"][:at] + b"\2" + files["cmyk.jpg"][at + 1:])
    add("one.jpg", rgb.crop((0, 0, 1, 1)), "JPEG")
    for o in range(2, 9):
        add(f"exif{o}.jpg", rgb.crop((0, 0, 13, 9)), "JPEG", exif=exif(o), quality=50)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    plain = files["sub0.jpg"]
    add("xmp.jpg", plain[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + plain[2:])
    with tempfile.TemporaryDirectory() as d:
        rgb.save(d + "/a.ppm")
        for name, options in (("arithmetic", ["-arithmetic"]), ("sample41", ["-sample", "4x1"]), ("sample12", ["-sample", "1x2"]), ("restart", ["-restart", "1"])):
            add(name + ".jpg", subprocess.run([os.environ.get("CJPEG", "cjpeg"), *options, d + "/a.ppm"], check=True, capture_output=True).stdout)
    for interlaced in (0, 1):
        for colour, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
            for depth in depths:
                palette = min(1 << depth, 200) if colour == 3 else 0
                extra = chunk(b"tRNS", bytes([0, 9])) if colour == 3 else chunk(b"tRNS", b"\0\1") if colour == 0 else b""
                add(f"c{colour}_d{depth}_i{interlaced}.png", png(11, 19, colour, depth, interlaced, extra, palette))
    add("one.png", png(1, 1, 2, 8, 0))
    add("column.png", png(40, 1, 6, 8, 0))
    flat = np.full((40, 70), 255, np.uint8)
    flat[10:14, 5:60] = scene(4, 55, 1)[..., 0]
    add("page.png", Image.fromarray(flat), "PNG", optimize=True)
    add("page_rgb.png", Image.fromarray(np.repeat(flat[..., None], 3, -1)), "PNG", optimize=True)
    add("exif6.png", rgb.crop((0, 0, 13, 9)), "PNG", exif=exif(6))
    add("exif8gray.png", rgb.convert("L").crop((0, 0, 13, 9)), "PNG", exif=exif(8))
    add("lossy.webp", rgb, "WEBP", quality=60)
    add("lossless.webp", rgb, "WEBP", lossless=True)
    add("alpha.webp", rgba, "WEBP", quality=60)
    add("exif3.webp", rgb, "WEBP", exif=exif(3))
    add("animated.webp", rgba, "WEBP", save_all=True, append_images=[Image.fromarray(scene(21, 34, 4), "RGBA")], duration=100)
    add("gray.gif", rgb.convert("L"), "GIF", interlace=0)
    add("interlaced.gif", rgb.quantize(60), "GIF", interlace=1)
    add("transparent.gif", rgb.quantize(7), "GIF", transparency=1)
    add("animated.gif", rgb.quantize(30), "GIF", save_all=True, append_images=[rgba.convert("RGB").quantize(9)])
    for mode in ("1", "P", "RGB", "RGBA"):
        add(f"{mode.lower()}.bmp", rgb.convert(mode), "BMP")
    add("lzw.tif", rgb, "TIFF", compression="tiff_lzw")
    add("gray16.tif", Image.fromarray(scene(9, 13, 1)[..., 0].astype(np.uint16) * 3), "TIFF")
    add("plain.ppm", rgb.crop((0, 0, 9, 5)), "PPM")
    lines = []
    for name, data in files.items():
        open(f"{OUT}/{name}", "wb").write(data)
        got = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        lines.append(f"{name} {got.shape[1]} {got.shape[0]} {hashlib.sha256(got.tobytes()).hexdigest()}")
    open(f"{OUT}/images.txt", "w").write("\n".join(lines) + "\n")


def resized():
    import torch
    from torchvision.transforms import InterpolationMode as I
    from torchvision.transforms.v2 import functional as F
    modes = {"nearest": I.NEAREST, "bilinear": I.BILINEAR, "bicubic": I.BICUBIC, "lanczos": I.LANCZOS}
    torch.set_num_threads(1)
    lines, pillow, plain = [], [], []
    for name in ("sub0.jpg", "c2_d8_i0.png", "page.png", "one.png", "column.png", "gray.jpg"):
        a = np.asarray(Image.open(f"{OUT}/{name}").convert("RGB"))
        x = torch.from_numpy(a.copy()).permute(2, 0, 1)
        for w, h in ((7, 5), (34, 9), (13, 40), (64, 48), (1, 1), (101, 3), (97, 71)):
            got = F.resize(x.float(), [h, w], interpolation=I.BILINEAR, antialias=False).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
            plain.append(f"{name} {w} {h} bilinear {hashlib.sha256(got.tobytes()).hexdigest()}")
            for m, mode in modes.items():
                got = F.resize(x, [h, w], interpolation=mode, antialias=True).permute(1, 2, 0).contiguous().numpy()
                lines.append(f"{name} {w} {h} {m} {hashlib.sha256(got.tobytes()).hexdigest()}")
                if m != "nearest":
                    got = Image.fromarray(a).resize((w, h), getattr(Image.Resampling, m.upper())).tobytes()
                    pillow.append(f"{name} {w} {h} {m} {hashlib.sha256(got).hexdigest()}")
    open(f"{OUT}/resize.txt", "w").write("\n".join(lines) + "\n")
    open(f"{OUT}/resize_plain.txt", "w").write("\n".join(plain) + "\n")
    open(f"{OUT}/resize_pillow.txt", "w").write("\n".join(pillow) + "\n")


def clips():
    def frames(d, n, w=64, h=48):
        for i in range(n):
            a = np.full((h, w, 3), 16, np.uint8)
            for bit in range(8):
                if i >> bit & 1:
                    a[:, bit * w // 8:(bit + 1) * w // 8] = 235
            a[: h // 4] = scene(h // 4, w, 3)                      # something to predict
            Image.fromarray(a).save(f"{d}/{i:03d}.png")

    def ffmpeg(*options):
        subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *options], check=True)

    with tempfile.TemporaryDirectory() as d:
        frames(d, 40)
        pattern = ["-framerate", "20", "-i", d + "/%03d.png"]
        exact = ["-fflags", "+bitexact", "-flags:v", "+bitexact"]
        x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "35", "-bf", "3", *exact]
        ffmpeg(*pattern, *x264, "-g", "250", f"{OUT}/long.mp4")
        ffmpeg(*pattern, *x264, "-g", "8", "-x264-params", "open-gop=1", f"{OUT}/open.mkv")
        ffmpeg(*pattern, *x264, "-g", "15", "-vf", "setpts='(N+0.4*mod(N*7,3)/3)/20/TB'", "-vsync", "vfr", f"{OUT}/vfr.mkv")
        ffmpeg("-i", f"{OUT}/long.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", *exact, f"{OUT}/turned.mp4")
        ffmpeg(*pattern, "-c:v", "mpeg4", "-q:v", "12", "-bf", "2", *exact, f"{OUT}/old.avi")
        ffmpeg(*pattern, *x264, "-g", "20", f"{OUT}/raw.h264")
        ffmpeg(*pattern, "-c:v", "libvpx", "-b:v", "100k", *exact, f"{OUT}/vp8.webm")
        os.makedirs(f"{OUT}/folder", exist_ok=True)
        frames(f"{OUT}/folder", 5, 16, 8)


def signal(n):
    i = np.arange(n, dtype=np.float64)
    noise = ((np.arange(n, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(7)) % np.uint64(1000)).astype(np.float64) / 1000 - 0.5
    return (0.4 * np.sin(i * i * 2e-5 + 0.02 * i) + 0.05 * noise).astype(np.float32)


def sounds():
    import librosa
    from transformers import Gemma4AudioFeatureExtractor, WhisperFeatureExtractor
    n = 6400
    x = signal(n)
    np.savetxt(f"{OUT}/resample.txt", librosa.resample(x, orig_sr=16000, target_sr=24000)[::97], "%.8f")
    np.savetxt(f"{OUT}/mel_gemma4.txt", Gemma4AudioFeatureExtractor()([x], return_tensors="np")["input_features"][0].ravel()[::13], "%.7f")
    overdrive = Gemma4AudioFeatureExtractor(fft_overdrive=True, frame_length_ms=32.0, preemphasis=0.97, min_frequency=125, max_frequency=7600, mel_floor=1e-5)
    np.savetxt(f"{OUT}/mel_gemma3n.txt", overdrive([x], return_tensors="np")["input_features"][0].ravel()[::13], "%.7f")
    whisper = WhisperFeatureExtractor(feature_size=80)(x, sampling_rate=16000, padding=False, return_tensors="np")["input_features"][0].T
    np.savetxt(f"{OUT}/mel_whisper.txt", np.ascontiguousarray(whisper).ravel()[::13], "%.7f")
    tone = "aevalsrc='0.5*sin(2*PI*440*t)|0.3*sin(2*PI*440*t)':s=22050:d=0.25"
    for name, codec in (("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libvorbis"), ("m4a", "aac"), ("opus", "libopus"), ("aiff", "pcm_s16be")):
        subprocess.run(["ffmpeg", "-y", "-loglevel", "error", "-f", "lavfi", "-i", tone, "-c:a", codec, "-b:a", "64k", "-fflags", "+bitexact",
                        "-flags:a", "+bitexact", f"{OUT}/tone.{name}"], check=True)


pictures()
resized()
clips()
sounds()
