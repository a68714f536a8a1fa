"""clients.py URL: the official openai and anthropic clients (pip install openai anthropic) against a running `vlm server` with the demo model. By hand."""
import base64
import pathlib
import sys
import time
from typing import Literal

import anthropic
import openai
from pydantic import BaseModel

url = sys.argv[1]
media = pathlib.Path(__file__).resolve().parent.parent.parent / "models/demo/media"
receipt = base64.b64encode((media / "receipt.png").read_bytes()).decode()
sound = base64.b64encode((media / "ask_total.wav").read_bytes()).decode()
bad = []
weather = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


class Answer(BaseModel):
    name: Literal["Tom", "Ann"]
    ok: bool


def check(what, ok):
    print(("ok     " if ok else "FAILED ") + what)
    if not ok:
        bad.append(what)


def chat(c):
    ask = {"model": "demo", "temperature": 0, "max_tokens": 60}
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + receipt}}, {"type": "text", "text": "What is the total?"}]}]
    check("models", c.models.list().data[0].id == "demo" and c.models.retrieve("demo").id == "demo")
    check("chat", c.chat.completions.create(messages=[{"role": "user", "content": "Hello"}], **ask).choices[0].message.content == "Hello! How can I help you?")
    check("a picture", c.chat.completions.create(messages=picture, **ask).choices[0].message.content == "$33.59")
    heard = [{"role": "user", "content": [picture[0]["content"][0], {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}]}]
    check("a spoken question about it", c.chat.completions.create(messages=heard, **ask).choices[0].message.content == "$33.59")
    with c.chat.completions.stream(messages=picture, **ask) as s:
        for _ in s:
            pass
        check("stream", s.get_final_completion().choices[0].message.content == "$33.59" and s.get_final_completion().choices[0].message.role == "assistant")
    tools = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": weather}}]
    turns = [{"role": "user", "content": "Weather in Paris?"}]
    for streaming in (False, True):
        if streaming:
            with c.chat.completions.stream(messages=turns, tools=tools, tool_choice="required", **ask) as s:
                for _ in s:
                    pass
                message = s.get_final_completion().choices[0].message
        else:
            message = c.chat.completions.create(messages=turns, tools=tools, tool_choice="required", **ask).choices[0].message
        call = message.tool_calls[0]
        check(f"a call (stream {streaming})", call.function.name == "get_weather" and "Paris" in call.function.arguments)
        after = turns + [{"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}]},
                         {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21}'}]
        check("its result", "21" in c.chat.completions.create(messages=after, tools=tools, **ask).choices[0].message.content)
    parsed = c.chat.completions.parse(messages=turns, response_format=Answer, **{**ask, "max_tokens": 300}).choices[0].message.parsed
    check("parse", isinstance(parsed, Answer))
    for what, error, more in (("no messages", openai.BadRequestError, {"messages": []}), ("no model", openai.NotFoundError, {"messages": turns, "model": "none"})):
        try:
            c.chat.completions.create(**{**ask, **more})
            check(what, False)
        except error as e:
            check(what, bool(e.body["message"]))
    check("completions", len(c.completions.create(model="demo", prompt="Hello", max_tokens=3).choices[0].text) > 0)


def responses(c):
    first = c.responses.create(model="demo", input="Hello", temperature=0)
    check("responses", first.output_text == "Hello! How can I help you?" and first.status == "completed")
    check("a follow-up", c.responses.create(model="demo", input="and again?", previous_response_id=first.id, max_output_tokens=5).usage.input_tokens > 20)
    events = list(c.responses.create(model="demo", input="Hello", stream=True))
    check("numbered events", [e.sequence_number for e in events] == list(range(len(events))) and events[-1].type == "response.completed")
    tools = [{"type": "function", "name": "get_weather", "description": "Weather", "parameters": weather, "strict": True}]
    with c.responses.stream(model="demo", input="Weather in Paris?", tools=tools, tool_choice="required") as s:
        for _ in s:
            pass
        call = s.get_final_response().output[-1]
    check("a call", call.parsed_arguments == {"city": "Paris"})
    check("parse", isinstance(c.responses.parse(model="demo", input="Tom", text_format=Answer, max_output_tokens=200).output_parsed, Answer))
    look = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64," + receipt}, {"type": "input_text", "text": "What is the total?"}]}]
    check("a picture", c.responses.create(model="demo", input=look, temperature=0).output_text == "$33.59")
    check("kept", c.responses.retrieve(first.id).id == first.id and c.responses.input_items.list(first.id).data[0].content[0].text == "Hello")
    c.responses.delete(first.id)
    try:
        c.responses.retrieve(first.id)
        check("forgotten", False)
    except openai.NotFoundError:
        check("forgotten", True)
    long = c.responses.create(model="demo", input="Hello", background=True, max_output_tokens=100000, extra_body={"ignore_eos": True})
    check("in the background", long.status == "in_progress")
    c.responses.cancel(long.id)
    time.sleep(0.3)
    check("cancelled", c.responses.retrieve(long.id).status == "cancelled")
    check("input tokens", c.responses.input_tokens.count(model="demo", input="Hello").input_tokens > 0)


def messages(c):
    ask = {"model": "demo", "max_tokens": 100}
    look = [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": receipt}}, {"type": "text", "text": "What is the total?"}]}]
    with c.messages.stream(messages=look, **ask) as s:
        check("messages, a picture, a stream", s.get_final_message().content[0].text == "$33.59")
    check("count_tokens", c.messages.count_tokens(model="demo", messages=look).input_tokens > 100)
    tools = [{"name": "get_weather", "description": "Weather", "input_schema": weather}]
    turns = [{"role": "user", "content": "Weather in Paris?"}]
    answer = c.messages.create(messages=turns, tools=tools, tool_choice={"type": "any"}, **ask)
    call = [b for b in answer.content if b.type == "tool_use"][0]
    check("a call", call.input == {"city": "Paris"} and answer.stop_reason == "tool_use")
    turns += [{"role": "assistant", "content": [b.model_dump() for b in answer.content]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": '{"temperature": 21}'}]}]
    check("its result", "21" in c.messages.create(messages=turns, tools=tools, **ask).content[0].text)
    thought = c.messages.create(messages=[{"role": "user", "content": "What is 2+3?"}], thinking={"type": "enabled", "budget_tokens": 1024}, **ask)
    check("thinking", [b.type for b in thought.content] == ["thinking", "text"])
    stopped = c.messages.create(messages=[{"role": "user", "content": "Hello"}], stop_sequences=["help"], **ask)
    check("stop_sequences", stopped.stop_reason == "stop_sequence" and stopped.content[0].text == "Hello! How can I ")
    try:
        c.messages.create(model="none", max_tokens=3, messages=turns[:1])
        check("no model", False)
    except anthropic.NotFoundError:
        check("no model", True)


openai_client = openai.OpenAI(base_url=url + "/v1", api_key="none")
chat(openai_client)
responses(openai_client)
messages(anthropic.Anthropic(base_url=url, api_key="none"))
sys.exit(bool(bad))
