// ---- Worst moments, and the panels that hold the forecast against what came ----------------------
const KINDS = {surprise: 'Surprise', truth: 'Against truth', health: 'Health'};
const kinds = Object.keys(KINDS).filter(kind => D.moments.some(m => m.kind === kind));
view.kind = kinds[0] || '';
function listed() { return D.moments.filter(m => m.kind === view.kind); }
function listMoments() {
  const list = $('moments');
  list.textContent = '';
  listed().forEach((moment, k) => {
    const item = document.createElement('li'), b = document.createElement('button');
    const part = (name, text) => b.append(Object.assign(
      document.createElement('span'), {className: name, textContent: text}));
    part('rank', k + 1);
    part('when', (W[moment.i].t - W[0].t).toFixed(1) + ' s');
    part('value', moment.value + ' ' + moment.unit);
    part('text', moment.title);
    b.title = [moment.title, ...moment.lines].join('\n');
    b.onclick = () => goTo(k);
    item.append(b);
    list.append(item);
  });
  if (!listed().length) list.append(Object.assign(document.createElement('li'),
    {className: 'none', textContent: 'None: nothing was held against another moment.'}));
}
function goTo(k) {
  const moment = listed()[k];
  if (!moment) return;
  view.moment = k;
  play(false);
  view.hindsight = moment.kind === 'surprise' ? true
    : moment.kind === 'truth' ? false : view.hindsight;
  if (view.hindsight && view.horizon === 0) view.horizon = 1;
  seek(moment.i);
}

const trio = [1, 2, 3].map(h => {
  const figure = document.createElement('figure'), caption = document.createElement('figcaption');
  const text = document.createElement('span'), see = document.createElement('canvas');
  const plan = document.createElement('canvas'), drawn = document.createElement('canvas');
  caption.append('+' + h + ' s', text);
  if (!D.cameras.length) see.hidden = true;
  drawn.className = 'drawn';
  drawn.title = 'as the model expects this camera to see it';
  figure.append(caption, see, drawn, plan);
  $('trio').append(figure);
  return {h, text, see, drawn, plan};
});
// Where the model drew what the cameras will see: a row a second, a column a camera.
const drawnAt = W.flatMap((w, i) => w.fut ? [i] : []);
function future(i) {
  if (!W[i] || !W[i].fut) return null;
  return wanted(futures, i, 20, async e => {
    e.image = await load('data:image/webp;base64,' + W[i].fut);
  });
}
function drawFuture(canvas, h) {
  const shown = D.cameras.length ? future(view.at) : null, [tw, th] = D.future;
  canvas.hidden = !shown;
  if (!shown) return;
  const [g, width, height] = fit(canvas, th / tw);
  if (shown.ready) {
    g.drawImage(shown.image, view.eye * tw, (h - 1) * th, tw, th, 0, 0, width, height);
  }
  g.font = '12px ' + FONT;
  const box = g.measureText('predicted').width + 14;
  g.fillStyle = 'rgba(8,11,16,.72)';
  g.beginPath(); g.roundRect(6, 6, box, 21, 5); g.fill();
  g.fillStyle = '#fff'; g.fillText('predicted', 13, 21);
}
function drawAhead() {
  const camera = D.cameras[view.eye], w = W[view.at];
  for (const {h, text, see, drawn, plan} of trio) {
    drawFuture(drawn, h);
    const k = windowAt(w.t + h), pose = k >= 0 ? seenFrom(k, view.at) : null;
    const fine = pose && w.ok;
    text.textContent = !w.ok ? 'no valid forecast here' : k < 0 ? 'beyond the end' : pose ? ''
      : 'odometry is not known';
    const said = fine ? ghosts(view.at, h, pose) : [];
    if (camera) {
      const [g, width, height] = fit(see, camera.h / camera.w);
      g.fillStyle = C.well; g.fillRect(0, 0, width, height);
      const shown = k >= 0 ? picture(k) : null;
      if (shown && shown.ready) {
        const tw = D.mosaic[0] / D.columns, th = D.mosaic[1] / D.rows;
        g.drawImage(shown.image, camera.col * tw, camera.row * th, tw, tw * camera.h / camera.w,
          0, 0, width, height);
        if (show.boxes) inkBoxes(g, a => a.p, said, camera, 0, 0, width / camera.w);
      }
    }
    // Wider than high, with more of what lies ahead than of what lies behind.
    const [g, size, height] = fit(plan, .66), v = plane(g, size, Math.min(view.range, 35));
    if (!fine) {
      g.fillStyle = C.well; g.fillRect(0, 0, size, height);
      continue;
    }
    g.translate(0, -.4 * (size - height));
    const e = drawGround(v, k);
    drawBoth(v, e, null, layer(view.at), h, pose);
    drawEgo(v);
    const now = new Map(W[k].a.map(a => [a.i, a])), offs = [];
    for (const a of W[k].a) drawBox(v, a.p, a.d, C.classes[a.c]);
    for (const ghost of said) {
      const seen = now.get(ghost.a.i);
      drawBox(v, ghost.p, ghost.a.d, C.classes[ghost.a.c], true);
      if (!seen) continue;
      const off = Math.hypot(seen.p[0] - ghost.p[0], seen.p[1] - ghost.p[1]) / 10;
      offs.push(off);
      g.strokeStyle = off > 2 ? C.bad : C.classes[ghost.a.c]; g.lineWidth = off > 2 ? 2 : 1;
      v.line([ghost.p, seen.p]); g.stroke();
    }
    if (offs.length) {
      text.textContent = `${(offs.reduce((a, b) => a + b) / offs.length).toFixed(1)} m off, `
        + `${offs.length} road users`;
    }
  }
}

