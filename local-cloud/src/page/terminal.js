// ---- terminal --------------------------------------------------------------------
// What xterm understands, as far as shells, editors and monitors use it. `Screen` is
// the state and the parser, without a page; `TerminalView` draws it and reads keys.

const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}]|[\u{20000}-\u{3fffd}]/u;
const JOINS = /[\u0300-\u036f\u200b-\u200f\u20d0-\u20ff\ufe00-\ufe0f]/;
const LINES = { j: '┘', k: '┐', l: '┌', m: '└', n: '┼', q: '─', t: '├', u: '┤', v: '┴', w: '┬', x: '│', a: '▒', '`': '◆', f: '°', g: '±', '~': '·', o: '⎺', s: '⎽', '0': '█' };
const PLAIN = { fg: null, bg: null, bold: false, dim: false, italic: false, line: false, inverse: false, hidden: false, strike: false };
const BASE = ['#1d1f21', '#cc372e', '#26a439', '#cdac08', '#3f8cf0', '#9647bf', '#479ec2', '#c7c7c5', '#686868', '#f4695f', '#4ecb5f', '#f6dc3c', '#589df6', '#c98ae8', '#79d4f0', '#ffffff'];
function palette(n) {
  if (n < 16) return BASE[n];
  if (n > 231) { const grey = 8 + (n - 232) * 10; return `rgb(${grey},${grey},${grey})`; }
  const level = (step) => step ? 55 + step * 40 : 0;
  return `rgb(${level(Math.floor((n - 16) / 36))},${level(Math.floor((n - 16) / 6) % 6)},${level((n - 16) % 6)})`;
}

class Screen {
  constructor(cols, rows, reply) {
    this.reply = reply;
    this.history = [];
    this.cols = cols; this.rows = rows;
    this.reset();
  }
  reset() {
    this.pen = PLAIN;
    this.main = this.blank(); this.alternate = null; this.lines = this.main;
    this.x = 0; this.y = 0; this.wrap = false;
    this.top = 0; this.bottom = this.rows - 1;
    this.modes = { cursor: true, keys: false, autowrap: true, origin: false, insert: false, paste: false, newline: false };
    this.charsets = ['B', 'B']; this.shift = 0;
    this.tabs = null; this.saved = null; this.last = ' ';
    this.state = this.ground; this.dirty = true;
  }
  row() { return Array.from({ length: this.cols }, () => this.cell()); }
  blank() { return Array.from({ length: this.rows }, () => this.row()); }
  // An erased cell keeps the background of the pen, as programs expect.
  cell() { return { text: ' ', pen: this.pen && this.pen.bg ? { ...PLAIN, bg: this.pen.bg } : PLAIN }; }
  resize(cols, rows) {
    if (cols === this.cols && rows === this.rows) return;
    for (const lines of [this.main, this.alternate]) {
      if (!lines) continue;
      while (lines.length > rows) {
        if (lines === this.lines && this.y < lines.length - 1) lines.pop();
        else { const gone = lines.shift(); if (lines === this.main) this.history.push(gone); if (lines === this.lines) this.y = Math.max(0, this.y - 1); }
      }
      for (const line of lines) { while (line.length < cols) line.push({ text: ' ', pen: PLAIN }); line.length = cols; }
      while (lines.length < rows) lines.push(Array.from({ length: cols }, () => ({ text: ' ', pen: PLAIN })));
    }
    this.cols = cols; this.rows = rows; this.top = 0; this.bottom = rows - 1; this.tabs = null;
    this.move(this.x, this.y); this.dirty = true;
  }
  write(text) { for (const char of text) this.state(char); this.dirty = true; }

