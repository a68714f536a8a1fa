"""From a question and numbers of media to the prompt text: apply_chat_template as mlx-vlm has it.

Media given by number only go to the last user message, before its text; parts that stand in the messages stay where they are."""
from typing import Any, Dict, List, Union

from .model import Processor

MEDIA_PARTS = {"image": "image", "image_url": "image", "input_image": "image", "audio": "audio", "input_audio": "audio", "audio_url": "audio",
               "video": "video", "video_url": "video", "input_video": "video"}


def _as_messages(prompt: Any) -> List[Dict[str, Any]]:
    listed = prompt if isinstance(prompt, list) else [prompt]
    messages = []
    for item in listed:
        if isinstance(item, str):
            messages.append({"role": "user", "content": item})
        elif isinstance(item, dict):
            messages.append(dict({"role": "user"}, **item))
        else:
            raise TypeError(f"a prompt is text, a message (a dict with role and content) or a list of these, not {type(item).__name__}")
    return messages


def _count(messages: List[Dict[str, Any]], kind: str) -> int:
    return sum(MEDIA_PARTS.get(part.get("type", "")) == kind for message in messages if isinstance(message.get("content"), list)
               for part in message["content"] if isinstance(part, dict))


def get_message_json(model_name: str, prompt: str, role: str = "user", num_images: int = 0, num_audios: int = 0, num_videos: int = 0) -> Dict[str, Any]:
    """One message with its media before its text; the checkpoint's template or the family's rule says how they are spelled."""
    del model_name                                              # every family takes this form
    media = [{"type": "image"}] * num_images + [{"type": "video"}] * num_videos + [{"type": "audio"}] * num_audios
    return {"role": role, "content": [dict(part) for part in media] + [{"type": "text", "text": prompt}] if media else prompt}


def apply_chat_template(processor: Processor, config: Any, prompt: Any, add_generation_prompt: bool = True, return_messages: bool = False,
                        num_images: int = 0, num_audios: int = 0, **kwargs: Any) -> Union[str, List[Dict[str, Any]]]:
    """The prompt for `generate`: text with the family's placeholders. prompt: text, a message, or a list of them.

    kwargs: tools, num_videos; image, audio, video (path or list) for their numbers; and variables of the template (enable_thinking ...)."""
    del config                                                  # the processor knows its model
    wanted = {"image": num_images, "audio": num_audios, "video": kwargs.pop("num_videos", 0)}
    for kind, number in wanted.items():
        given = kwargs.pop(kind, None)
        wanted[kind] = number or (len(given) if isinstance(given, (list, tuple)) else int(given is not None))
    fps = kwargs.pop("fps", None)
    messages = _as_messages(prompt)
    missing = {kind: max(number - _count(messages, kind), 0) for kind, number in wanted.items()}
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
    if any(missing.values()):
        if last is None:
            raise ValueError("media are given by number, but there is no user message to put them into")
        content = messages[last].get("content") or ""
        media = get_message_json("", "", num_images=missing["image"], num_audios=missing["audio"], num_videos=missing["video"])["content"][:-1]
        for part in media:
            if part["type"] == "video" and fps is not None:
                part["fps"] = fps
        text = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        messages[last] = dict(messages[last], content=media + text)
    if return_messages:
        return messages
    return processor.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, **kwargs)
