"""What `load` returns: a Model, which holds the checkpoint and one engine, and a Processor, which holds its text side. Both share one library handle."""
import ctypes as c
import json
import os
import threading
import types
from typing import Any, Dict, List, Optional, Tuple, Union

from ._library import EVENT_DONE, EVENT_ERROR, Error, Event, RequestOptions, lib, owned_text


def encoded(text: Optional[str]) -> Optional[bytes]:
    return None if text is None else text.encode("utf-8")


def as_json(value: Any) -> Optional[bytes]:
    return None if value is None else json.dumps(value, ensure_ascii=False).encode("utf-8")


class _Handle:
    """The loaded checkpoint and its engine; closed when the last owner lets go of it."""

    def __init__(self, path: str, options: Dict[str, Any], engine: Dict[str, Any]) -> None:
        self.model = self.engine = None
        self.lock = threading.Lock()
        self.engine_options = engine
        error, load_options = Error(), lib.vlm_load_options_default()
        for name, value in options.items():
            setattr(load_options, name, value)
        self.model = lib.vlm_load(encoded(path), c.byref(load_options), c.byref(error))
        if not self.model:
            raise error.exception()

    def running_engine(self) -> int:
        with self.lock:
            if not self.engine:
                error, options = Error(), lib.vlm_engine_options_default()
                for name, value in self.engine_options.items():
                    setattr(options, name, value)
                self.engine = lib.vlm_engine_new(self.model, c.byref(options), c.byref(error))
                if not self.engine:
                    raise error.exception()
            return self.engine

    def __del__(self) -> None:
        if getattr(self, "engine", None):
            lib.vlm_engine_free(self.engine)
        if getattr(self, "model", None):
            lib.vlm_model_free(self.model)


class Request:
    """One request on the engine; iterating gives its events (borrowed until the next one)."""

    def __init__(self, handle: _Handle, options: RequestOptions) -> None:
        self.request = None
        self.handle = handle
        error = Error()
        self.request = lib.vlm_submit(handle.running_engine(), c.byref(options), c.byref(error))
        if not self.request:
            raise error.exception()

    def __iter__(self):
        event = Event()
        while True:
            got = lib.vlm_request_next(self.request, c.byref(event), 100)      # short waits, so that Ctrl-C is seen
            if got < 0:
                return
            if not got:
                continue
            if event.type == EVENT_ERROR:
                raise event.error.contents.exception()
            yield event
            if event.type == EVENT_DONE:
                return

    def cancel(self) -> None:
        lib.vlm_request_cancel(self.request)

    def close(self) -> None:
        if self.request:
            lib.vlm_request_free(self.request)                                  # cancels what still runs
            self.request = None

    __del__ = close


class Model:
    """A checkpoint in memory. `config`: config.json merged with generation_config.json, its entries also as attributes."""

    def __init__(self, handle: _Handle, path: str) -> None:
        self._handle, self.path = handle, path
        self.config = Config(load_config(path))

    @property
    def info(self) -> Dict[str, Any]:
        """Family, parameters, context length, modalities, memory."""
        error = Error()
        return json.loads(owned_text(lib.vlm_model_info(self._handle.model, c.byref(error)), error))

    def stats(self) -> Dict[str, Any]:
        """Counters, memory and caches of the engine."""
        error = Error()
        return json.loads(owned_text(lib.vlm_engine_stats(self._handle.running_engine(), c.byref(error)), error))

    def reset_caches(self) -> None:
        lib.vlm_engine_reset_caches(self._handle.running_engine())


