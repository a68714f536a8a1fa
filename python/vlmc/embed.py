"""embed and rerank: texts, pictures and videos as vectors, and documents in the order in which they answer a query."""
import ctypes as c
from typing import Any, Dict, List, Optional, Tuple, Union

from . import _media
from ._library import EVENT_EMBEDDING, Error, RequestOptions, lib
from .model import Model, Processor, Request, as_json, encoded

Vector = Union[List[float], List[List[float]]]


def _content(item: Any) -> Any:
    """A text, a medium, or {"text", "image", "video", "audio"} as content of a message."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        return _media.parts(item, None, None)
    unknown = set(item) - {"text", "image", "video", "audio"}
    if unknown:
        raise TypeError(f"an input has text, image, video and audio, not {', '.join(sorted(unknown))}")
    parts = _media.parts(item.get("image"), item.get("video"), item.get("audio"))
    if item.get("text") is not None:
        parts.append({"type": "text", "text": item["text"]})
    return parts


def _options(given: Dict[str, Any]) -> Tuple[RequestOptions, list]:
    options, keep = lib.vlm_request_options_default(), []
    for name in ("instruction", "adapter", "tenant"):
        keep.append(encoded(given.pop(name, None)))
        setattr(options, name, keep[-1])
    settings = {name: given.pop(name) for name in ("resize_shape", "fps", "min_pixels", "max_pixels", "num_frames") if given.get(name) is not None}
    keep.append(as_json(settings or None))
    options.media_options = keep[-1]
    options.allow_local_files = options.allow_network = 1
    if given:
        raise TypeError(f"unknown arguments: {', '.join(sorted(given))}")
    return options, keep


def embed(model: Model, processor: Optional[Processor], inputs: Any, query: bool = False, dimensions: int = 0, normalize: Optional[bool] = None,
          **kwargs: Any) -> List[Vector]:
    """A vector for each input, in one batch; of late-interaction models (ColQwen) a list of vectors for each.

    inputs: a list of texts, pictures (path, bytes, Pillow, numpy) or dicts with text, image, video. query: they are queries, not documents; a list says it for
    each. dimensions: only the first so many numbers. normalize: None is what the checkpoint says. kwargs: instruction, adapter, tenant, min_pixels, max_pixels ..."""
    del processor
    items = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    queries = list(query) if isinstance(query, (list, tuple)) else [query] * len(items)
    if len(queries) != len(items):
        raise ValueError(f"{len(queries)} values of query for {len(items)} inputs")
    options, keep = _options(kwargs)
    options.task, options.dimensions, options.normalize = b"embed", dimensions, -1 if normalize is None else int(normalize)
    requests, vectors = [], []
    try:
        for item, is_query in zip(items, queries):
            messages = as_json([{"role": "query" if is_query else "document", "content": _content(item)}])
            options.messages = messages
            requests.append(Request(model._handle, options))
        for request in requests:
            for event in request:
                if event.type == EVENT_EMBEDDING:
                    rows, cols = event.embedding_rows, event.embedding_cols
                    flat = event.embedding[:rows * cols]
                    vectors.append(flat if rows == 1 else [flat[i * cols:(i + 1) * cols] for i in range(rows)])
    finally:
        for request in requests:
            request.close()
    del keep
    return vectors


def rerank(model: Model, processor: Optional[Processor], query: Any, documents: Any, top_n: Optional[int] = None, **kwargs: Any) -> List[Tuple[int, float]]:
    """(index, score) of the documents, best first. query and documents are inputs as embed takes them. A reranker's scores are from 0 to 1; a model for
    embeddings says how alike query and document are. kwargs: instruction, adapter, tenant, min_pixels ..."""
    del processor
    items = list(documents)
    options, keep = _options(kwargs)
    scores, error = (c.c_double * max(len(items), 1))(), Error()
    if lib.vlm_rerank(model._handle.running_engine(), as_json(_content(query)), as_json([_content(item) for item in items]), c.byref(options), scores, None,
                      c.byref(error)):
        raise error.exception()
    del keep
    order = sorted(range(len(items)), key=lambda i: -scores[i])
    return [(i, scores[i]) for i in order[:top_n]]
