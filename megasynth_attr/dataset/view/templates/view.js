// The page: one or two scenes, the slider over their frames, and the controls around them.
(function () {
  const $ = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const { scenes, radius, length, overview } = JSON.parse($("#records").textContent);
  const clouds = scenes.map(({ cloud }, i) => Splat.decode($(`#points-${i}`).textContent, cloud));
  const colours = clouds.map(Splat.ownColours);
  const pictures = scenes.map((_, i) => JSON.parse($(`#pictures-${i}`).textContent));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const orbit = Orbit(all(".pane canvas"), {
    contents, key, home: look, panes: (pane) => ($("#linked").checked ? orbit.panes : [pane]), radius: () => radius,
    touched: () => stand(false),
  });
  let theme = null, through = true;

  function readTheme() {
    theme = { back: Splat.word(...Splat.themeColour("--card")), camera: Splat.themeColour("--camera"), current: Splat.themeColour("--current") };
  }
  // The number of the current frame among those of scene i
  const frameOf = (i) => Math.min(Number($("#frame").value), scenes[i].frames.length - 1);
  function contents(pane) {
    const i = orbit.panes.indexOf(pane), { cameras, shape } = scenes[i], current = frameOf(i);
    const group = (axes, colour, width) => ({ axes, colour, width, length, shape });
    const others = cameras.filter((_, k) => k !== current);
    const drawn = [group(others, theme.camera, 1), group([cameras[current]], theme.current, 2.5)];
    return { back: theme.back, size: Number($("#size").value), clouds: [[clouds[i], colours[i]]], cameras: through || !$("#cameras").checked ? [] : drawn };
  }

  // Whether the views are those of the current frame's cameras
  function stand(inCamera) {
    through = inCamera;
    $("#through").setAttribute("aria-pressed", through);
    $("#over").disabled = !through;
    $("#cameras").disabled = through; // they would hide what this one sees
    for (const over of all(".over")) {
      over.hidden = !through;
      over.style.opacity = $("#over").value / 100;
    }
  }
  const views = () => scenes.map((scene, i) => scene.views[frameOf(i)]);
  function look() {
    orbit.fly(views());
    stand(true);
  }
  function showFrame() {
    const name = scenes[0].frames[frameOf(0)];
    $("#frame-name").textContent = name;
    $("#frame").setAttribute("aria-valuetext", `frame ${name}`);
    all(".pane").forEach((pane, i) => {
      const [over, picture] = pane.querySelectorAll("img");
      over.src = picture.src = `data:image/webp;base64,${pictures[i][frameOf(i)]}`;
      picture.alt = `Picture of scene ${scenes[i].name}, frame ${scenes[i].frames[frameOf(i)]}`;
    });
    if (through) orbit.show(views());
    orbit.request();
  }
  function key({ key }) {
    const step = { PageUp: -1, PageDown: 1 }[key];
    if (!step) return false;
    $("#frame").value = Number($("#frame").value) + step;
    showFrame();
    return true;
  }

  $("#frame").addEventListener("input", showFrame);
  $("#through").addEventListener("click", look);
  $("#overview").addEventListener("click", () => {
    orbit.fly(scenes.map(() => overview));
    stand(false);
  });
  $("#over").addEventListener("input", () => stand(through));
  for (const id of ["#size", "#cameras"]) $(id).addEventListener("input", orbit.request);
  dark.addEventListener("change", () => { readTheme(); orbit.request(); });

  $("#viewer").hidden = false;
  readTheme();
  stand(true);
  showFrame();
})();
