// The switch of a figure that has two states (`ewc.workshop.frames.Switch`). Without this script both are shown, one above the other.
for (const figure of document.querySelectorAll(".switched")) {
  const control = figure.querySelector("button"), states = [...figure.querySelectorAll(".switched-state")];
  const turn = (on) => {
    control.setAttribute("aria-checked", on);
    states.forEach((state, place) => state.classList.toggle("away", place !== Number(on)));
  };
  control.addEventListener("click", () => {
    figure.classList.add("turned");      // from here on it fades; at first it just stands there
    turn(control.getAttribute("aria-checked") === "false");
  });
  figure.classList.add("moves");
  control.hidden = false;
  turn(false);
}