class Config(dict):
    """A dict whose entries are attributes too; a nested object as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        return types.SimpleNamespace(**value) if isinstance(value, dict) and all(key.isidentifier() for key in value) else value


class Tokenizer:
    def __init__(self, handle: _Handle) -> None:
        self._handle = handle

    def encode(self, text: str, add_special_tokens: bool = False, **unknown: Any) -> List[int]:
        """Ids; control tokens spelled in the text become their ids. add_special_tokens is False here: templates write them."""
        if add_special_tokens or unknown:
            raise TypeError("encode takes a text only; special tokens are written by the template")
        error, ids, count = Error(), c.POINTER(c.c_int32)(), c.c_size_t()
        if lib.vlm_tokenize(self._handle.model, encoded(text), 1, c.byref(ids), c.byref(count), c.byref(error)):
            raise error.exception()
        try:
            return ids[:count.value]
        finally:
            lib.vlm_free(c.cast(ids, c.c_void_p))

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        listed, error = [ids] if isinstance(ids, int) else [int(i) for i in ids], Error()
        return owned_text(lib.vlm_detokenize(self._handle.model, (c.c_int32 * len(listed))(*listed), len(listed), int(skip_special_tokens),
                                             c.byref(error)), error)


class Processor(Tokenizer):
    """The text side of a checkpoint: tokenizer and chat template. `tokenizer` is itself, as scripts for mlx-vlm ask for both."""

    def __init__(self, handle: _Handle, model_type: str) -> None:
        super().__init__(handle)
        self.model_type = model_type

    @property
    def tokenizer(self) -> "Processor":
        return self

    def apply_chat_template(self, messages: List[dict], tools: Optional[list] = None, add_generation_prompt: bool = True, tokenize: bool = False,
                            **template_kwargs: Any) -> Any:
        """The prompt text of a conversation (ids with tokenize=True); other arguments are variables of the template."""
        options, error = lib.vlm_chat_options_default(), Error()
        options.add_generation_prompt = int(add_generation_prompt)
        keep = as_json(tools or None), as_json(template_kwargs or None)
        options.tools, options.template_kwargs = keep
        text = owned_text(lib.vlm_apply_chat_template(self._handle.model, as_json(messages), c.byref(options), c.byref(error)), error)
        return self.encode(text) if tokenize else text


LOAD_IGNORED = {"lazy", "strict", "trust_remote_code"}       # weights are mapped, always checked, and no code of a checkpoint is run


def load(path_or_hf_repo: str, adapter_path: Union[None, str, Dict[str, str]] = None, lazy: bool = False, revision: Optional[str] = None, strict: bool = True, *,
         threads: int = 0, precision: str = "auto", kv_dtype: str = "auto", chat_template: Optional[str] = None, engine: Optional[Dict[str, Any]] = None,
         **kwargs: Any) -> Tuple[Model, Processor]:
    """(model, processor) of the checkpoint in a directory.

    threads: compute threads, 0: as many as there are. precision: "auto", "exact", "fast". kv_dtype: "auto", "f32", "bf16", "f16".
    chat_template: text that replaces the checkpoint's own. engine: fields of vlm_engine_options (kv_bytes, max_sequences, prefix_cache ...).
    adapter_path: folder or file of a LoRA or DoRA adapter (PEFT's or mlx-vlm's layout) that all requests run with; or {name: path} of several,
    of which generate(adapter=name) chooses.
    `lazy` and `strict` are accepted and change nothing: weights are mapped and every tensor is checked at load, always."""
    unknown = set(kwargs) - LOAD_IGNORED
    if unknown:
        raise TypeError(f"load() does not know {', '.join(sorted(unknown))}")
    if revision is not None:
        raise NotImplementedError("load(): revision is not supported")
    path = os.fspath(path_or_hf_repo)
    options = {"threads": threads, "precision": encoded(precision), "kv_dtype": encoded(kv_dtype), "chat_template": encoded(chat_template)}
    if adapter_path is not None:
        named = adapter_path if isinstance(adapter_path, dict) else {"adapter": adapter_path}
        options["adapters"] = as_json({name: os.fspath(where) for name, where in named.items()})
    known = {name for name, _ in type(lib.vlm_engine_options_default())._fields_} - {"size"}
    if set(engine or {}) - known:
        raise TypeError(f"load(engine=...) does not know {', '.join(sorted(set(engine or {}) - known))}; it takes {', '.join(sorted(known))}")
    handle = _Handle(path, options, engine or {})
    model = Model(handle, path)
    return model, Processor(handle, model.config.get("model_type", ""))


def load_config(model_path: Any, **kwargs: Any) -> Dict[str, Any]:
    """config.json merged with generation_config.json, which is also kept whole under "generation_config"."""
    if set(kwargs) - LOAD_IGNORED:
        raise TypeError(f"load_config() does not know {', '.join(sorted(set(kwargs) - LOAD_IGNORED))}")
    path, error = getattr(model_path, "path", model_path), Error()
    return json.loads(owned_text(lib.vlm_load_config(encoded(os.fspath(path)), c.byref(error)), error))
