#!/usr/bin/env python3
"""test_vlmc.py VLM REPOSITORY: the Python package beside the program: same texts, same tokens; every kind of medium; streams, batches, threads, errors."""
import io
import json
import math
import pathlib
import struct
import subprocess
import sys
import threading
import unittest
import zlib

VLM, REPO = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
sys.path.insert(0, str(REPO / "python"))
import vlmc                                                                     # noqa: E402
from vlmc import _media                                                         # noqa: E402

DEMO, MEDIA = str(REPO / "models/demo"), REPO / "models/demo/media"
model, processor = vlmc.load(DEMO)
config = vlmc.load_config(DEMO)


def program(*arguments):
    done = subprocess.run([VLM, "generate", "-m", DEMO, "--json", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask(question, **media):
    counts = {f"num_{kind}s": len(_media.as_list(media.get(kind))) for kind in ("image", "audio", "video")}
    return vlmc.apply_chat_template(processor, config, question, **counts)


class Array:
    """As much of a numpy array as the package asks for."""

    def __init__(self, raw, shape, dtype="uint8"):
        self.raw, self.shape, self.dtype = raw, shape, dtype

    def tobytes(self):
        return self.raw


class Embeddings(unittest.TestCase):
    """Against what transformers computed."""

    def test_as_transformers(self):
        suite = json.loads((REPO / "tests/data/embeddings/qwen2_5_vl.json").read_text())
        folder, media = REPO / "tests/data/checkpoints" / suite["checkpoint"], REPO / "tests/data/checkpoints/media"
        seeing, text = vlmc.load(str(folder), precision="exact")
        plain = [case for case in suite["embed"] if "instruction" not in case and len(case["messages"][0]["content"]) == 1]
        parts = [case["messages"][0]["content"][0] for case in plain]
        inputs = [part["text"] if part["type"] == "text" else media / part["image"] for part in parts]
        for case, vector in zip(plain, vlmc.embed(seeing, text, inputs, query=True)):
            self.assertLess(max(abs(a - b) for a, b in zip(vector, case["embedding"])), 1e-4)
            self.assertEqual(len(vector), len(case["embedding"]))
        told = next(case for case in suite["embed"] if "instruction" in case)
        picture, words = told["messages"][0]["content"]
        vector, = vlmc.embed(seeing, text, [{"image": media / picture["image"], "text": words["text"]}], instruction=told["instruction"])
        self.assertLess(max(abs(a - b) for a, b in zip(vector, told["embedding"])), 1e-4)
        short, = vlmc.embed(seeing, text, inputs[:1], dimensions=8)
        self.assertAlmostEqual(sum(x * x for x in short), 1, places=5)
        self.assertEqual(len(short), 8)
        with self.assertRaisesRegex(NotImplementedError, "cannot rerank"):
            vlmc.rerank(seeing, text, "a", ["b"])
        with self.assertRaises(TypeError):
            vlmc.embed(seeing, text, ["a"], nonsense=1)


class Adapters(unittest.TestCase):
    """Against what peft computed, all in one batch."""

    def test_as_peft(self):
        folder = REPO / "tests/data/checkpoints/llama_adapters"
        suite = json.loads((folder / "cases.json").read_text())
        named = {name: folder / path for name, path in suite["adapters"].items()}
        several, text = vlmc.load(str(folder / suite["checkpoint"]), adapter_path=named, precision="exact")
        answers = vlmc.batch_generate(several, text, prompts=[case["messages"] for case in suite["cases"]], adapter=[case["adapter"] for case in suite["cases"]],
                                      max_tokens=8, ignore_eos=True, temperature=0)
        for case, answer in zip(suite["cases"], answers.results):
            self.assertEqual(answer.token_ids, case["generated_ids"], case["name"])
        case = next(c for c in suite["cases"] if c["adapter"] == "dora")
        one, text = vlmc.load(str(folder / suite["checkpoint"]), adapter_path=str(named["dora"]), precision="exact")
        options = dict(messages=case["messages"], max_tokens=8, ignore_eos=True, temperature=0)
        self.assertEqual(list(vlmc.stream_generate(one, text, **options))[-1].token_ids, case["generated_ids"])
        without = next(c for c in suite["cases"] if not c["adapter"] and c["messages"] == case["messages"])
        self.assertEqual(list(vlmc.stream_generate(one, text, adapter="none", **options))[-1].token_ids, without["generated_ids"])
        with self.assertRaisesRegex(ValueError, "no adapter nobody"):
            vlmc.generate(one, text, adapter="nobody", **options)
        with self.assertRaisesRegex(vlmc.VlmError, "there is no .*nowhere"):
            vlmc.load(str(folder / suite["checkpoint"]), adapter_path=str(folder / "nowhere"))


class Beams(unittest.TestCase):
    """Beam search and what answers mean, against what transformers computed."""

    def test_florence2(self):
        folder = REPO / "tests/data/checkpoints/florence2"
        seeing, text = vlmc.load(str(folder), precision="exact")
        for case in json.loads((folder / "cases.json").read_text())["cases"]:
            beams = case["generate"]["num_beams"]
            wanted = case["generated_ids"][beams > 1:]                          # with beams the decoder's first token is among them
            answer = vlmc.generate(seeing, text, prompt=case["prompt"], image=str(folder.parent / "media" / case["images"][0]), num_beams=beams,
                                   max_tokens=len(wanted), ignore_eos=beams == 1)
            self.assertEqual(answer.token_ids, wanted, case["name"])
            if case["prompt"] == "<OD>":
                self.assertEqual(answer.parsed, {"<OD>": {"bboxes": [], "labels": []}})
        with self.assertRaisesRegex(vlmc.VlmError, "does not go with temperature"):
            vlmc.generate(seeing, text, prompt="<CAPTION>", num_beams=2, temperature=0.7)


class Answers(unittest.TestCase):
    def test_as_the_program(self):
        for question, flags, media in (("What is 17 + 25?", [], {}),
                                       ("Read the text.", ["--image", MEDIA / "receipt.png"], {"image": MEDIA / "receipt.png"}),
                                       ("Transcribe the audio.", ["--audio", MEDIA / "command.wav"], {"audio": str(MEDIA / "command.wav")}),
                                       ("What happens in the video?", ["--video", MEDIA / "clip.mp4"], {"video": MEDIA / "clip.mp4"})):
            with self.subTest(question):
                there = program("--prompt", question, "--max-tokens", "200", *map(str, flags))
                here = vlmc.generate(model, processor, ask(question, **media), max_tokens=200, **media)
                self.assertEqual(here.text, there["text"])
                self.assertEqual(here.finish_reason, "stop")
                self.assertEqual(here.total_tokens, here.prompt_tokens + here.generation_tokens)

    def test_second_turn_encodes_nothing(self):
        model.reset_caches()
        image = MEDIA / "receipt.png"
        first = [{"role": "user", "content": "What is the total?"}]
        answer = vlmc.generate(model, processor, vlmc.apply_chat_template(processor, config, first, num_images=1), image=[image])
        self.assertIn("33.59", answer.text)
        before = model.stats()
        turns = vlmc.apply_chat_template(processor, config, first, num_images=1, return_messages=True)
        turns += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "Read the text."}]
        again = vlmc.generate(model, processor, vlmc.apply_chat_template(processor, config, turns, num_images=1), image=[image])
        self.assertIn("TOTAL", again.text)
        self.assertGreater(again.cached_tokens, 100)
        self.assertEqual(encoded(model.stats()), encoded(before))

    def test_stream(self):
        prompt = ask("Read the text.", image="x")
        whole = vlmc.generate(model, processor, prompt, image=MEDIA / "receipt.png")
        parts = list(vlmc.stream_generate(model, processor, prompt, image=MEDIA / "receipt.png", top_logprobs=3))
        self.assertEqual("".join(part.text for part in parts), whole.text)
        self.assertEqual([part.token for part in parts[:-1]] + [parts[-1].token], whole.token_ids)
        self.assertEqual([part.finish_reason for part in parts], [None] * (len(parts) - 1) + ["stop"])
        for part in parts[:-1]:
            self.assertEqual(part.logprobs[0][0], part.token)
            self.assertTrue(len(part.logprobs) >= 3 and all(math.isfinite(p) and p <= 0 for _, p in part.logprobs))
        self.assertEqual(processor.decode(whole.token_ids, skip_special_tokens=True), whole.text)

    def test_stream_can_be_left(self):
        for number, _ in enumerate(vlmc.stream_generate(model, processor, ask("Read the text.", image="x"), image=MEDIA / "receipt.png")):
            if number == 3:
                break
        self.assertIn("42", vlmc.generate(model, processor, ask("What is 17 + 25?")).text)

    def test_batch(self):
        image = str(MEDIA / "receipt.png")
        prompts = ["Read the text.", "What is the total?", {"role": "user", "content": "What is 17 + 25?"}]
        batch = vlmc.batch_generate(model, processor, images=[image, image], prompts=prompts, max_tokens=[120, 20, 20])
        alone = [vlmc.generate(model, processor, ask(prompt, image=medium), image=medium, max_tokens=limit).text
                 for prompt, medium, limit in zip(prompts, [image, image, None], [120, 20, 20])]
        self.assertEqual(batch.texts, alone)
        self.assertEqual(batch.stats.generation_tokens, sum(result.generation_tokens for result in batch.results))
        with self.assertRaises(ValueError):
            vlmc.batch_generate(model, processor, images=[image] * 2, prompts=prompts[:1])

    def test_threads(self):
        wanted = vlmc.generate(model, processor, ask("What is 17 + 25?")).text
        got = [None] * 8

        def work(i):
            got[i] = vlmc.generate(model, processor, ask("What is 17 + 25?")).text
        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(got))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(got, [wanted] * len(got))

    def test_messages(self):
        messages = [{"role": "user", "content": [{"type": "image", "image": str(MEDIA / "receipt.png")}, {"type": "text", "text": "What is the total?"}]}]
        self.assertIn("33.59", vlmc.generate(model, processor, messages=messages).text)

    def test_tools(self):
        tools = [{"type": "function", "function": {"name": "get_weather", "description": "Get the weather of a city", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
        result = vlmc.generate(model, processor, messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=tools, tool_choice="required")
        self.assertEqual(result.finish_reason, "tool_calls")
        self.assertEqual([call["function"]["name"] for call in result.tool_calls], ["get_weather"])
        self.assertEqual(json.loads(result.tool_calls[0]["function"]["arguments"]), {"city": "Paris"})

    def test_schema(self):
        schema = {"type": "object", "properties": {"total": {"type": "string", "maxLength": 20}}, "required": ["total"], "additionalProperties": False}
        form = {"type": "json_schema", "json_schema": {"name": "receipt", "schema": schema}}
        result = vlmc.generate(model, processor, ask("What is the total?", image="x"), image=MEDIA / "receipt.png", response_format=form)
        self.assertEqual(list(json.loads(result.text)), ["total"])

    def test_reasoning(self):
        talk = [{"role": "user", "content": "What is 17 + 25?"}]
        parts = list(vlmc.stream_generate(model, processor, messages=talk, enable_thinking=True))
        self.assertIn("42", "".join(part.text for part in parts))
        self.assertTrue("".join(part.reasoning for part in parts))
        self.assertGreater(parts[-1].reasoning_tokens, 0)
        self.assertEqual(vlmc.generate(model, processor, messages=talk, enable_thinking=True, thinking_budget=2).reasoning_tokens <= 4, True)

    def test_limits(self):
        prompt = ask("Read the text.", image="x")
        self.assertEqual(vlmc.generate(model, processor, prompt, image=MEDIA / "receipt.png", max_tokens=3).finish_reason, "length")
        cut = vlmc.generate(model, processor, prompt, image=MEDIA / "receipt.png", stop=["TOTAL"])
        self.assertNotIn("TOTAL", cut.text)

    def test_seed(self):
        drawn = [vlmc.generate(model, processor, ask("What can you do?"), temperature=8.0, seed=seed, max_tokens=30).token_ids for seed in (1, 1, 2)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])


def encoded(stats):
    """How many media were encoded so far."""
    return {key: value for key, value in flat(stats) if "encod" in key or "vision" in key and "miss" in key}


def flat(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}.")
        else:
            yield path + key, value


class Media(unittest.TestCase):
    def test_every_form_of_a_picture(self):
        path = MEDIA / "receipt.png"
        wanted = vlmc.generate(model, processor, ask("What is the total?", image="x"), image=str(path)).text
        raw = path.read_bytes()
        forms = {"path": path, "bytes": raw, "file": io.BytesIO(raw), "data": _media.data_uri(raw, "image/png"), "url": path.as_uri()}
        for name, form in forms.items():
            with self.subTest(name):
                self.assertEqual(vlmc.generate(model, processor, ask("What is the total?", image="x"), image=[form]).text, wanted)

    def test_arrays(self):
        for shape in ((8, 6), (8, 6, 3), (8, 6, 4)):
            raw = bytes(i * 7 % 256 for i in range(math.prod(shape)))
            uri = _media.source(Array(raw, shape), "image")
            self.assertEqual(unpacked(uri), (6, 8, raw))
            vlmc.generate(model, processor, ask("What is it?", image="x"), image=Array(raw, shape), max_tokens=2)
        for bad in (Array(b"", (0, 4, 3)), Array(b"", (4, 4, 3), "float32"), Array(b"", (4, 4, 2)), 7):
            with self.assertRaises((TypeError, ValueError)):
                _media.source(bad, "image")

    def test_samples(self):
        tone = [math.sin(i / 9) * 0.3 for i in range(16000)]
        vlmc.generate(model, processor, ask("Transcribe the audio.", audio=(tone, 16000)), audio=(tone, 16000), max_tokens=2)


def unpacked(uri):
    """width, height, packed rows of a PNG that was written without filters."""
    import base64
    png = base64.b64decode(uri.split(",", 1)[1])
    width, height = struct.unpack(">II", png[16:24])
    at, body = 8, b""
    while at < len(png):
        size = struct.unpack(">I", png[at:at + 4])[0]
        if png[at + 4:at + 8] == b"IDAT":
            body += png[at + 8:at + 8 + size]
        at += size + 12
    rows = zlib.decompress(body)
    stride = len(rows) // height
    return width, height, b"".join(rows[y * stride + 1:(y + 1) * stride] for y in range(height))


class Prompts(unittest.TestCase):
    def test_config(self):
        self.assertEqual(config["model_type"], model.config.model_type)
        self.assertIn("generation_config", config)
        with self.assertRaises(AttributeError):
            model.config.no_such_field

    def test_media_by_number_go_to_the_last_user_message(self):
        talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, "And this?"]
        messages = vlmc.apply_chat_template(processor, config, talk, num_images=2, num_audios=1, return_messages=True)
        self.assertEqual(messages[:3], talk[:3])
        self.assertEqual([part["type"] for part in messages[3]["content"]], ["image", "image", "audio", "text"])
        placed = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}, {"role": "assistant", "content": "b"}, "c"]
        self.assertEqual(vlmc.apply_chat_template(processor, config, placed, num_images=1, return_messages=True)[0], placed[0])

    def test_tokens(self):
        text = "Total: 33.59 \u20ac \U0001f600"
        self.assertEqual(processor.decode(processor.tokenizer.encode(text)), text)

    def test_thinking(self):
        thought = vlmc.apply_chat_template(processor, config, "Hello", enable_thinking=True)
        self.assertNotEqual(thought, vlmc.apply_chat_template(processor, config, "Hello"))


class Errors(unittest.TestCase):
    def test_kinds(self):
        with self.assertRaises(FileNotFoundError):
            vlmc.load("/nowhere/at/all")
        with self.assertRaisesRegex(ValueError, "placeholder"):
            vlmc.generate(model, processor, ask("Hello"), image=MEDIA / "receipt.png")
        with self.assertRaises(FileNotFoundError):
            vlmc.generate(model, processor, ask("Hello", image="x"), image="/nowhere/at/all.png")
        with self.assertRaisesRegex(TypeError, "tempratur"):
            vlmc.generate(model, processor, ask("Hello"), tempratur=1)
        with self.assertRaises(TypeError):
            vlmc.generate(model, processor)
        with self.assertRaises(NotImplementedError):
            vlmc.load(DEMO, revision="x")
        with self.assertRaises(vlmc.VlmError):
            vlmc.generate(model, processor, ask("Hello", image="x"), image=b"not a picture")
        with self.assertRaises(ValueError):
            vlmc.generate(model, processor, ask("Hello"), temperature=-1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)
