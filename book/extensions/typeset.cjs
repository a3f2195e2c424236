// TeX to MathML, for book/extensions/ewc_mathml.py: a line [TeX, whether displayed] in JSON comes in, a line {mathml} or {error} goes out.
const MathJax = require(process.argv[2]);

MathJax.init({
  loader: { load: ["input/tex", "[tex]/html", "adaptors/liteDOM"], versionWarnings: false },
  tex: { packages: { "[+]": ["html"], "[-]": ["noundefined"] }, formatError: (_, error) => { throw error; } },      // html: for \class
}).then(({ tex2mml }) => {
  require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
    const [tex, display] = JSON.parse(line);
    let answer;
    try { answer = { mathml: tex2mml(tex, { display }) }; } catch (error) { answer = { error: error.message }; }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  });
});
