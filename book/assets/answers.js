// The folded answers: each button says whose answer it shows, and one button opens or folds all of a page. What folds them is
// togglebutton.js; without scripts all answers are there to be read.
(() => {
  const answers = [...document.querySelectorAll(".admonition.solution.toggle")].map((box) => ({ box, button: box.querySelector(".toggle-button") }));
  if (!answers.length) return;

  const folded = ({ box }) => box.classList.contains("toggle-hidden");
  for (const answer of answers) {
    const exercise = answer.box.querySelector(".admonition-title").textContent.match(/Exercise [\w.]+/)?.[0] ?? "exercise";
    const name = () => answer.button.setAttribute("aria-label", `${folded(answer) ? "Show" : "Hide"} the answer to ${exercise.toLowerCase()}`);
    new MutationObserver(() => { name(); say(); }).observe(answer.box, { attributes: true, attributeFilter: ["class"] });
    name();
  }

  const all = document.createElement("button");
  all.type = "button";
  all.className = "all-answers";
  const say = () => { all.textContent = answers.some(folded) ? "Show all answers" : "Hide all answers"; };
  all.addEventListener("click", () => {
    const open = answers.some(folded);
    for (const answer of answers) if (folded(answer) === open) answer.button.click();
  });
  document.querySelector(".admonition.exercise").before(all);
  say();
})();