  // Parser: every state takes one character.
  ground(char) {
    const code = char.codePointAt(0);
    if (code === 0x1b) { this.state = this.escape; this.mark = ''; }
    else if (code < 0x20 || code === 0x7f) this.control(code);
    else this.print(char);
  }
  control(code) {
    switch (code) {
      case 8: this.x = Math.max(0, this.x - 1); this.wrap = false; break;
      case 9: this.x = this.nextTab(); this.wrap = false; break;
      case 10: case 11: case 12: this.feed(); if (this.modes.newline) this.x = 0; break;
      case 13: this.x = 0; this.wrap = false; break;
      case 14: this.shift = 1; break;
      case 15: this.shift = 0; break;
    }
  }
  escape(char) {
    this.state = this.ground;
    switch (char) {
      case '[': this.args = ''; this.state = this.csi; break;
      case ']': case 'P': case '_': case '^': case 'X': this.args = ''; this.kind = char; this.state = this.string; break;
      case '(': case ')': case '*': case '+': case '#': case '%': case ' ': this.mark = char; this.state = this.designate; break;
      case '7': this.save(); break;
      case '8': this.restore(); break;
      case 'D': this.feed(); break;
      case 'E': this.feed(); this.x = 0; break;
      case 'H': this.tabStops().add(this.x); break;
      case 'M': if (this.y === this.top) this.scroll(-1); else this.move(this.x, this.y - 1); break;
      case 'Z': this.reply('\x1b[?62;22c'); break;
      case 'c': this.history = []; this.reset(); break;
    }
  }
  designate(char) {
    if (this.mark === '(') this.charsets[0] = char;
    if (this.mark === ')') this.charsets[1] = char;
    if (this.mark === '#' && char === '8') for (const line of this.lines) for (const cell of line) cell.text = 'E';
    this.state = this.ground;
  }
  string(char) {
    // Ends with BEL or ESC \.
    if (char === '\x07' || this.args.endsWith('\x1b')) {
      const body = this.args.replace(/\x1b$/, '');
      this.state = this.ground;
      if (this.kind === ']' && /^1[01];\?/.test(body)) this.reply(`\x1b]${body.slice(0, 2)};rgb:${body.startsWith('10') ? 'e6e6/e6e6/e6e6' : '1414/1414/1414'}\x1b\\`);
      return;
    }
    if (this.args.length < 4096) this.args += char;
    else if (char === '\x1b') this.args = '\x1b';
  }
  csi(char) {
    if (char >= '@' && char <= '~') { this.state = this.ground; this.sequence(char); }
    else if (char < ' ') this.control(char.charCodeAt(0));
    else if (this.args.length < 256) this.args += char;
  }
  sequence(final) {
    const prefix = /^[?>=<!]/.test(this.args) ? this.args[0] : '';
    const body = prefix ? this.args.slice(1) : this.args;
    const between = (body.match(/[ -/]+$/) || [''])[0];
    const list = body.slice(0, body.length - between.length).split(';');
    const all = list.map((part) => parseInt(part, 10));
    const n = (at, absent) => all[at] > 0 ? all[at] : absent;
    if (prefix === '?' && (final === 'h' || final === 'l')) { for (const mode of all) this.private(mode, final === 'h'); return; }
    if (prefix === '?' && between === '$' && final === 'p') { this.reply(`\x1b[?${all[0] || 0};0$y`); return; }
    if (prefix === '>' && final === 'c') { this.reply('\x1b[>0;10;0c'); return; }
    if (prefix === '' && between === '!' && final === 'p' || prefix === '!' && final === 'p') { const lines = this.lines; this.reset(); this.lines = this.main = lines; return; }
    if (prefix && !(prefix === '?' && (final === 'J' || final === 'K')) || between) return;
    const base = this.modes.origin ? this.top : 0;
    switch (final) {
      case 'A': this.move(this.x, Math.max(this.y - n(0, 1), this.y >= this.top ? this.top : 0)); break;
      case 'B': case 'e': this.move(this.x, Math.min(this.y + n(0, 1), this.y <= this.bottom ? this.bottom : this.rows - 1)); break;
      case 'C': case 'a': this.move(this.x + n(0, 1), this.y); break;
      case 'D': this.move(this.x - n(0, 1), this.y); break;
      case 'E': this.move(0, this.y + n(0, 1)); break;
      case 'F': this.move(0, this.y - n(0, 1)); break;
      case 'G': case '`': this.move(n(0, 1) - 1, this.y); break;
      case 'H': case 'f': this.move(n(1, 1) - 1, n(0, 1) - 1 + base); break;
      case 'd': this.move(this.x, n(0, 1) - 1 + base); break;
      case 'I': for (let i = 0; i < Math.min(n(0, 1), this.cols); i++) this.x = this.nextTab(); break;
      case 'J': this.eraseScreen(all[0] || 0); break;
      case 'K': this.eraseLine(all[0] || 0); break;
      case 'L': if (this.inside()) this.shiftLines(this.y, Math.min(n(0, 1), this.rows)); break;
      case 'M': if (this.inside()) this.shiftLines(this.y, -Math.min(n(0, 1), this.rows)); break;
      case '@': this.insert(Math.min(n(0, 1), this.cols)); break;
      case 'P': { const line = this.lines[this.y]; const count = Math.min(n(0, 1), this.cols - this.x); line.splice(this.x, count); while (line.length < this.cols) line.push(this.cell()); break; }
      case 'X': for (let i = this.x; i < Math.min(this.cols, this.x + n(0, 1)); i++) this.lines[this.y][i] = this.cell(); break;
      case 'S': for (let i = 0; i < Math.min(n(0, 1), this.rows); i++) this.scroll(1); break;
      case 'T': for (let i = 0; i < Math.min(n(0, 1), this.rows); i++) this.scroll(-1); break;
      case 'b': for (let i = 0; i < Math.min(n(0, 1), this.cols * this.rows); i++) this.print(this.last); break;
      case 'c': this.reply('\x1b[?62;22c'); break;
      case 'g': if (all[0] === 3) this.tabs = new Set(); else this.tabStops().delete(this.x); break;
      case 'h': case 'l': for (const mode of all) { if (mode === 4) this.modes.insert = final === 'h'; if (mode === 20) this.modes.newline = final === 'h'; } break;
      case 'm': this.style(list); break;
      case 'n': if (all[0] === 6) this.reply(`\x1b[${this.y + 1 - base};${this.x + 1}R`); else if (all[0] === 5) this.reply('\x1b[0n'); break;
      case 'r': {
        const top = n(0, 1) - 1; const bottom = Math.min(n(1, this.rows), this.rows) - 1;
        if (top < bottom) { this.top = top; this.bottom = bottom; this.move(0, this.modes.origin ? top : 0); }
        break;
      }
      case 's': this.save(); break;
      case 'u': this.restore(); break;
    }
  }
  private(mode, on) {
    switch (mode) {
      case 1: this.modes.keys = on; break;
      case 6: this.modes.origin = on; this.move(0, on ? this.top : 0); break;
      case 7: this.modes.autowrap = on; break;
      case 25: this.modes.cursor = on; break;
      case 2004: this.modes.paste = on; break;
      case 47: case 1047: this.switch(on); break;
      case 1048: if (on) this.save(); else this.restore(); break;
      case 1049: if (on) { this.save(); this.switch(true); } else { this.switch(false); this.restore(); } break;
    }
  }
  switch(alternate) {
    if (alternate === Boolean(this.alternate)) return;
    this.alternate = alternate ? this.blank() : null;
    this.lines = this.alternate || this.main;
  }
  save() { this.saved = { x: this.x, y: this.y, pen: this.pen, charsets: [...this.charsets], shift: this.shift, origin: this.modes.origin }; }
  restore() {
    const saved = this.saved;
    if (!saved) { this.move(0, 0); return; }
    this.pen = saved.pen; this.charsets = [...saved.charsets]; this.shift = saved.shift; this.modes.origin = saved.origin;
    this.move(saved.x, saved.y);
  }
  move(x, y) {
    this.x = Math.max(0, Math.min(x, this.cols - 1));
    this.y = Math.max(0, Math.min(y, this.rows - 1));
    this.wrap = false;
  }
  inside() { return this.y >= this.top && this.y <= this.bottom; }
  tabStops() {
    if (!this.tabs) { this.tabs = new Set(); for (let at = 8; at < this.cols; at += 8) this.tabs.add(at); }
    return this.tabs;
  }
  nextTab() { let at = this.x + 1; while (at < this.cols - 1 && !this.tabStops().has(at)) at++; return Math.min(at, this.cols - 1); }
  print(char) {
    if (this.charsets[this.shift] === '0' && LINES[char]) char = LINES[char];
    if (JOINS.test(char)) {
      const before = this.lines[this.y][Math.max(0, this.wrap ? this.x : this.x - 1)];
      if (before.text.length < 16) before.text += char;
      return;
    }
    const width = WIDE.test(char) && this.cols > 1 ? 2 : 1;
    if (this.wrap && this.modes.autowrap || width === 2 && this.x === this.cols - 1 && this.modes.autowrap) { this.x = 0; this.feed(); }
    this.wrap = false;
    if (this.modes.insert) this.insert(width);
    const line = this.lines[this.y];
    line[this.x] = { text: char, pen: this.pen };
    if (width === 2 && this.x + 1 < this.cols) line[this.x + 1] = { text: '', pen: this.pen };
    this.last = char;
    if (this.x + width >= this.cols) { this.x = this.cols - 1; this.wrap = true; } else this.x += width;
  }
  insert(count) {
    const line = this.lines[this.y];
    for (let i = 0; i < count; i++) line.splice(this.x, 0, this.cell());
    line.length = this.cols;
  }
  feed() {
    this.wrap = false;
    if (this.y === this.bottom) this.scroll(1);
    else if (this.y < this.rows - 1) this.y++;
  }
  scroll(by) {
    if (by > 0) {
      const [gone] = this.lines.splice(this.top, 1);
      this.lines.splice(this.bottom, 0, this.row());
      if (this.top === 0 && !this.alternate) { this.history.push(gone); if (this.history.length > 2000) this.history.shift(); }
    } else { this.lines.splice(this.bottom, 1); this.lines.splice(this.top, 0, this.row()); }
  }
  shiftLines(from, by) {
    for (let i = 0; i < Math.abs(by); i++) {
      if (by > 0) { this.lines.splice(this.bottom, 1); this.lines.splice(from, 0, this.row()); }
      else { this.lines.splice(from, 1); this.lines.splice(this.bottom, 0, this.row()); }
    }
    this.x = 0; this.wrap = false;
  }
  eraseLine(what) {
    const line = this.lines[this.y];
    for (let i = what === 0 ? this.x : 0; i < (what === 1 ? this.x + 1 : this.cols); i++) line[i] = this.cell();
    this.wrap = false;
  }
  eraseScreen(what) {
    if (what === 3) { this.history = []; return; }
    if (what < 2) this.eraseLine(what);
    for (let y = what === 0 ? this.y + 1 : 0; y < (what === 1 ? this.y : this.rows); y++) this.lines[y] = this.row();
  }
  style(list) {
    let pen = { ...this.pen };
    const codes = list.flatMap((part) => part.includes(':') ? [part] : [part === '' ? 0 : parseInt(part, 10)]);
    for (let at = 0; at < codes.length; at++) {
      const code = codes[at];
      if (typeof code === 'string') {
        // 38:2::r:g:b, 38:5:n, 4:3
        const parts = code.split(':').map((part) => parseInt(part, 10));
        const side = parts[0] === 38 ? 'fg' : parts[0] === 48 ? 'bg' : '';
        const rgb = parts.slice(-3);
        if (side) pen[side] = parts[1] === 5 ? palette(parts[2] & 255) : `rgb(${rgb.map((part) => part & 255)})`;
        else if (parts[0] === 4) pen.line = parts[1] !== 0;
        continue;
      }
      switch (code) {
        case 0: pen = { ...PLAIN }; break;
        case 1: pen.bold = true; break;
        case 2: pen.dim = true; break;
        case 3: pen.italic = true; break;
        case 4: pen.line = true; break;
        case 7: pen.inverse = true; break;
        case 8: pen.hidden = true; break;
        case 9: pen.strike = true; break;
        case 22: pen.bold = pen.dim = false; break;
        case 23: pen.italic = false; break;
        case 24: pen.line = false; break;
        case 27: pen.inverse = false; break;
        case 28: pen.hidden = false; break;
        case 29: pen.strike = false; break;
        case 38: case 48: {
          const side = code === 38 ? 'fg' : 'bg';
          if (codes[at + 1] === 5) { pen[side] = palette(codes[at + 2] & 255); at += 2; }
          else if (codes[at + 1] === 2) { pen[side] = `rgb(${codes.slice(at + 2, at + 5).map((part) => part & 255)})`; at += 4; }
          break;
        }
        case 39: pen.fg = null; break;
        case 49: pen.bg = null; break;
        default:
          if (code >= 30 && code < 38) pen.fg = palette(code - 30);
          else if (code >= 40 && code < 48) pen.bg = palette(code - 40);
          else if (code >= 90 && code < 98) pen.fg = palette(code - 82);
          else if (code >= 100 && code < 108) pen.bg = palette(code - 92);
      }
    }
    this.pen = pen;
  }
}

