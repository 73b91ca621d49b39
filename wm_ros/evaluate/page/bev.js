// ---- Bird's-eye view ---------------------------------------------------------------------------
const scratch = document.createElement('canvas');
// What maps decimetres of the vehicle to pixels of a square view of `size`, `range` m to its edge.
function plane(g, size, range) {
  const s = size / (2 * range), m = s / 10;
  const X = (x, y) => size / 2 - y * m, Y = (x, y) => size / 2 - x * m;
  return {g, size, range, s, m, X, Y, line(points) {
    g.beginPath();
    points.forEach(([x, y], i) => i ? g.lineTo(X(x, y), Y(x, y)) : g.moveTo(X(x, y), Y(x, y)));
  }};
}
// A picture of cells that lies in the frame of a vehicle which stood at `pose`.
function cells(v, canvas, pose) {
  const half = D.cells * D.cell_m / 2 * v.s;
  v.g.save();
  if (pose) {
    const c = Math.cos(pose[2]), s = Math.sin(pose[2]), k = v.size / 2;
    v.g.translate(k, k);
    v.g.transform(c, -s, s, c, -pose[1] * v.s, -pose[0] * v.s);
    v.g.translate(-k, -k);
  }
  v.g.drawImage(canvas, v.size / 2 - half, v.size / 2 - half, 2 * half, 2 * half);
  v.g.restore();
}
function drawGround(v, i) {
  const {g, size} = v, e = layer(i);
  g.fillStyle = C.back; g.fillRect(0, 0, size, size);
  if (!e || !e.ready) return null;
  const {ground, hidden} = groundOf(i, e);
  cells(v, ground);
  scratch.width = scratch.height = Math.ceil(size);
  const k = scratch.getContext('2d');
  cells({...v, g: k}, hidden);
  k.globalCompositeOperation = 'source-in';
  k.fillStyle = k.createPattern(hatch(), 'repeat');
  k.fillRect(0, 0, size, size);
  g.drawImage(scratch, 0, 0);
  return e;
}
// What came and what had been forecast, so that where both lie a third colour shows.
function drawBoth(v, came, cameFrom, said, saidStep, saidFrom) {
  v.g.save();
  v.g.globalCompositeOperation = C.blend;
  if (said && said.ready) cells(v, tinted(said, saidStep, 'said'), saidFrom);
  if (came && came.ready) cells(v, tinted(came, 0, 'came'), cameFrom);
  v.g.restore();
}
function drawRings(v) {
  const {g, size, s, range} = v, gap = range > 30 ? 20 : 10;
  g.font = '11.5px ' + FONT; g.lineWidth = 1;
  for (let r = gap; r < range * 1.3; r += gap) {
    g.strokeStyle = C.ring;
    g.beginPath(); g.arc(size / 2, size / 2, r * s, 0, 7); g.stroke();
    if (r < range) label(g, r + ' m', size / 2 + 4, size / 2 - r * s - 4, C.muted);
  }
}
function drawPlan(v, plan, step) {
  if (!plan.length) return;
  const {g} = v;
  g.lineCap = g.lineJoin = 'round';
  g.strokeStyle = C.plan; g.lineWidth = 19 * v.m;
  v.line([[0, 0], ...plan]); g.stroke();
  g.strokeStyle = C.planLine; g.lineWidth = 1.6; g.setLineDash([6, 5]);
  v.line([[0, 0], ...plan]); g.stroke();
  g.setLineDash([]); g.lineCap = 'butt';
  if (step >= 0) {
    g.fillStyle = C.ego; g.beginPath();
    g.arc(v.X(...plan[step]), v.Y(...plan[step]), 3.6, 0, 7); g.fill();
  }
}
function drawTruth(v, truth, step, paths) {
  const {g} = v;
  g.strokeStyle = C.truth; g.lineWidth = 1.5;
  for (const a of truth) {
    g.globalAlpha = a.vis ? .95 : .34;
    g.setLineDash([4, 3]);
    v.line(corners(a.p, a.d)); g.closePath(); g.stroke();
    if (paths && a.t.length && a.vis) {
      const path = pairs(a.t);
      v.line([[a.p[0], a.p[1]], ...path]); g.stroke();
      if (step >= 0) {
        g.setLineDash([]); g.beginPath();
        g.arc(v.X(...path[step]), v.Y(...path[step]), 4, 0, 7); g.stroke();
      }
    }
  }
  g.globalAlpha = 1; g.setLineDash([]);
}
function drawPaths(v, a, step) {
  const {g} = v;
  const order = a.m.map((_, k) => k).sort((i, j) => a.m[i] - a.m[j]);
  g.strokeStyle = g.fillStyle = C.classes[a.c]; g.lineJoin = 'round';
  for (const k of order) {
    const path = pairs(a.t[k]), best = k === a.b;
    g.globalAlpha = Math.min(1, .2 + .8 * a.m[k] / 100);
    g.lineWidth = best ? 2.6 : 1.4;
    v.line([[a.p[0], a.p[1]], ...path]); g.stroke();
    if (step >= 0) {
      g.beginPath(); g.arc(v.X(...path[step]), v.Y(...path[step]), best ? 3.6 : 2.3, 0, 7);
      g.fill();
    }
  }
  g.globalAlpha = 1;
}
// Two standard deviations; e: var x, cov, var y in m^2.
function drawSpread(v, centre, e, colour) {
  const {g} = v, [a, b, c] = e, mid = (a + c) / 2, gap = Math.hypot((a - c) / 2, b);
  g.save();
  g.translate(v.X(...centre), v.Y(...centre));
  g.rotate(-Math.atan2(2 * b, a - c) / 2 - Math.PI / 2);
  g.beginPath();
  g.ellipse(0, 0, 2 * Math.sqrt(Math.max(mid + gap, 0)) * v.s,
    2 * Math.sqrt(Math.max(mid - gap, 0)) * v.s, 0, 0, 7);
  g.fillStyle = g.strokeStyle = colour;
  g.globalAlpha = .12; g.fill();
  g.globalAlpha = .75; g.lineWidth = 1.1; g.stroke();
  g.restore();
}
function drawBox(v, p, d, colour, ghost) {
  const {g} = v, c = corners(p, d);
  g.strokeStyle = g.fillStyle = colour;
  v.line(c); g.closePath();
  g.globalAlpha = ghost ? .1 : .38; g.fill(); g.globalAlpha = 1;
  if (ghost) g.setLineDash([3, 2.5]);
  g.lineWidth = 1.7; g.stroke();
  // The front edge is the heavy one.
  g.setLineDash([]); g.lineWidth = ghost ? 2.2 : 3.4; v.line([c[0], c[3]]); g.stroke();
}
function drawEgo(v) {
  const {g} = v;          // nose up; base_link is its rear axle
  g.fillStyle = C.ego; v.line(corners([14, 0, 0], [46, 19])); g.closePath(); g.fill();
  g.fillStyle = C.nose; v.line([[31, 0], [18, 6], [18, -6]]); g.closePath(); g.fill();
}
function drawNames(v, entries) {
  const {g, size} = v, taken = [];
  g.font = '11.5px ' + FONT;
  for (const [p, d, text, colour] of entries.sort(
    (a, b) => Math.hypot(a[0][0], a[0][1]) - Math.hypot(b[0][0], b[0][1]))) {
    const tx = v.X(p[0], p[1]) + d[1] * v.m / 2 + 7, ty = v.Y(p[0], p[1]) + 4;
    const tw = g.measureText(text).width;
    if (tx < 0 || tx + tw > size || ty < 11 || ty > size - 2 || taken.some(
      b => tx < b[0] + b[2] && b[0] < tx + tw && Math.abs(ty - b[1]) < 14)) continue;
    taken.push([tx, ty, tw]);
    label(g, text, tx, ty, colour);
  }
}
const nameOf = a => {
  const speed = Math.hypot(...a.v) / 10;
  return CLASSES[a.c] + (speed > .5 ? ' ' + speed.toFixed(0) + ' m/s' : '');
};
function drawNow(v, w) {
  const e = drawGround(v, view.at), step = view.horizon * 2 - 1;
  if (e && show.occupancy) cells(v, tinted(e, view.horizon, 'heat'));
  drawRings(v);
  drawPlan(v, w.plan, step);
  if (show.truth && w.truth) drawTruth(v, w.truth, step, true);
  for (const a of w.a) {
    if (show.spread && show.paths && step >= 0) {
      drawSpread(v, pairs(a.t[a.b])[step], a.e[view.horizon - 1], C.classes[a.c]);
    }
    if (show.paths) drawPaths(v, a, step);
    drawBox(v, a.p, a.d, C.classes[a.c]);
  }
  if (show.labels) drawNames(v, w.a.map(a => [a.p, a.d, nameOf(a)]));
  return `Occupancy ${view.horizon ? 'in ' + HORIZONS[view.horizon] : 'now'}; paths for 3 s, `
    + 'fainter where less likely; ellipses are two standard deviations.';
}
function drawHindsight(v, w) {
  const h = Math.max(view.horizon, 1), then = earlier(view.at, h), {g} = v;
  const e = drawGround(v, view.at);
  if (show.occupancy) {
    drawBoth(v, e, null, then && layer(then.j), h, then && then.pose);
  }
  drawRings(v);
  if (show.truth && w.truth) drawTruth(v, w.truth, -1, false);
  for (const a of w.a) drawBox(v, a.p, a.d, C.classes[a.c]);
  if (!then) {
    return w.odo ? `No valid forecast was made ${h} s before.` : 'Odometry is not known here.';
  }
  const now = new Map(w.a.map(a => [a.i, a])), names = [];
  let sum = 0, n = 0;
  for (const ghost of ghosts(then.j, h, then.pose)) {
    const colour = C.classes[ghost.a.c], seen = now.get(ghost.a.i);
    if (show.spread) drawSpread(v, ghost.p, ghost.e, colour);
    if (show.paths) for (const [end, m] of ghost.ends) {
      g.globalAlpha = .25 + .75 * m / 100; g.fillStyle = colour;
      g.beginPath(); g.arc(v.X(...end), v.Y(...end), 1.5 + 3 * m / 100, 0, 7); g.fill();
    }
    g.globalAlpha = 1;
    drawBox(v, ghost.p, ghost.a.d, colour, true);
    if (seen) {
      const off = Math.hypot(seen.p[0] - ghost.p[0], seen.p[1] - ghost.p[1]) / 10;
      sum += off; n++;
      g.strokeStyle = off > 2 ? C.bad : colour; g.lineWidth = off > 2 ? 2.2 : 1.2;
      v.line([ghost.p, seen.p]); g.stroke();
      names.push([seen.p, seen.d, `${CLASSES[seen.c]} ${off.toFixed(1)} m off`,
        off > 2 ? C.bad : null]);
    } else names.push([ghost.p, ghost.a.d, CLASSES[ghost.a.c] + ' not seen again', C.muted]);
  }
  const known = new Set(W[then.j].a.map(a => a.i));
  for (const a of w.a) if (!known.has(a.i)) names.push([a.p, a.d, CLASSES[a.c] + ' new', C.muted]);
  if (show.labels) drawNames(v, names);
  return `Dashed: what the forecast made ${h} s ago had for now. Solid: what is seen now.`
    + (n ? ` ${(sum / n).toFixed(1)} m off on average, ${n} road users.` : '');
}
function drawBev() {
  const [g, size] = fit($('bev'), 1), w = W[view.at], v = plane(g, size, view.range);
  const text = view.hindsight ? drawHindsight(v, w) : drawNow(v, w);
  drawEgo(v);
  if (!w.ok) veil(g, size, size, w.why.join(' · ') || 'invalid');
  $('caption').textContent = text;
}
function veil(g, width, height, text) {
  g.fillStyle = view.theme === 'dark' ? 'rgba(60,14,18,.4)' : 'rgba(255,225,225,.6)';
  g.fillRect(0, 0, width, height);
  g.font = '640 15px ' + FONT;
  label(g, 'invalid: ' + text, 14, 28, C.bad);
}
