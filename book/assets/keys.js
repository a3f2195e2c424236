// The second thing that Tab comes to is a switch. Turned on, Tab passes over symbols and numbers, and of the links and buttons of a section,
// or of a list at the side, it stops at one, from which the arrow keys go on to the others: a long page has hundreds.
(() => {
  const KEPT = "short tab", CONTROLS = "a[href], button, summary", PASSED = ".sym[tabindex='0'], .num[tabindex='0']";
  const GROUPS = "section, nav, .bd-sidebar-secondary, .bd-header-article, .take-along, header, footer";
  const around = (element) => element.closest?.(GROUPS) ?? document.body;     // the document itself may be told of a key
  const seen = (element) => element.checkVisibility?.({ visibilityProperty: true }) ?? element.getClientRects().length > 0;
  const skip = document.querySelector(".skip-link");
  if (!skip) return;

  const button = document.createElement("button");
  button.className = "short-tab";
  button.setAttribute("role", "switch");
  skip.after(button);
  let groups = new Map(), passed = [];

  function settle(on) {
    button.setAttribute("aria-checked", on);
    button.textContent = `Tab stops once in a section, arrow keys go on: ${on ? "yes" : "no"}`;
    for (const element of [...passed, ...[...groups.values()].flat()]) element.setAttribute("tabindex", "0");
    groups = new Map();
    passed = [];
    if (!on) return;
    passed = [...document.querySelectorAll(PASSED)];
    for (const element of document.querySelectorAll(CONTROLS)) {
      if (element === button || skip.contains(element) || element.tabIndex < 0) continue;
      groups.set(around(element), [...(groups.get(around(element)) ?? []), element]);
    }
    for (const group of groups.values()) {
      const stop = group.find(seen) ?? group[0];
      for (const element of group) element.setAttribute("tabindex", element === stop ? "0" : "-1");
    }
    for (const element of passed) element.setAttribute("tabindex", "-1");
  }
  settle(localStorage.getItem(KEPT) === "on");
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-checked") === "false";
    localStorage.setItem(KEPT, on ? "on" : "off");
    settle(on);
  });

  document.addEventListener("keydown", (event) => {
    const group = groups.get(around(event.target))?.filter(seen), at = group?.indexOf(event.target) ?? -1;
    const next = group?.[at + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN)];
    if (at < 0 || !next) return;
    event.preventDefault();
    event.target.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });

  // The theme's scripts, and the one that copies, let the focus go when a button is pressed. Pressed by a key, it keeps it.
  document.addEventListener("click", (event) => {
    const pressed = event.detail === 0 && event.target.closest("button");
    if (pressed) setTimeout(() => document.activeElement === document.body && pressed.focus());
  });
})();