const KEYS = { ArrowUp: 'A', ArrowDown: 'B', ArrowRight: 'C', ArrowLeft: 'D', Home: 'H', End: 'F' };
const TILDE = { Insert: 2, Delete: 3, PageUp: 5, PageDown: 6, F5: 15, F6: 17, F7: 18, F8: 19, F9: 20, F10: 21, F11: 23, F12: 24 };
const PF = { F1: 'P', F2: 'Q', F3: 'R', F4: 'S' };
function keySequence(event, modes) {
  const modifier = 1 + (event.shiftKey ? 1 : 0) + (event.altKey ? 2 : 0) + (event.ctrlKey ? 4 : 0);
  const { key } = event;
  if (KEYS[key]) return modifier > 1 ? `\x1b[1;${modifier}${KEYS[key]}` : `\x1b${modes.keys ? 'O' : '['}${KEYS[key]}`;
  if (PF[key]) return modifier > 1 ? `\x1b[1;${modifier}${PF[key]}` : `\x1bO${PF[key]}`;
  if (TILDE[key]) return `\x1b[${TILDE[key]}${modifier > 1 ? ';' + modifier : ''}~`;
  const alt = event.altKey ? '\x1b' : '';
  switch (key) {
    case 'Enter': return alt + '\r';
    case 'Backspace': return alt + (event.ctrlKey ? '\b' : '\x7f');
    case 'Tab': return event.shiftKey ? '\x1b[Z' : '\t';
    case 'Escape': return '\x1b';
  }
  if ([...key].length !== 1 || event.metaKey) return '';
  if (!event.ctrlKey) return alt + key;
  if (/^[a-z@[\\\]^_]$/i.test(key)) return alt + String.fromCharCode(key.toUpperCase().charCodeAt(0) & 31);
  return key === ' ' ? alt + '\0' : key === '/' ? alt + '\x1f' : '';
}

