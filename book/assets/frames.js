// The sliders of figures made by `ewc.frames`: each state was drawn beforehand; show the one that the sliders name, hide the others.
for (const figure of document.querySelectorAll(".frames")) {
  const controls = figure.querySelector(".frames-controls"), sliders = [...controls.querySelectorAll("input")];
  const drawn = [...figure.querySelectorAll(".frame")], said = figure.querySelector(".frames-said");
  controls.addEventListener("input", () => {
    let place = 0;
    for (const slider of sliders) {
      const name = slider.dataset.names.split("|")[slider.value];
      slider.setAttribute("aria-valuetext", name);
      slider.nextElementSibling.value = name;
      place = place * (1 + Number(slider.max)) + Number(slider.value);    // the last slider turns fastest
    }
    drawn.forEach((frame, at) => { frame.hidden = at !== place; });
    said.textContent = drawn[place].firstElementChild.getAttribute("aria-label");
  });
  controls.hidden = false;
}
