// Draw points on a 2D canvas with a depth buffer. Without WebGL it works in every browser and can be tested pixel by
// pixel; 200 000 points take 20 to 45 ms on one core without a GPU.
const Splat = (function () {
  // The camera of a view {target, distance, azimuth, elevation}: z of the world is up, its own axes are right, down and
  // forward. Sizes in pixels; FOV is the angle along the shorter side.
  function camera(view, width, height) {
    const ca = Math.cos(view.azimuth), sa = Math.sin(view.azimuth);
    const ce = Math.cos(view.elevation), se = Math.sin(view.elevation);
    return {
      width, height, focal: Math.min(width, height) / (2 * Math.tan(FOV / 2)), near: 0.01 * view.distance,
      eye: [0, 1, 2].map((i) => view.target[i] + view.distance * [ce * ca, ce * sa, se][i]),
      right: [-sa, ca, 0], down: [se * ca, se * sa, -ce], forward: [-ce * ca, -ce * sa, -se],
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

  // Add the lines of a camera drawn as a pyramid with a mark above its upper edge. `axes`: centre, right, down, forward.
  function pyramid(context, camera, axes, length) {
    const at = (x, y, z) => [0, 1, 2].map((i) => axes[i] + length * (x * axes[3 + i] + y * axes[6 + i] + z * axes[9 + i]));
    const tip = at(0, 0, 0), corners = [at(-.5, -.4, 1), at(.5, -.4, 1), at(.5, .4, 1), at(-.5, .4, 1)];
    if (Math.hypot(...[0, 1, 2].map((i) => tip[i] - camera.eye[i])) < length) return; // the viewer is inside it
    corners.forEach((corner, i) => {
      line(context, camera, tip, corner);
      line(context, camera, corner, corners[(i + 1) % 4]);
    });
    const mark = at(0, -.65, 1);
    line(context, camera, at(-.2, -.4, 1), mark);
    line(context, camera, mark, at(.2, -.4, 1));
  }

  return { camera, frame, clear, draw, pyramid };
})();
