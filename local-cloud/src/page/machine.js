// ---- the machine: files, branches, models, skills, terminals -----------------------
// Each panel sends the device commands of the protocol and shows what comes back.

const VIEWS = ['chat', 'files', 'terminal'];
let view = 'chat';
function show(next) {
  view = next;
  for (const name of VIEWS) {
    $('view-' + name).classList.toggle('hidden', name !== next);
    $('tab-' + name).setAttribute('aria-selected', String(name === next));
  }
  remember();
  if (next === 'files' && !files.path) openDirectory(text(state.status.current_working_directory) || '/');
  if (next === 'terminal') { if (!terminals.length) newTerminal(); else terminals.current.view.node.focus(); }
}

// Files: a directory, one open file, a search over names or contents.
const files = { path: '', open: '', saved: '', found: null };
const parent = (path) => path.replace(/\/+[^/]*\/*$/, '') || '/';
const join = (path, name) => (path === '/' ? '' : path) + '/' + name;
function filesProblem(error) { $('files-problem').textContent = error || ''; }
async function device(frame, seconds) {
  try {
    const reply = await askMachine(frame, seconds || 12);
    if (reply.success === false || reply.type === 'error') throw new Error(text(reply.error));
    filesProblem('');
    return reply;
  } catch (error) { filesProblem(error.message); return null; }
}
async function openDirectory(path) {
  const reply = await device({ type: 'list_in_directory', path, include_files: true, limit: 1000 });
  if (!reply) return;
  files.path = path; files.found = null;
  $('files-path').value = path;
  const row = (name, kind, open) => el('li', {}, el('button', { className: kind, textContent: kind === 'folder' ? name + '/' : name, onclick: open }));
  $('files-list').replaceChildren(
    ...(path === '/' ? [] : [row('..', 'folder', () => openDirectory(parent(path)))]),
    ...list(reply.folders).map((name) => row(name, 'folder', () => openDirectory(join(path, name)))),
    ...list(reply.files).map((name) => row(name, 'file', () => openFile(join(path, name)))),
    ...(reply.hasMore ? [el('li', { className: 'soft', textContent: `${reply.total} entries, not all are shown` })] : []));
}
const IMAGES = { png: 'image/png', jpg: 'image/jpeg', jpeg: 'image/jpeg', gif: 'image/gif', webp: 'image/webp' };
async function openFile(path, line) {
  const kind = IMAGES[path.split('.').pop().toLowerCase()];
  const reply = await device({ type: 'read_file', path, encoding: kind ? 'base64' : 'utf8' }, 30);
  if (!reply) return;
  if (files.open) command({ type: 'unwatch_file', request_id: uid(), path: files.open });
  files.open = path; files.saved = reply.content;
  command({ type: 'watch_file', request_id: uid(), path });
  $('files-name').textContent = path;
  $('files-image').classList.toggle('hidden', !kind);
  $('files-text').classList.toggle('hidden', Boolean(kind));
  if (kind) { $('files-image').src = `data:${kind};base64,${reply.content}`; $('files-save').disabled = true; return; }
  const box = $('files-text');
  box.value = reply.content;
  edited();
  if (line) {
    const start = reply.content.split('\n').slice(0, line - 1).join('\n').length + (line > 1 ? 1 : 0);
    box.focus();
    box.setSelectionRange(start, start + reply.content.slice(start).split('\n')[0].length);
    box.scrollTop = (line - 3) * parseFloat(getComputedStyle(box).lineHeight);
  } else box.scrollTop = 0;
}
function edited() { $('files-save').disabled = !files.open || $('files-text').value === files.saved; }
async function saveFile() {
  const content = $('files-text').value;
  if (await device({ type: 'write_file', path: files.open, content })) { files.saved = content; edited(); }
}
async function searchFiles() {
  const query = $('files-query').value;
  if (!query) { openDirectory(files.path); return; }
  const row = (label, detail, open) => el('li', {}, el('button', { onclick: open }, el('span', { textContent: label }), detail ? el('code', { textContent: detail }) : null));
  if ($('files-kind').value === 'names') {
    const reply = await device({ type: 'search_files', cwd: files.path, query, max_results: 200 });
    if (reply) $('files-list').replaceChildren(...list(reply.files).map((found) => row(found.path, '', () => found.type === 'dir' ? openDirectory(join(files.path, found.path)) : openFile(join(files.path, found.path)))),
      el('li', { className: 'soft', textContent: list(reply.files).length ? '' : 'Nothing was found.' }));
  } else {
    const reply = await device({ type: 'grep_in_files', cwd: files.path, query, context_lines: 0, max_results: 300 }, 35);
    if (reply) $('files-list').replaceChildren(el('li', { className: 'soft', textContent: `${reply.total_matches} lines in ${reply.total_files} files` }),
      ...list(reply.matches).map((match) => row(`${match.path}:${match.line}`, match.text.trim().slice(0, 200), () => openFile(join(files.path, match.path), match.line))));
  }
}
$('files-go').onsubmit = (event) => { event.preventDefault(); openDirectory($('files-path').value.trim() || '/'); };
$('files-search').onsubmit = (event) => { event.preventDefault(); searchFiles(); };
$('files-text').oninput = edited;
$('files-text').onkeydown = (event) => { if (event.key === 's' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); if (!$('files-save').disabled) saveFile(); } };
$('files-save').onclick = saveFile;

// Branches, models, skills and slash commands stand beside the status.
const branchNames = () => [text((state.status.git_context || {}).branch), ...list((state.status.git_context || {}).recent_branches)].filter(Boolean);
function showMachine() {
  const names = branchNames();
  $('branches').replaceChildren(...names.map((name) => el('option', { value: name })));
  $('branch').disabled = $('switch').disabled = !state.status.git_context;
  if (document.activeElement !== $('branch')) $('branch').value = names[0] || '';
  $('slash').replaceChildren(...list(state.status.supported_commands).map((id) => el('button', { textContent: '/' + id, onclick: () => { show('chat'); $('input').value = '/' + id; $('input').focus(); } })));
  $('skills').replaceChildren(...list(state.status.current_available_skills).map((skill) => el('li', {},
    el('span', { textContent: text(skill.name || skill.id), title: text(skill.description) }),
    el('button', { className: 'quiet', textContent: 'Disable', onclick: () => act({ type: 'skill_disable', name: text(skill.id || skill.name) }).then(refreshStatus) }))));
}
const refreshStatus = () => command({ type: 'sync', runtime: runtime(), request_id: uid(), force_device_status: true });
$('branch').oninput = async () => {
  const reply = await askMachine({ type: 'search_branches', query: $('branch').value, cwd: state.status.current_working_directory, max_results: 30 }).catch(() => null);
  if (reply) $('branches').replaceChildren(...list(reply.branches).filter((branch) => !branch.is_remote).map((branch) => el('option', { value: branch.name })));
};
$('switch-form').onsubmit = async (event) => {
  event.preventDefault();
  const branch = $('branch').value.trim();
  const known = await askMachine({ type: 'search_branches', query: branch, cwd: state.status.current_working_directory, max_results: 200 }).catch(() => null);
  const exists = known && list(known.branches).some((found) => found.name === branch || found.name === 'origin/' + branch);
  if (!exists && !confirm(`There is no branch ${branch}. Make it?`)) return;
  const reply = await act({ type: 'checkout_branch', branch, create: !exists, cwd: state.status.current_working_directory }, 12);
  if (reply) { $('branch').blur(); note('Now on ' + reply.branch); }
};
$('load-models').onclick = async () => {
  const reply = await act({ type: 'list_models' }, 20);
  if (!reply) return;
  fill($('model'), list(reply.entries).map((entry) => [entry.id, `${entry.label || entry.id} (${entry.handle})`]), '');
  $('model').disabled = $('use-model').disabled = !list(reply.entries).length;
};
$('use-model').onclick = () => act({ type: 'update_model', runtime: runtime(), payload: { model_id: $('model').value } }, 20).then((reply) => { if (reply) note('Model: ' + text(reply.model_handle)); });
$('enable-skill').onsubmit = async (event) => {
  event.preventDefault();
  const reply = await act({ type: 'skill_enable', skill_path: $('skill-path').value.trim() });
  if (reply) { note('Skill enabled: ' + text(reply.name)); $('skill-path').value = ''; refreshStatus(); }
};

// Terminals: one tab each.
const terminals = [];
function terminalTabs() {
  $('terminal-tabs').replaceChildren(...terminals.map((terminal) => el('button', {
    role: 'tab', 'aria-selected': String(terminal === terminals.current), textContent: terminal.label, onclick: () => pick(terminal) })),
    el('button', { textContent: '+', title: 'New terminal', 'aria-label': 'New terminal', onclick: newTerminal }),
    ...(terminals.current ? [el('button', { textContent: 'Close', onclick: () => closeTerminal(terminals.current) })] : []));
}
function pick(terminal) {
  terminals.current = terminal;
  for (const other of terminals) other.view.node.classList.toggle('hidden', other !== terminal);
  terminalTabs();
  if (terminal) { terminal.view.fit(); terminal.view.node.focus(); }
}
function newTerminal() {
  const id = 'page-' + uid();
  const node = el('div', { className: 'terminal', 'aria-label': 'Terminal' });
  $('terminals').append(node);
  const terminal = { id, label: `Terminal ${terminals.push(null)}`, over: false };
  terminals[terminals.length - 1] = terminal;
  const send = (data) => { if (!terminal.over) command({ type: 'terminal_input', terminal_id: id, data }); };
  terminal.view = new TerminalView(node, send, (cols, rows) => command({ type: 'terminal_resize', terminal_id: id, cols, rows }));
  pick(terminal);
  const { cols, rows } = terminal.view.screen;
  if (!command({ type: 'terminal_spawn', terminal_id: id, cols, rows, cwd: state.status.current_working_directory })) terminal.view.write('Not connected to the machine.\r\n');
}
function closeTerminal(terminal) {
  command({ type: 'terminal_kill', terminal_id: terminal.id });
  terminal.view.node.remove();
  terminals.splice(terminals.indexOf(terminal), 1);
  pick(terminals[terminals.length - 1]);
}
function onMachine(frame) {
  switch (frame.type) {
    case 'file_changed': if (frame.path === files.open && $('files-save').disabled) openFile(files.open); break;
    case 'skills_updated': refreshStatus(); break;
    case 'terminal_output': case 'terminal_exited': {
      const terminal = terminals.find((known) => known.id === frame.terminal_id);
      if (!terminal) break;
      if (frame.type === 'terminal_output') { terminal.view.write(text(frame.data)); break; }
      terminal.over = true;
      terminal.view.write(`\r\n[${frame.error || 'ended with ' + frame.exitCode}]\r\n`);
    }
  }
}
for (const name of VIEWS) $('tab-' + name).onclick = () => show(name);
