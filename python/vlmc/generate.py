"""generate, stream_generate, batch_generate: keyword arguments of mlx-vlm become a request of the engine, its events become results."""
import ctypes as c
import json
import warnings
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from . import _media
from ._library import (CALL_ARGUMENTS, CALL_START, EVENT_DONE, EVENT_NOTICE, EVENT_REASONING, EVENT_STARTED, EVENT_TEXT, EVENT_TOKEN, EVENT_TOOL_CALL, Event,
                       RequestOptions, lib)
from .model import Model, Processor, Request, as_json, encoded
from .prompt import apply_chat_template
from .results import BatchResponse, BatchStats, GenerationResult, peak_memory

# argument: field of vlm_sampling. None leaves the library's default: generation_config.json, then greedy.
SAMPLING = {"temperature": "temperature", "temp": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "typical_p": "typical_p",
            "top_n_sigma": "top_n_sigma", "seed": "seed", "repetition_penalty": "repetition_penalty", "repetition_context_size": "repetition_context",
            "presence_penalty": "presence_penalty", "presence_context_size": "presence_context", "frequency_penalty": "frequency_penalty",
            "frequency_context_size": "frequency_context", "top_logprobs": "top_logprobs"}
MEDIA = ("resize_shape", "fps", "min_pixels", "max_pixels", "num_frames", "min_frames", "max_frames", "max_soft_tokens", "max_tiles", "detail", "size",
         "images_kwargs", "videos_kwargs")
NUMBERS = {"max_tokens": "max_tokens", "skip_special_tokens": "skip_special_tokens", "ignore_eos": "ignore_eos", "priority": "priority", "parse": "parse",
           "parallel_tool_calls": "parallel_tool_calls", "thinking_budget": "thinking_budget", "min_tokens": "min_tokens", "include_stop": "include_stop",
           "num_beams": "num_beams"}
TEXTS = {"adapter": "adapter", "tool_format": "tool_format", "thinking_start_token": "thinking_start", "thinking_end_token": "thinking_end"}
JSON = ("response_format", "stop_token_ids")
# Work of the library's own, without a switch here: accepted, since the answer is the same.
IGNORED = {"prefill_step_size", "prompt_cache_state", "vision_cache", "verbose", "apc_manager", "lazy"}


def _sampling(options: RequestOptions, given: Dict[str, Any], keep: list) -> None:
    for name, target in SAMPLING.items():
        value = given.pop(name, None)
        if value is not None:
            setattr(options.sampling, target, value)
    bias = given.pop("logit_bias", None)
    if bias:
        keep.append(as_json({str(token): value for token, value in bias.items()}))
        options.sampling.logit_bias = keep[-1]
    if given.pop("logprobs", False) or options.sampling.top_logprobs:
        options.sampling.logprobs = 1


