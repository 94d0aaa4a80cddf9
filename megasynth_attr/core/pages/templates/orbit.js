// Canvases with points that are turned, moved and zoomed by mouse, pen, fingers, wheel and keys. Needs splat.js.
//
// Every pane {canvas, view, …} has a view of its own. `page` says what the panes hold:
//   contents(pane): {back, size, clouds: [[cloud, colours], …], cameras: [{axes: [[12 numbers], …], colour, width, length, shape}, …]}
//   panes(pane): those that move when this one is moved; radius(): of what there is to see, in scene units
//   home(): what 0 does; touched(): a person has moved a view; key(event): true if it is a key of the page's own
function Orbit(canvases, page) {
  const MAX_PIXELS = 900000; // of one canvas; phones have three device pixels per CSS pixel
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const panes = canvases.map((canvas) => ({ canvas, view: null, frame: null, ratio: 1,
    context: canvas.getContext("2d", { alpha: false, willReadFrequently: true }) }));
  let waiting = 0, settling = 0, moving = false, fast = Infinity, flight = 0, largest = 0;

  // Drawing
  function paint() {
    waiting = 0;
    const begin = performance.now();
    largest = 0;
    for (const pane of panes) if (pane.frame && pane.view) paintPane(pane);
    const took = performance.now() - begin;
    if (moving && took > 40) fast = Math.max(20000, Math.min(fast, largest) * 0.7);
    if (moving && took < 20) fast *= 1.3;
  }
  function paintPane(pane) {
    const { canvas, context, frame, ratio } = pane, camera = Splat.camera(pane.view, canvas.width, canvas.height);
    const { back, size, clouds, cameras } = page.contents(pane);
    Splat.clear(frame, back);
    for (const [cloud, colours] of clouds) {
      largest = Math.max(largest, cloud.count);
      Splat.draw(frame, camera, cloud, colours, Math.min(moving ? fast : Infinity, cloud.count), Math.max(1, Math.round(size * ratio)));
    }
    context.putImageData(frame.image, 0, 0);
    for (const { axes, colour, width, length, shape } of cameras) {
      context.beginPath();
      for (const one of axes) Splat.pyramid(context, camera, one, length, shape);
      context.strokeStyle = `rgb(${colour})`;
      context.lineWidth = width * ratio;
      context.stroke();
    }
  }
  function request() {
    if (!waiting) waiting = requestAnimationFrame(paint);
  }
  // During motion slow machines draw fewer points; the others follow when it stops.
  function moved() {
    moving = true;
    clearTimeout(settling);
    settling = setTimeout(() => { moving = false; request(); }, 150);
    request();
  }
  const sizes = new ResizeObserver(resize);
  for (const { canvas } of panes) sizes.observe(canvas);
  function resize() {
    for (const pane of panes) {
      const { clientWidth: width, clientHeight: height } = pane.canvas;
      pane.ratio = Math.min(devicePixelRatio, Math.sqrt(MAX_PIXELS / (width * height || 1)));
      const w = Math.round(width * pane.ratio), h = Math.round(height * pane.ratio);
      if (!w || !h) pane.frame = null;
      else if (!pane.frame || pane.canvas.width !== w || pane.canvas.height !== h) {
        [pane.canvas.width, pane.canvas.height] = [w, h];
        pane.frame = Splat.frame(pane.context, w, h);
      }
    }
    if (waiting) cancelAnimationFrame(waiting);
    paint(); // at once: a resized canvas is empty
  }

  // Moving the views; lengths in CSS pixels
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  function change(pane, how) {
    cancelAnimationFrame(flight);
    for (const other of page.panes(pane)) how(other);
    page.touched();
    moved();
  }
  const turn = (pane, dx, dy) => change(pane, ({ view }) => {
    const cr = Math.cos(view.roll), sr = Math.sin(view.roll);
    view.azimuth -= (cr * dx - sr * dy) * 0.008;
    view.elevation = clamp(view.elevation + (sr * dx + cr * dy) * 0.008, -Math.PI / 2, Math.PI / 2);
  });
  const zoom = (pane, factor) => change(pane, ({ view }) => {
    view.distance = clamp(view.distance * factor, 0.005 * page.radius(), 50 * page.radius());
  });
  const pan = (pane, dx, dy) => change(pane, ({ canvas, view }) => {
    const camera = Splat.camera(view, canvas.clientWidth, canvas.clientHeight), unit = view.distance / camera.focal;
    view.target = view.target.map((v, i) => v - unit * (dx * camera.right[i] + dy * camera.down[i]));
  });
  // Move to views, one for each pane, at once.
  function show(views) {
    cancelAnimationFrame(flight);
    panes.forEach((pane, i) => { pane.view = structuredClone(views[i]); });
  }
  // The same in a third of a second, or at once for users who prefer reduced motion.
  function fly(views) {
    cancelAnimationFrame(flight);
    const from = panes.map(({ view }) => structuredClone(view)), start = performance.now();
    const arc = (a, b) => Math.atan2(Math.sin(b - a), Math.cos(b - a));
    const step = () => {
      const t = still.matches ? 1 : clamp((performance.now() - start) / 330, 0, 1), s = t * t * (3 - 2 * t);
      panes.forEach((pane, i) => {
        const a = from[i], b = views[i], mixed = (key) => a[key] * (b[key] / a[key]) ** s;
        pane.view = t === 1 ? structuredClone(b) : {
          target: a.target.map((v, k) => v + s * (b.target[k] - v)), azimuth: a.azimuth + s * arc(a.azimuth, b.azimuth),
          elevation: a.elevation + s * (b.elevation - a.elevation), roll: a.roll + s * arc(a.roll, b.roll),
          distance: mixed("distance"), focal: mixed("focal"),
        };
      });
      moved();
      if (t < 1) flight = requestAnimationFrame(step);
    };
    step();
  }

  // Mouse, pen, fingers, wheel, keys
  for (const pane of panes) {
    const { canvas } = pane, pointers = new Map();
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last.x, dy = event.clientY - last.y, before = pointers.size === 2 && spread();
      [last.x, last.y] = [event.clientX, event.clientY];
      if (!dx && !dy) return;
      if (pointers.size === 2) {
        zoom(pane, clamp(before / Math.max(spread(), 1), 0.5, 2));
        pan(pane, dx / 2, dy / 2); // each finger moves the centre by half its own motion
      } else if (pointers.size === 1 && (event.shiftKey || event.buttons & 6)) pan(pane, dx, dy);
      else if (pointers.size === 1) turn(pane, dx, dy);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode] * (event.ctrlKey ? 8 : 1); // a pinch on a touchpad
      zoom(pane, Math.exp(clamp(pixels, -300, 300) * 0.0012));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (arrow && event.shiftKey) pan(pane, 20 * arrow[0], 20 * arrow[1]);
      else if (arrow) turn(pane, 10 * arrow[0], 10 * arrow[1]);
      else if (event.key === "+" || event.key === "=") zoom(pane, 0.88);
      else if (event.key === "-" || event.key === "_" || event.key === "−") zoom(pane, 1 / 0.88);
      else if (event.key === "0" || event.key === "Home") page.home();
      else if (!page.key(event)) return;
      event.preventDefault();
    });
  }

  return { panes, request, resize, show, fly };
}
