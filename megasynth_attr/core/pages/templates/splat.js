// Draw points on a 2D canvas with a depth buffer. Without WebGL it works in every browser and can be tested pixel by
// pixel; 200 000 points take 20 to 45 ms on one core without a GPU.
const Splat = (function () {
  // A cloud as clouds.py packs it: positions uint16, distances uint16 if measured, colours uint8, little-endian as on
  // every machine with a browser.
  function decode(base64, record) {
    const text = atob(base64), bytes = new Uint8Array(text.length), n = record.count;
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const distances = record.measured ? new Uint16Array(bytes.buffer, 6 * n, n) : null;
    return { ...record, positions: new Uint16Array(bytes.buffer, 0, 3 * n), distances, rgb: bytes.subarray(record.measured ? 8 * n : 6 * n) };
  }

  // Colours: a pixel of a canvas, those of a cloud's own points, and [r, g, b] of a CSS variable
  const word = (r, g, b) => (0xff000000 | b << 16 | g << 8 | r) >>> 0;
  const ownColours = ({ count, rgb }) => Uint32Array.from({ length: count }, (_, i) => word(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]));
  function themeColour(name) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    return [1, 3, 5].map((i) => parseInt(pen.fillStyle.slice(i, i + 2), 16));
  }

  // The camera of a view {target, distance, azimuth, elevation, roll, focal}, see clouds.py: z of the world is up, its own
  // axes are right, down and forward. Sizes in pixels.
  function camera(view, width, height) {
    const ca = Math.cos(view.azimuth), sa = Math.sin(view.azimuth);
    const ce = Math.cos(view.elevation), se = Math.sin(view.elevation);
    const cr = Math.cos(view.roll), sr = Math.sin(view.roll), level = [-sa, ca, 0], plumb = [se * ca, se * sa, -ce];
    return {
      width, height, focal: Math.min(width, height) * view.focal, near: 0.01 * view.distance,
      eye: [0, 1, 2].map((i) => view.target[i] + view.distance * [ce * ca, ce * sa, se][i]),
      right: level.map((v, i) => cr * v + sr * plumb[i]), down: plumb.map((v, i) => cr * v - sr * level[i]),
      forward: [-ce * ca, -ce * sa, -se],
    };
  }

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

  // Camera coordinates of a world point.
  function inCamera(camera, point) {
    const from = [0, 1, 2].map((i) => point[i] - camera.eye[i]);
    return [dot(camera.right, from), dot(camera.down, from), dot(camera.forward, from)];
  }

  // A picture and its depth buffer (1 / depth, so that 0 is infinitely far).
  function frame(context, width, height) {
    const image = context.createImageData(width, height);
    return { image, pixels: new Uint32Array(image.data.buffer), near: new Float32Array(width * height), width, height };
  }

  function clear(frame, colour) {
    frame.pixels.fill(colour);
    frame.near.fill(0);
  }

  // Draw the first `count` points as squares of `size` pixels; nearer points win. A position is low + q * step, which is
  // folded into the camera, so points are never converted to scene units.
  function draw(frame, camera, cloud, colours, count, size) {
    const row = (axis, scale) => [...axis.map((v, i) => v * cloud.step[i] * scale),
      dot(axis, [0, 1, 2].map((i) => cloud.low[i] - camera.eye[i])) * scale];
    const [x0, x1, x2, x3] = row(camera.right, camera.focal);
    const [y0, y1, y2, y3] = row(camera.down, camera.focal);
    const [z0, z1, z2, z3] = row(camera.forward, 1);
    const { pixels, near, width, height } = frame;
    const q = cloud.positions, left = (width - size + 1) / 2, top = (height - size + 1) / 2;
    for (let i = 0, j = 0; i < count; i++, j += 3) {
      const a = q[j], b = q[j + 1], c = q[j + 2];
      const depth = z0 * a + z1 * b + z2 * c + z3;
      if (depth < camera.near) continue;
      const nearness = 1 / depth;
      const u = Math.floor((x0 * a + x1 * b + x2 * c + x3) * nearness + left);
      const v = Math.floor((y0 * a + y1 * b + y2 * c + y3) * nearness + top);
      if (u <= -size || v <= -size || u >= width || v >= height) continue;
      const colour = colours[i], uEnd = Math.min(u + size, width), vEnd = Math.min(v + size, height);
      for (let y = Math.max(v, 0); y < vEnd; y++) {
        for (let x = Math.max(u, 0), k = y * width + x; x < uEnd; x++, k++) {
          if (nearness > near[k]) { near[k] = nearness; pixels[k] = colour; }
        }
      }
    }
  }

  // Add to the context's path the part of a world line in front of the camera.
  function line(context, camera, from, to) {
    let a = inCamera(camera, from), b = inCamera(camera, to);
    if (a[2] < b[2]) [a, b] = [b, a];
    if (a[2] <= camera.near) return;
    if (b[2] < camera.near) {
      const t = (a[2] - camera.near) / (a[2] - b[2]);
      b = a.map((v, i) => v + t * (b[i] - v));
    }
    context.moveTo(camera.width / 2 + camera.focal * a[0] / a[2], camera.height / 2 + camera.focal * a[1] / a[2]);
    context.lineTo(camera.width / 2 + camera.focal * b[0] / b[2], camera.height / 2 + camera.focal * b[1] / b[2]);
  }

  // Add the lines of a camera drawn as a pyramid with a mark above its upper edge. `axes`: centre, right, down, forward;
  // `shape`: half its base, across and down, relative to its length.
  function pyramid(context, camera, axes, length, [w, h]) {
    const at = (x, y, z) => [0, 1, 2].map((i) => axes[i] + length * (x * axes[3 + i] + y * axes[6 + i] + z * axes[9 + i]));
    const tip = at(0, 0, 0), corners = [at(-w, -h, 1), at(w, -h, 1), at(w, h, 1), at(-w, h, 1)];
    if (Math.hypot(...[0, 1, 2].map((i) => tip[i] - camera.eye[i])) < length) return; // the viewer is inside it
    corners.forEach((corner, i) => {
      line(context, camera, tip, corner);
      line(context, camera, corner, corners[(i + 1) % 4]);
    });
    const mark = at(0, -1.6 * h, 1);
    line(context, camera, at(-.4 * w, -h, 1), mark);
    line(context, camera, mark, at(.4 * w, -h, 1));
  }

  return { decode, word, ownColours, themeColour, camera, frame, clear, draw, pyramid };
})();