def _request_options(model: Model, prompt: Any, media: list, given: Dict[str, Any]) -> Tuple[RequestOptions, list]:
    """The C struct and what has to live as long as it is read (until the request is submitted)."""
    options, keep = lib.vlm_request_options_default(), []

    def text(value: Optional[bytes]) -> Optional[bytes]:
        keep.append(value)
        return value

    messages = given.pop("messages", None)
    if (prompt is None) == (messages is None):
        raise TypeError("give either a prompt text or messages")
    if messages is not None:
        if media:
            raise TypeError("with messages, media are parts of the messages")
        options.messages = text(as_json(messages))
        chat = dict(given.pop("template_kwargs", None) or {})
        if given.get("enable_thinking") is not None:
            chat["enable_thinking"] = bool(given["enable_thinking"])
        options.chat.tools, options.chat.template_kwargs = text(as_json(given.pop("tools", None))), text(as_json(chat or None))
        options.chat.add_generation_prompt = int(given.pop("add_generation_prompt", 1))
    else:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is text (see apply_chat_template), not {type(prompt).__name__}")
        options.prompt, options.media = text(encoded(prompt)), text(as_json(media or None))
    given.pop("enable_thinking", None)                          # with a prompt text it has done its work in the template
    settings = dict(given.pop("media_options", None) or {})
    settings.update({name: given.pop(name) for name in MEDIA if given.get(name) is not None})
    options.media_options = text(as_json(settings or None))
    for name, target in NUMBERS.items():
        if given.get(name) is not None:
            setattr(options, target, int(given.pop(name)))
    early = given.pop("early_stopping", None)
    if early is not None:
        options.early_stopping = 2 if early == "never" else int(bool(early))
    if given.get("length_penalty") is not None:
        options.length_penalty = float(given.pop("length_penalty"))
    for name, target in TEXTS.items():
        setattr(options, target, text(encoded(given.pop(name, None))))
    for name in JSON:
        setattr(options, name, text(as_json(given.pop(name, None))))
    choice = given.pop("tool_choice", None)
    options.tool_choice = text(encoded(choice) if isinstance(choice, str) else as_json(choice))
    for name in ("stop", "eos_tokens"):
        value = given.pop(name, None)
        setattr(options, name, text(as_json([value] if isinstance(value, str) else value)))
    spelled = [given.pop(name, None) for name in ("tenant", "apc_tenant")]
    tenant = spelled[0] or spelled[1]
    options.tenant = text(encoded(tenant)) if tenant else None
    options.timeout_seconds = float(given.pop("timeout", None) or 0)
    options.allow_local_files = options.allow_network = 1
    _sampling(options, given, keep)
    unknown = {name for name, value in given.items() if value is not None} - IGNORED
    if unknown:
        raise TypeError(f"generation does not know {', '.join(sorted(unknown))}")
    return options, keep


def _tops(event: Event) -> List[Tuple[int, float]]:
    return [(event.token, event.logprob)] + [(event.top[i].token, event.top[i].logprob) for i in range(event.top_count)
                                             if event.top[i].token != event.token]


def _fill(result: GenerationResult, event: Event) -> None:
    usage = event.usage
    result.prompt_tokens, result.generation_tokens = usage.prompt_tokens, usage.completion_tokens
    result.total_tokens, result.cached_tokens = usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens
    result.prompt_tps = usage.prompt_tokens / usage.prefill_seconds if usage.prefill_seconds > 0 else 0.0
    result.generation_tps = usage.completion_tokens / usage.decode_seconds if usage.decode_seconds > 0 else 0.0
    result.reasoning_tokens, result.peak_memory = usage.reasoning_tokens, peak_memory()
    result.media_items, result.media_cached, result.encode_seconds = usage.media_items, usage.media_cached, usage.encode_seconds


class _Answer:
    """Events put together: a result for each token, with the text and reasoning that became certain with it."""

    def __init__(self, wants_logprobs: bool) -> None:
        self.wants_logprobs, self.tokens, self.calls = wants_logprobs, [], []
        self.waiting: Optional[GenerationResult] = None         # a token whose text is not known yet
        self.early = GenerationResult()                         # text that came when no token waited for any
        self.prompt_tokens = self.cached = 0

    def take(self) -> Iterator[GenerationResult]:
        if self.waiting:
            yield self.waiting
        self.waiting = None

    def token(self, event: Event) -> None:
        self.tokens.append(event.token)
        self.waiting = GenerationResult(token=event.token, prompt_tokens=self.prompt_tokens, generation_tokens=len(self.tokens),
                                        cached_tokens=self.cached, total_tokens=self.prompt_tokens + len(self.tokens), text=self.early.text,
                                        reasoning=self.early.reasoning, logprobs=_tops(event) if self.wants_logprobs else None)
        self.early = GenerationResult()

    def text(self, event: Event, name: str) -> Iterator[GenerationResult]:
        target = self.waiting or self.early
        setattr(target, name, getattr(target, name) + c.string_at(event.text, event.text_bytes).decode("utf-8", "replace"))
        yield from self.take()

    def call(self, event: Event) -> None:
        if event.call_event == CALL_START:
            self.calls.append({"id": (event.call_id or b"").decode(), "type": "function", "function": {"name": event.call_name.decode(), "arguments": ""}})
        elif event.call_event == CALL_ARGUMENTS:
            self.calls[event.call_index]["function"]["arguments"] += c.string_at(event.text, event.text_bytes).decode("utf-8", "replace")

    def last(self, event: Event) -> GenerationResult:
        if event.token >= 0:
            self.tokens.append(event.token)
        last = GenerationResult(text=self.early.text, reasoning=self.early.reasoning, token=self.tokens[-1] if self.tokens else None,
                                token_ids=self.tokens, tool_calls=self.calls, finish_reason=event.finish_reason.decode(),
                                parsed=json.loads(event.parsed) if event.parsed else None)
        _fill(last, event)
        return last


