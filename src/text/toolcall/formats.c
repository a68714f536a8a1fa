/* formats.c - the table of formats, in the order in which a chat template is searched for their marks.
 *
 * A line says how a format is recognised, how its thinking is marked, what is left out of its content, how its calls are read (see
 * internal.h) and how one is written (spelling, see toolcall.h). */
#include "text/toolcall/internal.h"

#define THINK {{"<think>", "</think>"}}
#define NS "]<]minimax[>["

static const toolcall_format FORMATS[] = {
    {.name = "gemma4", .detect = {{"<|tool_call>", "<|\"|>"}},
     .think = {{"<|channel>thought", "<channel|>"}}, .flags = READ_NAMED | NAME_OPEN | CALL_ENDS_THINKING,
     .ends = {"<|tool_response>"},
     .sections = {{"<|tool_call>", "<tool_call|>"}}, .between = {"<|tool_call>"}, .name_lead = {"call:", ":"}, .quote = "<|\"|>",
     .spelling = {TOOLCALL_PAIRS, "<|tool_call>", "", "", "", "<|tool_call>call:", "", "<tool_call|>", .quote = "<|\"|>"}},
    {.name = "functiongemma", .detect = {{"<start_function_call>"}},
     .think = THINK, .flags = READ_NAMED | NAME_OPEN,
     .ends = {"<start_function_response>"},
     .sections = {{"<start_function_call>", "<end_function_call>"}}, .name_lead = {"call:", ":"}, .quote = "<escape>",
     .spelling = {TOOLCALL_PAIRS, "<start_function_call>", "", "", "", "<start_function_call>call:", "", "<end_function_call>", .quote = "<escape>"}},
    {.name = "minimax_m3", .detect = {{NS}},
     .think = {{"<mm:think>", "</mm:think>"}}, .flags = READ_NAMED | UNTYPED_JSON,
     .sections = {{NS "<tool_call>", NS "</tool_call>"}},
     .call_open = NS "<invoke", .head_end = ">", .name_attribute = "name", .call_close = NS "</invoke>", .tag_open = NS "<", .tag_end = ">",
     .spelling = {TOOLCALL_NESTED, NS "<tool_call>", NS "<tool_call>\n", "\n", "\n" NS "</tool_call>", NS "<invoke name=\"", "\">", NS "</invoke>",
                  NS "<", ">", NS "</%k>", .quote = NULL}},
    {.name = "minimax_m2", .detect = {{"<minimax:tool_call>"}},
     .think = THINK, .flags = READ_NAMED | WORD_NULL,
     .sections = {{"<minimax:tool_call>", "</minimax:tool_call>"}},
     .call_open = "<invoke", .head_end = ">", .name_attribute = "name", .call_close = "</invoke>",
     .tag_open = "<parameter", .tag_end = ">", .tag_close = "</parameter>", .key_attribute = "name",
     .spelling = {TOOLCALL_TAGS, "<minimax:tool_call>", "<minimax:tool_call>\n", "\n", "\n</minimax:tool_call>", "<invoke name=\"", "\">\n", "</invoke>",
                  "<parameter name=\"", "\">", "</parameter>\n", .quote = NULL}},
    {.name = "seed_oss", .detect = {{"<seed:tool_call>"}},
     .think = {{"<seed:think>", "</seed:think>"}, {"<think>", "</think>"}}, .flags = READ_NAMED | READ_OBJECTS | BARE_CALLS | LINE_VALUES | WORD_NULL,
     .ends = {"<seed:eos>"},
     .sections = {{"<seed:tool_call>", "</seed:tool_call>"}}, .between = {"<seed:tool_call>"},
     .call_open = "<function=", .head_end = ">", .call_close = "</function>", .tag_open = "<parameter=", .tag_end = ">", .tag_close = "</parameter>",
     .spelling = {TOOLCALL_TAGS, "<seed:tool_call>", "", "\n", "", "<seed:tool_call>\n<function=", ">\n", "</function>\n</seed:tool_call>",
                  "<parameter=", ">", "</parameter>\n", .quote = NULL}},
    {.name = "atem", .alias = "muse", .detect = {{"<atem:function_calls>"}},
     .think = {{" to=self<|message|>", "<|eom|>"}}, .force = "<|eom|><|start|>assistant to=user<|message|>",
     .flags = READ_NAMED | HEADERS | UNTYPED_JSON, .ends = {"<|eom|>", "<|eot|>", "<|end|>"},
     .sections = {{"<atem:function_calls>", "</atem:function_calls>"}},
     .call_open = "<atem:invoke", .head_end = ">", .name_attribute = "name", .call_close = "</atem:invoke>",
     .tag_open = "<atem:parameter", .tag_end = ">", .tag_close = "</atem:parameter>", .key_attribute = "name",
     .spelling = {TOOLCALL_TAGS, "<atem:function_calls>", "", "<|eom|><|start|>assistant", "", " to=",
                  "<|message|><atem:function_calls>\n<atem:invoke name=\"%n\">\n", "</atem:invoke>\n</atem:function_calls>",
                  "<atem:parameter name=\"", "\">", "</atem:parameter>\n", .quote = NULL}},
    {.name = "kimi_k3", .detect = {{"<|sep|>", "<|open|>"}},
     .think = {{"<|open|>think<|sep|>", "<|close|>think<|sep|>"}}, .force = "<|close|>think<|sep|><|open|>response<|sep|>",
     .flags = READ_NAMED | UNTYPED_JSON,
     .drop = {"<|open|>response<|sep|>", "<|close|>response<|sep|>"}, .ends = {"<|close|>message<|sep|>", "<|end_of_msg|>"},
     .sections = {{"<|open|>tools<|sep|>", "<|close|>tools<|sep|>"}}, .between = {"<|close|>json<|sep|>", "<|close|>call<|sep|>"},
     .call_open = "<|open|>call ", .head_end = "<|sep|>", .name_attribute = "tool", .call_close = "<|close|>call<|sep|>",
     .tag_open = "<|open|>argument ", .tag_end = "<|sep|>", .tag_close = "<|close|>argument<|sep|>", .key_attribute = "key", .type_attribute = "type",
     .whole_open = "<|open|>json ",
     .spelling = {TOOLCALL_TAGS, "<|open|>tools<|sep|>", "<|open|>tools<|sep|>", "", "<|close|>tools<|sep|>", "<|open|>call tool=\"",
                  "\" index=\"%I\"<|sep|>", "<|close|>call<|sep|>", "<|open|>argument key=\"", "\" type=\"%t\"<|sep|>", "<|close|>argument<|sep|>", .quote = NULL}},
    {.name = "kimi_k2", .detect = {{"<|tool_calls_section_begin|>"}},
     .think = THINK, .flags = READ_NAMED | NAME_IS_ID | CALL_ENDS_THINKING | BARE_CALLS,
     .sections = {{"<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"}}, .between = {"<|tool_call_end|>"},
     .call_open = "<|tool_call_begin|>", .name_end = "<|tool_call_argument_begin|>", .call_close = "<|tool_call_end|>", .name_lead = {"functions."},
     .spelling = {TOOLCALL_JSON, "<|tool_calls_section_begin|>", "<|tool_calls_section_begin|>", "", "<|tool_calls_section_end|>",
                  "<|tool_call_begin|>functions.", ":%i<|tool_call_argument_begin|>", "<|tool_call_end|>", .quote = NULL}},
    {.name = "deepseek_dsml", .detect = {{"｜DSML｜"}},
     .think = THINK, .flags = READ_NAMED | UNTYPED_JSON,
     .sections = {{"<｜DSML｜function_calls>", "</｜DSML｜function_calls>"}, {"<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>"}},
     .call_open = "<｜DSML｜invoke", .head_end = ">", .name_attribute = "name", .call_close = "</｜DSML｜invoke>",
     .tag_open = "<｜DSML｜parameter", .tag_end = ">", .tag_close = "</｜DSML｜parameter>", .key_attribute = "name", .type_attribute = "string",
     .spelling = {TOOLCALL_TAGS, "<｜DSML｜function_calls>", "<｜DSML｜function_calls>\n", "\n", "\n</｜DSML｜function_calls>",
                  "<｜DSML｜invoke name=\"", "\">\n", "</｜DSML｜invoke>", "<｜DSML｜parameter name=\"", "\" string=\"%s\">", "</｜DSML｜parameter>\n", .quote = NULL}},
    {.name = "deepseek_v3", .alias = "deepseek_r1", .detect = {{"<｜tool▁calls▁begin｜>", "```json"}},
     .think = THINK, .flags = READ_NAMED,
     .sections = {{"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"}}, .between = {"```<｜tool▁call▁end｜>", "<｜tool▁call▁end｜>", "```"},
     .call_open = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", .name_end = "```json",
     .spelling = {TOOLCALL_JSON, "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜>", "\n", "<｜tool▁calls▁end｜>",
                  "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "\n```<｜tool▁call▁end｜>", .quote = NULL}},
    {.name = "deepseek_v31", .detect = {{"<｜tool▁calls▁begin｜>"}},
     .think = THINK, .flags = READ_NAMED,
     .sections = {{"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"}}, .between = {"<｜tool▁call▁end｜>"},
     .call_open = "<｜tool▁call▁begin｜>", .name_end = "<｜tool▁sep｜>",
     .spelling = {TOOLCALL_JSON, "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜>", "", "<｜tool▁calls▁end｜>",
                  "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", .quote = NULL}},
    {.name = "cohere_action", .alias = "cohere2_moe", .detect = {{"<|START_ACTION|>"}},
     .think = {{"<|START_THINKING|>", "<|END_THINKING|>"}}, .force = "<|END_THINKING|>", .flags = READ_OBJECTS,
     .drop = {"<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"},
     .sections = {{"<|START_ACTION|>", "<|END_ACTION|>"}},
     .spelling = {TOOLCALL_JSON, "<|START_ACTION|>", "<|START_ACTION|>[\n    ", ",\n    ", "\n]<|END_ACTION|>",
                  "{\"tool_call_id\": \"%i\", \"tool_name\": \"", "\", \"parameters\": ", "}", .quote = NULL}},
    {.name = "harmony", .alias = "gpt_oss", .detect = {{"<|channel|>", "<|call|>"}},
     .think = {{"<|channel|>analysis<|message|>", "<|end|>"}}, .force = "<|end|><|start|>assistant<|channel|>final<|message|>",
     .flags = HEADERS, .ends = {"<|end|>", "<|call|>", "<|return|>"},
     .spelling = {TOOLCALL_JSON, "<|channel|>commentary to=", "", "<|start|>assistant", "", "<|channel|>commentary to=functions.",
                  " <|constrain|>json<|message|>", "<|call|>", .quote = NULL}},
    {.name = "mistral", .detect = {{"[TOOL_CALLS]", "[ARGS]"}},
     .think = {{"[THINK]", "[/THINK]"}, {"<think>", "</think>"}}, .flags = READ_NAMED | READ_OBJECTS | NAME_OPEN | MISTRAL_IDS,
     .sections = {{"[TOOL_CALLS]", NULL}}, .id_mark = "[CALL_ID]", .name_end = "[ARGS]",
     .spelling = {TOOLCALL_JSON, "[TOOL_CALLS]", "", "", "", "[TOOL_CALLS]", "[ARGS]", "", .quote = NULL}},
    {.name = "mistral_v3", .detect = {{"[TOOL_CALLS]"}},
     .think = {{"[THINK]", "[/THINK]"}, {"<think>", "</think>"}}, .flags = READ_NAMED | READ_OBJECTS | NAME_OPEN | MISTRAL_IDS,
     .sections = {{"[TOOL_CALLS]", NULL}}, .id_mark = "[CALL_ID]", .name_end = "[ARGS]",
     .spelling = {TOOLCALL_JSON, "[TOOL_CALLS]", "[TOOL_CALLS][", ", ", "]", "{\"name\": \"", "\", \"arguments\": ", ", \"id\": \"%d\"}", .quote = NULL}},
    {.name = "longcat", .detect = {{"<longcat_arg_key>"}, {"<longcat_tool_call>"}},
     .think = {{"<longcat_think>", "</longcat_think>"}, {"<think>", "</think>"}}, .flags = READ_NAMED | READ_OBJECTS | NAME_OPEN | UNTYPED_JSON,
     .ends = {"</longcat_s>"},
     .sections = {{"<longcat_tool_call>", "</longcat_tool_call>"}}, .between = {"<longcat_tool_call>"},
     .tag_open = "<longcat_arg_key>", .tag_end = "</longcat_arg_key>", .value_open = "<longcat_arg_value>", .tag_close = "</longcat_arg_value>",
     .spelling = {TOOLCALL_TAGS, "<longcat_tool_call>", "", "\n", "", "<longcat_tool_call>", "\n", "</longcat_tool_call>",
                  "<longcat_arg_key>", "</longcat_arg_key>\n<longcat_arg_value>", "</longcat_arg_value>\n", .quote = NULL}},
    {.name = "hy3", .detect = {{"arg_key{}"}, {"<arg_key:"}},
     .think = {{"<think\1>", "</think\1>"}}, .force = "</think:opensource>", .flags = READ_NAMED | NAME_OPEN | UNTYPED_JSON | BARE_CALLS,
     .ends = {"<｜hy_eos\1｜>"}, .sections = {{"<tool_calls\1>", "</tool_calls\1>"}}, .between = {"</tool_call\1>"},
     .call_open = "<tool_call\1>", .name_end = "<tool_sep\1>", .call_close = "</tool_call\1>",
     .tag_open = "<arg_key\1>", .tag_end = "</arg_key\1>", .value_open = "<arg_value\1>", .tag_close = "</arg_value\1>",
     .spelling = {TOOLCALL_TAGS, "<tool_calls:opensource>", "<tool_calls:opensource>\n", "\n", "\n</tool_calls:opensource>",
                  "<tool_call:opensource>", "<tool_sep:opensource>\n", "</tool_call:opensource>", "<arg_key:opensource>",
                  "</arg_key:opensource>\n<arg_value:opensource>", "</arg_value:opensource>\n", .quote = NULL}},
    {.name = "glm4", .alias = "glm47", .detect = {{"<arg_key>"}},
     .think = THINK, .flags = READ_NAMED | READ_OBJECTS | NAME_OPEN | UNTYPED_JSON,
     .drop = {"<|begin_of_box|>", "<|end_of_box|>"}, .ends = {"<|user|>", "<|observation|>", "</assistant>"},
     .sections = {{"<tool_call>", "</tool_call>"}}, .between = {"<tool_call>"},
     .tag_open = "<arg_key>", .tag_end = "</arg_key>", .value_open = "<arg_value>", .tag_close = "</arg_value>",
     .spelling = {TOOLCALL_TAGS, "<tool_call>", "", "\n", "", "<tool_call>", "\n", "</tool_call>", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", .quote = NULL}},
    {.name = "lfm2", .detect = {{"<|tool_call_start|>"}, {"<|tool_list_start|>"}},
     .think = THINK, .flags = READ_PYTHON | READ_OBJECTS,
     .sections = {{"<|tool_call_start|>", "<|tool_call_end|>"}},
     .spelling = {TOOLCALL_PYTHON, "<|tool_call_start|>", "<|tool_call_start|>[", ", ", "]<|tool_call_end|>", "", "(", ")", .quote = NULL}},
    {.name = "minicpm5", .detect = {{"<function name=", "<param name="}},
     .think = THINK, .flags = READ_NAMED | BARE_CALLS | ENTITIES | UNTYPED_PYTHON,
     .call_open = "<function ", .head_end = ">", .name_attribute = "name", .call_close = "</function>",
     .tag_open = "<param ", .tag_end = ">", .tag_close = "</param>", .key_attribute = "name",
     .spelling = {TOOLCALL_TAGS, "<function name=\"", "", "\n", "", "<function name=\"", "\">", "</function>", "<param name=\"", "\">", "</param>", .quote = NULL}},
    {.name = "qwen3_xml", .alias = "qwen3_coder", .detect = {{"<tool_call>", "<function="}},
     .think = THINK, .flags = READ_NAMED | READ_OBJECTS | BARE_CALLS | LINE_VALUES | WORD_NULL,
     .drop = {"<|START_RESPONSE|>", "<|END_RESPONSE|>"},
     .sections = {{"<tool_call>", "</tool_call>"}}, .between = {"<tool_call>"},
     .call_open = "<function=", .head_end = ">", .call_close = "</function>", .tag_open = "<parameter=", .tag_end = ">", .tag_close = "</parameter>",
     .spelling = {TOOLCALL_TAGS, "<tool_call>", "", "\n", "", "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>",
                  "<parameter=", ">\n", "\n</parameter>\n", .quote = NULL}},
    {.name = "apertus", .detect = {{"<|tools_prefix|>"}},
     .think = {{"<|inner_prefix|>", "<|inner_suffix|>"}, {"<think>", "</think>"}}, .flags = READ_OBJECTS | KEY_IS_NAME,
     .ends = {"<|assistant_end|>"}, .sections = {{"<|tools_prefix|>", "<|tools_suffix|>"}},
     .spelling = {TOOLCALL_JSON, "<|tools_prefix|>", "<|tools_prefix|>[", ", ", "]<|tools_suffix|>", "{\"", "\": ", "}", .quote = NULL}},
    {.name = "solar_open", .detect = {{"<|tool_call:begin|>"}},
     .think = {{"<|think|>", "<|end|>"}}, .force = "<|end|><|begin|>assistant<|content|>", .flags = READ_NAMED | BARE_CALLS,
     .drop = {"<|begin|>assistant", "<|content|>"}, .ends = {"<|flush|>", "<|calls|>"},
     .sections = {{"<|tool_calls|>", "<|calls|>"}}, .between = {"<|tool_call:end|>"},
     .call_open = "<|tool_call:begin|>", .name_mark = "<|tool_call:name|>", .name_end = "<|tool_call:args|>",
     .spelling = {TOOLCALL_JSON, "<|tool_calls|>", "<|tool_calls|>", "", "<|calls|>", "<|tool_call:begin|>%d<|tool_call:name|>", "<|tool_call:args|>",
                  "<|tool_call:end|>", .quote = NULL}},
    {.name = "nemotron_v2", .detect = {{"<TOOLCALL>"}},
     .think = THINK, .flags = READ_OBJECTS, .ends = {"<SPECIAL_12>"},
     .sections = {{"<TOOLCALL>", "</TOOLCALL>"}, {"<tool_calls>", "</tool_calls>"}},
     .spelling = {TOOLCALL_JSON, "<TOOLCALL>", "<TOOLCALL>[", ", ", "]</TOOLCALL>", "{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "apriel", .detect = {{"[BEGIN FINAL RESPONSE]", "<tool_calls>["}},
     .think = {{"Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"}, {"<think>", "</think>"}}, .flags = READ_OBJECTS | CALL_ENDS_THINKING,
     .drop = {"[END FINAL RESPONSE]", "[BEGIN FINAL RESPONSE]"}, .sections = {{"<tool_calls>", "</tool_calls>"}},
     .spelling = {TOOLCALL_JSON, "<tool_calls>", "<tool_calls>[", ", ", "]</tool_calls>", "{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "tool_calls_array", .alias = "hunyuan", .detect = {{"<tool_calls>["}, {"<tool_calls>", "!<tool_call>"}},
     .think = THINK, .flags = READ_OBJECTS, .drop = {"<answer>", "</answer>"},
     .sections = {{"<tool_calls>", "</tool_calls>"}, {"<TOOLCALL>", "</TOOLCALL>"}},
     .spelling = {TOOLCALL_JSON, "<tool_calls>", "<tool_calls>[", ", ", "]</tool_calls>", "{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "internlm2", .detect = {{"<|action_start|>"}},
     .think = THINK, .flags = READ_OBJECTS, .sections = {{"<|action_start|><|plugin|>", "<|action_end|>"}},
     .spelling = {TOOLCALL_JSON, "<|action_start|>", "", "", "", "<|action_start|><|plugin|>\n{\"name\": \"", "\", \"parameters\": ", "}<|action_end|>", .quote = NULL}},
    {.name = "gigachat3", .detect = {{"function call", "<|message_sep|>"}},
     .think = THINK, .flags = READ_OBJECTS, .ends = {"<|message_sep|>"},
     .sections = {{"<|message_sep|>\nfunction call<|role_sep|>", NULL}, {"function call<|role_sep|>", NULL}},
     .spelling = {TOOLCALL_JSON, "<|message_sep|>", "", "", "", "<|message_sep|>\n\nfunction call<|role_sep|>\n{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "step3", .detect = {{"steptml:"}, {"<｜tool_calls_begin｜>"}},
     .think = THINK, .flags = READ_NAMED | UNTYPED_JSON,
     .sections = {{"<｜tool_calls_begin｜>", "<｜tool_calls_end｜>"}},
     .between = {"<｜tool_call_begin｜>function<｜tool_sep｜>", "<｜tool_call_begin｜>", "<｜tool_sep｜>", "<｜tool_call_end｜>"},
     .call_open = "<steptml:invoke", .head_end = ">", .name_attribute = "name", .call_close = "</steptml:invoke>",
     .tag_open = "<steptml:parameter", .tag_end = ">", .tag_close = "</steptml:parameter>", .key_attribute = "name",
     .spelling = {TOOLCALL_TAGS, "<｜tool_calls_begin｜>", "<｜tool_calls_begin｜>", "", "<｜tool_calls_end｜>",
                  "<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=\"", "\">", "</steptml:invoke><｜tool_call_end｜>",
                  "<steptml:parameter name=\"", "\">", "</steptml:parameter>", .quote = NULL}},
    {.name = "olmo3", .detect = {{"<function_calls>"}},
     .think = THINK, .flags = READ_PYTHON | READ_OBJECTS, .sections = {{"<function_calls>", "</function_calls>"}},
     .spelling = {TOOLCALL_PYTHON, "<function_calls>", "<function_calls>\n", "\n", "\n</function_calls>", "", "(", ")", .quote = NULL}},
    {.name = "granite_20b_fc", .detect = {{"<function_call>"}},
     .think = THINK, .flags = READ_OBJECTS, .sections = {{"<function_call>", NULL}},
     .spelling = {TOOLCALL_JSON, "<function_call>", "", "", "", "<function_call> {\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "hermes_json", .alias = "hermes", .detect = {{"<tool_call>"}},
     .think = THINK, .flags = READ_OBJECTS, .ends = {"<sep>"},
     .sections = {{"<tool_call>", "</tool_call>"}, {"<tool_calls>", "</tool_calls>"}}, .between = {"<tool_call>", "</tool_call>"},
     .spelling = {TOOLCALL_JSON, "<tool_call>", "", "\n", "", "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>", .quote = NULL}},
    {.name = "granite3", .detect = {{"<|tool_call|>", "granite"}, {"<|tool_call|>", "Granite"}},
     .think = {{"<think>", "</think>"}, {"Here is my thought process:", "Here is my response:"}}, .flags = READ_OBJECTS,
     .drop = {"<response>", "</response>"}, .sections = {{"<|tool_call|>", NULL}, {"<tool_call>", NULL}},
     .spelling = {TOOLCALL_JSON, "<|tool_call|>", "<|tool_call|>[", ", ", "]", "{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "phi4mini", .detect = {{"<|tool_call|>"}, {"functools["}, {"<|tool|>", "<|/tool|>"}},
     .think = THINK, .flags = READ_OBJECTS | LOOSE_OBJECTS | BARE_OBJECTS, .ends = {"<|assistant|>"},
     .sections = {{"<|tool_call|>", "<|/tool_call|>"}, {"functools[", NULL}},
     .spelling = {TOOLCALL_JSON, "<|tool_call|>", "<|tool_call|>[", ", ", "]<|/tool_call|>", "{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "pythonic", .detect = {{"[func_name1("}},
     .think = THINK, .flags = READ_PYTHON | BARE_LISTS, .drop = {"<|python_start|>", "<|python_end|>"},
     .spelling = {TOOLCALL_PYTHON, "[", "[", ", ", "]", "", "(", ")", .quote = NULL}},
    {.name = "llama3_json", .alias = "llama3", .detect = {{"\"parameters\":", "<|eot_id|>"}, {"\"parameters\":", "<|eot|>"}},
     .think = THINK, .flags = READ_OBJECTS | BARE_OBJECTS, .drop = {"<|python_start|>", "<|python_end|>"}, .sections = {{"<|python_tag|>", NULL}},
     .spelling = {TOOLCALL_JSON, "{\"name\"", "", "; ", "", "{\"name\": \"", "\", \"parameters\": ", "}", .quote = NULL}},
    {.name = "xlam", .detect = {{"[{\"name\": \"tool_call_name\", \"arguments\""}},
     .think = THINK, .flags = READ_OBJECTS | BARE_LISTS,
     .sections = {{"<tool_call>", "</tool_call>"}, {"[TOOL_CALLS]", NULL}, {"```json\n[", "```"}},
     .spelling = {TOOLCALL_JSON, "[{", "[", ", ", "]", "{\"name\": \"", "\", \"arguments\": ", "}", .quote = NULL}},
    {.name = "plain", .detect = {{NULL}}, .think = THINK, .drop = {"<|begin_of_box|>", "<|end_of_box|>"}, .spelling = {.arguments = TOOLCALL_NONE}},
};
enum { FORMAT_COUNT = sizeof FORMATS / sizeof *FORMATS };

const toolcall_format *toolcall_format_at(size_t index) { return index < FORMAT_COUNT ? &FORMATS[index] : NULL; }
const char *toolcall_format_name(const toolcall_format *f) { return f->name; }
const toolcall_spelling *toolcall_format_spelling(const toolcall_format *f) { return &f->spelling; }

const toolcall_format *toolcall_format_find(const char *name)
{
    for (size_t i = 0; name && i < FORMAT_COUNT; i++)
        if (!strcmp(FORMATS[i].name, name) || (FORMATS[i].alias && !strcmp(FORMATS[i].alias, name))) return &FORMATS[i];
    return NULL;
}

static bool row_matches(const char *const row[3], const char *text)
{
    for (int k = 0; k < 3 && row[k]; k++) {
        bool absent = row[k][0] == '!';
        if ((strstr(text, row[k] + absent) != NULL) == absent) return false;
    }
    return row[0] != NULL;
}

const toolcall_format *toolcall_format_detect(const char *chat_template)
{
    for (size_t i = 0; chat_template && i < FORMAT_COUNT; i++)
        for (int r = 0; r < 4; r++)
            if (row_matches(FORMATS[i].detect[r], chat_template)) return &FORMATS[i];
    return &FORMATS[FORMAT_COUNT - 1];
}

static bool begins(const char *text, const char *token, size_t size) { return text && strlen(text) >= size && !memcmp(text, token, size); }

/* A token is a marker, or the control token within one. */
static bool has_token(const char *text, const char *token, size_t size)
{
    for (; text && (text = strchr(text, token[0])); text++)
        if (begins(text, token, size)) return true;
    return false;
}

bool toolcall_is_marker(const toolcall_format *f, const char *token, size_t size)
{
    if (size < 2) return false;
    const char *const texts[] = {f->call_open, f->call_close, f->name_end, f->name_mark, f->id_mark, f->head_end, f->tag_open, f->tag_end, f->value_open,
                                 f->tag_close, f->whole_open, f->whole_close, f->quote};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (has_token(texts[i], token, size)) return true;
    for (int i = 0; i < 6; i++)
        if (has_token(f->drop[i], token, size) || has_token(f->between[i], token, size)) return true;
    for (int i = 0; i < 5; i++)
        if (has_token(f->sections[i].open, token, size) || has_token(f->sections[i].close, token, size)) return true;
    for (int i = 0; i < 3; i++)
        if (has_token(f->think[i][0], token, size) || has_token(f->think[i][1], token, size)) return true;
    static const char *const headers[] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"};
    for (int i = 0; i < 4 && f->flags & HEADERS; i++)
        if (has_token(headers[i], token, size) || has_token(f->ends[i], token, size)) return true;
    return false;
}
