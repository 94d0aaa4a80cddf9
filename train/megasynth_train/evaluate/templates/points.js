// The page: two views that share one camera, and the controls around them.
(function () {
  const $ = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const records = JSON.parse($("#records").textContent);
  const NAMES = ["predicted", "true"];
  const { left, right } = $("#viewer").dataset;
  const MAX_PIXELS = 900000; // of one canvas; phones have three device pixels per CSS pixel
  const still = matchMedia("(prefers-reduced-motion: reduce)"), dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { record: null, clouds: {}, view: null, layout: "side", colour: { side: "image", overlay: "source" } };
  const panes = all(".pane").map((element) => {
    const canvas = element.querySelector("canvas");
    return { name: element.dataset.pane, element, canvas, frame: null,
      context: canvas.getContext("2d", { alpha: false, willReadFrequently: true }) };
  });
  let theme = null, ramp = null, waiting = 0, settling = 0, moving = false, fast = Infinity, flight = 0;

  // Data: positions uint16, distances uint16, colours uint8, little-endian as on every machine with a browser.
  function decode(index, name) {
    const text = atob($(`#points-${index}-${name}`).textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const record = records[index].clouds[name], n = record.count;
    return { ...record, positions: new Uint16Array(bytes.buffer, 0, 3 * n), distances: new Uint16Array(bytes.buffer, 6 * n, n),
      rgb: bytes.subarray(8 * n), colours: {} };
  }

  // Colours
  const word = (r, g, b) => (0xff000000 | b << 16 | g << 8 | r) >>> 0;
  function readTheme() {
    const style = getComputedStyle(document.documentElement), pen = document.createElement("canvas").getContext("2d");
    const rgb = (name) => {
      pen.fillStyle = style.getPropertyValue(name);
      return [1, 3, 5].map((i) => parseInt(pen.fillStyle.slice(i, i + 2), 16));
    };
    theme = { back: word(...rgb("--card")), predicted: rgb("--predicted"), true: rgb("--true") };
    const stops = ["--e0", "--e1", "--e2", "--e3"].map(rgb);
    ramp = Uint32Array.from({ length: 256 }, (_, i) => {
      const t = i / 255 * 3, k = Math.min(2, Math.floor(t));
      return word(...[0, 1, 2].map((c) => Math.round(stops[k][c] + (t - k) * (stops[k + 1][c] - stops[k][c]))));
    });
    for (const name of NAMES) if (state.clouds[name]) state.clouds[name].colours = {};
  }
  const scaleEnd = () => state.record.scale * 10 ** Number($("#scale").value);
  const mode = () => state.colour[state.layout];
  function coloursOf(name) {
    const cloud = state.clouds[name], kind = mode() === "distance" && !cloud.measured ? "source" : mode();
    if (!cloud.colours[kind]) {
      const out = cloud.colours[kind] = new Uint32Array(cloud.count), end = scaleEnd(), { rgb, distances, distance_step } = cloud;
      if (kind === "source") out.fill(word(...theme[name]));
      for (let i = 0; i < out.length && kind === "image"; i++) out[i] = word(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]);
      for (let i = 0; i < out.length && kind === "distance"; i++)
        out[i] = ramp[Math.min(255, Math.round((distances[i] * distance_step) ** 2 / end * 255))];
    }
    return cloud.colours[kind];
  }

  // Drawing
  function paint() {
    waiting = 0;
    const begin = performance.now();
    for (const pane of panes) if (pane.frame) paintPane(pane);
    const took = performance.now() - begin;
    if (moving && took > 40) fast = Math.max(20000, Math.min(fast, largest()) * 0.7);
    if (moving && took < 20) fast *= 1.3;
  }
  const largest = () => Math.max(...NAMES.map((name) => state.clouds[name].count));
  const cloudsIn = (pane) => (state.layout === "overlay" ? NAMES : [pane.name]);
  function paintPane({ name, canvas, context, frame, ratio }) {
    const camera = Splat.camera(state.view, canvas.width, canvas.height);
    const size = Math.max(1, Math.round(Number($("#size").value) * ratio));
    Splat.clear(frame, theme.back);
    for (const cloud of cloudsIn({ name })) {
      const count = Math.min(moving ? fast : Infinity, state.clouds[cloud].count);
      Splat.draw(frame, camera, state.clouds[cloud], coloursOf(cloud), count, size);
    }
    context.putImageData(frame.image, 0, 0);
    for (const kind of NAMES.filter((kind) => $("#cameras-" + kind).checked)) {
      context.beginPath();
      for (const axes of state.record.cameras[kind]) Splat.pyramid(context, camera, axes, 0.05 * state.record.radius);
      context.strokeStyle = `rgb(${theme[kind]})`;
      context.lineWidth = 1.5 * ratio;
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
  new ResizeObserver(resize).observe($(".panes"));
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

  // Moving the camera; lengths in CSS pixels
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  function turn(dx, dy) {
    stop();
    state.view.azimuth -= dx * 0.008;
    state.view.elevation = clamp(state.view.elevation + dy * 0.008, -Math.PI / 2, Math.PI / 2);
    moved();
  }
  function zoom(factor) {
    stop();
    state.view.distance = clamp(state.view.distance * factor, 0.005 * state.record.radius, 50 * state.record.radius);
    moved();
  }
  function pan(canvas, dx, dy) {
    stop();
    const camera = Splat.camera(state.view, canvas.clientWidth, canvas.clientHeight), unit = state.view.distance / camera.focal;
    state.view.target = state.view.target.map((v, i) => v - unit * (dx * camera.right[i] + dy * camera.down[i]));
    moved();
  }
  function stop() {
    cancelAnimationFrame(flight);
  }
  // Move to a view in a third of a second, or at once for users who prefer reduced motion.
  function fly(goal) {
    stop();
    const from = structuredClone(state.view), start = performance.now();
    const arc = Math.atan2(Math.sin(goal.azimuth - from.azimuth), Math.cos(goal.azimuth - from.azimuth));
    const step = () => {
      const t = still.matches ? 1 : clamp((performance.now() - start) / 330, 0, 1), s = t * t * (3 - 2 * t);
      state.view = t === 1 ? structuredClone(goal) : {
        target: from.target.map((v, i) => v + s * (goal.target[i] - v)), azimuth: from.azimuth + s * arc,
        elevation: from.elevation + s * (goal.elevation - from.elevation), distance: from.distance * (goal.distance / from.distance) ** s,
      };
      moved();
      if (t < 1) flight = requestAnimationFrame(step);
    };
    step();
  }
  const reset = () => fly(state.record.start);

  // Mouse, pen, fingers, wheel, keys
  for (const { canvas } of panes) {
    const pointers = new Map();
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
      if (pointers.size === 2) {
        zoom(clamp(before / Math.max(spread(), 1), 0.5, 2));
        pan(canvas, dx / 2, dy / 2); // each finger moves the centre by half its own motion
      } else if (pointers.size === 1 && (event.shiftKey || event.buttons & 6)) pan(canvas, dx, dy);
      else if (pointers.size === 1) turn(dx, dy);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode] * (event.ctrlKey ? 8 : 1); // a pinch on a touchpad
      zoom(Math.exp(clamp(pixels, -300, 300) * 0.0012));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (arrow && event.shiftKey) pan(canvas, 20 * arrow[0], 20 * arrow[1]);
      else if (arrow) turn(10 * arrow[0], 10 * arrow[1]);
      else if (event.key === "+" || event.key === "=") zoom(0.88);
      else if (event.key === "-" || event.key === "_" || event.key === "−") zoom(1 / 0.88);
      else if (event.key === "0" || event.key === "Home") reset();
      else return;
      event.preventDefault();
    });
  }

  // Controls
  function choose(index) {
    state.record = records[index];
    for (const name of NAMES) state.clouds[name] = decode(index, name);
    for (const caption of all("figcaption")) caption.querySelector(".words").textContent = state.record.clouds[caption.dataset.cloud].caption;
    for (const facts of all("dl[data-scene]")) facts.hidden = Number(facts.dataset.scene) !== index;
    stop();
    state.view = structuredClone(state.record.start);
    const empty = NAMES.filter((name) => !state.clouds[name].count).map((name) => `The ${name} cloud has no points to draw.`);
    $("#notes").textContent = [...empty, ...state.record.notes].join(" ");
    arrange();
  }
  function arrange() {
    const overlay = state.layout === "overlay";
    $(".panes").classList.toggle("overlay", overlay);
    panes[1].element.hidden = overlay;
    for (const { name, element, canvas } of panes) {
      for (const caption of element.querySelectorAll("figcaption")) caption.hidden = !cloudsIn({ name }).includes(caption.dataset.cloud);
      canvas.setAttribute("aria-label", `${overlay ? `${left} and ${right.toLowerCase()}` : name === "true" ? right : left} points of scene ${state.record.name}`);
    }
    const distance = $("input[name=colour][value=distance]");
    distance.disabled = !NAMES.some((name) => state.clouds[name].measured);
    if (distance.disabled && mode() === "distance") state.colour[state.layout] = "source";
    $(`input[name=layout][value=${state.layout}]`).checked = true; // browsers keep the choice over a reload
    $(`input[name=colour][value=${mode()}]`).checked = true;
    $(".scale").hidden = mode() !== "distance";
    $("#scale-end").textContent = `${Number(scaleEnd().toPrecision(3))} scene units or more`;
    resize();
  }
  $("#scene").addEventListener("change", (event) => choose(Number(event.target.value)));
  for (const input of all("input[name=layout]")) input.addEventListener("change", () => { state.layout = input.value; arrange(); });
  for (const input of all("input[name=colour]"))
    input.addEventListener("change", () => { state.colour[state.layout] = input.value; arrange(); });
  $("#scale").addEventListener("input", () => {
    for (const name of NAMES) delete state.clouds[name].colours.distance;
    arrange();
  });
  for (const id of ["#size", "#cameras-predicted", "#cameras-true"]) $(id).addEventListener("input", request);
  $("#reset").addEventListener("click", reset);
  $("#overview").addEventListener("click", () => fly({ ...state.record.overview, azimuth: state.view.azimuth }));
  dark.addEventListener("change", () => { readTheme(); request(); });

  $("#viewer").hidden = false;
  readTheme();
  $("#scene").value = 0;
  choose(0);
})();
