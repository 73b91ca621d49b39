// ---- Player ------------------------------------------------------------------------------------
let clockStart = 0, legendOf = '';
function seek(i) {
  view.at = Math.min(W.length - 1, Math.max(0, i));
  clockStart = performance.now() - (W[view.at].t - W[0].t) * 1000 / Number($('speed').value);
  dirty = true;
}
function play(on) {
  view.playing = on;
  seek(on && view.at === W.length - 1 ? 0 : view.at);
  $('play').textContent = on ? 'Pause' : 'Play';
}
function ahead(i) {            // what is shown at i, and what it is compared with
  picture(i); layer(i);
  if (i < W.length && view.hindsight) layer(windowAt(W[i].t - Math.max(view.horizon, 1)));
}
function tick() {
  if (view.playing) {
    const t = W[0].t + (performance.now() - clockStart) / 1000 * Number($('speed').value);
    let i = view.at;
    while (i + 1 < W.length && W[i + 1].t <= t) i++;
    if (i !== view.at) { view.at = i; dirty = true; }
    if (i === W.length - 1) play(false);
    for (let k = 1; k < 8; k++) ahead(view.at + k);
  }
  if (dirty) {
    dirty = false;
    draw();
  }
  requestAnimationFrame(tick);
}
const pressed = (b, on) => b.setAttribute('aria-pressed', String(on));
function draw() {
  const w = W[view.at], legend = view.theme + view.hindsight;
  drawBev(); drawCams(); drawStrip();
  // The panels ahead are six pictures more; while playing they stand still on slow machines.
  if (!$('ahead').hidden && (!view.playing || view.at % 5 === 0)) drawAhead();
  if (legend !== legendOf) { legendOf = legend; drawLegend(); }
  $('clock').textContent = (w.t - W[0].t).toFixed(1) + ' / ' + seconds.toFixed(1) + ' s';
  $('valid').textContent = w.ok ? 'valid' : 'invalid: ' + (w.why.join(' · ') || 'unknown');
  $('valid').className = 'state ' + (w.ok ? 'ok' : 'no');
  $('window').textContent = w.used + ' of 16 frames'
    + (w.lat === null || w.lat === undefined ? '' : ' · published after ' + w.lat.toFixed(0)
      + ' ms') + ' · ' + w.a.length + ' road users';
  for (const [k, b] of toggles) pressed(b, show[k]);
  for (const [on, b] of modes) pressed(b, view.hindsight === on);
  horizons.forEach((b, i) => {
    pressed(b, i === (view.hindsight ? Math.max(view.horizon, 1) : view.horizon));
    b.hidden = view.hindsight && i === 0;
  });
  ranges.forEach(b => pressed(b, Number(b.dataset.m) === view.range));
  for (const [kind, b] of tabs) pressed(b, view.kind === kind);
  for (let k = 1; k < 4; k++) ahead(view.at + k);
}
function button(parent, text, action) {
  const b = document.createElement('button');
  b.textContent = text;
  b.onclick = () => { action(); dirty = true; };
  $(parent).append(b);
  return b;
}
fillPage();
const toggles = Object.keys(show).filter(k => (k !== 'truth' || W.some(w => w.truth))
  && (k !== 'boxes' || D.cameras.length)).map(
  k => [k, button('toggles', NAMES[k], () => { show[k] = !show[k]; })]);
const modes = [['Forecast', false], ['Hindsight', true]].map(
  ([text, on]) => [on, button('modes', text, () => { view.hindsight = on; })]);
if (!W.some(w => w.odo)) $('modes').hidden = true;
const horizons = HORIZONS.map((text, i) => button('horizon', text, () => { view.horizon = i; }));
const RANGES = [20, 35, 50];
const ranges = RANGES.map(m => {
  const b = button('range', m + ' m', () => { view.range = m; });
  b.dataset.m = m;
  return b;
});
const tabs = kinds.map(kind => [kind, button('kinds', KINDS[kind], () => {
  view.kind = kind; view.moment = -1; listMoments();
})]);
listMoments();
$('play').onclick = () => play(!view.playing);
$('back').onclick = () => { play(false); seek(view.at - 1); };
$('next').onclick = () => { play(false); seek(view.at + 1); };
$('speed').onchange = () => seek(view.at);
$('theme').onclick = () => setTheme(view.theme === 'dark' ? 'light' : 'dark');
$('keys').onclick = () => $('help').showModal();
$('eye').onchange = () => { view.eye = Number($('eye').value); dirty = true; };
$('strip').onpointerdown = e => { $('strip').setPointerCapture(e.pointerId); seek(pointed(e)); };
$('strip').onpointermove = e => { if (e.buttons) seek(pointed(e)); tell(e); };
$('strip').onpointerleave = () => { $('tip').hidden = true; };
$('cams').onclick = e => {       // a camera's own picture becomes that of the panels ahead
  const r = $('cams').getBoundingClientRect();
  const col = (e.clientX - r.left) / r.width * D.columns;
  const row = Math.floor((e.clientY - r.top) / r.height * D.rows);
  const k = D.cameras.findIndex(c => c.row === row && c.col <= col && col < c.col + 1);
  if (k >= 0) { view.eye = k; $('eye').value = String(k); dirty = true; }
};
const step = n => { play(false); seek(view.at + n); };
const second = sign => {
  const i = windowAt(W[view.at].t + sign);
  step(i >= 0 ? i - view.at : sign * 10);
};
const count = n => (n % Math.max(listed().length, 1) + listed().length) % Math.max(listed().length, 1);
const KEYS = {
  ' ': () => play(!view.playing),
  ArrowLeft: e => e.shiftKey ? second(-1) : step(-1),
  ArrowRight: e => e.shiftKey ? second(1) : step(1),
  Home: () => seek(0), End: () => seek(W.length - 1),
  n: () => goTo(count(view.moment + 1)),
  p: () => goTo(count(view.moment < 0 ? -1 : view.moment - 1)),
  h: () => { if (!$('modes').hidden) view.hindsight = !view.hindsight; },
  '+': () => { view.range = RANGES[Math.max(RANGES.indexOf(view.range) - 1, 0)]; },
  '-': () => { view.range = RANGES[Math.min(RANGES.indexOf(view.range) + 1, 2)]; },
  '0': () => { view.horizon = 0; }, '1': () => { view.horizon = 1; },
  '2': () => { view.horizon = 2; }, '3': () => { view.horizon = 3; },
  '?': () => $('help').showModal()};
document.addEventListener('keydown', e => {
  const on = e.target, action = KEYS[e.key];
  if (!action || $('help').open || e.ctrlKey || e.metaKey || e.altKey) return;
  if (on.tagName === 'SELECT' || (e.key === ' ' && on.tagName === 'BUTTON')) return;
  e.preventDefault();
  action(e);
  dirty = true;
});
window.addEventListener('resize', () => { dirty = true; });
sys.addEventListener('change', () => setTheme(sys.matches ? 'light' : 'dark'));
setTheme(sys.matches ? 'light' : 'dark');
view.eye = Math.max(0, D.cameras.findIndex(c => c.row === 0 && c.col === Math.floor(D.columns / 2)));
$('eye').value = String(view.eye);
// For whoever drives the page from outside, such as the tests.
window.wm = {seek, play, draw, view, get at() { return view.at; },
  get playing() { return view.playing; },
  get ready() {
    const e = layers.get(view.at), p = pictures.get(view.at), f = futures.get(view.at);
    return Boolean(e && e.ready && (!W[view.at].cam || (p && p.ready)) && (!f || f.ready));
  }};
seek(D.start);
requestAnimationFrame(tick);