def _results(request: Request, wants_logprobs: bool) -> Iterator[GenerationResult]:
    answer = _Answer(wants_logprobs)
    for event in request:
        if event.type == EVENT_STARTED:
            answer.prompt_tokens, answer.cached = event.usage.prompt_tokens, event.usage.cached_tokens
        elif event.type == EVENT_TOKEN:
            yield from answer.take()
            answer.token(event)
        elif event.type in (EVENT_TEXT, EVENT_REASONING):
            yield from answer.text(event, "text" if event.type == EVENT_TEXT else "reasoning")
        elif event.type == EVENT_TOOL_CALL:
            answer.call(event)
        elif event.type == EVENT_NOTICE:
            warnings.warn(c.string_at(event.text, event.text_bytes).decode("utf-8", "replace"), stacklevel=4)
        elif event.type == EVENT_DONE:
            yield from answer.take()
            yield answer.last(event)


def _submit(model: Model, prompt: Any, image: Any, audio: Any, video: Any, given: Dict[str, Any]) -> Tuple[Request, bool]:
    given = dict(given)
    wants = bool(given.get("logprobs") or given.get("top_logprobs"))
    options, keep = _request_options(model, prompt, _media.parts(image, video, audio), given)
    options.sampling.logprobs = 1                               # a token event each, which carries the text's place
    request = Request(model._handle, options)
    del keep
    return request, wants


def stream_generate(model: Model, processor: Processor, prompt: Optional[str] = None, image: Any = None, audio: Any = None, video: Any = None,
                    **kwargs: Any) -> Iterator[GenerationResult]:
    """One GenerationResult a token and a last one with finish_reason, counts and token_ids. Closing the iterator cancels the request."""
    del processor
    request, wants = _submit(model, prompt, image, audio, video, kwargs)
    try:
        yield from _results(request, wants)
    finally:
        request.close()


def _whole(results: Iterator[GenerationResult], on_text=None) -> GenerationResult:
    pieces, thoughts, last = [], [], GenerationResult()
    logprobs: Optional[List[Tuple[int, float]]] = None
    for last in results:
        pieces.append(last.text)
        thoughts.append(last.reasoning)
        logprobs = last.logprobs or logprobs
        if on_text and last.text:
            on_text(last.text)
    last.text, last.reasoning, last.logprobs = "".join(pieces), "".join(thoughts), logprobs
    return last


def generate(model: Model, processor: Processor, prompt: Optional[str] = None, image: Any = None, audio: Any = None, video: Any = None,
             verbose: bool = False, **kwargs: Any) -> GenerationResult:
    """The whole answer. image, audio, video: one medium or a list (path, URL, data: URI, bytes, file, Pillow image, numpy array, (samples, rate)).

    kwargs: max_tokens 2048, temperature, top_p, top_k, min_p, typical_p, top_n_sigma, the penalties and their context sizes, logit_bias, seed,
    logprobs, top_logprobs, stop, stop_token_ids, include_stop, eos_tokens, min_tokens, skip_special_tokens, response_format, thinking_budget, fps,
    num_frames, min_pixels, max_pixels, max_tiles, max_soft_tokens, detail, resize_shape, media_options, tenant, timeout; with messages=[...] instead of
    a prompt also tools, tool_choice, parallel_tool_calls, enable_thinking, template_kwargs. adapter: name of one of load()'s adapters, "a,b" of several,
    "" of none. num_beams, length_penalty, early_stopping (True, False, "never"): beam search; the text comes at the end. parse=True takes reasoning and tool calls out of the text; so it is with messages."""
    show = (lambda text: print(text, end="", flush=True)) if verbose else None
    result = _whole(stream_generate(model, processor, prompt, image, audio, video, **kwargs), show)
    if verbose:
        print(f"\n==========\nPrompt: {result.prompt_tokens} tokens, {result.prompt_tps:.3f} tokens-per-sec\n"
              f"Generation: {result.generation_tokens} tokens, {result.generation_tps:.3f} tokens-per-sec\nPeak memory: {result.peak_memory:.3f} GB")
    return result


