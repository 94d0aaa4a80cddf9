// The slider over "scenes × frames": every scene at the same frame, cut out of the strips already on the page.
(function () {
  const box = document.querySelector(".compare");
  if (!box) return;
  const slider = box.querySelector("input");
  const output = box.querySelector("output");
  const crops = box.querySelector(".crops");
  const frames = JSON.parse(box.dataset.frames);
  const strips = [...box.querySelectorAll(".strip")];
  const pictures = strips.map((strip) => {
    const figure = crops.appendChild(document.createElement("figure"));
    const crop = figure.appendChild(document.createElement("div"));
    crop.className = "crop";
    const image = crop.appendChild(document.createElement("img"));
    image.src = strip.querySelector("img").src;
    figure.appendChild(document.createElement("figcaption")).textContent = "scene " + strip.dataset.scene;
    return { image, scene: strip.dataset.scene };
  });
  function show(index) {
    slider.value = index;
    box.style.setProperty("--k", index);
    output.textContent = frames[index];
    slider.setAttribute("aria-valuetext", "frame " + frames[index]);
    for (const { image, scene } of pictures) image.alt = "Scene " + scene + " at frame " + frames[index];
  }
  function columnOf(event) {
    const area = event.currentTarget.getBoundingClientRect();
    const column = Math.floor(((event.clientX - area.left) / area.width) * frames.length);
    return Math.min(frames.length - 1, Math.max(0, column));
  }
  for (const strip of strips) {
    strip.addEventListener("pointermove", (event) => event.pointerType === "mouse" && show(columnOf(event)));
    strip.addEventListener("click", (event) => show(columnOf(event)));
  }
  slider.addEventListener("input", () => show(Number(slider.value)));
  box.querySelector(".slider").hidden = false;
  box.classList.add("live");
  show(0);
})();
