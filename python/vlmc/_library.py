"""The C interface as ctypes sees it: vlm.h's structs field by field, and the functions with their types.

Each option struct of the library starts with its own size; `check_layout` compares that with the mirror here, so that a library of another version is
refused at import and not misread later."""
import ctypes as c
import ctypes.util
import os
import pathlib

STATUS = ("OK", "INVALID", "NOT_FOUND", "FORMAT", "UNSUPPORTED", "LIMIT", "MEMORY", "IO", "CANCELLED", "BUSY", "MISMATCH", "INTERNAL")


class VlmError(RuntimeError):
    """What the library reports: `code` is one of STATUS, `hint` what to do about it."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message + (f" ({hint})" if hint else ""))
        self.code, self.message, self.hint = code, message, hint


class Error(c.Structure):
    _fields_ = [("code", c.c_int), ("message", c.c_char * 1000), ("hint", c.c_char * 256)]

    def exception(self) -> Exception:
        code = STATUS[self.code] if 0 <= self.code < len(STATUS) else "INTERNAL"
        message, hint = self.message.decode("utf-8", "replace"), self.hint.decode("utf-8", "replace")
        kind = {"INVALID": InvalidError, "NOT_FOUND": NotFoundError, "MEMORY": OutOfMemoryError, "UNSUPPORTED": UnsupportedError}.get(code, VlmError)
        return kind(code, message, hint)


class InvalidError(VlmError, ValueError):
    """An argument is wrong."""


class NotFoundError(VlmError, FileNotFoundError):
    """A file, model or member is not there."""

    def __str__(self) -> str:
        return self.message


class OutOfMemoryError(VlmError, MemoryError):
    """Memory did not suffice."""


class UnsupportedError(VlmError, NotImplementedError):
    """The model or this build cannot do it."""


PROGRESS = c.CFUNCTYPE(None, c.c_void_p, c.c_char_p, c.c_uint64, c.c_uint64)


class LoadOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("threads", c.c_int), ("precision", c.c_char_p), ("kv_dtype", c.c_char_p), ("chat_template", c.c_char_p),
                ("dummy_weights", c.c_int), ("dummy_format", c.c_char_p), ("progress", PROGRESS), ("progress_user", c.c_void_p),
                ("adapters", c.c_char_p)]


class ChatOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("add_generation_prompt", c.c_int), ("tools", c.c_char_p), ("template_kwargs", c.c_char_p)]


class Sampling(c.Structure):
    _fields_ = [("temperature", c.c_float), ("top_p", c.c_float), ("top_k", c.c_int), ("min_p", c.c_float), ("typical_p", c.c_float),
                ("top_n_sigma", c.c_float), ("repetition_penalty", c.c_float), ("repetition_context", c.c_int), ("presence_penalty", c.c_float),
                ("presence_context", c.c_int), ("frequency_penalty", c.c_float), ("frequency_context", c.c_int), ("logit_bias", c.c_char_p),
                ("seed", c.c_uint64), ("logprobs", c.c_int), ("top_logprobs", c.c_int)]


class RequestOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("messages", c.c_char_p), ("prompt", c.c_char_p), ("media", c.c_char_p), ("chat", ChatOptions),
                ("media_options", c.c_char_p), ("sampling", Sampling), ("max_tokens", c.c_int), ("stop", c.c_char_p), ("eos_tokens", c.c_char_p),
                ("ignore_eos", c.c_int), ("skip_special_tokens", c.c_int), ("tenant", c.c_char_p), ("priority", c.c_int),
                ("allow_local_files", c.c_int), ("allow_network", c.c_int), ("progress", c.c_int), ("timeout_seconds", c.c_double), ("parse", c.c_int),
                ("response_format", c.c_char_p), ("tool_choice", c.c_char_p), ("parallel_tool_calls", c.c_int), ("tool_format", c.c_char_p),
                ("thinking_budget", c.c_int), ("thinking_start", c.c_char_p), ("thinking_end", c.c_char_p), ("min_tokens", c.c_int),
                ("stop_token_ids", c.c_char_p), ("include_stop", c.c_int), ("adapter", c.c_char_p), ("num_beams", c.c_int), ("length_penalty", c.c_float),
                ("early_stopping", c.c_int), ("task", c.c_char_p), ("instruction", c.c_char_p), ("dimensions", c.c_int), ("normalize", c.c_int)]


EVENT_STARTED, EVENT_TEXT, EVENT_TOKEN, EVENT_DONE, EVENT_ERROR, EVENT_PROGRESS, EVENT_REASONING, EVENT_TOOL_CALL, EVENT_NOTICE, EVENT_EMBEDDING = range(10)
CALL_START, CALL_ARGUMENTS, CALL_END = range(3)


class TopLogprob(c.Structure):
    _fields_ = [("token", c.c_int32), ("logprob", c.c_float)]


class Usage(c.Structure):
    _fields_ = [("prompt_tokens", c.c_int), ("cached_tokens", c.c_int), ("completion_tokens", c.c_int), ("media_items", c.c_int),
                ("media_cached", c.c_int), ("preemptions", c.c_int), ("reasoning_tokens", c.c_int)] + [
                   (name + "_seconds", c.c_double) for name in ("queue", "media", "encode", "prefill", "decode", "first_token", "total")]


class Event(c.Structure):
    _fields_ = [("type", c.c_int), ("text", c.c_void_p), ("text_bytes", c.c_size_t), ("token", c.c_int32), ("logprob", c.c_float),
                ("top", c.POINTER(TopLogprob)), ("top_count", c.c_int), ("finish_reason", c.c_char_p), ("stop_string", c.c_char_p),
                ("usage", Usage), ("error", c.POINTER(Error)), ("progress_what", c.c_char_p), ("progress_done", c.c_uint64),
                ("progress_total", c.c_uint64), ("call_event", c.c_int), ("call_index", c.c_int), ("call_id", c.c_char_p), ("call_name", c.c_char_p),
                ("parsed", c.c_char_p), ("embedding", c.POINTER(c.c_float)), ("embedding_rows", c.c_int), ("embedding_cols", c.c_int)]


class EngineOptions(c.Structure):
    _fields_ = [("size", c.c_size_t), ("kv_bytes", c.c_uint64), ("vision_cache_bytes", c.c_uint64), ("prefix_cache", c.c_int),
                ("step_tokens", c.c_int), ("prefill_chunk", c.c_int), ("max_sequences", c.c_int), ("max_queue", c.c_int), ("context", c.c_int)]


P, S, I = c.c_void_p, c.c_char_p, c.c_int
ERR = c.POINTER(Error)
# name: (result, arguments). Strings that the caller has to free are results of type P (owned_text).
FUNCTIONS = {
    "vlm_version": (S, []), "vlm_free": (None, [P]),
    "vlm_load_options_default": (LoadOptions, []), "vlm_load": (P, [S, c.POINTER(LoadOptions), ERR]), "vlm_model_free": (None, [P]),
    "vlm_load_config": (P, [S, ERR]), "vlm_model_info": (P, [P, ERR]), "vlm_families": (P, [ERR]),
    "vlm_chat_options_default": (ChatOptions, []), "vlm_apply_chat_template": (P, [P, S, c.POINTER(ChatOptions), ERR]),
    "vlm_tokenize": (I, [P, S, I, c.POINTER(c.POINTER(c.c_int32)), c.POINTER(c.c_size_t), ERR]),
    "vlm_detokenize": (P, [P, c.POINTER(c.c_int32), c.c_size_t, I, ERR]),
    "vlm_request_options_default": (RequestOptions, []), "vlm_engine_options_default": (EngineOptions, []),
    "vlm_engine_new": (P, [P, c.POINTER(EngineOptions), ERR]), "vlm_engine_free": (None, [P]), "vlm_engine_stats": (P, [P, ERR]),
    "vlm_engine_reset_caches": (None, [P]), "vlm_submit": (P, [P, c.POINTER(RequestOptions), ERR]),
    "vlm_rerank": (I, [P, S, S, c.POINTER(RequestOptions), c.POINTER(c.c_double), c.POINTER(Usage), ERR]),
    "vlm_request_next": (I, [P, c.POINTER(Event), I]), "vlm_request_cancel": (None, [P]), "vlm_request_free": (None, [P]),
}


def candidates() -> list:
    """Where libvlm.so may be, in order."""
    named = os.environ.get("VLM_LIBRARY")
    if named:
        return [named]
    here = pathlib.Path(__file__).resolve()
    tree = [str(path) for path in sorted(here.parents[2].glob("build/release/libvlm.so*"))[:1]] if (here.parents[2] / "include/vlm.h").exists() else []
    system = ctypes.util.find_library("vlm")
    return tree + ([system] if system else []) + ["libvlm.so.0", "libvlm.so"]


def check_layout(lib: c.CDLL) -> None:
    for struct, default in ((LoadOptions, lib.vlm_load_options_default), (ChatOptions, lib.vlm_chat_options_default),
                            (RequestOptions, lib.vlm_request_options_default), (EngineOptions, lib.vlm_engine_options_default)):
        if default().size != c.sizeof(struct):
            raise ImportError(f"this vlmc package does not fit libvlm {lib.vlm_version().decode()}: {struct.__name__} has "
                              f"{default().size} bytes there, {c.sizeof(struct)} here; install the package of the same version")


def open_library() -> c.CDLL:
    tried = []
    for path in candidates():
        try:
            lib = c.CDLL(path)
            break
        except OSError as error:
            tried.append(f"{path}: {error}")
    else:
        raise ImportError("libvlm.so was not found; build it (make) and set VLM_LIBRARY to the file, or install it. Tried:\n  " + "\n  ".join(tried))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    check_layout(lib)
    return lib


lib = open_library()


def owned_text(pointer: int, error: Error) -> str:
    """Text that the library allocated: copied and freed. NULL: raises what `error` says."""
    if not pointer:
        raise error.exception()
    try:
        return c.string_at(pointer).decode("utf-8", "replace")
    finally:
        lib.vlm_free(pointer)
