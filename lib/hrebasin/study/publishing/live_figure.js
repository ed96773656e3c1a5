// Draw the figure that reacts in place of its picture, which stays where scripts do not run, and in print.
const live = document.querySelector(".live");
live.hidden = false; // it must have its width to be drawn
Bokeh.embed.embed_item(JSON.parse(document.getElementById("live-figure").textContent)).then(() => {
  live.parentElement.querySelector("img").classList.add("replaced");
  const models = Bokeh.documents.flatMap((each) => each.roots()).flatMap((root) => [...root.references()]);
  live.querySelector("fieldset").addEventListener("change", ({ target }) => {
    for (const model of models) if (model.tags.includes(Number(target.value))) model.visible = target.checked;
  });
}, () => { live.hidden = true; });
