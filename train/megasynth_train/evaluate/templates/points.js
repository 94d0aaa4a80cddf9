// The page: two views that move together, and the controls around them.
(function () {
  const $ = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const records = JSON.parse($("#records").textContent);
  const NAMES = ["predicted", "true"];
  const { left, right } = $("#viewer").dataset;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { record: null, clouds: {}, layout: "side", colour: { side: "image", overlay: "source" } };
  const elements = all(".pane");
  const orbit = Orbit(elements.map((element) => element.querySelector("canvas")), {
    contents, home, panes: () => orbit.panes, radius: () => state.record.radius, touched() {}, key: () => false,
  });
  const both = (view) => [view, view];
  let theme = null, ramp = null;

  const decode = (index, name) => ({ ...Splat.decode($(`#points-${index}-${name}`).textContent, records[index].clouds[name]), colours: {} });

  // Colours
  const { word, themeColour: rgb } = Splat;
  function readTheme() {
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
      const out = kind === "image" ? Splat.ownColours(cloud) : new Uint32Array(cloud.count), end = scaleEnd(), { distances, distance_step } = cloud;
      if (kind === "source") out.fill(word(...theme[name]));
      for (let i = 0; i < out.length && kind === "distance"; i++)
        out[i] = ramp[Math.min(255, Math.round((distances[i] * distance_step) ** 2 / end * 255))];
      cloud.colours[kind] = out;
    }
    return cloud.colours[kind];
  }

  const cloudsIn = (name) => (state.layout === "overlay" ? NAMES : [name]);
  function contents(pane) {
    const kinds = NAMES.filter((kind) => $("#cameras-" + kind).checked), length = 0.05 * state.record.radius;
    return {
      back: theme.back, size: Number($("#size").value),
      clouds: cloudsIn(NAMES[orbit.panes.indexOf(pane)]).map((name) => [state.clouds[name], coloursOf(name)]),
      cameras: kinds.map((kind) => ({ axes: state.record.cameras[kind], colour: theme[kind], width: 1.5, length, shape: [0.5, 0.4] })),
    };
  }
  function home() {
    orbit.fly(both(state.record.start));
  }

  // Controls
  function choose(index) {
    state.record = records[index];
    for (const name of NAMES) state.clouds[name] = decode(index, name);
    for (const caption of all("figcaption")) caption.querySelector(".words").textContent = state.record.clouds[caption.dataset.cloud].caption;
    for (const facts of all("dl[data-scene]")) facts.hidden = Number(facts.dataset.scene) !== index;
    orbit.show(both(state.record.start));
    const empty = NAMES.filter((name) => !state.clouds[name].count).map((name) => `The ${name} cloud has no points to draw.`);
    $("#notes").textContent = [...empty, ...state.record.notes].join(" ");
    arrange();
  }
  function arrange() {
    const overlay = state.layout === "overlay";
    $(".panes").classList.toggle("overlay", overlay);
    elements[1].hidden = overlay;
    for (const element of elements) {
      const name = element.dataset.pane;
      for (const caption of element.querySelectorAll("figcaption")) caption.hidden = !cloudsIn(name).includes(caption.dataset.cloud);
      element.querySelector("canvas").setAttribute("aria-label", `${overlay ? `${left} and ${right.toLowerCase()}` : name === "true" ? right : left} points of scene ${state.record.name}`);
    }
    const distance = $("input[name=colour][value=distance]");
    distance.disabled = !NAMES.some((name) => state.clouds[name].measured);
    if (distance.disabled && mode() === "distance") state.colour[state.layout] = "source";
    $(`input[name=layout][value=${state.layout}]`).checked = true; // browsers keep the choice over a reload
    $(`input[name=colour][value=${mode()}]`).checked = true;
    $(".scale").hidden = mode() !== "distance";
    $("#scale-end").textContent = `${Number(scaleEnd().toPrecision(3))} scene units or more`;
    orbit.resize();
  }
  $("#scene").addEventListener("change", (event) => choose(Number(event.target.value)));
  for (const input of all("input[name=layout]")) input.addEventListener("change", () => { state.layout = input.value; arrange(); });
  for (const input of all("input[name=colour]"))
    input.addEventListener("change", () => { state.colour[state.layout] = input.value; arrange(); });
  $("#scale").addEventListener("input", () => {
    for (const name of NAMES) delete state.clouds[name].colours.distance;
    arrange();
  });
  for (const id of ["#size", "#cameras-predicted", "#cameras-true"]) $(id).addEventListener("input", orbit.request);
  $("#reset").addEventListener("click", home);
  $("#overview").addEventListener("click", () => orbit.fly(both({ ...state.record.overview, azimuth: orbit.panes[0].view.azimuth })));
  dark.addEventListener("change", () => { readTheme(); orbit.request(); });

  $("#viewer").hidden = false;
  readTheme();
  $("#scene").value = 0;
  choose(0);
})();