def _each(media: Any, count: int, what: str) -> list:
    """media[i] belongs to prompts[i]; a list inside is several media of one prompt. Missing ones at the end: none."""
    listed = [] if media is None else list(media)
    if len(listed) > count:
        raise ValueError(f"{len(listed)} {what} for {count} prompts")
    return listed + [None] * (count - len(listed))


def _template_variables(given: Dict[str, Any]) -> Dict[str, Any]:
    """What of generation's arguments is the template's."""
    return {} if given.get("enable_thinking") is None else {"enable_thinking": bool(given["enable_thinking"])}


def batch_generate(model: Model, processor: Processor, images: Any = None, audios: Any = None, prompts: Optional[List[str]] = None,
                   max_tokens: Union[int, List[int]] = 128, verbose: bool = False, group_by_shape: bool = True, track_image_sizes: bool = True,
                   videos: Any = None, **kwargs: Any) -> BatchResponse:
    """All prompts in one continuous batch, each with its own media and length; texts in the order of the prompts.

    Each prompt (a question, a message or a list of them) goes through the chat template here, as in mlx-vlm.
    group_by_shape changes nothing: requests of any shape share a batch. adapter: one for all, or a list with one (or None) for each prompt."""
    del group_by_shape
    prompts = list(prompts or [])
    limits = list(max_tokens) if isinstance(max_tokens, (list, tuple)) else [max_tokens] * len(prompts)
    if len(limits) != len(prompts):
        raise ValueError(f"{len(limits)} values of max_tokens for {len(prompts)} prompts")
    adapter = kwargs.pop("adapter", None)
    adapters = _each(adapter, len(prompts), "adapters") if isinstance(adapter, (list, tuple)) else [adapter] * len(prompts)
    media = zip(*(_each(m, len(prompts), what) for m, what in ((images, "images"), (audios, "audios"), (videos, "videos"))))
    requests = []
    try:
        for prompt, limit, own, (image, audio, video) in zip(prompts, limits, adapters, media):
            text = apply_chat_template(processor, model.config, prompt, num_images=len(_media.as_list(image)), num_audios=len(_media.as_list(audio)),
                                       num_videos=len(_media.as_list(video)), **_template_variables(kwargs))
            requests.append(_submit(model, text, image, audio, video, dict(kwargs, max_tokens=limit, adapter=own)))
        results = []
        for request, wants in requests:
            results.append(_whole(_results(request, wants)))
    finally:
        for request, _ in requests:
            request.close()
    stats = BatchStats(prompt_tokens=sum(r.prompt_tokens for r in results), generation_tokens=sum(r.generation_tokens for r in results),
                       prompt_time=max((r.prompt_tokens / r.prompt_tps for r in results if r.prompt_tps), default=0.0),
                       generation_time=max((r.generation_tokens / r.generation_tps for r in results if r.generation_tps), default=0.0),
                       peak_memory=peak_memory())
    stats.prompt_tps = stats.prompt_tokens / stats.prompt_time if stats.prompt_time else 0.0
    stats.generation_tps = stats.generation_tokens / stats.generation_time if stats.generation_time else 0.0
    if verbose:
        print(f"{len(results)} answers: prompt {stats.prompt_tokens} tokens, generation {stats.generation_tokens} tokens, "
              f"{stats.generation_tps:.3f} tokens-per-sec")
    return BatchResponse(texts=[r.text for r in results], stats=stats, image_sizes=_sizes(images) if track_image_sizes else None, results=results)


def _sizes(images: Any) -> Optional[List[Tuple[int, int]]]:
    """(height, width) of images that came as objects; a path's is not read a second time."""
    listed = [image for image in (images or []) if hasattr(image, "size") or hasattr(image, "shape")]
    sizes = [(int(i.shape[0]), int(i.shape[1])) if hasattr(i, "shape") else (i.size[1], i.size[0]) for i in listed]
    return sizes or None
