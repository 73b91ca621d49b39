// ---- Timeline ----------------------------------------------------------------------------------
const PAD = 74, EDGE = 10;
const some = values => values.some(v => v !== null && v !== undefined);
const rows = [{kind: 'valid', name: 'valid', height: 12}];
if (D.cameras.length && W.some(w => w.cams.some(c => c))) {
  rows.push({kind: 'cameras', name: 'cameras', height: 5 * D.cameras.length});
}
if (D.health.length) rows.push({kind: 'health', name: 'node', height: 12});
const lats = W.map(w => w.lat);
if (some(lats)) rows.push({kind: 'lines', name: 'latency', unit: 'ms', height: 34,
  series: [{colour: 'warn', values: lats}], digits: 0});
rows.push({kind: 'lines', name: 'agents', unit: '', height: 30, digits: 0, series: [
  {colour: 'count', values: W.map(w => w.a.length)},
  {colour: 'truth', dash: [3, 3], values: W.map(
    w => w.truth ? w.truth.filter(a => a.vis).length : null)}]});
if (W.some(w => w.jud)) rows.push({kind: 'lines', name: 'right', unit: '%', height: 34, top: 100,
  digits: 0, series: [{colour: 'good', values: W.map(
    w => w.jud && w.jud[1] ? 100 * w.jud[0] / w.jud[1] : null)}]});
if (W.some(w => w.sur)) rows.push({kind: 'stack', name: 'surprise', unit: 'nats', height: 46,
  digits: 0, series: [{colour: 'accent', values: W.map(w => w.sur ? w.sur[0] : null)},
    {colour: 'warn', values: W.map(w => w.sur ? w.sur[0] + w.sur[1] : null)}]});
