'use strict';
// ---- Data, colours, and what is shown --------------------------------------------------------
const D = JSON.parse(document.getElementById('data').textContent);
const W = D.windows, $ = id => document.getElementById(id);
const CLASSES = D.classes;
// Those of classes and ground are Python's (colours.py): Rerun and RViz have the same.
const THEMES = {
  dark: {
    ...D.colours.dark, back: '#07090d', hatch: ['#07090d', '#222b37'],
    ring: 'rgba(170,190,215,.22)', text: '#dbe3ee', muted: '#9aa7b8', halo: 'rgba(7,9,13,.88)', truth: '#ffffff', ego: '#eef3fa', nose: '#0a0d12',
    plan: 'rgba(238,243,250,.2)', planLine: 'rgba(238,243,250,.75)', well: '#0c1016',
    line: '#242e3b', said: [255, 160, 40], came: [60, 170, 255], good: '#2f9e77', bad: '#e5484d',
    warn: '#ffc04d', accent: '#6cb6ff', count: '#5ab4ff', blend: 'lighter', hot: [255, 60, 30],
    warm: [255, 190, 60]},
  light: {
    ...D.colours.light, back: '#ffffff', hatch: ['#fbfcfd', '#d3dae3'],
    ring: 'rgba(50,65,85,.24)', text: '#17202b', muted: '#536273',
    halo: 'rgba(255,255,255,.92)', truth: '#10161e', ego: '#1a232e', nose: '#ffffff',
    plan: 'rgba(26,35,46,.16)', planLine: 'rgba(26,35,46,.7)', well: '#f5f7fa', line: '#d5dce5',
    said: [240, 130, 0], came: [0, 120, 230], good: '#178a63', bad: '#c92a2e', warn: '#b87400',
    accent: '#0b63c4', count: '#0b62c4', blend: 'multiply', hot: [214, 30, 10],
    warm: [255, 166, 20]}};
const HORIZONS = ['now', '1 s', '2 s', '3 s'];
const CAMERA_STATES = ['ok', 'missing', 'corrupt', 'black', 'overexposed', 'frozen',
  'uncalibrated'];
const LEVELS = ['ok', 'warning', 'error', 'stale'];
const show = {truth: true, paths: true, occupancy: true, spread: true, labels: true, boxes: true};
const NAMES = {truth: 'truth', paths: 'paths', occupancy: 'occupancy', spread: 'covariances',
  labels: 'labels', boxes: 'boxes in pictures'};
const view = {at: 0, horizon: 3, range: 35, hindsight: false, playing: false, eye: 0,
  theme: 'dark', kind: '', moment: -1};
let C = THEMES.dark, dirty = true;

const sys = window.matchMedia('(prefers-color-scheme: light)');
function setTheme(name) {
  view.theme = name;
  C = THEMES[name];
  document.documentElement.dataset.theme = name;
  $('theme').textContent = name === 'dark' ? 'Light' : 'Dark';
  grounds.clear();
  hatching = null;
  dirty = true;
}

// ---- Time and place ----------------------------------------------------------------------------
const seconds = W.length > 1 ? W[W.length - 1].t - W[0].t : 1;
// The window nearest to a time, -1 where none lies within 60 ms of it.
function windowAt(t) {
  let low = 0, high = W.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (W[middle].t < t) low = middle + 1; else high = middle;
  }
  const best = low > 0 && Math.abs(W[low - 1].t - t) < Math.abs(W[low].t - t) ? low - 1 : low;
  return Math.abs(W[best].t - t) <= .0601 ? best : -1;
}
// Where the vehicle of window `from` stood as the one of window `to` sees it: metres, radians.
function seenFrom(to, from) {
  const a = W[to].odo, b = W[from].odo;
  if (!a || !b) return null;
  const dx = b[0] - a[0], dy = b[1] - a[1], c = Math.cos(a[2]), s = Math.sin(a[2]);
  return [c * dx + s * dy, -s * dx + c * dy, b[2] - a[2]];
}
function moved(pose, x, y) {       // a point in decimetres, by a pose in metres
  const c = Math.cos(pose[2]), s = Math.sin(pose[2]);
  return [c * x - s * y + 10 * pose[0], s * x + c * y + 10 * pose[1]];
}
// The window whose forecast for `h` seconds on is for window i, and its pose there.
function earlier(i, h) {
  const j = windowAt(W[i].t - h), pose = j >= 0 && h > 0 ? seenFrom(i, j) : null;
  return pose && W[j].ok ? {j, pose} : null;
}
// What window j said of its agents `h` seconds on, in the frame of `pose`.
function ghosts(j, h, pose) {
  const step = 2 * h - 1;
  return W[j].a.map(a => {
    const path = a.t[a.b], k = 2 * step, end = moved(pose, path[k], path[k + 1]);
    const before = moved(pose, path[k - 2], path[k - 1]);
    const far = Math.hypot(end[0] - before[0], end[1] - before[1]) > 1.5;
    const yaw = far ? Math.atan2(end[1] - before[1], end[0] - before[0]) : a.p[2] + pose[2];
    const [xx, xy, yy] = a.e[h - 1], c = Math.cos(pose[2]), s = Math.sin(pose[2]);
    return {a, p: [...end, yaw], e: [c * c * xx - 2 * c * s * xy + s * s * yy,
      c * s * (xx - yy) + (c * c - s * s) * xy, s * s * xx + 2 * c * s * xy + c * c * yy],
    ends: a.t.map((t, m) => [moved(pose, t[k], t[k + 1]), a.m[m]])};
  });
}
