#!/usr/bin/env python3
"""templates.py DIRECTORY: our own chat templates with goldens of transformers (NAME/template.jinja, NAME/cases.json, conversations.json), and
jinja_random.json: templates of tests/parity/jinja_diff.py's grammar with what transformers makes of them.

Run it with a Python that has transformers. tests/parity/templates.py compares."""
import json
import pathlib
import sys

out = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/parity"))
import jinja_diff  # noqa: E402

TEMPLATES = {
    "lines": "{% for m in messages %}{{ m.role|upper }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}\n",
    "tools_json": """{%- if tools %}
    {{- '<|system|>\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|system|>\\n' + messages[0].content + '<|end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, seek=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.seek and message.role == "user" and message.content is string and not message.content.startswith('<result>') %}
        {%- set ns.seek = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|' + message.role + '|>\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|assistant|>\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|assistant|>\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<call>{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}</call>' }}
        {%- endfor %}
        {{- '<|end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or messages[loop.index0 - 1].role != "tool" %}{{- '<|user|>' }}{%- endif %}
        {{- '\\n<result>\\n' }}{{- content }}{{- '\\n</result>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "strict": """{{ bos_token }}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}
{% for message in rest | rejectattr('role', 'equalto', 'tool') | list %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate: ' ~ message.role ~ ' at ' ~ loop.index0) }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[U]' ~ (system ~ '\\n\\n' if loop.first and system is defined) ~ message.content | trim ~ '[/U]' }}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + (message.content or '') | trim + eos_token }}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial optional system message!') }}
    {%- endif %}
{% endfor %}""",
    "macros": """{%- macro value(v, quote=true) -%}
{%- if v is none -%}null{%- elif v is boolean -%}{{ 'yes' if v else 'no' }}{%- elif v is string -%}{{ '"' ~ v ~ '"' if quote else v }}
{%- elif v is mapping -%}{ {%- for k, x in v | dictsort -%}{{ k }}:{{ value(x) }}{{ ',' if not loop.last }}{%- endfor -%} }
{%- elif v is sequence -%}[{%- for x in v -%}{{ value(x) }}{%- if not loop.last %}, {% endif -%}{%- endfor -%}]{%- else -%}{{ v }}{%- endif -%}
{%- endmacro -%}
{%- macro wrap(tag) -%}<{{ tag }}>{{ caller() }}</{{ tag }}>{%- endmacro -%}
{%- set ns = namespace(images=0, calls=[]) -%}
{%- for m in messages -%}
{%- call wrap(m.role) -%}
{%- if m.content is string -%}{{ m.content }}
{%- elif m.content is mapping -%}{{ value(m.content) }}
{%- elif m.content -%}
{%- for p in m.content -%}
{%- if p.type == 'text' -%}{{ p.text }}
{%- elif p.type in ['image', 'image_url'] or 'image' in p -%}{%- set ns.images = ns.images + 1 -%}<img {{ ns.images }}>
{%- elif p.type == 'video' -%}<vid>{%- elif p.type == 'audio' -%}<snd>{%- else -%}?{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- for c in m.tool_calls | default([], true) -%}{%- set ns.calls = ns.calls + [c.function.name] -%}{{ c.function.name }}({{ value(c.function.arguments, false) }}){%- endfor -%}
{%- endcall -%}
{%- endfor -%}
{%- if tools -%}{{ tools | map(attribute='function.name') | join(', ') }}|{{ tools | tojson(indent=1) }}{%- endif -%}
{{ ns.calls | unique | sort | join('+') }}{{ strftime_now('%d %b %Y') }}
""",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}<{{ m.role }}>{{ m.content }}{% endif %}\n{%- endfor %}"
                  "{% for d in documents or [] %}{{ loop.index }}. {{ d.title }}: {{ d.text | indent(2) }}\n{% endfor %}",
}
TALKS = {
    "user": [{"role": "user", "content": "Hello, how are you?"}],
    "talk": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2+2? "}, {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n4."}, {"role": "user", "content": "Sure?\nReally? é 日本 😀"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Compare "}, {"type": "image"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}, {"type": "video"}, {"type": "audio"}, {"type": "odd"}]}],
    "tools": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "reasoning": "Ask.", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "days": 3, "units": ["C", None, True], "x": 1.0}}},
        {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{\"zone\": \"CET\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "{\"t\": 21}"}, {"role": "tool", "tool_call_id": "call_2", "content": {"hour": 7}}],
    "open": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two, "}],
    "odd": [{"role": "assistant", "content": "I begin."}, {"role": "critic", "content": ""}, {"role": "user"}],
    "empty": [],
}
TOOLS = {"one": [{"type": "function", "function": {"name": "weather", "description": "The \"weather\" <b>é</b>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 18446744073709551615}}, "required": ["city"]}}}]}
DOCUMENTS = [{"title": "A", "text": "one\ntwo"}, {"title": "B", "text": ""}]
VARIANTS = [("", {"add_generation_prompt": True}), ("_end", {}), ("_tools", {"add_generation_prompt": True, "tools": "one", "enable_thinking": False}), ("_documents", {"documents": "DOCS"}), ("_open", {"continue_final_message": True})]


def golden(request):
    made = jinja_diff.expected(request)
    if "text" in made:
        return {"expected": made["text"]}
    return {"error": made["error"], **({"message": made["message"]} if made["error"] == "TemplateError" else {})}


jinja_diff.signal.signal(jinja_diff.signal.SIGALRM, jinja_diff.alarm)
special = {"bos_token": "<s>", "eos_token": "</s>"}
(out / "templates").mkdir(parents=True, exist_ok=True)
(out / "templates/conversations.json").write_text(json.dumps({"conversations": TALKS, "tools": TOOLS, "documents": DOCUMENTS}, ensure_ascii=False, indent=1) + "\n")
for name, source in TEMPLATES.items():
    cases = []
    for talk, messages in TALKS.items():
        for suffix, args in VARIANTS:
            args = dict(args)
            case = {"id": talk + suffix, "conv": talk}
            request = {**special, **args, "messages": messages, "chat_template": source}
            if "tools" in args:
                case["tools"] = args.pop("tools")
                request["tools"] = TOOLS[case["tools"]]
            if "documents" in args:
                request["documents"] = DOCUMENTS
            cases.append({**case, "args": args, **golden(request)})
    (out / "templates" / name).mkdir(exist_ok=True)
    (out / "templates" / name / "template.jinja").write_bytes(source.encode())
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    (out / "templates" / name / "cases.json").write_text('{"special": %s, "cases": [\n%s\n]}\n' % (json.dumps(special), lines))

cases, i = [], 0
while len(cases) < 500:
    i += 1
    jinja_diff.rnd.seed(f"golden-{i}")
    context, source = jinja_diff.context(), jinja_diff.template()
    made = golden({"messages": [], **context, "chat_template": source})
    text = made.get("expected", "")
    if " at 0x" in text.lower() or "<function" in text or len(source) > 1500 or len(text) > 3000 or (i % 4 and "error" in made) or made.get("error") in ("MemoryError", "OverflowError", "RecursionError"):
        continue
    used = {k: v for k, v in context.items() if k in source}
    if golden({"messages": [], **used, "chat_template": source}) == made:
        cases.append({"id": f"random-{i}", "template": source, "context": used, **made})
(out / "jinja_random.json").write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