const GAP = 9, FLAGS = D.moments.length ? 20 : 0;
const HEIGHT = rows.reduce((sum, r) => sum + r.height + GAP, 8) + 16 + FLAGS;
function timeX(t, width) { return PAD + (t - W[0].t) / seconds * (width - PAD - EDGE); }
function drawStrip() {
  const canvas = $('strip'), width = canvas.clientWidth;
  const [g] = fit(canvas, HEIGHT / Math.max(width, 1));
  const dt = (width - PAD - EDGE) / Math.max(W.length - 1, 1);
  g.fillStyle = C.well; g.fillRect(0, 0, width, HEIGHT);
  let top = 8;
  for (const row of rows) {
    g.font = '12px ' + FONT; g.fillStyle = C.muted;
    const base = row.height < 20 ? top + row.height / 2 + 4 : top + 11;
    g.fillText(row.name, 8, base);
    if (row.kind === 'valid') for (const w of W) {
      g.fillStyle = w.ok ? C.good : C.bad;
      g.fillRect(timeX(w.t, width) - dt / 2, top, Math.max(dt - .5, .8), row.height);
    }
    if (row.kind === 'cameras') D.cameras.forEach((camera, k) => {
      g.fillStyle = C.line;
      g.fillRect(PAD, top + 5 * k + 1, width - PAD - EDGE, 2);
      for (const w of W) if (w.cams[k]) {
        g.fillStyle = C.bad;
        g.fillRect(timeX(w.t, width) - dt / 2, top + 5 * k, Math.max(dt, 1.2), 4);
      }
    });
    if (row.kind === 'health') D.health.forEach(([t, level], k) => {
      const end = k + 1 < D.health.length ? D.health[k + 1][0] : W[W.length - 1].t;
      g.fillStyle = [C.good, C.warn, C.bad, C.muted][level];
      g.fillRect(timeX(t, width), top, Math.max(timeX(end, width) - timeX(t, width) - .6, 1),
        row.height);
    });
    if (row.series) drawSeries(g, row, top, width);
    top += row.height + GAP;
  }
  g.font = '11.5px ' + FONT; g.fillStyle = C.muted;
  const every = [1, 2, 5, 10, 30, 60, 300].find(k => seconds / k <= 12) || 600;
  for (let t = 0; t <= seconds + 1e-6; t += every) {
    const text = t.toFixed(0) + ' s', x = timeX(W[0].t + t, width);
    g.fillText(text, Math.min(x - g.measureText(text).width / 2, width - 26), HEIGHT - 4);
  }
  if (FLAGS) { g.fillStyle = C.muted; g.fillText('worst', 8, HEIGHT - 23); }
  listed().forEach((moment, k) => {
    const x = timeX(W[moment.i].t, width), on = moment.i === view.at;
    g.fillStyle = on ? C.accent : C.muted;
    g.beginPath(); g.arc(x, HEIGHT - 27, 8, 0, 7); g.fill();
    g.fillStyle = C.well; g.font = '640 10.5px ' + FONT;
    const text = String(k + 1);
    g.fillText(text, x - g.measureText(text).width / 2, HEIGHT - 23.2);
  });
  const x = timeX(W[view.at].t, width);
  g.strokeStyle = C.text; g.lineWidth = 1.6;
  g.beginPath(); g.moveTo(x, 4); g.lineTo(x, HEIGHT - 16); g.stroke();
  g.fillStyle = C.text;
  g.beginPath(); g.moveTo(x - 5, 1); g.lineTo(x + 5, 1); g.lineTo(x, 8); g.fill();
  canvas.setAttribute('aria-valuemax', seconds.toFixed(1));
  canvas.setAttribute('aria-valuenow', (W[view.at].t - W[0].t).toFixed(1));
}
function drawSeries(g, row, top, width) {
  const most = row.top || Math.max(...row.series.flatMap(
    s => s.values.filter(v => v !== null && v !== undefined)), 1e-6);
  g.fillStyle = C.muted; g.font = '11px ' + FONT;
  g.fillText('to ' + most.toFixed(most < 10 ? 1 : 0) + ' ' + row.unit, 8, top + 24);
  g.strokeStyle = C.line; g.lineWidth = 1;
  g.beginPath(); g.moveTo(PAD, top + row.height); g.lineTo(width - EDGE, top + row.height); g.stroke();
  const Y = v => top + row.height - v / most * (row.height - 2);
  const reverse = row.kind === 'stack' ? [...row.series].reverse() : row.series;
  for (const s of reverse) {
    g.strokeStyle = g.fillStyle = C[s.colour];
    g.lineWidth = 1.6; g.setLineDash(s.dash || []);
    let run = [];
    const flush = () => {
      if (run.length) {
        g.beginPath();
        run.forEach(([x, y], k) => k ? g.lineTo(x, y) : g.moveTo(x, y));
        g.stroke();
        if (row.kind === 'stack') {
          g.lineTo(run[run.length - 1][0], top + row.height); g.lineTo(run[0][0], top + row.height);
          g.globalAlpha = .32; g.fill(); g.globalAlpha = 1;
        }
      }
      run = [];
    };
    s.values.forEach((v, i) => {
      if (v === null || v === undefined) flush();
      else run.push([timeX(W[i].t, width), Y(v)]);
    });
    flush();
    g.setLineDash([]);
  }
}
function pointed(event) {
  const r = $('strip').getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - r.left - PAD) / (r.width - PAD - EDGE)));
  const t = W[0].t + share * seconds;
  return W.reduce((best, w, i) => Math.abs(w.t - t) < Math.abs(W[best].t - t) ? i : best, 0);
}
function tell(event) {
  const i = pointed(event), w = W[i], tip = $('tip'), lines = [`${(w.t - W[0].t).toFixed(1)} s`];
  lines.push(w.ok ? 'valid' : 'invalid: ' + w.why.join('; '));
  w.cams.forEach((state, k) => {
    if (state && D.cameras[k]) lines.push(`${D.cameras[k].name}: ${CAMERA_STATES[state]}`);
  });
  const report = D.health.filter(([t, level]) => t <= w.t && level).pop();
  if (report && w.t - report[0] < 1.5) lines.push(...report[2].slice(0, 3));
  if (w.lat !== null && w.lat !== undefined) lines.push(`latency ${w.lat.toFixed(0)} ms`);
  lines.push(`${w.a.length} agents` + (w.truth
    ? `, ${w.truth.filter(a => a.vis).length} visible in truth` : ''));
  if (w.jud) lines.push(`${w.jud[0]} of ${w.jud[1]} right for 3 s, ${w.jud[2]} invented`);
  if (w.sur) lines.push(`surprise: agents ${w.sur[0].toFixed(1)}, occupancy ${w.sur[1].toFixed(1)} nats`);
  tip.textContent = lines.join('\n');
  tip.hidden = false;
  const box = $('strip').parentElement.getBoundingClientRect();
  const x = event.clientX - box.left;
  tip.style.left = Math.min(Math.max(x + 14, 6), box.width - tip.offsetWidth - 6) + 'px';
  tip.style.bottom = box.bottom - $('strip').getBoundingClientRect().top + 4 + 'px';
}
