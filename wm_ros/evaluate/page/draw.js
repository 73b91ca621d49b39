// ---- Pictures, decoded when they are needed and a little ahead --------------------------------
const pictures = new Map(), layers = new Map(), grounds = new Map(), futures = new Map();
let hatching = null;
function load(source) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error('a picture of this report does not decode'));
    image.src = source;
  });
}
function trim(cache, most) {
  if (cache.size <= most) return;
  for (const key of [...cache.keys()].sort(
    (a, b) => Math.abs(b - view.at) - Math.abs(a - view.at)).slice(0, cache.size - most)) {
    cache.delete(key);
  }
}
function wanted(cache, i, most, make) {
  if (i < 0 || i >= W.length) return null;
  let e = cache.get(i);
  if (!e) {
    e = {ready: false};
    cache.set(i, e);
    make(e).then(() => { e.ready = true; dirty = true; })
      .catch(error => { console.error(error.message); });
    trim(cache, most);
  }
  return e;
}
function picture(i) {
  if (!W[i] || !W[i].cam) return null;
  return wanted(pictures, i, 90, async e => {
    e.image = await load('data:image/webp;base64,' + W[i].cam);
  });
}
function bytes(image) {
  const c = document.createElement('canvas');
  c.width = image.width; c.height = image.height;
  const g = c.getContext('2d', {willReadFrequently: true});
  g.drawImage(image, 0, 0);
  return g.getImageData(0, 0, c.width, c.height).data;
}
// Cells are rows of y, columns of x; the view has x up and y to the left.
function painted(data, first, colour) {
  const n = D.cells, c = document.createElement('canvas');
  c.width = c.height = n;
  const g = c.getContext('2d'), out = g.createImageData(n, n);
  for (let py = 0; py < n; py++) for (let px = 0; px < n; px++) {
    const rgba = colour(data[((first + n - 1 - px) * n + (n - 1 - py)) * 4]);
    if (rgba) out.data.set(rgba, (py * n + px) * 4);
  }
  g.putImageData(out, 0, 0);
  return c;
}
function layer(i) {
  return wanted(layers, i, 140, async e => {
    const [ground, occupancy] = await Promise.all(
      [W[i].g, W[i].o].map(png => load('data:image/png;base64,' + png)));
    e.ground = bytes(ground);
    e.occupancy = bytes(occupancy);
    e.tints = new Map();
  });
}
// Occupancy of a step as a canvas: 'heat' in two colours, 'said' and 'came' in one.
function tinted(e, h, kind) {
  const key = h + kind + view.theme;
  let c = e.tints.get(key);
  if (!c) {
    const flat = C[kind];
    c = painted(e.occupancy, h * D.cells, value => {
      if (!value) return null;
      const p = value / 254;
      if (flat) return [...flat, 235 * Math.min(1, .12 + p)];
      return [...C.warm.map((v, k) => v + (C.hot[k] - v) * p), 50 + 200 * p];
    });
    e.tints.set(key, c);
    if (e.tints.size > 8) e.tints.delete(e.tints.keys().next().value);
  }
  return c;
}
function groundOf(i, e) {
  let found = grounds.get(i);
  if (!found) {
    found = {ground: painted(e.ground, 0, v => v ? [...C.ground[v], 255] : null),
      hidden: painted(e.ground, 0, v => v ? null : [255, 255, 255, 255])};
    grounds.set(i, found);
    trim(grounds, 60);
  }
  return found;
}
function hatch() {
  if (hatching) return hatching;
  const c = hatching = document.createElement('canvas');
  c.width = c.height = 10;
  const g = c.getContext('2d');
  g.fillStyle = C.hatch[0]; g.fillRect(0, 0, 10, 10);
  g.strokeStyle = C.hatch[1]; g.lineWidth = 1.4;
  for (const d of [-10, 0, 10]) {
    g.beginPath(); g.moveTo(d, 10); g.lineTo(d + 10, 0); g.stroke();
  }
  return c;
}

// ---- Canvas helpers ----------------------------------------------------------------------------
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
function fit(canvas, ratio) {
  const width = canvas.clientWidth, scale = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * scale)), h = Math.max(1, Math.round(width * ratio * scale));
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w; canvas.height = h; canvas.style.height = width * ratio + 'px';
  }
  const g = canvas.getContext('2d');
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.globalAlpha = 1; g.setLineDash([]);
  return [g, width, width * ratio];
}
function corners(p, d) {
  const c = Math.cos(p[2]), s = Math.sin(p[2]), l = d[0] / 2, w = d[1] / 2;
  return [[l, w], [-l, w], [-l, -w], [l, -w]].map(
    ([x, y]) => [p[0] + c * x - s * y, p[1] + s * x + c * y]);
}
const pairs = flat => Array.from({length: flat.length / 2},
  (_, i) => [flat[2 * i], flat[2 * i + 1]]);
function label(g, text, x, y, colour) {
  g.lineWidth = 3.5; g.lineJoin = 'round'; g.strokeStyle = C.halo;
  g.strokeText(text, x, y);
  g.fillStyle = colour || C.text; g.fillText(text, x, y);
}
