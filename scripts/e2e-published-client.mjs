// Called by scripts/e2e-published-client: CLIENT-MODULE ADDRESS TOKEN WORKDIR.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [module, url, authToken, work] = process.argv.slice(2);
const { createAppServerClient, isAppServerInfoResponseMessage } = await import(module);
const WebSocket = globalThis.WebSocket?.prototype?.ping ? globalThis.WebSocket : createRequire(module)('ws');

const steps = [];
const step = (name) => { steps.push(name); console.log(`ok  ${name}`); };
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function open() {
  const client = createAppServerClient({ url, authToken, WebSocket });
  client.frames = [];
  client.onMessage((frame, channel) => { assert.equal(channel, 'control'); client.frames.push(frame); });
  await client.connect();
  return client;
}
// The first frame behind `from` that `accept` takes.
async function until(client, from, accept) {
  for (const started = Date.now(); Date.now() - started < 20_000; await pause(5)) {
    const found = client.frames.slice(from).find(accept);
    if (found) return found;
  }
  throw new Error('no such frame: ' + accept + '\n' + JSON.stringify(client.frames.slice(from).map((f) => f.type)));
}
const typed = (client, from, type) => until(client, from, (frame) => frame.type === type);
const create = (content) => ({ kind: 'create_message', messages: [{ role: 'user', content }] });
const said = (client, from) => client.frames.slice(from)
  .filter((frame) => frame.delta?.message_type === 'assistant_message')
  .map((frame) => typeof frame.delta.content === 'string' ? frame.delta.content : frame.delta.content.map((part) => part.text).join('')).join('');

const one = await open();
const two = await open();

const info = await one.info();
assert(isAppServerInfoResponseMessage(info));
assert.equal(info.protocol_version, 1);
assert.equal(info.capabilities.runtime_start, true);
step('info');

const made = await one.runtimeStart({ create_agent: { body: { name: 'Made', model: 'anthropic/claude-sonnet-4-5-20250929' } }, mode: 'standard', cwd: work });
assert.equal(made.success, true);
assert.deepEqual(made.created, { agent: true, conversation: true });
const runtime = made.runtime;
step('runtimeStart with a created agent');

const there = await two.runtimeStart({ agent_id: runtime.agent_id, conversation_id: runtime.conversation_id });
assert.equal(there.success, true);
assert.deepEqual(there.runtime, runtime);
assert.deepEqual(there.created, { agent: false, conversation: false });
await assert.rejects(async () => {
  const wrong = await two.runtimeStart({ agent_id: 'agent-missing-1' });
  if (!wrong.success) throw new Error(wrong.error);
});
step('runtimeStart with an existing agent, and with a missing one');

let from = one.frames.length;
const accepted = await one.submitInput({ runtime, payload: create('SAY hello there') });
assert.equal(accepted.accepted, true);
assert.equal(accepted.disposition, 'started');
await typed(one, from, 'turn_finished');
assert.equal(said(one, from), 'hello there');
step('submitInput, and the answer streams');

const file = join(work, 'made.txt');
from = one.frames.length;
const other = two.frames.length;
await one.submitInput({ runtime, payload: create(`CALL Write ${JSON.stringify({ file_path: file, content: 'asked\n' })}\nSAY done`) });
const question = await typed(one, from, 'control_request');
await typed(two, other, 'control_request');
const answer = (client, decision) => client.submitInput({ runtime, payload: { kind: 'approval_response', request_id: question.request_id, decision } });
const [first, second] = [await answer(two, { behavior: 'allow' }), await answer(one, { behavior: 'deny', message: 'no' })];
assert.equal(first.accepted, true);
assert.equal(second.accepted, false);
await typed(one, from, 'turn_finished');
assert(existsSync(file));
step('approvals from two clients: the first one counts');

const calls = [];
const off = one.onExternalToolCall(async (request) => {
  calls.push(request);
  if (request.input.id === 'bad') throw new Error('no such issue');
  return { content: [{ type: 'text', text: `issue ${request.input.id} is open` }] };
});
const tools = [{ tools: [{ name: 'lookup', description: 'Looks an issue up', parameters: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] } }] }];
const updated = await one.runtimeExternalToolsUpdate({ updates: [{ runtimes: [runtime], external_tools: tools }] });
assert.equal(updated.success, true);
one.sendRaw({ type: 'change_device_state', runtime, payload: { mode: 'unrestricted' } });
await one.sync({ runtime });
for (const id of ['LET-1', 'bad']) {
  from = one.frames.length;
  await two.submitInput({ runtime, payload: create(`CALL lookup {"id":"${id}"}\nSAY done`) });
  const end = await until(one, from, (frame) => frame.delta?.message_type === 'client_tool_end');
  assert.equal(end.delta.status, id === 'bad' ? 'error' : 'success');
  await typed(one, from, 'turn_finished');
}
assert.deepEqual(calls.map((call) => call.input.id), ['LET-1', 'bad']);
off();
step('external tools: answered, and failed');

const synced = await two.sync({ runtime, recover_approvals: true, force_device_status: true });
assert.equal(synced.success, true);
step('sync');

