"""Called by scripts/e2e-openai: the official client completes, streams and calls a tool."""

import json
import os

import openai
from openai import OpenAI

client = OpenAI(base_url=f"http://{os.environ['DIRECT_ADDRESS']}/v1", api_key="unused", max_retries=0)
cloud = OpenAI(base_url=f"{os.environ['CLOUD_URL']}/v1", api_key="unused")
cloud.post("/agents/", body={"name": "Ada", "model": "anthropic/claude-sonnet-4-5-20250929"}, cast_to=object)


def user(text):
    return [{"role": "user", "content": text}]


models = [model.id for model in client.models.list()]
assert "Ada" in models, models
print("ok  models")

done = client.chat.completions.create(model="Ada", messages=user("SAY hello there"))
assert done.choices[0].message.content == "hello there", done
assert done.choices[0].finish_reason == "stop" and done.usage.total_tokens > 0
print("ok  chat completion")

pieces, ends = [], []
for chunk in client.chat.completions.create(model="Ada", messages=user("SPLIT 4\nSAY one two three four"), stream=True):
    pieces.append(chunk.choices[0].delta.content or "")
    ends.append(chunk.choices[0].finish_reason)
assert "".join(pieces) == "one two three four" and len(pieces) > 4, pieces
assert ends[-1] == "stop"
print("ok  streamed chat completion")

marker = os.path.join(os.environ["DIRECT_WORK"], "made-by-a-tool")
command = json.dumps({"command": f"echo from-the-tool | tee {marker}", "description": "A test"})
script = f"CALL Bash {command}\nSAY the tool ran"
done = client.chat.completions.create(model="Ada", messages=user(script))
assert done.choices[0].message.content == "the tool ran"
assert open(marker).read() == "from-the-tool\n"
print("ok  chat completion with a tool of this machine")

response = client.responses.create(model="Ada", input=script, store=True)
assert response.status == "completed" and response.output_text == "the tool ran"
kinds = [item.type for item in response.output]
assert kinds == ["function_call", "function_call_output", "message"], kinds
assert response.output[0].name == "Bash" and json.loads(response.output[0].arguments)["command"]
print("ok  response with the call and its output")

again = client.responses.create(model="Ada", input="SAY and on", previous_response_id=response.id)
assert again.output_text == "and on"
print("ok  response that continues a stored one")

with client.responses.stream(model="Ada", input=f"REASON hm\n{script}") as stream:
    names = [event.type for event in stream]
    final = stream.get_final_response()
assert names[0] == "response.created" and names[-1] == "response.completed", names
for wanted in ["response.output_text.delta", "response.function_call_arguments.done", "response.output_item.done"]:
    assert wanted in names, names
assert final.output_text == "the tool ran"
print("ok  streamed response")

for call, error in [
    (lambda: client.chat.completions.create(model="nobody", messages=user("x")), openai.NotFoundError),
    (lambda: client.chat.completions.create(model="Ada", messages=[]), openai.BadRequestError),
    (lambda: client.responses.create(model="Ada", input="x", previous_response_id="resp_letta_x"), openai.NotFoundError),
    (lambda: client.chat.completions.create(model="Ada", messages=user("FAIL llm_api_error down")), openai.InternalServerError),
]:
    try:
        call()
    except error:
        continue
    raise AssertionError(error)
print("ok  errors are the client's own")
