// Mends what the theme and its extensions leave unreadable to a screen reader or out of reach of a keyboard.
document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector("article") || document.body;
  // The label of a folded cell hides its visible words.
  article.querySelectorAll("summary[aria-label]").forEach((part) => part.removeAttribute("aria-label"));
  // A bibliography says it is a list, but its entries do not say that they are its items.
  article.querySelectorAll('[role="list"] > *').forEach((part) => part.setAttribute("role", "listitem"));
  // What scrolls must be reached by keyboard too.
  const reach = () =>
    article.querySelectorAll("pre, table, .pst-scrollable-table-container, mjx-container, div.math").forEach((part) => {
      if (part.scrollWidth > part.clientWidth || part.scrollHeight > part.clientHeight) part.tabIndex = 0;
    });
  window.addEventListener("load", reach);
  window.addEventListener("resize", reach);
});