from = one.frames.length;
one.input({ runtime, payload: create('CALL Bash {"command":"sleep 600","description":"Wait"}\nSAY done') });
await until(one, from, (frame) => frame.delta?.message_type === 'client_tool_start');
const queued = await one.submitInput({ runtime, payload: create('SAY later') });
assert.equal(queued.disposition, 'queued');
const aborted = await one.abort({ runtime });
assert.equal(aborted.aborted, true);
const cancelled = await typed(one, from, 'turn_finished');
assert.equal(cancelled.stop_reason, 'cancelled');
assert.equal((await one.abort({ runtime })).aborted, false);
step('input and abort');

from = one.frames.length;
const resumed = await one.resumeQueue({ runtime });
assert.equal(resumed.resumed, 1);
await typed(one, from, 'turn_finished');
assert.equal(said(one, from), 'later');
step('resumeQueue');

// A method whose command this build declines must get an answer that says so.
async function method(name, frame, call, check) {
  const id = `probe-${name}`;
  const probe = await one.requestRaw({ ...frame, request_id: id }, { predicate: (m) => m?.request_id === id });
  if (probe.success !== true && /not support/.test(probe.error)) return step(`${name} (declined: ${probe.error})`);
  check(await call());
  step(name);
}
const list = { query: { agent_id: runtime.agent_id } };
await method('conversationList', { type: 'conversation_list', ...list }, () => one.conversationList(list), (listed) => {
  assert.equal(listed.success, true);
  assert(listed.conversations.some((c) => c.id === runtime.conversation_id));
});
const nothing = { runtime, process_id: 'bash_404' };
await method('stopMonitor', { type: 'monitor_stop', ...nothing }, () => one.stopMonitor(nothing), (stopped) => {
  assert.equal(stopped.success, false);
  assert.equal(stopped.error, 'Monitor not found');
});

assert.equal(info.capabilities.launch_subagent, true);
const task = (subagent_type) => ({ runtime, args: { subagent_type, prompt: 'CALL Bash {"command":"echo from-the-subagent","description":"Look"}\nSAY found it', description: 'Look' } });
const unknownKind = await one.launchSubagent(task('no-such-type'));
assert.equal(unknownKind.success, false);
assert.match(unknownKind.error, /Available types: .*general-purpose/);
from = one.frames.length;
const launched = await one.launchSubagent(task('general-purpose'));
assert.equal(launched.success, true, launched.error);
assert.match(launched.task_id, /^task_\d+$/);
assert.notEqual(launched.agent_id, runtime.agent_id);
assert.equal(launched.conversation_id, 'default');
const shown = await until(one, from, (frame) => frame.subagents?.some((one) => one.status === 'completed'));
const [subagent] = shown.subagents;
assert.deepEqual([subagent.tool_calls.length, subagent.tool_calls[0].name], [1, 'Bash']);
assert.equal(subagent.parent_conversation_id, runtime.conversation_id);
await until(one, from, (frame) => frame.subagent_id === subagent.subagent_id && JSON.stringify(frame.delta).includes('from-the-subagent'));
await typed(one, from, 'turn_finished');
const report = readFileSync(launched.output_file, 'utf8');
assert.match(report, /subagent_status=success[^]*found it\n\n\[Task completed\]\n$/);
step('launchSubagent: a real launch to its report, and an unknown type');

const raw = await one.requestRaw({ type: 'get_cwd_map', request_id: 'raw-1' }, { predicate: (m) => m?.type === 'get_cwd_map_response' && m.request_id === 'raw-1' });
assert.equal(raw.success, true);
const unknown = await one.requestRaw({ type: 'no_such_thing', request_id: 'raw-2' }, { predicate: (m) => m?.request_id === 'raw-2' });
assert.equal(unknown.type, 'error');
assert.equal((await one.request('app_server_info', {})).success, true);
step('raw and typed requests');

let gone = 0;
one.onDisconnect(() => { gone += 1; });
const sent = [];
one.onSend((command) => sent.push(command.type));
from = two.frames.length;
one.input({ runtime, payload: create('CALL Bash {"command":"sleep 1","description":"Wait"}\nSAY still here') });
await until(two, from, (frame) => frame.delta?.message_type === 'client_tool_start');
assert.deepEqual(sent, ['input']);
one.close();
assert.equal((await typed(two, from, 'turn_finished')).stop_reason, 'end_turn');
assert.equal(gone, 0);
const back = await open();
const again = await back.runtimeStart({ agent_id: runtime.agent_id, conversation_id: runtime.conversation_id, wait_for_replay: true });
assert.equal(again.success, true);
const replayed = back.frames.map((frame) => frame.type);
assert(replayed.indexOf('update_device_status') < replayed.indexOf('runtime_start_response'), replayed.join());
assert.equal(back.frames.find((frame) => frame.event_seq).event_seq, 1);
step('disconnect and return: the turn went on for the other, numbers start anew');

for (const token of [undefined, 'wrong']) {
  await assert.rejects(createAppServerClient({ url, authToken: token, WebSocket }).connect());
}
step('no token and a wrong one are refused');

two.close();
back.close();
console.log(`${steps.length} steps passed`);
process.exit(0);
