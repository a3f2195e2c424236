// The search page. `bookIndex` holds every section of the book and other names of things (book/extensions/ewc_search.py).
// A section counts for the rare words of the question that it has, more for those in its heading, and most where a term that was
// asked for is answered there.
(() => {
  const { sections, terms } = window.bookIndex;
  const field = document.querySelector(".find input"), list = document.querySelector(".hits"), found = document.querySelector(".found");
  const SMALL = new Set("a an and are as at be been but by can do does for from get has have how i if in is it its me my no not of on or should so than that the their them then there these they this to was we what when where which who why will with you your".split(" "));
  const stem = (word) => (word.length < 5 ? word : word.replace(/(?:isation|ization)$/, "ise").replace(/(?:ies)$/, "y").replace(/(?:ing|ed|es|s|e)$/, ""));

  // "K-FAC" and `diagonal_fisher` are one word and also their parts; letters alone say nothing there.
  function words(text) {
    const all = [];
    const plain = text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "").replace(/['’]s?\b/g, "");
    for (const word of plain.match(/[\p{L}\p{N}]+(?:[-_–][\p{L}\p{N}]+)*/gu) ?? []) {
      const parts = word.split(/[-_–]/);
      if (parts.length > 1) all.push(parts.join(""));
      for (const part of parts) if (!SMALL.has(part) && (parts.length === 1 || part.length > 1)) all.push(stem(part));
    }
    return all;
  }
  const count = (list) => list.reduce((counts, word) => counts.set(word, (counts.get(word) ?? 0) + 1), new Map());

  for (const section of sections) {
    section.head = new Set(words(section.heading));
    section.top = new Set(words(section.page));
    section.code = section.at.includes("#ewc.");
    section.body = count(words(section.text));
    section.length = [...section.body.values()].reduce((sum, each) => sum + each, 1);
  }
  const mean = sections.reduce((sum, each) => sum + each.length, 0) / sections.length;
  const spread = new Map();
  for (const section of sections) for (const word of new Set([...section.body.keys(), ...section.head])) spread.set(word, (spread.get(word) ?? 0) + 1);
  const rarity = (word) => Math.log(1 + sections.length / (1 + (spread.get(word) ?? 0)));

  function asked(question) {
    const own = [...new Set(words(question))], weights = new Map(own.map((word) => [word, 1])), places = new Map();
    for (const term of terms)
      for (const name of term.names) {
        const parts = words(name);
        if (!parts.length || !parts.every((part) => own.includes(part))) continue;
        places.set(term.at, Math.max(places.get(term.at) ?? 0, parts.length));
        for (const other of term.names) for (const word of words(other)) if (!weights.has(word)) weights.set(word, 0.3);
      }
    return { weights, places };
  }

  function search(question) {
    const { weights, places } = asked(question), named = question.toLowerCase(), code = /[_.(]/.test(question);
    return sections.map((section) => {
      let score = 0;
      for (const [word, weight] of weights) {
        const often = section.body.get(word) ?? 0;
        const body = (2.2 * often) / (often + 1.2 * (0.25 + (0.75 * section.length) / mean));
        score += weight * rarity(word) * (body + 2 * section.head.has(word) + 0.5 * section.top.has(word));
      }
      if (section.code && !code) score *= 0.6;      // who asks in words wants words
      const called = section.heading.toLowerCase();
      score += 12 * (places.get(section.at) ?? 0) + (score && (called === named || called.endsWith(`.${named}`)) ? 20 : 0);
      return { section, score, weights };
    }).filter((hit) => hit.score > 0).sort((one, other) => other.score - one.score).slice(0, 20);
  }

  // The sentences around the place where most of the words stand together.
  function snippet(text, weights) {
    const at = [...text.matchAll(/[\p{L}\p{N}]+(?:[-_][\p{L}\p{N}]+)*/gu)].filter((each) => words(each[0]).some((word) => weights.has(word)));
    const best = at.reduce((best, each) => {
      const near = new Set(at.filter((other) => other.index >= each.index && other.index < each.index + 160).flatMap((other) => words(other[0]))).size;
      return near > best.near ? { near, from: each.index } : best;
    }, { near: 0, from: 0 });
    const start = best.from < 60 ? 0 : text.indexOf(" ", best.from - 60) + 1, end = Math.min(text.length, start + 220);
    const piece = document.createElement("p");
    if (start) piece.append("… ");
    let last = start;
    for (const each of at.filter((word) => word.index >= start && word.index + word[0].length <= end)) {
      piece.append(text.slice(last, each.index), Object.assign(document.createElement("mark"), { textContent: each[0] }));
      last = each.index + each[0].length;
    }
    piece.append(text.slice(last, end === text.length ? end : Math.max(last, text.lastIndexOf(" ", end))), end === text.length ? "" : " …");
    return piece;
  }

  function show() {
    const question = field.value.trim(), hits = question ? search(question) : [];
    found.textContent = !question ? "" : hits.length ? `${hits.length === 20 ? "The best 20" : hits.length} section${hits.length > 1 ? "s" : ""}` : "No section has these words.";
    list.replaceChildren(...hits.map(({ section, weights }) => {
      const item = document.createElement("li"), link = document.createElement("a"), page = document.createElement("span");
      link.href = section.at;
      link.textContent = section.heading;
      page.textContent = section.heading === section.page ? "" : section.page;
      item.append(link, page, snippet(section.text, weights));
      return item;
    }));
  }
  field.value = new URLSearchParams(location.search).get("q") ?? "";
  field.addEventListener("input", show);
  field.focus();
  show();
})();