// ---- What does not change ------------------------------------------------------------------------
function fillPage() {
  $('title').textContent = D.title;
  document.title = 'wm_ros: ' + D.title;
  for (const [name, value] of D.facts) {
    const row = document.createElement('div');
    row.append(Object.assign(document.createElement('dt'), {textContent: name}),
      Object.assign(document.createElement('dd'), {textContent: value}));
    $('facts').append(row);
  }
  $('scores').hidden = !D.scores.length;
  $('scores-title').textContent = 'Scores: ' + D.scores_note;
  D.scores.forEach((row, i) => {
    const tr = document.createElement('tr');
    row.forEach(text => tr.append(Object.assign(
      document.createElement(i ? 'td' : 'th'), {textContent: text})));
    $('scores').querySelector('table').append(tr);
  });
  $('pictures').hidden = $('eye-field').hidden = !D.cameras.length;
  D.cameras.forEach((camera, k) => $('eye').append(
    new Option(camera.name.replaceAll('_', ' '), k)));
  $('ahead').hidden = !W.some(w => w.odo);
  $('worst').hidden = !D.moments.length;
  $('ahead-note').textContent = (D.cameras.length
    ? 'Pictures: what the camera saw then, with the boxes that were forecast now. ' : '')
    + (drawnAt.length ? 'Below them, at the moments named above, the same picture as the model '
      + 'expects it, under the plan of the forecast. ' : '')
    + 'Plans: occupancy forecast now (amber) and seen then (blue); boxes forecast (dashed) and seen.';
  $('foot').textContent = D.foot;
  $('drawn-at').hidden = !drawnAt.length;
  for (const i of drawnAt) {
    const b = button('drawn', (W[i].t - W[0].t).toFixed(1) + ' s', () => { play(false); seek(i); });
    b.title = 'predicted camera frames at this moment';
  }
}
function drawLegend() {
  const seen = new Set(W.flatMap(w => [...w.a, ...(w.truth || [])].map(a => a.c)));
  const rgb = c => 'rgb(' + c + ')';
  const items = CLASSES.map((name, i) => [i, name]).filter(([i]) => seen.has(i))
    .map(([i, name]) => [name, 'background:' + C.classes[i]]);
  if (view.hindsight) {
    const both = view.theme === 'dark' ? C.said.map((v, k) => Math.min(255, v + C.came[k]))
      : C.said.map((v, k) => v * C.came[k] / 255);
    items.push(['occupied, as forecast', 'background:' + rgb(C.said)],
      ['occupied, as seen', 'background:' + rgb(C.came)],
      ['both', 'background:' + rgb(both)]);
  } else {
    items.push(['occupied at the chosen time',
      `background:linear-gradient(90deg,${rgb(C.warm)},${rgb(C.hot)})`]);
  }
  const names = ['', 'other ground', 'drivable', 'walkway', 'static obstacle'];
  for (const k of [2, 3, 4, 1]) {
    items.push([names[k], `background:${rgb(C.ground[k])};border:1px solid ${C.line}`]);
  }
  items.push(['not observed', `background:repeating-linear-gradient(135deg,${C.hatch[0]} 0 3px,`
    + `${C.hatch[1]} 3px 5px);border:1px solid ${C.line}`],
  ['ego plan', `background:${C.plan};border:1px dashed ${C.planLine}`]);
  if (W.some(w => w.truth)) {
    items.push(['truth (faint: not visible)', `border:1.5px dashed ${C.truth}`]);
  }
  $('legend').textContent = '';
  for (const [name, style] of items) {
    const s = document.createElement('span'), i = document.createElement('i');
    i.style.cssText = style;
    s.append(i, name);
    $('legend').append(s);
  }
}