class TerminalView {
  // `send` gets what is typed, `resized` the new size in characters.
  constructor(node, send, resized) {
    this.node = node; this.send = send; this.resized = resized;
    this.back = 0; this.queued = false; this.rowsShown = [];
    node.tabIndex = 0;
    node.replaceChildren(this.probe = el('span', { className: 'probe', textContent: 'M'.repeat(10) }), this.body = el('div', { className: 'rows' }));
    this.screen = new Screen(80, 24, (text) => this.send(text));
    node.onkeydown = (event) => {
      if (event.isComposing || (event.ctrlKey || event.metaKey) && event.shiftKey && /^[cv]$/i.test(event.key)) return;
      const text = keySequence(event, this.screen.modes);
      if (!text) return;
      event.preventDefault();
      this.back = 0;
      this.send(text);
    };
    node.onpaste = (event) => {
      event.preventDefault();
      const text = event.clipboardData.getData('text').replace(/\r?\n/g, '\r').replaceAll('\x1b', '');
      this.send(this.screen.modes.paste ? `\x1b[200~${text}\x1b[201~` : text);
    };
    node.onwheel = (event) => {
      event.preventDefault();
      const lines = Math.sign(event.deltaY) * 3;
      // On the alternate screen the wheel moves the program's own cursor.
      if (this.screen.alternate) this.send((this.screen.modes.keys ? '\x1bO' : '\x1b[').concat(lines > 0 ? 'B' : 'A').repeat(3));
      else { this.back = Math.max(0, Math.min(this.back - lines, this.screen.history.length)); this.draw(); }
    };
    node.onfocus = node.onblur = () => this.draw();
    new ResizeObserver(() => this.fit()).observe(node);
  }
  fit() {
    const cell = this.probe.getBoundingClientRect();
    if (!cell.width || !this.node.clientWidth) return;
    const cols = Math.max(2, Math.floor((this.node.clientWidth - 16) / (cell.width / 10)));
    const rows = Math.max(2, Math.floor((this.node.clientHeight - 16) / cell.height));
    if (cols === this.screen.cols && rows === this.screen.rows) return;
    this.screen.resize(cols, rows);
    this.resized(cols, rows);
    this.draw();
  }
  write(text) { this.screen.write(text); this.draw(); }
  draw() {
    if (this.queued) return;
    this.queued = true; // one drawing a frame, however much was written
    requestAnimationFrame(() => { this.queued = false; this.paint(); });
  }
  paint() {
    const { screen } = this;
    const all = this.back ? [...screen.history.slice(-this.back), ...screen.lines].slice(0, screen.rows) : screen.lines;
    const focused = document.activeElement === this.node;
    while (this.body.children.length > screen.rows) { this.body.lastChild.remove(); this.rowsShown.pop(); }
    while (this.body.children.length < screen.rows) this.body.append(el('div'));
    all.forEach((line, y) => {
      const cursor = !this.back && screen.modes.cursor && y === screen.y ? screen.x : -1;
      const runs = this.runs(line, cursor, focused);
      const key = JSON.stringify(runs);
      if (this.rowsShown[y] === key) return;
      this.rowsShown[y] = key;
      this.body.children[y].replaceChildren(...runs.map(([text, style, kind]) => el('span', { textContent: text, style, className: kind })));
    });
  }
  runs(line, cursor, focused) {
    const runs = [];
    let last = null;
    line.forEach((cell, x) => {
      if (!cell.text) return;
      const kind = x === cursor ? focused ? 'cursor' : 'cursor away' : '';
      if (last && last.pen === cell.pen && last.kind === kind && !kind) { last.text += cell.text; return; }
      last = { text: cell.text, pen: cell.pen, kind };
      runs.push(last);
    });
    return runs.map(({ text, pen, kind }) => [text, this.css(pen), kind]);
  }
  css(pen) {
    let { fg, bg } = pen;
    if (pen.bold && BASE.indexOf(fg) >= 0 && BASE.indexOf(fg) < 8) fg = BASE[BASE.indexOf(fg) + 8];
    if (pen.inverse) [fg, bg] = [bg || '#141414', fg || '#e6e6e6'];
    return (fg ? `color:${fg};` : '') + (bg ? `background:${bg};` : '') + (pen.bold ? 'font-weight:700;' : '') + (pen.dim ? 'opacity:.6;' : '')
      + (pen.italic ? 'font-style:italic;' : '') + (pen.hidden ? 'visibility:hidden;' : '')
      + (pen.line || pen.strike ? `text-decoration:${pen.line ? 'underline ' : ''}${pen.strike ? 'line-through' : ''};` : '');
  }
}
