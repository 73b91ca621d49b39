// ---- Camera pictures ---------------------------------------------------------------------------
// What draws lines of the ground frame (metres) into one camera's place on a canvas.
function eye(g, camera, left, top, scale) {
  const p = camera.p;
  const project = (x, y, z) => [0, 1, 2].map(
    r => p[4 * r] * x + p[4 * r + 1] * y + p[4 * r + 2] * z + p[4 * r + 3]);
  const edge = (a, b) => {
    const near = .4;
    if (a[2] < near && b[2] < near) return;
    if (a[2] < near || b[2] < near) {
      const f = (near - a[2]) / (b[2] - a[2]), c = a.map((v, j) => v + f * (b[j] - v));
      if (a[2] < near) a = c; else b = c;
    }
    g.moveTo(left + (a[0] / a[2] + .5) * scale, top + (a[1] / a[2] + .5) * scale);
    g.lineTo(left + (b[0] / b[2] + .5) * scale, top + (b[1] / b[2] + .5) * scale);
  };
  return {
    box(pose, size) {
      const base = corners(pose, size).map(([x, y]) => [x / 10, y / 10]);
      const low = base.map(([x, y]) => project(x, y, 0));
      const high = base.map(([x, y]) => project(x, y, size[2] / 10));
      g.beginPath();
      for (let k = 0; k < 4; k++) {
        edge(low[k], low[(k + 1) % 4]); edge(high[k], high[(k + 1) % 4]); edge(low[k], high[k]);
      }
      g.stroke();
    },
    path(points) {
      g.beginPath();
      for (let k = 1; k < points.length; k++) {
        edge(project(points[k - 1][0] / 10, points[k - 1][1] / 10, 0),
          project(points[k][0] / 10, points[k][1] / 10, 0));
      }
      g.stroke();
    }};
}
// Pictures are dark or bright whatever the theme: their overlays keep the dark theme's colours.
const INK = THEMES.dark.classes;
function inkBoxes(g, at, agents, camera, left, top, scale) {
  const lens = eye(g, camera, left, top, scale);
  for (const a of agents) {
    const pose = at(a), size = a.d || a.a.d;
    for (const [colour, width] of [['rgba(6,9,14,.55)', 3.2], [INK[(a.a || a).c], 1.5]]) {
      g.strokeStyle = colour; g.lineWidth = width;
      lens.box(pose, size);
    }
  }
}
function drawCams() {
  if (!D.cameras.length) return;
  const [g, width, height] = fit($('cams'), D.mosaic[1] / D.mosaic[0]), w = W[view.at];
  const shown = picture(view.at);
  g.fillStyle = '#000'; g.fillRect(0, 0, width, height);
  if (shown && shown.ready) g.drawImage(shown.image, 0, 0, width, height);
  const tw = width / D.columns, th = height / D.rows;
  const then = view.hindsight ? earlier(view.at, Math.max(view.horizon, 1)) : null;
  const before = then ? ghosts(then.j, Math.max(view.horizon, 1), then.pose) : [];
  D.cameras.forEach((camera, i) => {
    const left = camera.col * tw, top = camera.row * th, scale = tw / camera.w;
    g.save();
    g.beginPath(); g.rect(left, top, tw, th); g.clip();
    if (show.boxes) {
      inkBoxes(g, a => a.p, w.a, camera, left, top, scale);
      g.setLineDash([4, 3]);
      inkBoxes(g, a => a.p, before, camera, left, top, scale);
      g.setLineDash([]);
      const lens = eye(g, camera, left, top, scale);
      if (show.paths && !view.hindsight) for (const a of w.a) {
        g.strokeStyle = INK[a.c]; g.lineWidth = 2.2; g.globalAlpha = .8;
        lens.path([[a.p[0], a.p[1]], ...pairs(a.t[a.b])]);
      }
    }
    g.globalAlpha = 1;
    const state = CAMERA_STATES[w.cams[i] || 0], fine = state === 'ok';
    g.font = '620 12px ' + FONT;
    const text = camera.name.replaceAll('_', ' ') + (fine ? '' : ': ' + state);
    g.fillStyle = fine ? 'rgba(8,11,16,.72)' : 'rgba(150,20,26,.92)';
    g.beginPath(); g.roundRect(left + 6, top + 6, g.measureText(text).width + 14, 21, 5); g.fill();
    g.fillStyle = '#fff'; g.fillText(text, left + 13, top + 21);
    g.restore();
    g.strokeStyle = '#0a0d12'; g.lineWidth = 2; g.strokeRect(left, top, tw, th);
  });
  if (view.hindsight && before.length) {
    const text = `dashed: forecast ${Math.max(view.horizon, 1)} s before`;
    g.font = '12px ' + FONT;
    const tw2 = g.measureText(text).width + 14;
    g.fillStyle = 'rgba(8,11,16,.72)';
    g.beginPath(); g.roundRect(width - tw2 - 6, height - 27, tw2, 21, 5); g.fill();
    g.fillStyle = '#fff'; g.fillText(text, width - tw2 + 1, height - 12);
  }
}
