"use strict";
// Tabs: of the panels in a group one is shown. Without this script all of them are.
for (const group of document.querySelectorAll(".tabs")) {
  const panels = [...group.children].filter((child) => child.classList.contains("panel"));
  if (panels.length < 2) continue;
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", group.dataset.label);
  const buttons = panels.map((panel, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = panel.dataset.tab;
    button.setAttribute("role", "tab");
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-label", panel.dataset.tab);
    button.addEventListener("click", () => choose(at));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = (at + step + buttons.length) % buttons.length;
      choose(next);
      buttons[next].focus();
    });
    list.append(button);
    return button;
  });
  const choose = (chosen) => {
    panels.forEach((panel, at) => {
      panel.hidden = at !== chosen;
      buttons[at].setAttribute("aria-selected", String(at === chosen));
      buttons[at].tabIndex = at === chosen ? 0 : -1;
    });
  };
  group.classList.add("live");
  group.prepend(list);
  choose(Math.max(0, panels.findIndex((panel) => panel.dataset.tab === group.dataset.chosen)));
}
// Tooltips: what a mark says, as text beside the pointer.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
document.addEventListener("pointermove", (event) => {
  const mark = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const top = event.clientY + 18 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18;
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = top + "px";
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
// A page on paper shows every table.
window.addEventListener("beforeprint", () => {
  for (const box of document.querySelectorAll("details:not([open])")) { box.open = true; box.dataset.opened = ""; }
});
window.addEventListener("afterprint", () => {
  for (const box of document.querySelectorAll("details[data-opened]")) { box.open = false; delete box.dataset.opened; }
});
