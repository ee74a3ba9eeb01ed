"""The chat formats of Llama 2, 3 and 3.1, for folders that have no template of their own, as Meta's.

Llama 2's is described at huggingface.co/blog/llama2, the others in prompt_format.md of the package llama-models.
That a chat with Llama 3.1 or later always begins with a system message of two dated lines is so in the templates
published with it on Hugging Face, not in Meta's own description; the day is written as there.
"""

LLAMA2 = """{% set given = messages and messages[0]['role'] == 'system' %}
{%- for message in (messages[1:] if given else messages) %}
    {%- if message['role'] != ('assistant' if loop.index0 % 2 else 'user') %}
        {{- raise_exception('after a system message, user and assistant take turns in a chat with Llama 2') }}
    {%- endif %}
    {%- if message['role'] == 'assistant' %}
        {{- ' ' + message['content'] | trim + ' ' + eos_token }}
    {%- else %}
        {%- set first = given and loop.first %}
        {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' if first else '' %}
        {{- bos_token + '[INST] ' + (system + message['content']) | trim + ' [/INST]' }}
    {%- endif %}
{%- endfor %}"""

_TURN = """{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

LLAMA3 = (
    """{{ bos_token }}
{%- for message in messages %}
    """
    + _TURN
)

LLAMA31 = (
    """{{ bos_token }}
{%- if date_string is not defined %}
    {%- set date_string = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}
{%- endif %}
{%- set given = messages and messages[0]['role'] == 'system' %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' }}
{{- date_string + '\\n\\n' + (messages[0]['content'] | trim if given else '') + '<|eot_id|>' }}
{%- for message in (messages[1:] if given else messages) %}
    """
    + _TURN
)
FORMATS = {LLAMA2: "Llama 2's format", LLAMA3: "Llama 3's format", LLAMA31: "Llama 3.1's format"}
