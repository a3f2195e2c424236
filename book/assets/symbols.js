// Point at a symbol, a number or a link (mouse, finger, Tab): its twins on the page light up and one box says what it is.
// What it says is data at the end of the page, from book/symbols.yml and the records of the runs.
(() => {
  const data = { symbols: {}, runs: {}, ...JSON.parse(document.getElementById("symbols")?.textContent ?? "{}") };

  const POINTABLE = ".sym, .num[data-runs]:not([data-runs='']), a.previewed";
  const box = document.createElement("aside");
  box.id = "symbol-box";
  box.setAttribute("aria-live", "polite");
  box.hidden = true;
  document.body.append(box);
  let current = null, last = null, pinned = false, waits = false, leaving = 0;

  const symbolOf = (element) => element.getAttribute("class").match(/(?:^| )sym-([a-z-]+)/)?.[1];

  // In a formula every symbol has its words for the ear. A displayed one is one stop of Tab; the arrow keys go from kind to kind inside it.
  const inside = new Map();
  for (const element of document.querySelectorAll("math .sym")) {
    const symbol = data.symbols[symbolOf(element)], formula = element.closest(".formula");
    if (!symbol) continue;
    element.setAttribute("aria-label", `${symbol.reading}, ${symbol.name}`);
    if (!formula) continue;
    if (!inside.has(formula)) inside.set(formula, []);
    const kinds = inside.get(formula);
    if (kinds.every((other) => symbolOf(other) !== symbolOf(element))) element.setAttribute("tabindex", kinds.push(element) > 1 ? "-1" : "0");
  }
  for (const element of document.querySelectorAll(`span.num[data-runs]:not([data-runs='']), span.sym:not(pre span)`)) {
    element.tabIndex = 0;
    element.setAttribute("aria-describedby", box.id);
  }

  document.addEventListener("keydown", (event) => {
    const kinds = inside.get(event.target.closest?.(".formula")), at = kinds?.indexOf(event.target) ?? -1;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    kinds[(at + step + kinds.length) % kinds.length].focus();
  });

  function line(parent, tag, text, kind) {
    if (!text) return null;
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    parent.append(made);
    return made;
  }
  const linked = (parent, text, address) => address && (line(parent, "a", text).href = address);

  function describe(element) {
    box.replaceChildren();
    const close = line(box, "button", "×", "close");
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", dismiss);
    if (element.matches("a")) return box.append(window.previewOf(element)), true;
    const id = symbolOf(element), symbol = data.symbols[id];
    if (symbol) {
      line(line(box, "p", `${symbol.name} `, "name"), "span", `“${symbol.reading}”`);
      line(box, "p", symbol.meaning);
      const facts = line(box, "p", `${symbol.shape}`, "facts");
      if (symbol.value) line(facts, "b", ` · here ${symbol.value}`);
      if (symbol.code) facts.append(" · in code ", Object.assign(document.createElement("code"), { textContent: symbol.code }));
      const links = line(box, "p", " ", "facts");
      linked(links, "Notation", data.notation && `${data.notation}#symbol-${id}`);
      if (symbol.from) links.append(" · ") || linked(links, symbol.from, symbol.at);
      return true;
    }
    const runs = element.dataset.runs.split(" ").filter((key) => data.runs[key]).map((key) => ({ key, seed: data.runs[key][1], ...data.settings[data.runs[key][0]] }));
    if (!runs.length) return false;
    line(box, "p", runs.length > 1 ? `From ${runs.length} runs` : "From a run", "name");
    const alike = grouped(runs, (run) => `${run.name}: ${Object.entries(run.configuration).map((pair) => pair.join(" = ")).join(", ")}`);
    if (alike.size <= 3)
      for (const [same, group] of alike)
        entry(`${same}; seed ${group.map((run) => run.seed).join(", ")}`, group);
    else for (const [name, group] of grouped(runs, (run) => run.name)) entry(`${name}: ${summary(group)}`, group);
    return true;
  }

  function grouped(items, key) {
    const groups = new Map();
    for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
    return groups;
  }
  const distinct = (items, what) => grouped(items, what).size;

  function entry(words, runs) {
    const days = [...new Set(runs.map((run) => run.finished))].sort(), devices = [...new Set(runs.map((run) => run.device))];
    const made = days.length > 1 ? `${days[0]} to ${days.at(-1)}` : days[0];
    linked(line(box, "p", `${words} · ${devices.join(", ")} · ${made} `, "facts"), "in the table", data.table && `${data.table}#run-${runs[0].key}`);
  }

  // Many runs in a few words: "9 methods × 3 seeds". What differs is named where it tells the settings apart by itself.
  function summary(runs) {
    const settings = distinct(runs, (run) => JSON.stringify(run.configuration)), seeds = distinct(runs, (run) => run.seed);
    const names = Object.keys(runs[0].configuration);
    const named = names.find((name) => distinct(runs, (run) => run.configuration[name]) === settings);
    const count = (number, what) => `${number} ${what.replaceAll("_", " ")}${number > 1 && !what.endsWith("s") ? "s" : ""}`;
    const whole = settings * seeds === runs.length;
    return `${count(settings, named ?? "settings")}${whole ? " × " : ", "}${count(seeds, "seed")}${whole ? "" : `, ${count(runs.length, "run")}`}`;
  }

  // Under the line that is read, or above it; on a narrow screen at its bottom, or at its top.
  function place() {
    const own = current.getBoundingClientRect(), line = current.closest(".formula")?.getBoundingClientRect() ?? own, height = box.offsetHeight, gap = 8;
    const below = line.bottom + gap, narrow = innerWidth < 600;
    const fits = narrow ? line.bottom < innerHeight - height - gap : below + height < innerHeight;
    const top = narrow ? (fits ? innerHeight - height : 0) : fits ? below : line.top - gap - height;
    box.style.top = `${Math.max(0, Math.min(top, innerHeight - height))}px`;
    box.style.left = narrow ? "0" : `${Math.max(gap, Math.min(own.left, innerWidth - box.offsetWidth - gap))}px`;
  }

  function show(element) {
    clearTimeout(leaving);
    if (element === current) return;
    hide();
    if (!describe(element)) return;
    current = element;
    const id = symbolOf(element);
    for (const twin of id ? document.querySelectorAll(`.sym-${id}`) : [element]) twin.classList.add("lit");
    element.classList.add("here");
    box.hidden = false;
    place();
  }

  function hide() {
    clearTimeout(leaving);
    document.querySelectorAll(".lit, .here").forEach((element) => element.classList.remove("lit", "here"));
    box.hidden = true;
    current = last = null;
    pinned = false;
  }
  function dismiss() {
    if (box.contains(document.activeElement)) last?.focus();
    hide();
  }
  const leave = () => { leaving = setTimeout(() => pinned || hide(), 250); };
  const pointed = (event) => event.target.closest?.(POINTABLE);

  document.addEventListener("pointerover", (event) => {
    if (event.target.closest?.("#symbol-box")) return clearTimeout(leaving);
    const element = pointed(event);
    if (element && !pinned) show(element);
  });
  document.addEventListener("pointerout", (event) => {
    if (event.pointerType !== "touch" && (pointed(event) || event.target.closest?.("#symbol-box"))) leave();
  });
  document.addEventListener("pointerdown", (event) => {
    if (event.target.closest?.("#symbol-box")) return;
    const element = pointed(event);
    if (!element) return hide();
    // A finger sees first what is at the other end of a link, and goes there with the next touch.
    waits = event.pointerType === "touch" && element.matches("a") && !(pinned && element === current);
    show(element);
    pinned = true;
  });
  document.addEventListener("click", (event) => {
    if (waits && pointed(event) === current) event.preventDefault();
    waits = false;
  });
  document.addEventListener("focusin", (event) => {
    const element = pointed(event);
    if (element) show(element);
    else if (!event.target.closest?.("#symbol-box, .formula")) hide();
  });
  document.addEventListener("focusout", (event) => {
    if (!event.relatedTarget && !pinned) leave();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && current) {
      dismiss();
    } else if (event.key === "Enter" && current && pointed(event) && !event.target.matches("a")) {
      last = event.target;
      (box.querySelector("a") ?? box.querySelector("button")).focus();
    }
  });
  addEventListener("scroll", () => current && place(), { passive: true });
  addEventListener("resize", hide);
})();
